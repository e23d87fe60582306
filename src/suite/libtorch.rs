//! The comparison with libtorch, where it is built in.

#[cfg(feature = "torch")]
use attn_ref::{
    TruthError,
    torch::{Method, Precision, TorchAttention, TorchError, VERSION},
};
#[cfg(feature = "torch")]
use ndarray::{Axis, Slice};

use super::CaseError;
use crate::problem::FloatHead;

/// What users of libtorch call.
#[cfg(feature = "torch")]
const METHOD: Method = Method::Fused;
#[cfg(feature = "torch")]
const PRECISION: Precision = Precision::F32;

/// At most so many elements of a mask are written out at a time.
#[cfg(feature = "torch")]
const MASK: usize = 1 << 24;

/// What every head is compared with for information; none if this was built without the feature `torch`.
#[must_use]
pub fn libtorch() -> Option<String> {
    #[cfg(feature = "torch")]
    return Some(format!("libtorch {VERSION}, {METHOD} in {PRECISION}"));
    #[cfg(not(feature = "torch"))]
    None
}

/// Attention of a head by [`libtorch`], `[queries, dim]`, if there is one. NaN where it overflows.
#[cfg(feature = "torch")]
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
            Err(TorchError::Range { .. } | TorchError::Truth(TruthError::Overflow { .. })) => out.extend(query.iter().map(|_| f64::NAN)),
            Err(error) => return Err(CaseError::Libtorch(error.to_string())),
        }
    }
    Ok(Some(out))
}

/// None.
#[cfg(not(feature = "torch"))]
#[expect(clippy::unnecessary_wraps, reason = "the signature of the other one")]
pub(super) fn attention(_: &FloatHead<'_>) -> Result<Option<Vec<f64>>, CaseError> {
    Ok(None)
}
