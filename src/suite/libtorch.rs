//! The comparison with libtorch.

use attn_ref::{
    TruthError,
    torch::{Method, Precision, TorchAttention, TorchError, VERSION},
};
use ndarray::{Axis, Slice};

use super::CaseError;
use crate::problem::FloatHead;

/// What users of libtorch call.
const METHOD: Method = Method::Fused;
const PRECISION: Precision = Precision::F32;

/// At most so many elements of a mask are written out at a time.
const MASK: usize = 1 << 24;

/// What every head is compared with for information; none if this was built without feature `torch`.
#[must_use]
pub fn libtorch() -> Option<String> {
    Some(format!("libtorch {VERSION}, {METHOD} in {PRECISION}"))
}

/// Attention of a head by [`libtorch`], `[queries, dim]`. NaN where it overflows.
pub(super) fn attention(head: &FloatHead<'_>) -> Result<Option<Vec<f64>>, CaseError> {
    let [query, key, value] = [&head.query, &head.key, &head.value].map(|tensor| tensor.view().insert_axis(Axis(0)));
    let mut out = Vec::with_capacity(query.len());
    let queries = head.query.nrows();
    let step = (MASK / head.key.nrows()).max(1);
    for first in (0..queries).step_by(step) {
        let rows = first..queries.min(first + step);
        let query = query.slice_axis(Axis(1), Slice::from(rows.clone()));
        let mask = head.mask.rows(rows);
        let attention = TorchAttention::new(query, key, value, head.scale(), &[mask], PRECISION);
        match attention.and_then(|attention| attention.compute(METHOD)?.to_array()) {
            Ok(array) => out.extend(array),
            Err(TorchError::Range { .. } | TorchError::Truth(TruthError::Overflow { .. })) => {
                out.extend(query.iter().map(|_| f64::NAN));
            }
            Err(error) => return Err(CaseError::Libtorch(error.to_string())),
        }
    }
    Ok(Some(out))
}
