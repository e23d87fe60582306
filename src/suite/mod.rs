//! What `attn validate` measures: a backend's int8 attention against float64 attention.
//!
//! [`built_in()`] lists the cases, [`Problem::from_file`] makes one of a user's file, and [`run`] judges a backend on one.
//! A case passes when its figures are within the case's tolerance (the one table, [`attn_ref::tolerance`]), over all
//! heads together and on each head alone. Where libtorch is built in, every head is compared with it, too
//! ([`libtorch`](libtorch())); that is for information.

mod built_in;
#[cfg(feature = "torch")]
mod libtorch;
mod report;

pub use built_in::built_in;
pub(crate) use built_in::{Random, whisper_heads};
pub use libtorch::libtorch;
pub use report::{CaseReport, HeadReport, Report, Skipped};

use std::{error::Error, fmt, time::Instant};

use attn_fixed::Parameters;
use attn_ref::{Accumulator, Comoments, MetricsError, Tolerance, Violation, round_to_i8};

use crate::{
    backend::{Backend, Progress},
    npz::Qkv,
    problem::{FloatGroup, Problem, ProblemError, calibrated_scale, largest_magnitude},
};

/// Nothing to compare with.
#[cfg(not(feature = "torch"))]
#[expect(clippy::unnecessary_wraps, reason = "what the module of feature `torch` has")]
mod libtorch {
    use super::{CaseError, Expectation, Problem};

    /// What every head is compared with for information; none, as this was built without feature `torch`.
    #[must_use]
    pub fn libtorch() -> Option<String> {
        None
    }

    pub(super) fn attention(problem: &Problem, _: &Expectation) -> Result<Vec<Vec<f64>>, CaseError> {
        Ok(vec![Vec::new(); problem.heads])
    }
}

/// One problem with the limits that its result must keep.
pub struct Case {
    /// Which part of the suite it belongs to.
    pub group: &'static str,
    /// What it is.
    pub name: String,
    /// What its figures must reach.
    pub tolerance: Tolerance,
    /// Other limits that the report shows beside them.
    pub beside: Option<Tolerance>,
    /// Makes the problem; only when it is run, because all of them together are large.
    pub problem: Box<dyn FnOnce() -> Result<(Problem, Expectation), CaseError>>,
}

/// Where truth and output scale come from.
#[derive(Clone, Debug)]
pub enum Expectation {
    /// Float attention on the dequantised integers; per head, the output scale is its largest magnitude / 127.
    Dequantised,
    /// Float attention on the integers; the output scale is 1.
    Integers,
    /// Float attention on these floats (shapes of the integers) requantised with its largest magnitude by **truncation**.
    Floats(Box<Qkv<Vec<f32>>>),
}

impl Expectation {
    /// A key head in floats, with its query heads.
    fn float_group<'a>(&self, problem: &'a Problem, kv_head: usize) -> FloatGroup<'a> {
        match self {
            Self::Floats(floats) => problem.group_of(floats, kv_head),
            Self::Dequantised | Self::Integers => problem.dequantised(kv_head),
        }
    }

    /// The output scale of a head, and the step that its truth is measured in.
    fn scale_and_step(&self, truth: &[f64], value_scale: f32) -> (f32, f64) {
        match self {
            Self::Integers => (1.0, 1.0),
            // The users' own step is not rounded to f32: the largest element is 127 after truncation, too.
            Self::Floats(_) => {
                let step = largest_magnitude(truth) / 127.0;
                (step as f32, step)
            }
            Self::Dequantised => {
                let scale = calibrated_scale(largest_magnitude(truth), value_scale);
                (scale, f64::from(scale))
            }
        }
    }

    /// The truth, in output steps, as an int8 in an f64. What is not finite stays so, for the metrics to count.
    fn round(&self, truth: f64) -> f64 {
        match self {
            _ if !truth.is_finite() => truth,
            Self::Dequantised | Self::Integers => f64::from(round_to_i8(truth)),
            // A cast truncates.
            Self::Floats(_) => f64::from(truth as i8),
        }
    }
}

/// A head's parameters and truth.
struct Prepared {
    parameters: Parameters,
    /// Output step.
    step: f64,
    /// `[queries, dim]`, in output steps.
    truth: Vec<f64>,
}

/// A head that was judged, for who wants to see more than its figures.
pub struct JudgedHead<'a> {
    /// Which one of the case.
    pub head: usize,
    /// Elements per query.
    pub dim: usize,
    /// Its figures.
    pub report: &'a HeadReport,
    /// Whether one of them is outside its limit.
    pub fails: bool,
    out: &'a [i8],
    truth: &'a [f64],
    expectation: &'a Expectation,
}

impl JudgedHead<'_> {
    /// Whether the truth is of the floats before they were quantised, and truncated.
    #[must_use]
    pub fn is_truncated(&self) -> bool {
        matches!(self.expectation, Expectation::Floats(_))
    }

    /// Of every element, queries first: output, truth, and the truth as int8 that the output was compared with, in output steps.
    pub fn elements(&self) -> impl Iterator<Item = (i8, f64, f64)> {
        self.out.iter().zip(self.truth).map(|(&got, &truth)| (got, truth, self.expectation.round(truth)))
    }
}

