//! An attention problem in int8: what a file or a test case becomes before a backend computes it.
//!
//! The way of a file through it: [`npz::read`] → [`Problem::from_file`] (floats are quantised per head) →
//! [`Problem::out_scales`] → [`Problem::parameters`] → [`Problem::attend`].

use std::{error::Error, fmt, ops::Range, str::FromStr};

use attn_fixed::{
    AttentionError, Heads, Inputs, MAX_KEYS, Mask, ParameterError, Parameters, QuantiseError, Scales, quantise_heads,
    scale::MAX_GAIN,
};
use attn_ref::{TruthError, attention_head};
use ndarray::{Array2, Axis, Slice};
use rayon::prelude::*;

use crate::{
    backend::{Backend, BackendError, Progress},
    mask::HeadMasks,
    npz::{self, Qkv, Values},
};

/// Int8 tensors with their scales and masks.
///
/// `query` is `[heads, queries, dim]`, `key` and `value` are `[kv_heads, keys, dim]`; one scale per head of each.
#[derive(Clone, Debug)]
pub struct Problem {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads, a divisor of `heads`: query head `h` reads head `h / (heads / kv_heads)`.
    pub kv_heads: usize,
    /// Queries per head.
    pub queries: usize,
    /// Keys per head.
    pub keys: usize,
    /// Head dimension.
    pub dim: usize,
    /// The integers.
    pub tensors: Qkv<Vec<i8>>,
    /// What one step of them is worth.
    pub scales: Qkv<Vec<f32>>,
    /// Which keys are visible.
    pub masks: HeadMasks,
}

/// Float tensors, shaped as the integers of a [`Problem`].
#[derive(Clone, Debug)]
pub struct Floats {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Head dimension.
    pub dim: usize,
    /// The numbers.
    pub tensors: Qkv<Vec<f32>>,
}

/// One head in float64, for what integers are compared with.
#[derive(Clone, Debug)]
pub struct FloatHead<'a> {
    /// `[queries, dim]`
    pub query: Array2<f64>,
    /// `[keys, dim]`
    pub key: Array2<f64>,
    /// `[keys, dim]`
    pub value: Array2<f64>,
    /// Which keys are visible.
    pub mask: Mask<'a>,
}

impl FloatHead<'_> {
    /// Factor of the scores, `1 / √dim`.
    #[must_use]
    pub fn scale(&self) -> f64 {
        1.0 / (self.query.ncols() as f64).sqrt()
    }

    /// Float64 attention, `[queries, dim]`, computed in parallel.
    ///
    /// # Errors
    /// As [`attention_head`].
    pub fn truth(&self, progress: Progress<'_>) -> Result<Vec<f64>, TruthError> {
        const QUERIES: usize = 64;
        let blocks = (0..self.query.nrows().div_ceil(QUERIES)).into_par_iter().map(|block| {
            let rows = block * QUERIES..self.query.nrows().min((block + 1) * QUERIES);
            let query = self.query.slice_axis(Axis(0), Slice::from(rows.clone()));
            let mask = self.mask.rows(rows.clone());
            let truth = attention_head(query, self.key.view(), self.value.view(), self.scale(), &mask)?;
            progress(rows.len());
            Ok(truth.into_raw_vec_and_offset().0)
        });
        Ok(blocks.collect::<Result<Vec<_>, TruthError>>()?.concat())
    }
}

/// The rule for the scale of the output.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum OutScale {
    /// [`calibrated_scale`] of the float64 truth: the largest magnitude of each head becomes 127.
    Calibrated,
    /// The scale of the head's values, with which no output saturates.
    Value,
    /// This one for every head.
    Fixed(f32),
}

impl FromStr for OutScale {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "calibrated" => Ok(Self::Calibrated),
            "v" => Ok(Self::Value),
            _ => match text.parse() {
                Ok(scale) if scale > 0.0 && f32::is_finite(scale) => Ok(Self::Fixed(scale)),
                _ => Err("expected calibrated, v, or a positive number in the range of float32".to_owned()),
            },
        }
    }
}

/// Above so many elements of keys, heads become float64 one after the other; below, some at a time, for speed.
const LARGE_HEAD: usize = 1 << 22;

impl Problem {
    /// A user's file: float tensors are quantised per head, int8 tensors taken with their scales.
    ///
    /// # Errors
    /// Floats that cannot be quantised.
    pub fn from_file(file: npz::Inputs) -> Result<Self, ProblemError> {
        let npz::Inputs { heads, kv_heads, queries, keys, dim, mask, values, .. } = file;
        let problem = match values {
            Values::Float(tensors) => Self::quantised(&Floats { heads, kv_heads, dim, tensors })?,
            Values::Int8 { values: tensors, scales } => {
                Self { heads, kv_heads, queries, keys, dim, tensors, scales, masks: HeadMasks::default() }
            }
        };
        Ok(problem.masked(HeadMasks { allowed: mask, ..HeadMasks::default() }))
    }

