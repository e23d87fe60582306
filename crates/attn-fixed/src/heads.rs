//! Several heads at once: how their tensors lie and how they share keys and values.

use crate::{
    AttentionError, FloatError, Inputs, MAX_DIM, MIN_DIM, Mask, Output, ParameterError, Parameters, QuantiseError,
    Tensor, sequence::check_lengths,
};

/// Attention over several heads of one shape, with grouped keys and values. Every backend takes this.
///
/// Batches are heads too: `[batch, heads, ..]` flattens to `[batch · heads, ..]`.
#[derive(Clone, Copy, Debug)]
pub struct Heads<'a> {
    /// One set of parameters per query head, all of one dimension.
    pub parameters: &'a [Parameters],
    /// One mask per query head.
    pub masks: &'a [Mask<'a>],
    /// Number of key and value heads, a divisor of the number of query heads: query head `h` reads head
    /// `h / (heads / kv_heads)`.
    pub kv_heads: usize,
    /// `query` is `[heads, queries, dim]`; `key` and `value` are `[kv_heads, keys, dim]`.
    pub inputs: Inputs<'a>,
}

/// One head of [`Heads`], checked.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    /// Its parameters.
    pub parameters: &'a Parameters,
    /// Its mask.
    pub mask: &'a Mask<'a>,
    /// Its tensors.
    pub inputs: Inputs<'a>,
}

impl<'a> Heads<'a> {
    /// Checks every shape, also that of an output of `out_len` elements, `[heads, queries, dim]`.
    ///
    /// # Errors
    /// Numbers of heads that do not divide a tensor or each other, parameters of different dimensions, or what
    /// [`attend`](crate::attend) refuses of a head.
    pub fn check(&self, out_len: usize) -> Result<(), AttentionError> {
        let Self { parameters, masks, kv_heads, inputs } = *self;
        let heads = parameters.len();
        if kv_heads == 0 || heads == 0 || !heads.is_multiple_of(kv_heads) {
            return Err(AttentionError::Groups { heads, kv_heads });
        }
        if masks.len() != heads {
            return Err(AttentionError::Masks { got: masks.len(), expected: heads });
        }
        let dim = parameters[0].dim();
        if let Some(other) = parameters.iter().find(|other| other.dim() != dim) {
            return Err(AttentionError::Dim { got: other.dim(), expected: dim });
        }
        let Inputs { query, key, value } = inputs;
        let lengths = Lengths { query: query.len(), key: key.len(), value: value.len(), out: out_len };
        check(dim, masks, kv_heads, lengths)
    }

    /// One head, of tensors that [`check`](Self::check) accepts.
    ///
    /// # Panics
    /// A head that there is not.
    #[must_use]
    pub fn head(&self, h: usize) -> Head<'a> {
        let Self { parameters, masks, kv_heads, inputs } = *self;
        let heads = parameters.len();
        let kv = h / (heads / kv_heads);
        let cut = |tensor: &'a [i8], heads: usize, h: usize| {
            let len = tensor.len() / heads;
            &tensor[h * len..][..len]
        };
        Head {
            parameters: &parameters[h],
            mask: &masks[h],
            inputs: Inputs {
                query: cut(inputs.query, heads, h),
                key: cut(inputs.key, kv_heads, kv),
                value: cut(inputs.value, kv_heads, kv),
            },
        }
    }

    /// [Checks](Self::check) every shape and cuts the tensors and `out`, `[heads, queries, dim]`, into heads.
    ///
    /// # Errors
    /// As [`check`](Self::check).
    pub fn split<'o, O: Output>(
        &self,
        out: &'o mut [O],
    ) -> Result<impl ExactSizeIterator<Item = (Head<'a>, &'o mut [O])>, AttentionError> {
        self.check(out.len())?;
        let heads = *self;
        let out_len = out.len() / heads.parameters.len();
        Ok(out.chunks_exact_mut(out_len).enumerate().map(move |(h, out)| (heads.head(h), out)))
    }
}

/// [`Heads`] in floats: what is quantised, attended in integers, and returned in floats.
///
/// Each query, key and value head is quantised with a scale of its own; the softmax scale is `1 / √dim`.
#[derive(Clone, Copy, Debug)]
pub struct FloatHeads<'a> {
    /// Head dimension, 8 to 256.
    pub dim: usize,
    /// One mask per query head.
    pub masks: &'a [Mask<'a>],
    /// As that of [`Heads`].
    pub kv_heads: usize,
    /// `[heads, queries, dim]`, finite.
    pub query: &'a [f32],
    /// `[kv_heads, keys, dim]`, finite.
    pub key: &'a [f32],
    /// `[kv_heads, keys, dim]`, finite.
    pub value: &'a [f32],
}

impl<'a> FloatHeads<'a> {
    /// Checks every shape, also that of an output of `out_len` elements, `[heads, queries, dim]`.
    ///
    /// # Errors
    /// [`ParameterError::Dim`], or what [`Heads::check`] refuses.
    pub fn check(&self, out_len: usize) -> Result<(), FloatError> {
        if !(MIN_DIM..=MAX_DIM).contains(&self.dim) {
            return Err(ParameterError::Dim { got: self.dim }.into());
        }
        let lengths = Lengths { query: self.query.len(), key: self.key.len(), value: self.value.len(), out: out_len };
        Ok(check(self.dim, self.masks, self.kv_heads, lengths)?)
    }

