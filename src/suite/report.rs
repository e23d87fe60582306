//! What a validation found, as a table for people and as JSON for programs.

use std::fmt::{self, Write as _};

use attn_ref::{Accumulator, Comoments, Metrics, MetricsError, Tolerance, correlation_loss, tolerance};
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
    /// Over all heads together.
    pub overall: HeadReport,
    /// Of each head alone.
    pub per_head: Vec<HeadReport>,
    /// Every figure outside its limit, overall or of a head.
    pub violations: Vec<String>,
    /// Whether there is none.
    pub passed: bool,
}

impl CaseReport {
    /// The heading of [`Display`](fmt::Display)'s columns.
    pub const HEADING: &str = "case                                              heads x queries x keys x dim    \
        corr.   MAE   equal     ±1      ±5   max       range   verdict";
}

impl fmt::Display for CaseReport {
    /// One line, and one more for each violation.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Metrics { mae, equal, within_1, within_5, max_error, got_range: (low, high), .. } = self.overall.metrics;
        let shape = format!("{} x {} x {} x {}", self.heads, self.queries, self.keys, self.dim);
        let correlation = match self.overall.metrics.correlation {
            // Below 1 is never printed as 1.
            Some(c) => format!("{:.5}", (c * 1e5).floor() / 1e5),
            None => "-".to_owned(),
        };
        let share = |x: f64| format!("{:.2} %", floor(x));
        write!(
            f,
            "{:<49} {shape:>28} {correlation:>8} {mae:>5.3} {:>8}{:>9}{:>9} {max_error:>4} {low:>5}..{high:<5} {}",
            format!("{}: {}", self.group, self.name),
            share(equal),
            share(within_1),
            share(within_5),
            if self.passed { "pass" } else { "FAIL" }
        )?;
        for violation in &self.violations {
            write!(f, "\n    {violation}")?;
        }
        if self.tolerance == tolerance::ACCEPTANCE {
            let violations = tolerance::USERS.check(&self.overall.metrics, None);
            let verdict = if violations.is_empty() { "met" } else { "NOT met" };
            write!(f, "\n    users' thresholds, {}: {verdict}", limits(&tolerance::USERS))?;
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
    /// A line for each group, and the count.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<14}{SUMMARY_HEADING}", "per head")?;
        for group in self.cases.chunk_by(|a, b| a.group == b.group) {
            let heads = || group.iter().flat_map(|case| &case.per_head);
            let least = |figure: fn(&Metrics) -> f64| heads().map(|h| figure(&h.metrics)).fold(f64::INFINITY, f64::min);
            let most = |figure: fn(&HeadReport) -> f64| heads().map(figure).fold(f64::NEG_INFINITY, f64::max);
            let equal = heads().map(|h| h.metrics.equal).sum::<f64>() / heads().count() as f64;
            writeln!(
                f,
                "{:<14}{:>6}{:>7}{:>11.5}{:>9.3}{:>9.2} %{:>10.2} %{:>10.2} %{:>10}{:>13.6}",
                group[0].group,
                group.len(),
                heads().count(),
                least(|m| m.correlation.unwrap_or(1.0)),
                most(|h| h.metrics.mae),
                equal * 100.0,
                floor(least(|m| m.within_1)),
                floor(least(|m| m.within_5)),
                most(|h| h.metrics.max_error),
                most(|h| h.correlation_loss),
            )?;
        }
        let (all, passed) = (self.cases.len(), self.cases.iter().filter(|case| case.passed).count());
        write!(f, "backend {}: {passed} of {all} cases passed", self.backend)
    }
}

/// The columns of the summary.
const SUMMARY_HEADING: &str =
    " cases  heads  min corr.  max MAE  mean equal    min ±1      min ±5    max err.  max corr. loss";

/// Per cent, cut to two decimals: less than all is never printed as 100.
fn floor(share: f64) -> f64 {
    (share * 1e4).floor() / 1e2
}
