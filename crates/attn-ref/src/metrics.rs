//! The figures by which an output is compared with the expected one.

use core::{error::Error, fmt};

/// How far an output is from the expected one. In output steps: integers as they are.
///
/// A pair of which one is NaN or infinite is counted in [`non_finite`](Self::non_finite) and belongs to no share; all
/// other figures are of the finite pairs, NaN if there is none. [`Tolerance::check`](crate::Tolerance::check) lets no
/// such pair pass.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Metrics {
    /// Number of pairs, at least 1.
    pub count: u64,
    /// Pairs with NaN or infinity on either side.
    pub non_finite: u64,
    /// Pearson's correlation, `-1..=1`; see [`Comoments::correlation`] for when there is none.
    pub correlation: Option<f64>,
    /// Mean absolute error, `>= 0`.
    pub mae: f64,
    /// Root of the mean squared error, `>= mae`.
    pub rmse: f64,
    /// Share of all pairs that are equal, `0..=1`.
    pub equal: f64,
    /// Share of all pairs with an error of at most 1, `0..=1`.
    pub within_1: f64,
    /// Share of all pairs with an error of at most 5, `0..=1`.
    pub within_5: f64,
    /// Largest absolute error.
    pub max_error: f64,
    /// Smallest and largest output.
    pub got_range: (f64, f64),
    /// Smallest and largest expected output.
    pub expected_range: (f64, f64),
}

impl Metrics {
    /// Compares two sequences of the same length, of `f64` or of anything that becomes one without loss (`i8`).
    ///
    /// # Errors
    /// Sequences of different lengths, or empty ones.
    pub fn of<G, E>(got: G, expected: E) -> Result<Self, MetricsError>
    where
        G: IntoIterator<Item: Into<f64>>,
        E: IntoIterator<Item: Into<f64>>,
    {
        let (mut got, mut expected) = (got.into_iter(), expected.into_iter());
        let mut accumulator = Accumulator::new();
        loop {
            match (got.next(), expected.next()) {
                (Some(got), Some(expected)) => accumulator.push(got.into(), expected.into()),
                (None, None) => return accumulator.finish(),
                (left, right) => {
                    let pairs = accumulator.count() as usize;
                    return Err(MetricsError::Length {
                        got: pairs + usize::from(left.is_some()) + got.count(),
                        expected: pairs + usize::from(right.is_some()) + expected.count(),
                    });
                }
            }
        }
    }
}

/// Why there are no [`Metrics`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MetricsError {
    /// Nothing to compare.
    Empty,
    /// The sequences have different lengths.
    Length {
        /// Number of outputs.
        got: usize,
        /// Number of expected outputs.
        expected: usize,
    },
}

impl fmt::Display for MetricsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("metrics: got no elements, expected at least one"),
            Self::Length { got, expected } => {
                write!(f, "metrics: got {got} elements, expected {expected}")
            }
        }
    }
}

impl Error for MetricsError {}

/// Gathers [`Metrics`] pair by pair, in constant memory.
///
/// [`merge`](Self::merge) joins what was gathered apart (per head, per thread): the result is that of all pairs
/// together, the counts exactly and the other figures to rounding. Errors are summed plainly: the terms have one sign,
/// so nothing cancels, and with integers the sums are exact.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Accumulator {
    /// The finite pairs.
    moments: Comoments,
    non_finite: u64,
    equal: u64,
    within_1: u64,
    within_5: u64,
    absolute_sum: f64,
    square_sum: f64,
    max_error: f64,
    got_range: (f64, f64),
    expected_range: (f64, f64),
}

impl Default for Accumulator {
    fn default() -> Self {
        Self::new()
    }
}

impl Accumulator {
    /// No pairs yet.
    #[must_use]
    pub const fn new() -> Self {
        // `f64::min` and `f64::max` take the other operand where one is NaN: the range and maximum of nothing.
        const NOTHING: (f64, f64) = (f64::NAN, f64::NAN);
        Self {
            moments: Comoments::new(),
            non_finite: 0,
            equal: 0,
            within_1: 0,
            within_5: 0,
            absolute_sum: 0.0,
            square_sum: 0.0,
            max_error: f64::NAN,
            got_range: NOTHING,
            expected_range: NOTHING,
        }
    }

