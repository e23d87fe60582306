//! Attention in libtorch: what float implementations give, and a second opinion on the truth.
//!
//! [`TorchAttention`] holds inputs that are prepared once, [`compute`](TorchAttention::compute) runs nothing but the
//! attention, and its result stays in libtorch until [`TorchOutput::to_array`], so that a caller can time `compute` alone.
//! It runs on the CPU, without gradients, on as many threads as [`set_threads`] says (else one for each core).
//!
//! # Example
//! ```
//! use attn_fixed::Mask;
//! use attn_ref::{Metrics, attention, tolerance, torch::{Method, Precision, TorchAttention}};
//! use ndarray::array;
//!
//! let (query, key) = (array![[[1.0, 0.0], [0.0, 1.0]]], array![[[2.0, 0.0], [0.0, 2.0], [1.0, 1.0]]]);
//! let value = array![[[1.0, -1.0], [-1.0, 1.0], [0.5, 0.25]]];
//! let (scale, mask) = (0.5_f64.sqrt(), Mask::new().causal(1));
//! let torch =
//!     TorchAttention::new(query.view(), key.view(), value.view(), scale, &[mask], Precision::F64)?;
//! let got = torch.compute(Method::Fused)?.to_array()?;
//! let truth = attention(query.view(), key.view(), value.view(), scale, &mask)?;
//! assert_eq!(tolerance::ORACLE.check(&Metrics::of(got, truth)?, None), []);
//! # Ok::<(), Box<dyn core::error::Error>>(())
//! ```
#![allow(clippy::needless_pass_by_value, reason = "a view is a reference: ndarray passes it by value")]

use core::{error::Error, fmt};

use attn_fixed::Mask;
use ndarray::{Array3, ArrayView3, ShapeError};
use tch::{Kind, TchError, Tensor};

use crate::{TruthError, truth};

pub use attn_libtorch::VERSION;

/// How many threads libtorch computes on, at least 1, in the whole process.
pub fn set_threads(threads: u16) {
    tch::set_num_threads(threads.into());
}

/// What libtorch computes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// Double precision, 53 significant bits.
    F64,
    /// Single precision, 24 significant bits.
    F32,
    /// Brain floating point, 8 significant bits: inputs, results and what stands in memory between two operations.
    Bf16,
}

impl Precision {
    const fn kind(self) -> Kind {
        match self {
            Self::F64 => Kind::Double,
            Self::F32 => Kind::Float,
            Self::Bf16 => Kind::BFloat16,
        }
    }

    /// The largest score; those of bf16 are summed up in single precision.
    fn largest(self) -> f64 {
        match self {
            Self::F64 => f64::MAX,
            Self::F32 | Self::Bf16 => f32::MAX.into(),
        }
    }
}

/// The name in reports: `f64`, `f32`, `bf16`.
impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::F64 => "f64",
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        })
    }
}

/// Which of libtorch's functions compute the attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// The definition, one operation after the other: matrix product, scale, mask, softmax, matrix product. Holds all
    /// `heads × m × n` scores.
    Plain,
    /// libtorch's own `scaled_dot_product_attention`, on CPUs a kernel that holds a block of scores at a time.
    Fused,
}

/// The name in reports: `softmax(QKᵀ)V`, `scaled_dot_product_attention`.
impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Plain => "softmax(QKᵀ)V",
            Self::Fused => "scaled_dot_product_attention",
        })
    }
}

/// Why libtorch gave no attention.
#[derive(Debug)]
#[non_exhaustive]
pub enum TorchError {
    /// What [`attention`](crate::attention) refuses too. An overflow is one of the values, in the chosen precision.
    Truth(TruthError),
    /// Scores that may be too large for the precision: the fused kernel would take one of -∞ for a hidden key.
    Range {
        /// A bound of every input of the scores, of the scores, and of the scores before scaling.
        got: f64,
        /// What cannot hold it.
        precision: Precision,
    },
    /// Neither one mask nor one for each query head.
    Masks {
        /// Number of masks.
        got: usize,
        /// Number of query heads.
        heads: usize,
    },
    /// libtorch refused, for example for want of memory.
    Libtorch(TchError),
    /// libtorch's result has another shape than the queries.
    Result(ShapeError),
}

