//! Attention over slices of any length.

use crate::{AttentionError, BLOCK, MAX_KEYS, Mask, Output, Parameters, Tensor, block, row::Row};

/// The int8 tensors of one head, row-major.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// `[queries, dim]`
    pub query: &'a [i8],
    /// `[keys, dim]`
    pub key: &'a [i8],
    /// `[keys, dim]`
    pub value: &'a [i8],
}

impl Inputs<'_> {
    /// Checks the lengths of all tensors, of the output and of the mask; returns the numbers of queries and keys.
    ///
    /// For backends: what [`attend`] accepts, every backend accepts.
    ///
    /// # Errors
    /// As [`attend`], but for the scratch memory.
    pub fn check(&self, dim: usize, mask: &Mask<'_>, out_len: usize) -> Result<(usize, usize), AttentionError> {
        check_lengths(dim, self.query.len(), self.key.len(), self.value.len(), mask, out_len)
    }
}

/// [`Inputs::check`] of tensors of any type.
pub(crate) fn check_lengths(
    dim: usize,
    query: usize,
    key: usize,
    value: usize,
    mask: &Mask<'_>,
    out: usize,
) -> Result<(usize, usize), AttentionError> {
    let rows = |tensor, got: usize| {
        if got == 0 {
            Err(AttentionError::Empty { tensor })
        } else if !got.is_multiple_of(dim) {
            Err(AttentionError::Rows { tensor, got, dim })
        } else {
            Ok(got / dim)
        }
    };
    let same = |tensor, got: usize, expected: usize| {
        if got == expected { Ok(()) } else { Err(AttentionError::Length { tensor, got, expected }) }
    };
    let queries = rows(Tensor::Query, query)?;
    let keys = rows(Tensor::Key, key)?;
    same(Tensor::Value, value, key)?;
    same(Tensor::Out, out, query)?;
    if keys > MAX_KEYS {
        return Err(AttentionError::TooManyKeys { got: keys });
    }
    mask.check(queries, keys)?;
    Ok((queries, keys))
}

/// Length of the scratch memory that [`attend`] needs, in `i32`; independent of the sequence.
#[must_use]
pub const fn scratch_len(dim: usize) -> usize {
    Row::scratch_len(dim)
}

/// `out = softmax(q·kᵀ / √dim) · v` of one head, masked; `dim` is the parameters'.
///
/// The output is int8 in steps of the output scale, or `f32`, which needs none. A row that sees no key is all zeros. The scratch
/// memory need not be initialised.
///
/// # Errors
/// Empty tensors, lengths that disagree, more than [`MAX_KEYS`] keys, a mask of another shape, or too little scratch
/// memory; `out` is then untouched.
///
/// ```
/// use attn_fixed::{Inputs, Mask, Parameters, Scales, attend, scratch_len};
///
/// let parameters = Parameters::new(8, Scales { query: 0.05, key: 0.05, value: 0.02, out: 0.02 })?;
/// let (query, key, value) = ([100; 8], [[90; 8], [-90; 8]], [[64; 8], [-64; 8]]);
/// let inputs = Inputs { query: &query, key: key.as_flattened(), value: value.as_flattened() };
/// let mut scratch = [0; scratch_len(8)];
/// let mut out = [0; 8];
/// attend(&parameters, inputs, &Mask::new(), &mut scratch, &mut out)?;
/// assert_eq!(out, [64; 8]); // The first key is 127 nats ahead.
/// # Ok::<(), Box<dyn core::error::Error>>(())
/// ```
pub fn attend<O: Output>(
    parameters: &Parameters,
    inputs: Inputs<'_>,
    mask: &Mask<'_>,
    scratch: &mut [i32],
    out: &mut [O],
) -> Result<(), AttentionError> {
    let dim = parameters.dim();
    inputs.check(dim, mask, out.len())?;
    let expected = scratch_len(dim);
    let Some(scratch) = scratch.get_mut(..expected) else {
        return Err(AttentionError::Scratch { got: scratch.len(), expected });
    };
    attend_rows(dim, parameters, inputs, mask, scratch, out);
    Ok(())
}

/// Checked attention: each query meets the keys block by block.
///
/// `dim` stands apart from the parameters, so that a tile's loops have the length that the compiler knows.
#[inline(always)]
#[expect(clippy::inline_always, reason = "a tile passes its dimension as a constant")]
pub(crate) fn attend_rows<O: Output>(
    dim: usize,
    parameters: &Parameters,
    inputs: Inputs<'_>,
    mask: &Mask<'_>,
    scratch: &mut [i32],
    out: &mut [O],
) {
    let keys = inputs.key.len() / dim;
    let rows = inputs.query.chunks_exact(dim).zip(out.chunks_exact_mut(dim));
    for (i, (query, out)) in rows.enumerate() {
        let mut row = Row::new(scratch);
        let mut scores = [0; BLOCK];
        let blocks = inputs.key.chunks(BLOCK * dim).zip(inputs.value.chunks(BLOCK * dim));
        for (first, (key, value)) in (0..mask.end(i, keys)).step_by(BLOCK).zip(blocks) {
            block::scores(query, key, &mut scores);
            row.absorb(parameters, &scores, mask.block(i, first, keys - first), value);
        }
        row.finish(parameters, out);
    }
}
