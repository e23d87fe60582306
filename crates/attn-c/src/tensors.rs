//! The tensors of a call, in int8 or in float32.

use attention::{AttentionError, Mask, Tensor};

use crate::{
    mask::{attn_mask, masks},
    memory::{Span, input, output},
    status::Failure,
};

/// How many there are of what.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) dim: usize,
    pub(crate) heads: usize,
    pub(crate) kv_heads: usize,
}

/// What is read.
#[derive(Clone, Copy)]
pub(crate) struct Tensors<'a, T> {
    pub(crate) query: &'a [T],
    pub(crate) key: &'a [T],
    pub(crate) value: &'a [T],
}

impl<T> Tensors<'_, T> {
    /// Query, key and value, which as the output are of the numbers of heads that the shape says.
    ///
    /// # Safety
    /// Each pointer is null, not aligned, or to so many elements; nobody writes them meanwhile.
    pub(crate) unsafe fn new(
        Shape { heads, kv_heads, .. }: Shape,
        [query, key, value]: [(*const T, usize); 3],
        out_len: usize,
    ) -> Result<Self, Failure> {
        if heads == 0 || kv_heads == 0 || !heads.is_multiple_of(kv_heads) {
            return Err(AttentionError::Groups { heads, kv_heads }.into());
        }
        for (tensor, got, heads) in [
            (Tensor::Query, query.1, heads),
            (Tensor::Key, key.1, kv_heads),
            (Tensor::Value, value.1, kv_heads),
            (Tensor::Out, out_len, heads),
        ] {
            if !got.is_multiple_of(heads) {
                return Err(AttentionError::Heads { tensor, got, heads }.into());
            }
        }
        // SAFETY: as the caller says.
        unsafe {
            Ok(Self {
                query: input("query", query.0, query.1)?,
                key: input("key", key.0, key.1)?,
                value: input("value", value.0, value.1)?,
            })
        }
    }

    /// Those of the first head: what is wrong with its shape is wrong with that of every other one.
    pub(crate) fn first(self, Shape { heads, kv_heads, .. }: Shape) -> Self {
        let Self { query, key, value } = self;
        Self {
            query: &query[..query.len() / heads],
            key: &key[..key.len() / kv_heads],
            value: &value[..value.len() / kv_heads],
        }
    }

    /// The masks, and the output, which overlaps nothing that is read, for a shape that these tensors were found to have.
    ///
    /// # Safety
    /// The pointers are null, not aligned, or to as many elements as are stated; nobody else has to do with those of the output.
    pub(crate) unsafe fn masks_and_output<'mask, 'out>(
        self,
        Shape { dim, heads, kv_heads }: Shape,
        mask: &'mask attn_mask,
        others: &[Span],
        (out, out_len): (*mut T, usize),
    ) -> Result<(Vec<Mask<'mask>>, &'out mut [T]), Failure> {
        let Self { query, key, value } = self;
        let (queries, keys) = (query.len() / heads / dim, key.len() / kv_heads / dim);
        // SAFETY: as the caller says.
        let (masks, mut inputs) = unsafe { masks(mask, [heads, queries, keys]) }?;
        inputs.extend([Span::of("query", query), Span::of("key", key), Span::of("value", value)]);
        inputs.extend(others);
        // SAFETY: as the caller says.
        let out = unsafe { output("output", out, out_len, &inputs) }?;
        Ok((masks, out))
    }
}