    /// Quantises each head, symmetrically and to nearest.
    ///
    /// # Errors
    /// NaN or infinity, or tensors that do not divide into the heads.
    pub fn quantised(floats: &Floats) -> Result<Self, ProblemError> {
        let &Floats { heads, kv_heads, dim, ref tensors } = floats;
        let quantise = |values: &[f32], heads: usize| {
            let (mut quantised, mut scales) = (vec![0; values.len()], vec![0.0; heads]);
            quantise_heads(values, &mut quantised, &mut scales)?;
            Ok::<_, QuantiseError>((quantised, scales))
        };
        let query = quantise(&tensors.query, heads)?;
        let key = quantise(&tensors.key, kv_heads)?;
        let value = quantise(&tensors.value, kv_heads)?;
        Ok(Self {
            heads,
            kv_heads,
            queries: query.0.len() / heads / dim,
            keys: key.0.len() / kv_heads / dim,
            dim,
            tensors: Qkv { query: query.0, key: key.0, value: value.0 },
            scales: Qkv { query: query.1, key: key.1, value: value.1 },
            masks: HeadMasks::default(),
        })
    }

    /// The same with other masks.
    #[must_use]
    pub fn masked(mut self, masks: HeadMasks) -> Self {
        self.masks = masks;
        self
    }

    /// Checks everything that attention refuses, but for the output scale, before work that takes its time.
    ///
    /// # Errors
    /// Too many keys, a dimension or scales out of range, more valid keys than keys.
    pub fn check(&self) -> Result<(), ProblemError> {
        if self.keys > MAX_KEYS {
            return Err(BackendError::from(AttentionError::TooManyKeys { got: self.keys }).into());
        }
        if let Some(valid_keys) = self.masks.valid_keys {
            let mask = Mask::new().valid_keys(valid_keys).check(self.queries, self.keys);
            mask.map_err(|error| BackendError::from(AttentionError::from(error)))?;
        }
        self.parameters(&self.value_scales()).map(drop)
    }

    /// The fixed-point parameters of every head, for these output scales.
    ///
    /// # Errors
    /// A dimension or scales out of range.
    pub fn parameters(&self, out_scales: &[f32]) -> Result<Vec<Parameters>, ProblemError> {
        out_scales.iter().enumerate().map(|(head, &out)| self.parameters_of(head, out)).collect()
    }

    /// The fixed-point parameters of one head.
    ///
    /// # Errors
    /// As [`parameters`](Self::parameters).
    pub fn parameters_of(&self, head: usize, out: f32) -> Result<Parameters, ProblemError> {
        let kv = self.kv_head(head);
        let (query, key, value) = (self.scales.query[head], self.scales.key[kv], self.scales.value[kv]);
        Parameters::new(self.dim, Scales { query, key, value, out })
            .map_err(|error| ProblemError::Parameters { head, error })
    }

    /// The output scale of every head. `progress` is for the rule that takes work, the calibrated one.
    ///
    /// # Errors
    /// As [`check`](Self::check), or tensors that have no truth.
    pub fn out_scales(&self, rule: OutScale, progress: Progress<'_>) -> Result<Vec<f32>, ProblemError> {
        self.check()?;
        match rule {
            OutScale::Value => Ok(self.value_scales()),
            OutScale::Fixed(scale) => Ok(vec![scale; self.heads]),
            OutScale::Calibrated => self.for_heads(|head| {
                let truth = self.dequantised(head).truth(progress)?;
                Ok(calibrated_scale(largest_magnitude(&truth), self.scales.value[self.kv_head(head)]))
            }),
        }
    }

    /// Calls `of` for every head, for several at a time where that does not take too much memory.
    ///
    /// # Errors
    /// The first one of `of`.
    pub fn for_heads<T: Send>(
        &self,
        of: impl Fn(usize) -> Result<T, ProblemError> + Sync + Send,
    ) -> Result<Vec<T>, ProblemError> {
        if self.keys.saturating_mul(self.dim) > LARGE_HEAD {
            (0..self.heads).map(of).collect()
        } else {
            (0..self.heads).into_par_iter().map(of).collect()
        }
    }

    /// Attention on a backend, `[heads, queries, dim]`.
    ///
    /// # Errors
    /// What the backend refuses.
    pub fn attend(
        &self,
        backend: &mut dyn Backend,
        parameters: &[Parameters],
        progress: Progress<'_>,
    ) -> Result<Vec<i8>, ProblemError> {
        let masks: Vec<_> = (0..self.heads).map(|head| self.masks.head(head)).collect();
        let Qkv { query, key, value } = &self.tensors;
        let inputs = Inputs { query, key, value };
        let mut out = vec![0; query.len()];
        backend.attend(Heads { parameters, masks: &masks, kv_heads: self.kv_heads, inputs }, &mut out, progress)?;
        Ok(out)
    }