/// Runs one case on a backend and compares with the truth.
///
/// `progress` is called for the queries of the truth and again for those of the backend, `look` for every head.
///
/// # Errors
/// A problem that cannot be made or that the backend refuses.
pub fn run(
    case: Case,
    backend: &mut dyn Backend,
    progress: Progress<'_>,
    look: &mut dyn FnMut(&JudgedHead<'_>),
) -> Result<CaseReport, CaseError> {
    let (problem, expectation) = (case.problem)()?;
    problem.check()?;
    problem.check_limits(backend)?;
    let prepared = problem.for_groups(|kv_head| {
        let group = expectation.float_group(&problem, kv_head);
        let truths = group.heads.clone().zip(group.truth(progress)?);
        let prepare = |(head, mut truth): (usize, Vec<f64>)| {
            let (scale, step) = expectation.scale_and_step(&truth, problem.scales.value[kv_head]);
            for x in &mut truth {
                *x /= step;
            }
            Ok(Prepared { parameters: problem.parameters_of(head, scale)?, step, truth })
        };
        truths.map(prepare).collect::<Result<Vec<_>, ProblemError>>()
    })?;
    let prepared: Vec<Prepared> = prepared.into_iter().flatten().collect();

    let parameters: Vec<_> = prepared.iter().map(|head| head.parameters).collect();
    let start = Instant::now();
    let out = problem.attend(backend, &parameters, progress)?;
    let seconds = start.elapsed().as_secs_f64();

    // Over all heads together, and each alone.
    let mut all = Figures::new();
    let mut heads = Vec::with_capacity(problem.heads);
    let mut violations = Vec::new();
    let libtorch = libtorch::attention(&problem, &expectation)?;
    let head_len = out.len() / problem.heads;
    for (h, (out, Prepared { step, truth, .. })) in out.chunks_exact(head_len).zip(&prepared).enumerate() {
        let mut figures = Figures::new();
        for (&got, &truth) in out.iter().zip(truth) {
            figures.push(f64::from(got), expectation.round(truth), truth);
        }
        for (&got, libtorch) in out.iter().zip(&libtorch[h]) {
            figures.libtorch.push(f64::from(got), expectation.round(libtorch / step));
        }
        all.merge(&figures);
        let head = HeadReport::new(&figures).map_err(CaseError::Metrics)?;
        let of_head = judge(&case.tolerance, &head);
        let (dim, fails) = (problem.dim, !of_head.is_empty());
        look(&JudgedHead { head: h, dim, report: &head, fails, out, truth, expectation: &expectation });
        if problem.heads > 1 {
            violations.extend(of_head.into_iter().map(|v| format!("head {h}: {v}")));
        }
        heads.push(head);
    }
    let overall = HeadReport::new(&all).map_err(CaseError::Metrics)?;
    violations.splice(0..0, judge(&case.tolerance, &overall).iter().map(Violation::to_string));
    Ok(CaseReport {
        group: case.group,
        name: case.name,
        tolerance: case.tolerance,
        beside: case.beside,
        heads: problem.heads,
        kv_heads: problem.kv_heads,
        queries: problem.queries,
        keys: problem.keys,
        dim: problem.dim,
        seconds,
        overall,
        per_head: heads,
        passed: violations.is_empty(),
        violations,
    })
}

/// What is gathered of a head, or of all.
struct Figures {
    /// Against the truth as int8.
    metrics: Accumulator,
    /// The truth as int8 with the truth.
    rounding: Comoments,
    /// The output with the truth.
    correlation: Comoments,
    /// Against libtorch as int8.
    libtorch: Accumulator,
}

impl Figures {
    fn new() -> Self {
        let (metrics, moments) = (Accumulator::new(), Comoments::new());
        Self { metrics, rounding: moments, correlation: moments, libtorch: metrics }
    }

    /// In output steps.
    fn push(&mut self, got: f64, expected: f64, truth: f64) {
        self.metrics.push(got, expected);
        self.rounding.push(expected, truth);
        self.correlation.push(got, truth);
    }

    fn merge(&mut self, other: &Self) {
        self.metrics.merge(&other.metrics);
        self.rounding.merge(&other.rounding);
        self.correlation.merge(&other.correlation);
        self.libtorch.merge(&other.libtorch);
    }
}

fn judge(tolerance: &Tolerance, head: &HeadReport) -> Vec<Violation> {
    tolerance.check(&head.metrics, Some(head.correlation_loss))
}

/// Why a case was not judged.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum CaseError {
    /// The problem could not be made or solved.
    Problem(ProblemError),
    /// Nothing to compare.
    Metrics(MetricsError),
    /// A fixture that cannot be read.
    Fixture(String),
    /// What libtorch said.
    Libtorch(String),
}

impl<E: Into<ProblemError>> From<E> for CaseError {
    fn from(error: E) -> Self {
        Self::Problem(error.into())
    }
}

impl fmt::Display for CaseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Problem(error) => error.fmt(f),
            Self::Metrics(error) => error.fmt(f),
            Self::Fixture(error) => f.write_str(error),
            Self::Libtorch(error) => write!(f, "libtorch: {error}"),
        }
    }
}

impl Error for CaseError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_finite_is_left_to_the_metrics() {
        assert!(Expectation::Integers.round(f64::NAN).is_nan());
        assert!(Expectation::Dequantised.round(f64::INFINITY).is_infinite());
        assert_eq!((Expectation::Integers.round(2.5), Expectation::Integers.round(300.0)), (2.0, 127.0));
    }

    #[test]
    fn what_libtorch_says_is_labelled() {
        assert_eq!(CaseError::Libtorch("no memory".to_owned()).to_string(), "libtorch: no memory");
        assert_eq!(CaseError::Fixture("x.npz: gone".to_owned()).to_string(), "x.npz: gone");
    }
}