impl From<TruthError> for TorchError {
    fn from(error: TruthError) -> Self {
        Self::Truth(error)
    }
}

impl From<TchError> for TorchError {
    fn from(error: TchError) -> Self {
        Self::Libtorch(error)
    }
}

impl fmt::Display for TorchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truth(error) => error.fmt(f),
            Self::Range { got, precision } => {
                write!(f, "scores: got up to {got:e}, expected at most {:e} in {precision}", precision.largest())
            }
            Self::Masks { got, heads } => {
                write!(f, "masks: got {got}, expected 1 or one for each of the {heads} query heads")
            }
            // What follows the first line are the addresses of C++ functions.
            Self::Libtorch(error) => write!(f, "libtorch: {}", error.to_string().lines().next().unwrap_or_default()),
            Self::Result(error) => write!(f, "libtorch: {error}"),
        }
    }
}

impl Error for TorchError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Truth(error) => Some(error),
            Self::Libtorch(error) => Some(error),
            Self::Result(error) => Some(error),
            Self::Range { .. } | Self::Masks { .. } => None,
        }
    }
}

/// `softmax(scale · Q Kᵀ) V` over heads, prepared in libtorch.
#[derive(Debug)]
pub struct TorchAttention {
    /// `[heads, m, d]`
    query: Tensor,
    /// `[kv_heads, n, d]`
    key: Tensor,
    /// `[kv_heads, n, d]`
    value: Tensor,
    scale: f64,
    /// Which key a query sees, `[heads, m, n]` or, if all heads see the same, `[1, m, n]`; none if every query sees all.
    visible: Option<Tensor>,
}

