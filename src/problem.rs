//! An attention problem in int8: what a file or a test case becomes before a backend computes it.
//!
//! The way of a file through it: [`npz::read`] → [`Problem::from_file`] (floats are quantised per head) →
//! [`Problem::out_scales`] → [`Problem::parameters`] → [`Problem::attend`].

use std::{error::Error, fmt, ops::Range, str::FromStr};

use attn_fixed::{
    AttentionError, Heads, Inputs, MAX_KEYS, Mask, ParameterError, Parameters, QuantiseError, Scales, quantise_heads,
    scale::{MAX_GAIN, MIN_GAIN},
};
use attn_ref::{TruthError, attention_head};
use ndarray::{Array2, Array3, Axis, Slice};
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

/// One key head in float64 and the query heads that read it, for what integers are compared with.
#[derive(Clone, Debug)]
pub(crate) struct FloatGroup<'a> {
    /// The query heads.
    pub(crate) heads: Range<usize>,
    /// `[heads, queries, dim]`
    pub(crate) query: Array3<f64>,
    /// `[keys, dim]`
    pub(crate) key: Array2<f64>,
    /// `[keys, dim]`
    pub(crate) value: Array2<f64>,
    /// Which keys are visible in each head.
    pub(crate) masks: Vec<Mask<'a>>,
}

impl FloatGroup<'_> {
    /// Factor of the scores, `1 / √dim`.
    #[must_use]
    pub(crate) fn scale(&self) -> f64 {
        1.0 / (self.key.ncols() as f64).sqrt()
    }

    /// Float64 attention of each head, `[queries, dim]`, computed in parallel.
    ///
    /// # Errors
    /// As [`attention_head`].
    pub(crate) fn truth(&self, progress: Progress<'_>) -> Result<Vec<Vec<f64>>, TruthError> {
        const QUERIES: usize = 64;
        let (_, queries, _) = self.query.dim();
        let heads = self.masks.par_iter().enumerate().map(|(head, mask)| {
            let query = self.query.index_axis(Axis(0), head);
            let blocks = (0..queries.div_ceil(QUERIES)).into_par_iter().map(|block| {
                let rows = block * QUERIES..queries.min((block + 1) * QUERIES);
                let query = query.slice_axis(Axis(0), Slice::from(rows.clone()));
                let mask = mask.rows(rows.clone());
                let truth = attention_head(query, self.key.view(), self.value.view(), self.scale(), &mask)?;
                progress(rows.len());
                Ok(truth.into_raw_vec_and_offset().0)
            });
            Ok(blocks.collect::<Result<Vec<_>, TruthError>>()?.concat())
        });
        heads.collect()
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
    type Err = OutScaleError;

    fn from_str(text: &str) -> Result<Self, OutScaleError> {
        match text {
            "calibrated" => Ok(Self::Calibrated),
            "v" => Ok(Self::Value),
            _ => match text.parse() {
                Ok(scale) if scale > 0.0 && f32::is_finite(scale) => Ok(Self::Fixed(scale)),
                _ => Err(OutScaleError { got: text.to_owned() }),
            },
        }
    }
}

/// What is no [`OutScale`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutScaleError {
    /// The text given.
    pub got: String,
}

impl fmt::Display for OutScaleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "got {}, expected calibrated, v, or a positive number in the range of float32", self.got)
    }
}

impl Error for OutScaleError {}

