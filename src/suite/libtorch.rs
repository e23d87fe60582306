//! The comparison with libtorch.

use attn_ref::{
    TruthError,
    torch::{Method, Precision, TorchAttention, TorchError, VERSION},
};
use ndarray::{Axis, Slice};

use super::{CaseError, Expectation};
use crate::{
    mask::HeadMasks,
    problem::{FloatGroup, Problem},
};

/// What users of libtorch call.
const METHOD: Method = Method::Fused;
const PRECISION: Precision = Precision::F32;

/// At most so many elements of a mask are written out at a time.
const MASK: usize = 1 << 26;

/// What every head is compared with for information; none if this was built without feature `torch`.
#[must_use]
pub fn libtorch() -> Option<String> {
    Some(format!("libtorch {VERSION}, {METHOD} in {PRECISION}"))
}

/// Attention of every head by [`libtorch`], `[queries, dim]`. NaN where it overflows.
pub(super) fn attention(problem: &Problem, expectation: &Expectation) -> Result<Vec<Vec<f64>>, CaseError> {
    // A mask is `[heads, queries, keys]` in libtorch, so that queries are attended some at a time.
    let masked = problem.masks != HeadMasks::default();
    let row = problem.keys * (problem.heads / problem.kv_heads);
    let step = if masked { (MASK / row).max(1) } else { problem.queries };
    let mut heads = Vec::with_capacity(problem.heads);
    // One after the other: libtorch has threads of its own.
    for kv_head in 0..problem.kv_heads {
        let group = expectation.float_group(problem, kv_head);
        let mut outs = vec![Vec::with_capacity(problem.queries * problem.dim); group.heads.len()];
        for first in (0..problem.queries).step_by(step) {
            attend(&group, first, problem.queries.min(first + step), &mut outs)?;
        }
        heads.append(&mut outs);
    }
    Ok(heads)
}

/// Some queries of every head of a group, appended to the outputs of the heads.
fn attend(group: &FloatGroup<'_>, first: usize, end: usize, outs: &mut [Vec<f64>]) -> Result<(), CaseError> {
    let query = group.query.slice_axis(Axis(1), Slice::from(first..end));
    let [key, value] = [&group.key, &group.value].map(|tensor| tensor.view().insert_axis(Axis(0)));
    let masks: Vec<_> = group.masks.iter().map(|mask| mask.rows(first..end)).collect();
    let attention = TorchAttention::new(query, key, value, group.scale(), &masks, PRECISION);
    match attention.and_then(|attention| attention.compute(METHOD)?.to_array()) {
        Ok(array) => outs.iter_mut().zip(array.outer_iter()).for_each(|(out, array)| out.extend(array)),
        Err(TorchError::Range { .. } | TorchError::Truth(TruthError::Overflow { .. })) => {
            outs.iter_mut().zip(query.outer_iter()).for_each(|(out, query)| out.extend(query.mapv(|_| f64::NAN)));
        }
        Err(error) => return Err(CaseError::Libtorch(error.to_string())),
    }
    Ok(())
}
