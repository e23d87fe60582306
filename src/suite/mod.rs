//! What `attn validate` measures: a backend's int8 attention against float64 attention.
//!
//! [`built_in()`] lists the cases, [`Problem::from_file`] makes one of a user's file, and [`run`] judges a backend on one.
//! A case passes when its figures are within the case's tolerance (the one table, [`attn_ref::tolerance`]), over all
//! heads together and on each head alone.

mod built_in;
mod problem;
mod report;

pub use built_in::built_in;
pub use problem::{Expectation, OwnedMask, Problem, ProblemError, calibrated_scale};
pub use report::{CaseReport, HeadReport, Report};

use std::time::Instant;

use attn_ref::{Accumulator, Comoments, Tolerance, Violation};

use crate::backend::Backend;

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
    pub problem: Box<dyn FnOnce() -> Result<Problem, ProblemError>>,
}

/// Runs one case on a backend and compares with the truth.
///
/// # Errors
/// A problem that cannot be made or that the backend refuses.
pub fn run(case: Case, backend: &mut dyn Backend) -> Result<CaseReport, ProblemError> {
    let problem = (case.problem)()?;
    let prepared = problem.prepare()?;

    let masks = problem.masks();
    let mut out = vec![0; problem.tensors.query.len()];
    let start = Instant::now();
    backend.attend(problem.heads(&prepared.parameters, &masks), &mut out)?;
    let seconds = start.elapsed().as_secs_f64();

    // Over all heads together, and each alone.
    let mut metrics = Accumulator::new();
    let (mut rounding, mut correlation) = (Comoments::new(), Comoments::new());
    let head_len = out.len() / problem.heads;
    let mut heads = Vec::with_capacity(problem.heads);
    let mut violations = Vec::new();
    for (h, (out, truth)) in out.chunks_exact(head_len).zip(prepared.truth.chunks_exact(head_len)).enumerate() {
        let mut head = Accumulator::new();
        let (mut head_rounding, mut head_correlation) = (Comoments::new(), Comoments::new());
        for (&got, &truth) in out.iter().zip(truth) {
            let expected = problem.expectation.round(truth);
            head.push(f64::from(got), f64::from(expected));
            head_rounding.push(f64::from(expected), truth);
            head_correlation.push(f64::from(got), truth);
        }
        metrics.merge(&head);
        rounding.merge(&head_rounding);
        correlation.merge(&head_correlation);
        let head = HeadReport::new(&head, &head_rounding, &head_correlation)?;
        if problem.heads > 1 {
            violations.extend(judge(&case.tolerance, &head).into_iter().map(|v| format!("head {h}: {v}")));
        }
        heads.push(head);
    }
    let overall = HeadReport::new(&metrics, &rounding, &correlation)?;
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

fn judge(tolerance: &Tolerance, head: &HeadReport) -> Vec<Violation> {
    tolerance.check(&head.metrics, Some(head.correlation_loss))
}
