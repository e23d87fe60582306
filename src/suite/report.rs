//! What a validation found, as a table for people and as JSON for programs.

use std::fmt::{self, Write as _};

use attn_ref::{Accumulator, Comoments, Metrics, MetricsError, Tolerance, correlation_loss};
use serde::Serialize;

/// The figures of one head, or of all heads together.
#[derive(Clone, Debug, Serialize)]
pub struct HeadReport {
    /// Against the truth as int8.
    #[serde(flatten)]
    pub metrics: Metrics,
    /// Correlation with the truth before it is rounded.
    pub correlation_with_truth: Option<f64>,
    /// How much of it rounding the truth to int8 does not explain.
    pub correlation_loss: f64,
}

impl HeadReport {
    pub(super) fn new(
        metrics: &Accumulator,
        rounding: &Comoments,
        correlation: &Comoments,
    ) -> Result<Self, MetricsError> {
        let correlation_with_truth = correlation.correlation();
        Ok(Self {
            metrics: metrics.finish()?,
            correlation_with_truth,
            correlation_loss: correlation_loss(rounding.correlation(), correlation_with_truth),
        })
    }
}

/// The result of one case.
#[derive(Clone, Debug, Serialize)]
pub struct CaseReport {
    /// Part of the suite.
    pub group: &'static str,
    /// What the case is.
    pub name: String,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Queries per head.
    pub queries: usize,
    /// Keys per head.
    pub keys: usize,
    /// Head dimension.
    pub dim: usize,
    /// Time that the backend took.
    pub seconds: f64,
    /// The limits.
    pub tolerance: Tolerance,
    /// Limits of others, for comparison.
    pub beside: Option<Tolerance>,
    /// Over all heads together.
    pub overall: HeadReport,
    /// Of each head alone.
    pub per_head: Vec<HeadReport>,
    /// Every figure outside its limit, overall or of a head.
    pub violations: Vec<String>,
    /// Whether there is none.
    pub passed: bool,
}

impl HeadReport {
    /// The heading of [`Display`](fmt::Display)'s columns: loss is the correlation loss, ranges are got / expected.
    pub const HEADING: &str = "  corr.     loss    MAE   RMSE    equal       ±1       ±5  max      range / expected";
}

impl fmt::Display for HeadReport {
    /// One row of figures; less than all is never printed as all.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let m = &self.metrics;
        write!(
            f,
            "{:>7} {:>8.6} {:>6.3} {:>6.3} {:>6} % {:>6} % {:>6} % {:>4} {:>5}..{:<4}/{:>5}..{:<4}",
            correlation(m),
            self.correlation_loss,
            m.mae,
            m.rmse,
            percent(m.equal),
            percent(m.within_1),
            percent(m.within_5),
            m.max_error,
            m.got_range.0,
            m.got_range.1,
            m.expected_range.0,
            m.expected_range.1,
        )?;
        if m.non_finite > 0 {
            write!(f, " {} NaN or infinite", m.non_finite)?;
        }
        Ok(())
    }
}

/// The correlation with five decimals, cut: 1 only for equal outputs (rounding alone may leave equal ones below 1).
fn correlation(metrics: &Metrics) -> String {
    match metrics.correlation {
        Some(_) if metrics.max_error == 0.0 => "1.00000".to_owned(),
        Some(correlation) => format!("{:.5}", (correlation * 1e5).floor() / 1e5),
        None => "-".to_owned(),
    }
}

/// Per cent with two decimals, cut.
fn percent(share: f64) -> String {
    format!("{:.2}", (share * 1e4).floor() / 1e2)
}

impl CaseReport {
    /// The heading of [`Display`](fmt::Display)'s columns.
    #[must_use]
    pub fn heading() -> String {
        format!("{:<59}{:>24} {}  verdict", "case", "heads x queries x keys x dim", HeadReport::HEADING)
    }

    /// The rows of each head alone.
    pub fn heads(&self) -> impl Iterator<Item = String> {
        let label = |h| format!("    head {h}");
        self.per_head.iter().enumerate().map(move |(h, head)| format!("{:<88}{head}", label(h)))
    }
}

