//! The tensors of a call, in int8 or in float32.

use attention::{AttentionError, Mask, Tensor};

use crate::{
    mask::{attn_mask, masks},
    memory::{Span, input, output},
    status::Failure,
};

/// How many there are of what: of `heads` a multiple of `kv_heads`, and neither is 0.
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
    /// Query, key and value. There are no more heads than queries have elements: what is read of each head is then of a size
    /// that there is.
    ///
    /// # Safety
    /// Each pointer is null, not aligned, or to so many elements; nobody writes them meanwhile.
    pub(crate) unsafe fn new(
        Shape { heads, kv_heads, .. }: Shape,
        [query, key, value]: [(*const T, usize); 3],
    ) -> Result<Self, Failure> {
        if heads == 0 || kv_heads == 0 || !heads.is_multiple_of(kv_heads) {
            return Err(AttentionError::Groups { heads, kv_heads }.into());
        }
        if query.1 < heads {
            return Err(AttentionError::Heads { tensor: Tensor::Query, got: query.1, heads }.into());
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

    /// The masks, and the output, which overlaps nothing that is read, for a shape that these tensors were found to have.
    ///
    /// # Safety
    /// The pointers are null, not aligned, or to as many elements as are stated; nobody else has to do with those of the output.
    pub(crate) unsafe fn masks_and_output<'out>(
        self,
        Shape { dim, heads, kv_heads }: Shape,
        mask: &attn_mask,
        (out, out_len): (*mut T, usize),
    ) -> Result<(Vec<Mask<'_>>, &'out mut [T]), Failure> {
        let Self { query, key, value } = self;
        let (queries, keys) = (query.len() / heads / dim, key.len() / kv_heads / dim);
        // SAFETY: as the caller says.
        let (masks, allowed) = unsafe { masks(mask, [heads, queries, keys]) }?;
        let inputs =
            [("query", Span::of(query)), ("key", Span::of(key)), ("value", Span::of(value)), ("mask", allowed)];
        // SAFETY: as the caller says.
        let out = unsafe { output("output", out, out_len, &inputs) }?;
        Ok((masks, out))
    }
}