/// Above so many elements of keys, key heads become float64 one after the other; below, some at a time, for speed.
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
    pub(crate) fn parameters_of(&self, head: usize, out: f32) -> Result<Parameters, ProblemError> {
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
            OutScale::Fixed(scale) => {
                for (head, value) in self.value_scales().into_iter().enumerate() {
                    let gain = f64::from(value) / f64::from(scale);
                    if !(MIN_GAIN..=MAX_GAIN).contains(&gain) {
                        let expected = [MAX_GAIN, MIN_GAIN].map(|gain| f64::from(value) / gain);
                        return Err(ProblemError::OutScale { head, got: scale, expected });
                    }
                }
                Ok(vec![scale; self.heads])
            }
            OutScale::Calibrated => {
                let groups = self.for_groups(|kv| {
                    let truth = self.dequantised(kv).truth(progress)?;
                    let scale = |truth: &Vec<f64>| calibrated_scale(largest_magnitude(truth), self.scales.value[kv]);
                    Ok(truth.iter().map(scale).collect::<Vec<_>>())
                })?;
                Ok(groups.concat())
            }
        }
    }

    /// Calls `of` for every key head, for several at a time where that does not take too much memory.
    ///
    /// # Errors
    /// The first one of `of`.
    pub(crate) fn for_groups<T: Send>(
        &self,
        of: impl Fn(usize) -> Result<T, ProblemError> + Sync + Send,
    ) -> Result<Vec<T>, ProblemError> {
        if self.keys.saturating_mul(self.dim) > LARGE_HEAD {
            (0..self.kv_heads).map(of).collect()
        } else {
            (0..self.kv_heads).into_par_iter().map(of).collect()
        }
    }

    /// Whether a backend takes it, before anything long is computed.
    ///
    /// # Errors
    /// As [`Limits::check`](crate::backend::Limits::check).
    pub fn check_limits(&self, backend: &dyn Backend) -> Result<(), ProblemError> {
        Ok(backend.limits().check(self.dim, self.keys, &self.head_masks())?)
    }

    fn head_masks(&self) -> Vec<Mask<'_>> {
        (0..self.heads).map(|head| self.masks.head(head)).collect()
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
        let masks = self.head_masks();
        let Qkv { query, key, value } = &self.tensors;
        let inputs = Inputs { query, key, value };
        let mut out = vec![0; query.len()];
        backend.attend(Heads { parameters, masks: &masks, kv_heads: self.kv_heads, inputs }, &mut out, progress)?;
        Ok(out)
    }

    /// A key head of the dequantised integers, with its query heads.
    #[must_use]
    pub(crate) fn dequantised(&self, kv_head: usize) -> FloatGroup<'_> {
        let integers = [&self.tensors.query, &self.tensors.key, &self.tensors.value];
        let scales = [&self.scales.query, &self.scales.key, &self.scales.value];
        self.float_group(kv_head, |tensor, head, range| {
            let scale = f64::from(scales[tensor][head]);
            integers[tensor][range].iter().map(|&x| f64::from(x) * scale).collect()
        })
    }

    /// The same of other floats in the shapes of this problem.
    #[must_use]
    pub(crate) fn group_of(&self, floats: &Qkv<Vec<f32>>, kv_head: usize) -> FloatGroup<'_> {
        let floats = [&floats.query, &floats.key, &floats.value];
        self.float_group(kv_head, |tensor, _, range| floats[tensor][range].iter().map(|&x| f64::from(x)).collect())
    }

    /// `values` gives a head of a tensor: query, key and value are 0, 1 and 2.
    fn float_group(&self, kv_head: usize, values: impl Fn(usize, usize, Range<usize>) -> Vec<f64>) -> FloatGroup<'_> {
        let group = self.heads / self.kv_heads;
        let heads = kv_head * group..(kv_head + 1) * group;
        let head = |tensor, head: usize, rows: usize| {
            let len = rows * self.dim;
            values(tensor, head, head * len..(head + 1) * len)
        };
        let query: Vec<f64> = heads.clone().flat_map(|h| head(0, h, self.queries)).collect();
        let keys = |tensor| {
            let values = head(tensor, kv_head, self.keys);
            Array2::from_shape_vec([self.keys, self.dim], values).expect("a whole head")
        };
        FloatGroup {
            query: Array3::from_shape_vec([group, self.queries, self.dim], query).expect("whole heads"),
            key: keys(1),
            value: keys(2),
            masks: heads.clone().map(|head| self.masks.head(head)).collect(),
            heads,
        }
    }

    fn kv_head(&self, head: usize) -> usize {
        head / (self.heads / self.kv_heads)
    }

    /// The scale of the values of every query head.
    #[must_use]
    pub(crate) fn value_scales(&self) -> Vec<f32> {
        (0..self.heads).map(|head| self.scales.value[self.kv_head(head)]).collect()
    }
}

/// The largest magnitude, 0 of nothing.
#[must_use]
pub(crate) fn largest_magnitude(values: &[f64]) -> f64 {
    values.iter().fold(0.0, |largest, x| largest.max(x.abs()))
}

