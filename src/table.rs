//! Metrics as columns for people. Less than all is never printed as all.

use std::fmt;

use attn_ref::Metrics;

/// One row of figures, in the columns of [`MetricsRow::HEADING`]; range is got / expected.
pub(crate) struct MetricsRow<'a>(pub(crate) &'a Metrics);

impl MetricsRow<'_> {
    /// The heading of the columns.
    pub(crate) const HEADING: &'static str =
        "  corr.    MAE   RMSE    equal       ±1       ±5  max      range / expected";
}

impl fmt::Display for MetricsRow<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let m = self.0;
        write!(
            f,
            "{:>7} {:>6.3} {:>6.3} {:>6} % {:>6} % {:>6} % {:>4} {:>5}..{:<4}/{:>5}..{:<4}",
            correlation(m),
            m.mae,
            m.rmse,
            percent(m.equal),
            percent(m.within_1),
            percent(m.within_5),
            number(m.max_error),
            number(m.got_range.0),
            number(m.got_range.1),
            number(m.expected_range.0),
            number(m.expected_range.1),
        )?;
        if m.non_finite > 0 {
            write!(f, " {} NaN or infinite", m.non_finite)?;
        }
        Ok(())
    }
}

/// The correlation with five decimals, cut: 1 only for equal outputs (rounding alone may leave equal ones below 1).
pub(crate) fn correlation(metrics: &Metrics) -> String {
    match metrics.correlation {
        Some(_) if metrics.max_error == 0.0 => "1.00000".to_owned(),
        Some(correlation) => format!("{:.5}", (correlation * 1e5).floor() / 1e5),
        None => "-".to_owned(),
    }
}

/// Per cent with two decimals, cut.
pub(crate) fn percent(share: f64) -> String {
    format!("{:.2}", (share * 1e4).floor() / 1e2)
}

/// An integer as it is, else two significant decimals.
pub(crate) fn number(x: f64) -> String {
    if x.fract() == 0.0 || !x.is_finite() { x.to_string() } else { format!("{x:.2}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn almost_all_is_not_all() {
        let metrics = Metrics::of((0..100_000).map(|i| f64::from(i + i32::from(i == 7))), (0..100_000).map(f64::from));
        let row = MetricsRow(&metrics.expect("pairs")).to_string();
        assert!(row.starts_with("0.99999  0.000  0.003  99.99 % 100.00 % 100.00 %    1     0..99999"), "{row}");
    }

    #[test]
    fn all_is_all_although_sums_are_rounded() {
        let equal = Metrics::of([1.0, 2.0], [1.0, 2.0]).expect("pairs");
        assert_eq!(correlation(&Metrics { correlation: Some(1.0 - 1e-15), ..equal }), "1.00000");
    }

    #[test]
    fn numbers_have_two_decimals_or_none() {
        assert_eq!([3.0, -127.0, 2.547, f64::INFINITY].map(number), ["3", "-127", "2.55", "inf"]);
    }

    #[test]
    fn what_is_not_finite_is_counted_at_the_end() {
        for (got, expected) in [([1.0, 2.0], "    1..2   "), ([1.0, f64::NAN], " 1 NaN or infinite")] {
            let row = MetricsRow(&Metrics::of(got, [1.0, 2.0]).expect("pairs")).to_string();
            assert!(row.ends_with(expected), "{row}");
        }
    }
}