    /// A head of the dequantised integers.
    #[must_use]
    pub fn dequantised(&self, head: usize) -> FloatHead<'_> {
        let kv = self.kv_head(head);
        let scales = [self.scales.query[head], self.scales.key[kv], self.scales.value[kv]];
        let integers = [&self.tensors.query, &self.tensors.key, &self.tensors.value];
        self.float_head(head, |tensor, range| {
            integers[tensor][range].iter().map(|&x| f64::from(x) * f64::from(scales[tensor])).collect()
        })
    }

    /// A head of other floats in the shapes of this problem.
    #[must_use]
    pub fn head_of(&self, floats: &Qkv<Vec<f32>>, head: usize) -> FloatHead<'_> {
        let floats = [&floats.query, &floats.key, &floats.value];
        self.float_head(head, |tensor, range| floats[tensor][range].iter().map(|&x| f64::from(x)).collect())
    }

    fn float_head(&self, head: usize, values: impl Fn(usize, Range<usize>) -> Vec<f64>) -> FloatHead<'_> {
        let kv = self.kv_head(head);
        let [query, key, value] =
            [(0, head, self.queries), (1, kv, self.keys), (2, kv, self.keys)].map(|(tensor, head, rows)| {
                let len = rows * self.dim;
                let values = values(tensor, head * len..(head + 1) * len);
                Array2::from_shape_vec((rows, self.dim), values).expect("a whole head")
            });
        FloatHead { query, key, value, mask: self.masks.head(head) }
    }

    fn kv_head(&self, head: usize) -> usize {
        head / (self.heads / self.kv_heads)
    }

    /// The scale of the values of every query head.
    #[must_use]
    pub fn value_scales(&self) -> Vec<f32> {
        (0..self.heads).map(|head| self.scales.value[self.kv_head(head)]).collect()
    }
}

/// The largest magnitude, 0 of nothing.
#[must_use]
pub fn largest_magnitude(values: &[f64]) -> f64 {
    values.iter().fold(0.0, |largest, x| largest.max(x.abs()))
}

/// The output scale with which the largest magnitude of the truth becomes 127.
///
/// Where next to nothing is left of the values, because they cancel or no key is visible, it is the smallest scale that
/// attention takes with values of scale `value`.
#[must_use]
pub fn calibrated_scale(largest: f64, value: f32) -> f32 {
    let smallest = f64::from(value) / MAX_GAIN;
    // Rounding must not carry the quotient above MAX_GAIN.
    ((largest / 127.0).max(smallest * (1.0 + 1e-6)) as f32).max(f32::MIN_POSITIVE)
}

/// Why a problem could not be made or solved.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum ProblemError {
    /// Floats that cannot be quantised.
    Quantise(QuantiseError),
    /// A dimension or scales that are out of range.
    Parameters {
        /// The first query head of which they are.
        head: usize,
        /// What is out of range.
        error: ParameterError,
    },
    /// Tensors that have no truth.
    Truth(TruthError),
    /// What the backend refused.
    Backend(BackendError),
}

impl fmt::Display for ProblemError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Quantise(error) => error.fmt(f),
            // The dimension is that of all heads.
            Self::Parameters { error: error @ ParameterError::Dim { .. }, .. } => error.fmt(f),
            Self::Parameters { head, error } => write!(f, "head {head}: {error}"),
            Self::Truth(error) => error.fmt(f),
            Self::Backend(error) => error.fmt(f),
        }
    }
}

impl Error for ProblemError {}

macro_rules! from {
    ($($variant:ident($error:ty)),*) => {$(
        impl From<$error> for ProblemError {
            fn from(error: $error) -> Self {
                Self::$variant(error)
            }
        }
    )*};
}
from!(Quantise(QuantiseError), Truth(TruthError), Backend(BackendError));

#[cfg(test)]
mod tests {
    use super::*;

    /// Values that cancel leave 1e-17 in float64, hidden keys leave 0: attention takes the scale all the same.
    #[test]
    fn every_calibrated_scale_is_one_that_attention_takes() {
        for share in [0.0, 1e-300, 1e-17, 1e-6, 1.0, 128.0] {
            for value in [1.0, 0.01, 3e-7, 1e30] {
                let out = calibrated_scale(share * f64::from(value), value);
                let scales = Scales { query: 1.0, key: 1.0, value, out };
                assert!(Parameters::new(64, scales).is_ok(), "{share} of {value}: {out}");
            }
        }
    }
}