/// The output scale with which the largest magnitude of the truth becomes 127.
///
/// Where next to nothing is left of the values, because they cancel or no key is visible, it is the smallest scale that
/// attention takes with values of scale `value`; where that is subnormal, or as large as can be, the next one that it takes.
#[must_use]
pub fn calibrated_scale(largest: f64, value: f32) -> f32 {
    let value = f64::from(value);
    // Rounding must not carry the quotient above MAX_GAIN.
    let smallest = (value / MAX_GAIN * (1.0 + 1e-6)).max(f32::MIN_POSITIVE.into());
    (largest / 127.0).max(smallest).min(value / MIN_GAIN).min(f32::MAX.into()) as f32
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
    /// An output scale that does not go with the scale of the values.
    OutScale {
        /// The first query head where it does not.
        head: usize,
        /// The output scale.
        got: f32,
        /// The smallest and the largest one.
        expected: [f64; 2],
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
            Self::OutScale { head, got, expected: [smallest, largest] } => {
                write!(f, "head {head}: output scale: got {got:e}, expected {smallest:e} to {largest:e}")
            }
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
    use std::sync::atomic::{AtomicUsize, Ordering};

    use attn_fixed::quantise;
    use attn_ref::{Metrics, tolerance};

    use super::*;
    use crate::mask::BooleanMask;

    fn floats(elements: usize, step: usize) -> Vec<f32> {
        (0..elements).map(|i| (step * i % 29) as f32 / 7.0 - 2.0).collect()
    }

    #[test]
    fn floats_of_a_file_are_quantised_head_by_head() {
        let mut tensors = Qkv { query: floats(4 * 3 * 8, 3), key: floats(2 * 5 * 8, 5), value: floats(2 * 5 * 8, 7) };
        for tensor in [&mut tensors.query, &mut tensors.key, &mut tensors.value] {
            tensor[40..].iter_mut().for_each(|x| *x *= 3.0);
        }
        let mask = BooleanMask::broadcast(vec![true, false, true, true, true], &[5], &[4], [3, 5]);
        let problem = Problem::from_file(npz::Inputs {
            heads: 4,
            kv_heads: 2,
            queries: 3,
            keys: 5,
            dim: 8,
            query_shape: vec![4, 3, 8],
            mask: mask.clone(),
            values: Values::Float(tensors.clone()),
        });
        let Problem { heads, kv_heads, queries, keys, dim, tensors: integers, scales, masks } =
            problem.expect("finite");
        assert_eq!((heads, kv_heads, queries, keys, dim), (4, 2, 3, 5, 8));
        assert_eq!(masks, HeadMasks { allowed: mask, ..HeadMasks::default() });
        for (floats, integers, scales, len) in [
            (&tensors.query, &integers.query, &scales.query, 24),
            (&tensors.key, &integers.key, &scales.key, 40),
            (&tensors.value, &integers.value, &scales.value, 40),
        ] {
            assert_eq!((integers.len(), scales.len()), (floats.len(), floats.len() / len));
            for (head, floats) in floats.chunks_exact(len).enumerate() {
                let mut expected = vec![0; len];
                let scale = quantise(floats, &mut expected).expect("finite");
                assert_eq!((&integers[head * len..][..len], scales[head]), (&expected[..], scale), "head {head}");
            }
        }
    }

    #[test]
    fn more_keys_than_attention_takes_are_refused_before_the_work() {
        let problem = |keys| Problem {
            heads: 1,
            kv_heads: 1,
            queries: 1,
            keys,
            dim: 8,
            tensors: Qkv { query: vec![], key: vec![], value: vec![] },
            scales: Qkv { query: vec![1.0], key: vec![1.0], value: vec![1.0] },
            masks: HeadMasks::default(),
        };
        assert_eq!(problem(MAX_KEYS).check(), Ok(()));
        let expected = AttentionError::TooManyKeys { got: MAX_KEYS + 1 };
        assert_eq!(problem(MAX_KEYS + 1).check(), Err(BackendError::from(expected).into()));
    }

    /// Several blocks of queries, the last one not full; two heads of one key head, each with a mask.
    #[test]
    fn the_truth_of_a_group_is_that_of_its_heads_and_blocks() {
        let tensor = |rows: usize, step| -> Vec<f64> { floats(rows * 8, step).into_iter().map(f64::from).collect() };
        let keys = |step| Array2::from_shape_vec([170, 8], tensor(170, step)).expect("whole rows");
        let group = FloatGroup {
            heads: 0..2,
            query: Array3::from_shape_vec([2, 150, 8], tensor(300, 3)).expect("whole heads"),
            key: keys(5),
            value: keys(7),
            masks: vec![Mask::new().causal(10), Mask::new().valid_keys(77)],
        };
        let done = AtomicUsize::new(0);
        let truth = group.truth(&|queries| _ = done.fetch_add(queries, Ordering::Relaxed)).expect("finite");
        assert_eq!((truth.len(), done.into_inner()), (2, 300));
        for ((truth, query), mask) in truth.iter().zip(group.query.outer_iter()).zip(&group.masks) {
            let expected = attention_head(query, group.key.view(), group.value.view(), group.scale(), mask);
            let metrics = Metrics::of(truth.iter().copied(), expected.expect("finite")).expect("of one length");
            assert_eq!(tolerance::ORACLE.check(&metrics, None), []);
        }
    }

    /// Values that cancel leave 1e-17 in float64, hidden keys leave 0: attention takes the scale all the same.
    #[test]
    fn every_calibrated_scale_is_one_that_attention_takes() {
        for share in [0.0, 1e-300, 1e-17, 1e-6, 1.0, 128.0] {
            for value in [1.0, 0.01, 3e-7, 1e30, f32::MAX, f32::MIN_POSITIVE, f32::from_bits(1)] {
                let out = calibrated_scale(share * f64::from(value), value);
                let scales = Scales { query: 1.0, key: 1.0, value, out };
                assert!(Parameters::new(64, scales).is_ok(), "{share} of {value}: {out}");
            }
        }
    }
}