    /// The tensors, each with its number of heads.
    #[must_use]
    pub fn tensors(&self) -> [(Tensor, &'a [f32], usize); 3] {
        [
            (Tensor::Query, self.query, self.masks.len()),
            (Tensor::Key, self.key, self.kv_heads),
            (Tensor::Value, self.value, self.kv_heads),
        ]
    }

    /// The first element that cannot be quantised, NaN or infinity.
    #[must_use]
    pub fn not_finite(&self) -> Option<FloatError> {
        self.tensors().into_iter().find_map(|(tensor, values, _)| {
            let (index, &got) = values.iter().enumerate().find(|(_, x)| !x.is_finite())?;
            Some(FloatError::Quantise { tensor, error: QuantiseError::NotFinite { index, got } })
        })
    }
}

/// Lengths of all tensors.
#[derive(Clone, Copy)]
struct Lengths {
    query: usize,
    key: usize,
    value: usize,
    out: usize,
}

/// The shapes of several heads, one for each mask.
fn check(dim: usize, masks: &[Mask<'_>], kv_heads: usize, lengths: Lengths) -> Result<(), AttentionError> {
    let heads = masks.len();
    if kv_heads == 0 || heads == 0 || !heads.is_multiple_of(kv_heads) {
        return Err(AttentionError::Groups { heads, kv_heads });
    }
    for (tensor, got, heads) in [
        (Tensor::Query, lengths.query, heads),
        (Tensor::Key, lengths.key, kv_heads),
        (Tensor::Value, lengths.value, kv_heads),
        (Tensor::Out, lengths.out, heads),
    ] {
        if !got.is_multiple_of(heads) {
            return Err(AttentionError::Heads { tensor, got, heads });
        }
    }
    let (query, out) = (lengths.query / heads, lengths.out / heads);
    let (key, value) = (lengths.key / kv_heads, lengths.value / kv_heads);
    masks.iter().try_for_each(|mask| check_lengths(dim, query, key, value, mask, out).map(drop))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{MaskError, Scales};

    extern crate std;
    use std::vec::Vec;

    fn parameters(dim: usize) -> Parameters {
        Parameters::new(dim, Scales { query: 0.1, key: 0.1, value: 1.0, out: 1.0 }).expect("in range")
    }

    #[test]
    fn grouped_heads_share_keys_and_values() {
        let numbers: Vec<i8> = (0..96).collect();
        let inputs = Inputs { query: &numbers[..64], key: &numbers[..32], value: &numbers[64..96] };
        let (parameters, masks) = ([parameters(8); 4], [Mask::new(); 4]);
        let mut out = [0; 64];
        let heads = Heads { parameters: &parameters, masks: &masks, kv_heads: 2, inputs };
        let firsts: Vec<_> = heads
            .split(&mut out)
            .expect("valid")
            .map(|(head, out)| {
                let Inputs { query, key, value } = head.inputs;
                assert_eq!((query.len(), key.len(), value.len(), out.len()), (16, 16, 16, 16));
                (query[0], key[0], value[0])
            })
            .collect();
        assert_eq!(firsts, [(0, 0, 64), (16, 0, 64), (32, 16, 80), (48, 16, 80)]);
    }

    #[test]
    fn what_does_not_divide_is_refused() {
        let (two, other) = ([parameters(8); 2], [parameters(8), parameters(16)]);
        let masks = [Mask::new(); 2];
        let zeros = [0; 96];
        let inputs = |query, key| Inputs { query: &zeros[..query], key: &zeros[..key], value: &zeros[..key] };
        let heads = |parameters, kv_heads, inputs| Heads { parameters, masks: &masks, kv_heads, inputs };
        let length = |tensor, got, expected| AttentionError::Length { tensor, got, expected };
        for (heads, out, expected) in [
            (heads(&two, 0, inputs(16, 16)), 16, AttentionError::Groups { heads: 2, kv_heads: 0 }),
            (heads(&two, 3, inputs(16, 16)), 16, AttentionError::Groups { heads: 2, kv_heads: 3 }),
            (heads(&two[..0], 1, inputs(16, 16)), 16, AttentionError::Groups { heads: 0, kv_heads: 1 }),
            (heads(&two[..1], 1, inputs(16, 16)), 16, AttentionError::Masks { got: 2, expected: 1 }),
            (heads(&two, 1, inputs(17, 16)), 17, AttentionError::Heads { tensor: Tensor::Query, got: 17, heads: 2 }),
            (heads(&two, 2, inputs(16, 17)), 16, AttentionError::Heads { tensor: Tensor::Key, got: 17, heads: 2 }),
            (heads(&two, 2, inputs(16, 16)), 15, AttentionError::Heads { tensor: Tensor::Out, got: 15, heads: 2 }),
            (heads(&two, 2, inputs(16, 16)), 32, length(Tensor::Out, 16, 8)),
            (heads(&two, 2, inputs(0, 16)), 0, AttentionError::Empty { tensor: Tensor::Query }),
            (heads(&other, 2, inputs(32, 32)), 32, AttentionError::Dim { got: 16, expected: 8 }),
        ] {
            let mut out = std::vec![0; out];
            assert_eq!(heads.split(&mut out).err(), Some(expected));
        }
        let odd = Inputs { query: &zeros[..16], key: &zeros[..16], value: &zeros[..17] };
        let expected = AttentionError::Heads { tensor: Tensor::Value, got: 17, heads: 2 };
        assert_eq!(heads(&two, 2, odd).split(&mut [0; 16]).err(), Some(expected));
        let masks = [Mask::new().valid_keys(3)];
        let first = Heads { parameters: &two[..1], masks: &masks, kv_heads: 1, inputs: inputs(16, 16) };
        let expected = MaskError::ValidKeys { got: 3, keys: 2 }.into();
        assert_eq!(first.split(&mut [0; 16]).err(), Some(expected));
    }
}
