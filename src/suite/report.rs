//! What a validation found, as a table for people and as JSON for programs.

use std::fmt::{self, Write as _};

use attn_ref::{Metrics, MetricsError, Tolerance, correlation_loss};
use serde::Serialize;

use super::{Figures, libtorch};
use crate::table::{MetricsRow, correlation, percent};

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
    /// Against [`libtorch`](libtorch()) in the same steps as int8; none without it.
    pub libtorch: Option<Metrics>,
}

impl HeadReport {
    pub(super) fn new(figures: &Figures) -> Result<Self, MetricsError> {
        let correlation_with_truth = figures.correlation.correlation();
        Ok(Self {
            metrics: figures.metrics.finish()?,
            correlation_with_truth,
            correlation_loss: correlation_loss(figures.rounding.correlation(), correlation_with_truth),
            libtorch: figures.libtorch.finish().ok(),
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
    /// The heading of [`Display`](fmt::Display)'s columns: loss is the correlation loss, the last two compare with
    /// [`libtorch`](libtorch()).
    #[must_use]
    pub fn heading() -> String {
        let libtorch = if libtorch().is_some() { "  libtorch:      ±1" } else { "" };
        format!("{}      loss{libtorch}", MetricsRow::HEADING)
    }
}

impl fmt::Display for HeadReport {
    /// One row of figures.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}  {:>8.6}", MetricsRow(&self.metrics), self.correlation_loss)?;
        if let Some(libtorch) = &self.libtorch {
            write!(f, "    {:>7} {:>6} %", correlation(libtorch), percent(libtorch.within_1))?;
            if libtorch.non_finite > 0 {
                write!(f, " {} of libtorch NaN or infinite", libtorch.non_finite)?;
            }
        }
        Ok(())
    }
}

impl CaseReport {
    /// The heading of [`Display`](fmt::Display)'s columns.
    #[must_use]
    pub fn heading() -> String {
        format!("{:<59}{:>24} {}  verdict", "case", "heads x queries x keys x dim", HeadReport::heading())
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

/// Of those that are defined: constant outputs have no correlation.
fn lowest_correlation<'a>(metrics: impl Iterator<Item = &'a Metrics>) -> String {
    let defined = metrics.filter(|metrics| metrics.correlation.is_some());
    let lowest = defined.min_by(|a, b| a.correlation.partial_cmp(&b.correlation).expect("numbers"));
    lowest.map_or_else(|| "-".to_owned(), correlation)
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
    pub backend: String,
    /// [`libtorch`](libtorch()): what the figures called `libtorch` compare with.
    pub libtorch: Option<String>,
    /// One per case.
    pub cases: Vec<CaseReport>,
    /// Cases that the backend does not take.
    pub skipped: Vec<Skipped>,
    /// Whether every case passed.
    pub passed: bool,
}

/// A case that a backend does not take.
#[derive(Clone, Debug, Serialize)]
pub struct Skipped {
    /// What it is.
    pub name: String,
    /// What the backend says.
    pub reason: String,
}

impl Report {
    /// A report of these cases.
    #[must_use]
    pub fn new(backend: &str, cases: Vec<CaseReport>, skipped: Vec<Skipped>) -> Self {
        let passed = cases.iter().all(|case| case.passed);
        Self {
            version: env!("CARGO_PKG_VERSION"),
            backend: backend.to_owned(),
            libtorch: libtorch(),
            cases,
            skipped,
            passed,
        }
    }
}

impl fmt::Display for Report {
    /// A line for each group, of the worst head of each, and the count.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<15}cases  heads  worst head: corr.      loss    MAE     equal        ±1        ±5  max   mean equal{}",
            "group",
            if libtorch().is_some() { "  libtorch:       ±1" } else { "" },
        )?;
        for group in self.cases.chunk_by(|a, b| a.group == b.group) {
            let heads = || group.iter().flat_map(|case| &case.per_head);
            let least = |figure: fn(&Metrics) -> f64| heads().map(|h| figure(&h.metrics)).fold(f64::INFINITY, f64::min);
            let most = |figure: fn(&HeadReport) -> f64| heads().map(figure).fold(f64::NEG_INFINITY, f64::max);
            write!(
                f,
                "{:<14}{:>6}{:>7}{:>19}{:>10.6}{:>7.3}{:>8} %{:>8} %{:>8} %{:>5}{:>11} %",
                group[0].group,
                group.len(),
                heads().count(),
                lowest_correlation(heads().map(|head| &head.metrics)),
                most(|h| h.correlation_loss),
                most(|h| h.metrics.mae),
                percent(least(|m| m.equal)),
                percent(least(|m| m.within_1)),
                percent(least(|m| m.within_5)),
                most(|h| h.metrics.max_error),
                percent(heads().map(|h| h.metrics.equal).sum::<f64>() / heads().count() as f64),
            )?;
            if libtorch().is_some() {
                let reference = || heads().filter_map(|head| head.libtorch.as_ref());
                let within_1 = reference().map(|m| m.within_1).fold(f64::INFINITY, f64::min);
                write!(f, "{:>11}{:>7} %", lowest_correlation(reference()), percent(within_1))?;
            }
            writeln!(f)?;
        }
        let (all, passed) = (self.cases.len(), self.cases.iter().filter(|case| case.passed).count());
        write!(f, "backend {}: {passed} of {all} cases passed", self.backend)?;
        if !self.skipped.is_empty() {
            write!(f, ", {} more skipped", self.skipped.len())?;
        }
        Ok(())
    }
}