    /// Adds one output and what was expected in its place.
    pub fn push(&mut self, got: f64, expected: f64) {
        if !(got.is_finite() && expected.is_finite()) {
            self.non_finite += 1;
            return;
        }
        let error = (got - expected).abs();
        self.moments.push(got, expected);
        self.equal += u64::from(error == 0.0);
        self.within_1 += u64::from(error <= 1.0);
        self.within_5 += u64::from(error <= 5.0);
        self.absolute_sum += error;
        self.square_sum += error * error;
        self.max_error = self.max_error.max(error);
        self.got_range = union(self.got_range, (got, got));
        self.expected_range = union(self.expected_range, (expected, expected));
    }

    /// Adds all pairs of another accumulator.
    pub fn merge(&mut self, other: &Self) {
        self.moments.merge(&other.moments);
        self.non_finite += other.non_finite;
        self.equal += other.equal;
        self.within_1 += other.within_1;
        self.within_5 += other.within_5;
        self.absolute_sum += other.absolute_sum;
        self.square_sum += other.square_sum;
        self.max_error = self.max_error.max(other.max_error);
        self.got_range = union(self.got_range, other.got_range);
        self.expected_range = union(self.expected_range, other.expected_range);
    }

    /// Number of pairs so far, NaN and infinity among them.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.moments.count + self.non_finite
    }

    /// The figures of all pairs so far.
    ///
    /// # Errors
    /// [`MetricsError::Empty`] without a pair.
    pub fn finish(&self) -> Result<Metrics, MetricsError> {
        let count = self.count();
        if count == 0 {
            return Err(MetricsError::Empty);
        }
        let finite = self.moments.count as f64;
        let share = |part: u64| part as f64 / count as f64;
        Ok(Metrics {
            count,
            non_finite: self.non_finite,
            correlation: self.moments.correlation(),
            mae: self.absolute_sum / finite,
            rmse: (self.square_sum / finite).sqrt(),
            equal: share(self.equal),
            within_1: share(self.within_1),
            within_5: share(self.within_5),
            max_error: self.max_error,
            got_range: self.got_range,
            expected_range: self.expected_range,
        })
    }
}

/// The smallest range that holds both; NaN is the empty range.
fn union(a: (f64, f64), b: (f64, f64)) -> (f64, f64) {
    (a.0.min(b.0), a.1.max(b.1))
}

/// Means, variances and covariance of pairs in one pass, hence their correlation.
///
/// `push` is Welford's recurrence and `merge` the pairwise update of Chan et al. ("Updating formulae and a pairwise
/// algorithm for computing sample variances", 1979): deviations from the running mean are summed, so that a
/// mean far from zero costs no accuracy, which naive sums of squares and products lose.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Comoments {
    count: u64,
    mean: (f64, f64),
    /// Sums of squared deviations from the mean.
    squares: (f64, f64),
    /// Sum of products of the two deviations.
    product: f64,
}

impl Comoments {
    /// No pairs yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { count: 0, mean: (0.0, 0.0), squares: (0.0, 0.0), product: 0.0 }
    }

    /// Adds one pair.
    pub fn push(&mut self, a: f64, b: f64) {
        self.count += 1;
        let count = self.count as f64;
        let before = (a - self.mean.0, b - self.mean.1);
        self.mean.0 += before.0 / count;
        self.mean.1 += before.1 / count;
        let after = (a - self.mean.0, b - self.mean.1);
        self.squares.0 += before.0 * after.0;
        self.squares.1 += before.1 * after.1;
        self.product += before.0 * after.1;
    }

    /// Adds all pairs of another.
    pub fn merge(&mut self, other: &Self) {
        if other.count == 0 {
            return;
        }
        let (ours, theirs) = (self.count as f64, other.count as f64);
        let share = theirs / (ours + theirs);
        let delta = (other.mean.0 - self.mean.0, other.mean.1 - self.mean.1);
        self.count += other.count;
        self.mean.0 += delta.0 * share;
        self.mean.1 += delta.1 * share;
        self.squares.0 += other.squares.0 + delta.0 * delta.0 * ours * share;
        self.squares.1 += other.squares.1 + delta.1 * delta.1 * ours * share;
        self.product += other.product + delta.0 * delta.1 * ours * share;
    }

    /// Pearson's correlation, `-1..=1`.
    ///
    /// None where it is not defined: fewer than two pairs, one side constant (its variance is zero, or too small for an
    /// `f64`), NaN or infinity among the pairs or in their squares.
    #[must_use]
    pub fn correlation(&self) -> Option<f64> {
        let deviations = self.squares.0.sqrt() * self.squares.1.sqrt();
        let correlation = self.product / deviations;
        (deviations.is_finite() && correlation.is_finite()).then(|| correlation.clamp(-1.0, 1.0))
    }
}