impl TorchAttention {
    /// Copies the inputs to libtorch, rounded to `precision`.
    ///
    /// - `query`: `[heads, m, d]`; `key`, `value`: `[kv_heads, n, d]`; any strides, every element finite. A batch is more
    ///   heads: `[batch, heads, m, d]` with the two leading dimensions as one.
    /// - `heads` is a multiple of `kv_heads`: head `h` reads key head `h / (heads / kv_heads)` (grouped heads).
    /// - `scale` multiplies the scores, in nats: usually `1 / √d`. Any finite number.
    /// - `masks`: one for all heads, or one for each query head. A query without a visible key has a row of zeros.
    ///
    /// # Errors
    /// [`TorchError::Truth`] for what [`attention`](crate::attention) refuses; [`TorchError::Range`] for scores that
    /// `precision` may not hold; [`TorchError::Masks`] for another number of masks; [`TorchError::Libtorch`] where memory
    /// does not suffice.
    pub fn new(
        query: ArrayView3<'_, f64>,
        key: ArrayView3<'_, f64>,
        value: ArrayView3<'_, f64>,
        scale: f64,
        masks: &[Mask<'_>],
        precision: Precision,
    ) -> Result<Self, TorchError> {
        truth::check(query, key, value, scale, masks)?;
        let (heads, m, d) = query.dim();
        let largest = |array: ArrayView3<'_, f64>| array.fold(0.0, |largest: f64, x| largest.max(x.abs()));
        let (largest_query, largest_key) = (largest(query), largest(key));
        let scores = largest_query * largest_key * d as f64 * scale.abs().max(1.0);
        let got = scores.max(largest_query).max(largest_key);
        if got > precision.largest() {
            return Err(TorchError::Range { got, precision });
        }
        if masks.len() != 1 && masks.len() != heads {
            return Err(TorchError::Masks { got: masks.len(), heads });
        }
        Ok(Self {
            query: tensor(query, precision)?,
            key: tensor(key, precision)?,
            value: tensor(value, precision)?,
            scale,
            visible: visible(masks, m, key.dim().1)?,
        })
    }

    /// The attention, computed by `method` and left in libtorch.
    ///
    /// # Errors
    /// [`TorchError::Libtorch`] where memory does not suffice.
    pub fn compute(&self, method: Method) -> Result<TorchOutput, TorchError> {
        let out = tch::no_grad(|| match method {
            Method::Plain => self.plain(),
            Method::Fused => self.fused(),
        })?;
        Ok(TorchOutput(out))
    }

    fn plain(&self) -> Result<Tensor, TchError> {
        let (heads, m, d) = self.query.size3()?;
        let (kv_heads, n, _) = self.key.size3()?;
        // The queries of a group, one below the other, meet their key head in one product.
        let query = self.query.f_reshape([kv_heads, -1, d])?;
        let scores = query.f_matmul(&self.key.f_transpose(1, 2)?)?.f_mul_scalar(self.scale)?;
        let mut weights = scores.f_reshape([heads, m, n])?;
        if let Some(visible) = &self.visible {
            weights = weights.f_where_scalarother(visible, f64::NEG_INFINITY)?;
        }
        weights = weights.f_softmax(-1, None)?;
        if let Some(visible) = &self.visible {
            // Where nothing is visible the softmax is 0 / 0.
            weights = weights.f_where_scalarother(visible, 0.0)?;
        }
        weights.f_reshape([kv_heads, -1, n])?.f_matmul(&self.value)?.f_reshape([heads, m, d])
    }

    fn fused(&self) -> Result<Tensor, TchError> {
        // The kernel that is fast on CPUs takes [batch, heads, rows, dim] only.
        let batch = |tensor: &Tensor| tensor.f_unsqueeze(0);
        let visible = self.visible.as_ref().map(batch).transpose()?;
        let grouped = self.query.size3()?.0 != self.key.size3()?.0;
        Tensor::f_scaled_dot_product_attention(
            &batch(&self.query)?,
            &batch(&self.key)?,
            &batch(&self.value)?,
            visible,
            0.0,
            false,
            self.scale,
            grouped,
        )?
        .f_squeeze_dim(0)
    }
}

/// What [`TorchAttention::compute`] gave, in libtorch.
#[derive(Debug)]
pub struct TorchOutput(Tensor);

impl TorchOutput {
    /// The output, `[heads, m, d]`, every element finite.
    ///
    /// # Errors
    /// [`TruthError::Overflow`] where values are too large for the precision; [`TorchError::Libtorch`] where
    /// memory does not suffice.
    pub fn to_array(&self) -> Result<Array3<f64>, TorchError> {
        let (heads, m, d) = self.0.size3()?;
        let values = Vec::<f64>::try_from(self.0.f_reshape([-1])?)?;
        let shape = [heads, m, d].map(|length| length as usize);
        let out = Array3::from_shape_vec(shape, values).map_err(TorchError::Result)?;
        Ok(truth::finite(out)?)
    }
}

/// A copy in libtorch, of the same shape.
fn tensor(array: ArrayView3<'_, f64>, precision: Precision) -> Result<Tensor, TchError> {
    let values: Vec<f64> = array.iter().copied().collect();
    let shape: [usize; 3] = array.dim().into();
    Tensor::f_from_slice(&values)?.f_to_kind(precision.kind())?.f_reshape(shape.map(|length| length as i64))
}

/// Which of `n` keys each of `m` queries sees, `[masks, m, n]`; none if every query sees all.
fn visible(masks: &[Mask<'_>], m: usize, n: usize) -> Result<Option<Tensor>, TchError> {
    let pairs =
        || masks.iter().flat_map(|mask| (0..m).flat_map(move |row| (0..n).map(move |key| mask.visible(row, key))));
    if pairs().all(|visible| visible) {
        return Ok(None);
    }
    let visible: Vec<bool> = pairs().collect();
    Tensor::f_from_slice(&visible)?.f_reshape([masks.len(), m, n].map(|length| length as i64)).map(Some)
}
