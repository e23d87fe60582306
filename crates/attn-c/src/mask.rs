//! Masks as C has them.

use std::{ptr, slice};

use attention::{Mask, MaskError};

use crate::{
    memory::{Span, each, input},
    status::{Failure, attn_status},
};

/// Which keys the queries see: those that every part lets through. Where all of it is zero, every query sees every key.
#[repr(C)]
pub struct attn_mask {
    /// `[heads]`: the first so many keys are visible (padding behind them); 0 hides all, and the outputs are 0. NULL: all are.
    pub valid_keys: *const usize,
    /// `[heads]`: query `i` sees the keys `j <= i + causal`; it is the number of keys cached before the first query. NULL: no
    /// such rule.
    pub causal: *const usize,
    /// `allowed_shape`, row-major: 1 where a query sees a key, 0 where not. NULL: no boolean mask. `kernel`, `aie2-model` and
    /// `npu` take none.
    pub allowed: *const u8,
    /// `[heads, queries, keys]`, each of which may be 1 instead, and then holds for all.
    pub allowed_shape: [usize; 3],
}

/// The mask of every head, and where its parts lie, for attention of `[heads, queries, keys]`, which there are.
///
/// # Safety
/// Its pointers are null or to as many elements as are stated.
pub(crate) unsafe fn masks<'a>(
    mask: &attn_mask,
    [heads, queries, keys]: [usize; 3],
) -> Result<(Vec<Mask<'a>>, Vec<Span>), Failure> {
    let mut masks = each(heads, |_| Ok(Mask::new()))?;
    let mut spans = Vec::new();
    if !mask.valid_keys.is_null() {
        // SAFETY: as the caller says.
        let valid_keys = unsafe { input("valid keys", mask.valid_keys, heads) }?;
        spans.push(Span::of("valid keys", valid_keys));
        masks.iter_mut().zip(valid_keys).for_each(|(mask, &keys)| *mask = mask.valid_keys(keys));
    }
    if !mask.causal.is_null() {
        // SAFETY: as the caller says.
        let causal = unsafe { input("causal", mask.causal, heads) }?;
        spans.push(Span::of("causal", causal));
        masks.iter_mut().zip(causal).for_each(|(mask, &offset)| *mask = mask.causal(offset));
    }
    if !mask.allowed.is_null() {
        let [planes, rows, row] = mask.allowed_shape;
        let fits = |got, expected| got == 1 || got == expected;
        if !(fits(planes, heads) && fits(rows, queries) && fits(row, keys)) {
            let message = format!(
                "boolean mask: got [{planes}, {rows}, {row}], expected [{heads} or 1, {queries} or 1, {keys} or 1]"
            );
            return Err(Failure::new(attn_status::Mask, message));
        }
        let plane = rows.checked_mul(row);
        let len = plane.and_then(|plane| plane.checked_mul(planes)).unwrap_or(usize::MAX);
        // SAFETY: as the caller says.
        let allowed = bools(unsafe { input("boolean mask", mask.allowed, len) }?)?;
        spans.push(Span::of("boolean mask", allowed));
        let planes = allowed.chunks_exact(len / planes).cycle();
        masks.iter_mut().zip(planes).for_each(|(mask, plane)| *mask = mask.allowed(plane, row));
    }
    for mask in &masks {
        mask.check(queries, keys)?;
    }
    Ok((masks, spans))
}

/// Bytes of 0 and 1.
fn bools(bytes: &[u8]) -> Result<&[bool], Failure> {
    if let Some((index, got)) = bytes.iter().enumerate().find(|(_, byte)| **byte > 1) {
        let message = format!("boolean mask: got {got} at element {index}, expected 0 or 1");
        return Err(Failure::new(attn_status::Mask, message));
    }
    // SAFETY: 0 is false, 1 is true, and they are of one size.
    Ok(unsafe { slice::from_raw_parts(ptr::from_ref(bytes).cast(), bytes.len()) })
}

impl From<MaskError> for Failure {
    fn from(error: MaskError) -> Self {
        Self::new(attn_status::Mask, error.to_string())
    }
}
