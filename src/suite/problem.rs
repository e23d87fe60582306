//! An int8 attention problem and its truth.

use std::{error::Error, fmt};

use attn_fixed::{
    AttentionError, Heads, Inputs, MAX_KEYS, Mask, ParameterError, Parameters, QuantiseError, Scales, quantise_heads,
    scale::MAX_GAIN,
};
use attn_ref::{MetricsError, TruthError, attention_head, round_to_i8};
use ndarray::ArrayView2;
use rayon::prelude::*;

use crate::{
    backend::BackendError,
    npz::{self, Qkv, Values},
};

/// Int8 tensors with their scales, a mask, and what they are to be compared with.
///
/// `query` is `[heads, queries, dim]`, `key` and `value` are `[kv_heads, keys, dim]`; one scale per head of each.
#[derive(Clone, Debug)]
pub struct Problem {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
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
    pub mask: OwnedMask,
    /// Truth and output scale.
    pub expectation: Expectation,
}

/// Where truth and output scale come from.
#[derive(Clone, Debug)]
pub enum Expectation {
    /// Float attention on the dequantised integers; per head, the output scale is its largest magnitude / 127.
    Dequantised,
    /// Float attention on the integers; the output scale is 1.
    Integers,
    /// Float attention on these floats (shapes of the integers) requantised with its largest magnitude by **truncation**.
    Floats(Box<Qkv<Vec<f32>>>),
}

impl Expectation {
    /// The truth, in output steps, as int8.
    #[must_use]
    pub fn round(&self, truth: f64) -> i8 {
        match self {
            Self::Dequantised | Self::Integers => round_to_i8(truth),
            // A cast truncates.
            Self::Floats(_) => truth as i8,
        }
    }
}

/// A [`Mask`] that owns its boolean part.
#[derive(Clone, Debug, Default)]
pub struct OwnedMask {
    /// [`Mask::valid_keys`]
    pub valid_keys: Option<usize>,
    /// [`Mask::causal`]
    pub causal: Option<usize>,
    /// [`Mask::allowed`]
    pub allowed: Option<Vec<bool>>,
}

impl OwnedMask {
    /// The mask, for rows of `keys` keys.
    #[must_use]
    pub fn as_mask(&self, keys: usize) -> Mask<'_> {
        let mut mask = Mask::new();
        if let Some(valid_keys) = self.valid_keys {
            mask = mask.valid_keys(valid_keys);
        }
        if let Some(offset) = self.causal {
            mask = mask.causal(offset);
        }
        if let Some(allowed) = &self.allowed {
            mask = mask.allowed(allowed, keys);
        }
        mask
    }
}

/// A problem's parameters and truth.
pub(super) struct Prepared {
    /// One per head.
    pub(super) parameters: Vec<Parameters>,
    /// `[heads, queries, dim]`, in output steps.
    pub(super) truth: Vec<f64>,
}

/// Float tensors of a problem, shaped as its integers.
pub(super) struct Floats {
    pub(super) heads: usize,
    pub(super) kv_heads: usize,
    pub(super) dim: usize,
    pub(super) tensors: Qkv<Vec<f32>>,
}

impl Problem {
    /// A user's file: float tensors are quantised per head, int8 tensors taken with their scales.
    ///
    /// # Errors
    /// Floats that cannot be quantised.
    pub fn from_file(file: npz::Inputs) -> Result<Self, ProblemError> {
        let npz::Inputs { heads, kv_heads, queries, keys, dim, values, .. } = file;
        match values {
            Values::Float(tensors) => Self::quantised(Floats { heads, kv_heads, dim, tensors }),
            Values::Int8 { values: tensors, scales } => Ok(Self {
                heads,
                kv_heads,
                queries,
                keys,
                dim,
                tensors,
                scales,
                mask: OwnedMask::default(),
                expectation: Expectation::Dequantised,
            }),
        }
    }