/// Pearson's correlation of two slices, as [`Comoments::correlation`]; none also for slices of different lengths.
#[must_use]
pub fn correlation(a: &[f64], b: &[f64]) -> Option<f64> {
    if a.len() != b.len() {
        return None;
    }
    let mut moments = Comoments::new();
    for (&a, &b) in a.iter().zip(b) {
        moments.push(a, b);
    }
    moments.correlation()
}

/// How much less an output correlates with the truth than the truth rounded to `i8` does: the correlation lost beyond
/// what an 8-bit output costs by itself. Negative where the output happens to correlate better.
///
/// - `rounding`: correlation of the rounded truth with the truth. None (a constant truth): nothing can be lost, 0.
/// - `got`: correlation of the output with the truth. None (a constant output): it counts as 0, all is lost.
#[must_use]
pub fn correlation_loss(rounding: Option<f64>, got: Option<f64>) -> f64 {
    rounding.map_or(0.0, |rounding| rounding - got.unwrap_or(0.0))
}

/// The nearest `i8`, a tie to the even one (as numpy's `rint`), saturated to `-128..=127`; NaN becomes 0.
#[must_use]
pub fn round_to_i8(x: f64) -> i8 {
    x.round_ties_even() as i8
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tolerance::ORACLE;

    /// Deterministic pairs around `mean`: integers in -128..=127 and the same with noise.
    fn pairs(count: usize, mean: f64) -> Vec<(f64, f64)> {
        let mut state = 42_u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f64 / f64::from(1 << 24)
        };
        (0..count)
            .map(|_| {
                let expected = (next() * 256.0 - 128.0).floor();
                (mean + expected + (next() * 8.0 - 4.0).round(), mean + expected)
            })
            .collect()
    }

    fn accumulate(pairs: &[(f64, f64)]) -> Accumulator {
        let mut accumulator = Accumulator::new();
        for &(got, expected) in pairs {
            accumulator.push(got, expected);
        }
        accumulator
    }

    fn close(a: f64, b: f64) -> bool {
        (a - b).abs() <= ORACLE.max_error.unwrap() || a.is_nan() && b.is_nan()
    }

    #[test]
    fn figures_by_hand() {
        let metrics = Metrics::of([1_i8, -2, 10, 4], [1.0, -1.0, 4.0, 4.5]).unwrap();
        assert_eq!(metrics.count, 4);
        assert_eq!(metrics.non_finite, 0);
        assert!(close(metrics.mae, 7.5 / 4.0));
        assert!(close(metrics.rmse, (37.25_f64 / 4.0).sqrt()));
        assert!(close(metrics.equal, 0.25));
        assert!(close(metrics.within_1, 0.75));
        assert!(close(metrics.within_5, 0.75));
        assert!(close(metrics.max_error, 6.0));
        assert_eq!(metrics.got_range, (-2.0, 10.0));
        assert_eq!(metrics.expected_range, (-1.0, 4.5));
        // Deviations of 13/4 and 17/8 from the means; sums of squares 315/4 and 323/16, of products 267/8.
        let by_hand = 267.0 / 8.0 / (315.0_f64 / 4.0 * 323.0 / 16.0).sqrt();
        assert!(close(metrics.correlation.unwrap(), by_hand));
    }

    #[test]
    fn the_bounds_of_the_shares_belong_to_them() {
        let metrics = Metrics::of([1.0, 1.0_f64.next_up(), 5.0, 5.0_f64.next_up()], [0.0; 4]).unwrap();
        assert!(close(metrics.within_1, 0.25) && close(metrics.within_5, 0.75));
        assert!(close(metrics.equal, 0.0));
    }

    #[test]
    fn merged_parts_are_the_whole() {
        for mean in [0.0, 1000.0] {
            let mut pairs = pairs(1000, mean);
            pairs[17].0 = f64::NAN;
            pairs[500].1 = f64::INFINITY;
            let whole = accumulate(&pairs).finish().unwrap();
            assert_eq!(whole.non_finite, 2);
            // Cuts next to each other, equal ones (an empty part) and at both ends.
            for cuts in [vec![500], vec![0, 1000], vec![17, 18], vec![1, 2, 3, 700, 700, 999], (0..1000).collect()] {
                let mut merged = Accumulator::new();
                let mut first = 0;
                for end in cuts.into_iter().chain([pairs.len()]) {
                    merged.merge(&accumulate(&pairs[first..end]));
                    first = end;
                }
                let merged = merged.finish().unwrap();
                assert!(close(merged.correlation.unwrap(), whole.correlation.unwrap()));
                assert!(close(merged.mae, whole.mae) && close(merged.rmse, whole.rmse));
                let exact = |m: Metrics| Metrics { correlation: None, mae: 0.0, rmse: 0.0, ..m };
                assert_eq!(exact(merged), exact(whole));
            }
        }
    }

    #[test]
    fn a_correlation_that_is_not_defined_is_none() {
        assert_eq!(correlation(&[1.0, 2.0], &[0.1, 0.1]), None);
        assert_eq!(correlation(&[0.1; 7], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]), None);
        assert_eq!(correlation(&[1.0], &[1.0]), None);
        assert_eq!(correlation(&[], &[]), None);
        assert_eq!(correlation(&[1.0, 2.0], &[1.0, 2.0, 3.0]), None);
        assert_eq!(correlation(&[1.0, f64::NAN], &[1.0, 2.0]), None);
        assert_eq!(correlation(&[1.0, f64::INFINITY], &[1.0, 2.0]), None);
        assert_eq!(correlation(&[1e300, -1e300], &[1.0, 2.0]), None);
        assert_eq!(correlation(&[1.0, 2.0, 4.0], &[-1.0, -2.0, -4.0]), Some(-1.0));
        // A constant stays constant when merged.
        let constant = accumulate(&[(0.1, 1.0), (0.1, 2.0)]);
        let mut merged = constant;
        merged.merge(&accumulate(&[(0.1, 3.0)]));
        assert_eq!(merged.finish().unwrap().correlation, None);
    }

    #[test]
    fn nan_and_infinity_are_counted_and_left_out() {
        let metrics = Metrics::of([1.0, f64::NAN, 3.0, f64::INFINITY], [1.0, 2.0, f64::NAN, f64::INFINITY]).unwrap();
        assert_eq!((metrics.count, metrics.non_finite), (4, 3));
        assert!(close(metrics.equal, 0.25) && close(metrics.within_5, 0.25));
        assert!(close(metrics.mae, 0.0) && close(metrics.max_error, 0.0));
        assert_eq!((metrics.got_range, metrics.expected_range), ((1.0, 1.0), (1.0, 1.0)));

        let metrics = Metrics::of([f64::NAN], [1.0]).unwrap();
        assert_eq!((metrics.count, metrics.non_finite, metrics.correlation), (1, 1, None));
        assert!(close(metrics.equal, 0.0) && close(metrics.within_1, 0.0));
        assert!(metrics.mae.is_nan() && metrics.rmse.is_nan() && metrics.max_error.is_nan());
        assert!(metrics.got_range.0.is_nan() && metrics.expected_range.1.is_nan());
    }

    #[test]
    fn sequences_of_different_lengths_are_refused() {
        let of = |got: usize, expected: usize| Metrics::of(vec![1.0; got], vec![1.0; expected]);
        assert_eq!(of(0, 0), Err(MetricsError::Empty));
        assert_eq!(Accumulator::new().finish(), Err(MetricsError::Empty));
        for (got, expected) in [(0, 1), (1, 0), (3, 7), (7, 3)] {
            assert_eq!(of(got, expected), Err(MetricsError::Length { got, expected }));
        }
        assert_eq!(of(3, 7).unwrap_err().to_string(), "metrics: got 3 elements, expected 7");
        assert_eq!(of(0, 0).unwrap_err().to_string(), "metrics: got no elements, expected at least one");
    }

    #[test]
    fn loss_is_against_what_rounding_allows() {
        assert!(close(correlation_loss(Some(0.9999), Some(0.9996)), 0.0003));
        assert!(close(correlation_loss(Some(0.9999), None), 0.9999), "a constant output loses all");
        assert!(close(correlation_loss(None, Some(0.5)), 0.0), "a constant truth has nothing to lose");
    }

    #[test]
    fn rounding_is_to_nearest_even_and_saturates() {
        let cases = [(0.5, 0), (1.5, 2), (-0.5, 0), (-1.5, -2), (2.4, 2), (126.6, 127), (127.5, 127), (-129.0, -128)];
        for (x, expected) in cases {
            assert_eq!(round_to_i8(x), expected, "{x}");
        }
        assert_eq!(round_to_i8(f64::NAN), 0);
    }
}