impl fmt::Display for CaseReport {
    /// One line, and one more for each violation.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = format!("{}: {}", self.group, self.name);
        let shape = format!("{} x {} x {} x {}", self.heads, self.queries, self.keys, self.dim);
        let verdict = if self.passed { "pass" } else { "FAIL" };
        write!(f, "{name:<61} {shape:>25} {}  {verdict}", self.overall)?;
        for violation in &self.violations {
            write!(f, "\n    {violation}")?;
        }
        if let Some(beside) = self.beside {
            let met = if beside.check(&self.overall.metrics, None).is_empty() { "met" } else { "NOT met" };
            write!(f, "\n    thresholds of the {}, {}: {met}", beside.name, limits(&beside))?;
            write!(f, "\n    required here, {}", limits(&self.tolerance))?;
        }
        Ok(())
    }
}

/// The limits of a tolerance that the table's columns show.
fn limits(tolerance: &Tolerance) -> String {
    let (above, below) = if tolerance.strict { (">", "<") } else { ("≥", "≤") };
    let mut text = String::new();
    let parts = [
        tolerance.min_correlation.map(|x| format!("correlation {above} {x}")),
        tolerance.max_mae.map(|x| format!("MAE {below} {x}")),
        tolerance.min_within_1.map(|x| format!("within ±1 {above} {} %", x * 100.0)),
        tolerance.min_within_5.map(|x| format!("within ±5 {above} {:.1} %", x * 100.0)),
    ];
    for part in parts.into_iter().flatten() {
        let comma = if text.is_empty() { "" } else { ", " };
        let _ = write!(text, "{comma}{part}");
    }
    text
}

/// The result of a validation.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Version of this package.
    pub version: &'static str,
    /// The backend that computed.
    pub backend: &'static str,
    /// One per case.
    pub cases: Vec<CaseReport>,
    /// Whether every case passed.
    pub passed: bool,
}

impl Report {
    /// A report of these cases.
    #[must_use]
    pub fn new(backend: &'static str, cases: Vec<CaseReport>) -> Self {
        let passed = cases.iter().all(|case| case.passed);
        Self { version: env!("CARGO_PKG_VERSION"), backend, cases, passed }
    }
}

impl fmt::Display for Report {
    /// A line for each group, of the worst head of each, and the count.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<15}cases  heads  worst head: corr.      loss    MAE     equal        ±1        ±5  max   mean equal",
            "group"
        )?;
        for group in self.cases.chunk_by(|a, b| a.group == b.group) {
            let heads = || group.iter().flat_map(|case| &case.per_head);
            let least = |figure: fn(&Metrics) -> f64| heads().map(|h| figure(&h.metrics)).fold(f64::INFINITY, f64::min);
            let most = |figure: fn(&HeadReport) -> f64| heads().map(figure).fold(f64::NEG_INFINITY, f64::max);
            // Correlations that are not defined (constant outputs) do not count.
            let defined = heads().filter(|h| h.metrics.correlation.is_some());
            let lowest =
                defined.min_by(|a, b| a.metrics.correlation.partial_cmp(&b.metrics.correlation).expect("numbers"));
            writeln!(
                f,
                "{:<14}{:>6}{:>7}{:>19}{:>10.6}{:>7.3}{:>8} %{:>8} %{:>8} %{:>5}{:>11} %",
                group[0].group,
                group.len(),
                heads().count(),
                lowest.map_or_else(|| "-".to_owned(), |head| correlation(&head.metrics)),
                most(|h| h.correlation_loss),
                most(|h| h.metrics.mae),
                percent(least(|m| m.equal)),
                percent(least(|m| m.within_1)),
                percent(least(|m| m.within_5)),
                most(|h| h.metrics.max_error),
                percent(heads().map(|h| h.metrics.equal).sum::<f64>() / heads().count() as f64),
            )?;
        }
        let (all, passed) = (self.cases.len(), self.cases.iter().filter(|case| case.passed).count());
        write!(f, "backend {}: {passed} of {all} cases passed", self.backend)
    }
}