    /// Quantises each head, symmetrically and to nearest.
    pub(super) fn quantised(floats: Floats) -> Result<Self, ProblemError> {
        let Floats { heads, kv_heads, dim, tensors } = floats;
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
            mask: OwnedMask::default(),
            expectation: Expectation::Dequantised,
        })
    }

    /// One head of integers that are their own values.
    pub(super) fn integers(dim: usize, tensors: Qkv<Vec<i8>>) -> Self {
        Self {
            heads: 1,
            kv_heads: 1,
            queries: tensors.query.len() / dim,
            keys: tensors.key.len() / dim,
            dim,
            tensors,
            scales: Qkv { query: vec![1.0], key: vec![1.0], value: vec![1.0] },
            mask: OwnedMask::default(),
            expectation: Expectation::Integers,
        }
    }

    pub(super) fn masked(mut self, mask: OwnedMask) -> Self {
        self.mask = mask;
        self
    }

    /// One mask per head.
    pub(super) fn masks(&self) -> Vec<Mask<'_>> {
        vec![self.mask.as_mask(self.keys); self.heads]
    }

    /// As a backend takes it.
    pub(super) fn heads<'a>(&'a self, parameters: &'a [Parameters], masks: &'a [Mask<'a>]) -> Heads<'a> {
        let Qkv { query, key, value } = &self.tensors;
        Heads { parameters, masks, kv_heads: self.kv_heads, inputs: Inputs { query, key, value } }
    }

    /// The truth of every head, and the parameters with the output scale that follows from it. Heads run in parallel.
    pub(super) fn prepare(&self) -> Result<Prepared, ProblemError> {
        if self.keys > MAX_KEYS {
            return Err(BackendError::from(AttentionError::TooManyKeys { got: self.keys }).into());
        }
        let heads: Vec<_> = (0..self.heads).into_par_iter().map(|h| self.prepare_head(h)).collect::<Result<_, _>>()?;
        let (parameters, truth): (Vec<_>, Vec<_>) = heads.into_iter().unzip();
        Ok(Prepared { parameters, truth: truth.concat() })
    }

    fn prepare_head(&self, h: usize) -> Result<(Parameters, Vec<f64>), ProblemError> {
        let kv = h / (self.heads / self.kv_heads);
        let scales @ [query, key, value] = [self.scales.query[h], self.scales.key[kv], self.scales.value[kv]];
        // What attention refuses is refused before the truth is computed, which takes its time.
        Parameters::new(self.dim, Scales { query, key, value, out: value })?;
        let (query_len, key_len) = (self.queries * self.dim, self.keys * self.dim);
        let starts = [h * query_len, kv * key_len, kv * key_len];
        let lens = [query_len, key_len, key_len];
        let ranges = [0, 1, 2].map(|i| starts[i]..starts[i] + lens[i]);
        let tensors = match &self.expectation {
            Expectation::Floats(floats) => {
                let floats = [&floats.query, &floats.key, &floats.value];
                [0, 1, 2].map(|i| floats[i][ranges[i].clone()].iter().map(|&x| f64::from(x)).collect())
            }
            Expectation::Dequantised | Expectation::Integers => {
                let integers = [&self.tensors.query, &self.tensors.key, &self.tensors.value];
                let dequantised = |i: usize, x: i8| f64::from(x) * f64::from(scales[i]);
                [0, 1, 2].map(|i| integers[i][ranges[i].clone()].iter().map(|&x| dequantised(i, x)).collect())
            }
        };
        let truth = self.truth(&tensors)?;
        let largest = truth.iter().fold(0.0_f64, |largest, x| largest.max(x.abs()));
        let (out, step) = match self.expectation {
            Expectation::Integers => (1.0, 1.0),
            // The users' own step is not rounded to f32: the largest element is 127 after truncation, too.
            Expectation::Floats(_) => ((largest / 127.0) as f32, largest / 127.0),
            Expectation::Dequantised => {
                let out = calibrated_scale(largest, value);
                (out, f64::from(out))
            }
        };
        let parameters = Parameters::new(self.dim, Scales { query, key, value, out })?;
        Ok((parameters, truth.into_iter().map(|x| x / step).collect()))
    }

    /// Float64 attention of one head.
    fn truth(&self, tensors: &[Vec<f64>; 3]) -> Result<Vec<f64>, ProblemError> {
        let view = |i: usize| {
            ArrayView2::from_shape((tensors[i].len() / self.dim, self.dim), &tensors[i]).expect("whole rows")
        };
        let scale = 1.0 / (self.dim as f64).sqrt();
        let truth = attention_head(view(0), view(1), view(2), scale, &self.mask.as_mask(self.keys))?;
        Ok(truth.into_raw_vec_and_offset().0)
    }
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
    /// Scales that are out of range.
    Parameters(ParameterError),
    /// Tensors that have no truth.
    Truth(TruthError),
    /// Nothing to compare.
    Metrics(MetricsError),
    /// What the backend refused.
    Backend(BackendError),
    /// A fixture that cannot be read.
    Fixture(String),
}

impl fmt::Display for ProblemError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Quantise(error) => error.fmt(f),
            Self::Parameters(error) => error.fmt(f),
            Self::Truth(error) => error.fmt(f),
            Self::Metrics(error) => error.fmt(f),
            Self::Backend(error) => error.fmt(f),
            Self::Fixture(error) => f.write_str(error),
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
from!(
    Quantise(QuantiseError),
    Parameters(ParameterError),
    Truth(TruthError),
    Metrics(MetricsError),
    Backend(BackendError)
);

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
