//! Attention in double precision.
#![allow(clippy::needless_pass_by_value, reason = "a view is a reference: ndarray passes it by value")]

use core::{error::Error, fmt, slice};

use attn_fixed::{Mask, MaskError, Tensor};
use ndarray::{Array2, Array3, ArrayView2, ArrayView3, ArrayViewMut1, Axis, Slice};

/// At most this many queries are scored at a time: enough rows for the matrix product to run at full speed.
const QUERY_ROWS: usize = 64;

/// At most this many scores (32 MB) are held at a time, however many keys there are.
const MAX_SCORES: usize = 1 << 22;

/// Why attention was not computed.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum TruthError {
    /// A tensor with a zero in its shape.
    Empty {
        /// The tensor.
        tensor: Tensor,
        /// Its shape, `[heads, rows, dim]`.
        got: [usize; 3],
    },
    /// A tensor whose shape does not agree with the others: keys have the head dimension of the queries, values have
    /// the shape of the keys.
    Shape {
        /// The tensor.
        tensor: Tensor,
        /// Its shape, `[heads, rows, dim]`.
        got: [usize; 3],
        /// The shape that fits.
        expected: [usize; 3],
    },
    /// The query heads do not divide into groups, one for each key head.
    Heads {
        /// Query heads.
        got: usize,
        /// Key heads, of which the query heads must be a multiple.
        kv_heads: usize,
    },
    /// The scale of the scores is NaN or infinite.
    Scale {
        /// The scale.
        got: f64,
    },
    /// NaN or infinity in an input.
    NotFinite {
        /// The tensor.
        tensor: Tensor,
        /// Head, row and column of the first such element.
        index: [usize; 3],
        /// The element.
        got: f64,
    },
    /// The inputs are finite but so large that their products are not.
    Overflow {
        /// Head, row and column of the first output element without a finite value.
        index: [usize; 3],
    },
    /// The mask does not fit.
    Mask(MaskError),
}

impl From<MaskError> for TruthError {
    fn from(error: MaskError) -> Self {
        Self::Mask(error)
    }
}

impl fmt::Display for TruthError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Empty { tensor, got } => {
                write!(f, "{tensor}: got shape {got:?}, expected no zero in it")
            }
            Self::Shape { tensor, got, expected } => write!(f, "{tensor}: got shape {got:?}, expected {expected:?}"),
            Self::Heads { got, kv_heads } => {
                write!(f, "query heads: got {got}, expected a multiple of the {kv_heads} key heads")
            }
            Self::Scale { got } => write!(f, "score scale: got {got}, expected a finite number"),
            Self::NotFinite { tensor, index, got } => {
                write!(f, "{tensor}: got {got} at {index:?}, expected finite numbers")
            }
            Self::Overflow { index } => {
                write!(f, "output: got no finite value at {index:?}, expected inputs whose products are finite")
            }
            Self::Mask(error) => error.fmt(f),
        }
    }
}

impl Error for TruthError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Mask(error) => Some(error),
            _ => None,
        }
    }
}

/// `softmax(scale · Q Kᵀ) V` over heads, in double precision.
///
/// - `query`: `[heads, m, d]`; `key`, `value`: `[kv_heads, n, d]`; any strides, every element finite.
/// - `heads` is a multiple of `kv_heads`: head `h` reads key head `h / (heads / kv_heads)` (grouped heads).
/// - `scale` multiplies the scores, in nats: usually `1 / √d`. Any finite number.
/// - `mask` holds for every head. The maximum that is subtracted before the exponential is over visible keys only; a
///   query without a visible key has a row of zeros.
///
/// Returns `[heads, m, d]`. The scores are held for a few queries at a time, never `m × n` of them.
///
/// # Errors
/// A shape with a zero or that does not fit, heads that do not divide, NaN or infinity in an input or the scale,
/// products that overflow, a mask of another shape.
pub fn attention(
    query: ArrayView3<'_, f64>,
    key: ArrayView3<'_, f64>,
    value: ArrayView3<'_, f64>,
    scale: f64,
    mask: &Mask<'_>,
) -> Result<Array3<f64>, TruthError> {
    check(query, key, value, scale, slice::from_ref(mask))?;
    let group = query.len_of(Axis(0)) / key.len_of(Axis(0));
    let mut out = Array3::zeros(query.raw_dim());
    for (head, mut out) in out.outer_iter_mut().enumerate() {
        let kv_head = head / group;
        out.assign(&softmax_average(
            query.index_axis(Axis(0), head),
            key.index_axis(Axis(0), kv_head),
            value.index_axis(Axis(0), kv_head),
            scale,
            mask,
        ));
    }
    finite(out)
}

/// [`attention`] of one head: `query` is `[m, d]`, `key` and `value` are `[n, d]`, the result is `[m, d]`.
///
/// For callers that share heads among threads. Shapes and indices in errors have a leading head, 1 and 0.
///
/// # Errors
/// As [`attention`].
pub fn attention_head(
    query: ArrayView2<'_, f64>,
    key: ArrayView2<'_, f64>,
    value: ArrayView2<'_, f64>,
    scale: f64,
    mask: &Mask<'_>,
) -> Result<Array2<f64>, TruthError> {
    let out = attention(query.insert_axis(Axis(0)), key.insert_axis(Axis(0)), value.insert_axis(Axis(0)), scale, mask)?;
    Ok(out.remove_axis(Axis(0)))
}

/// Everything that can be wrong before computing; every one of `masks` has to fit.
pub(crate) fn check(
    query: ArrayView3<'_, f64>,
    key: ArrayView3<'_, f64>,
    value: ArrayView3<'_, f64>,
    scale: f64,
    masks: &[Mask<'_>],
) -> Result<(), TruthError> {
    let tensors = [(Tensor::Query, query), (Tensor::Key, key), (Tensor::Value, value)];
    for (tensor, array) in tensors {
        if array.is_empty() {
            let got = array.dim().into();
            return Err(TruthError::Empty { tensor, got });
        }
    }
    let (heads, queries, dim) = query.dim();
    let (kv_heads, keys, _) = key.dim();
    let expected = [kv_heads, keys, dim];
    for (tensor, array) in [(Tensor::Key, key), (Tensor::Value, value)] {
        let got = array.dim().into();
        if got != expected {
            return Err(TruthError::Shape { tensor, got, expected });
        }
    }
    if heads % kv_heads != 0 {
        let got = heads;
        return Err(TruthError::Heads { got, kv_heads });
    }
    if !scale.is_finite() {
        return Err(TruthError::Scale { got: scale });
    }
    for (tensor, array) in tensors {
        if let Some((index, &got)) = array.indexed_iter().find(|(_, x)| !x.is_finite()) {
            let index = index.into();
            return Err(TruthError::NotFinite { tensor, index, got });
        }
    }
    Ok(masks.iter().try_for_each(|mask| mask.check(queries, keys))?)
}

/// The output, if every element is finite.
pub(crate) fn finite(out: Array3<f64>) -> Result<Array3<f64>, TruthError> {
    let overflow = out.indexed_iter().find(|(_, x)| !x.is_finite());
    match overflow.map(|(index, _)| index.into()) {
        Some(index) => Err(TruthError::Overflow { index }),
        None => Ok(out),
    }
}

/// One head, `[m, d]`, a block of queries at a time. Where products overflow, the output is not finite.
fn softmax_average(
    query: ArrayView2<'_, f64>,
    key: ArrayView2<'_, f64>,
    value: ArrayView2<'_, f64>,
    scale: f64,
    mask: &Mask<'_>,
) -> Array2<f64> {
    let mut out = Array2::zeros(query.raw_dim());
    let rows = block_rows(key.nrows());
    for first in (0..query.nrows()).step_by(rows) {
        let block = first..query.nrows().min(first + rows);
        let mut weights = query.slice_axis(Axis(0), Slice::from(block.clone())).dot(&key.t());
        weights *= scale;
        for (row, scores) in block.clone().zip(weights.rows_mut()) {
            softmax(scores, |key| mask.visible(row, key));
        }
        out.slice_axis_mut(Axis(0), Slice::from(block)).assign(&weights.dot(&value));
    }
    out
}

/// How many queries are scored at a time against `keys` keys, at least 1.
fn block_rows(keys: usize) -> usize {
    (MAX_SCORES / keys).clamp(1, QUERY_ROWS)
}

/// Replaces the scores of one query by its weights: 0 for a hidden key, a sum of 1 for the others. A score of +∞ or NaN,
/// or -∞ for all visible keys, leaves NaN.
fn softmax(mut scores: ArrayViewMut1<'_, f64>, visible: impl Fn(usize) -> bool) {
    let mut maximum = None;
    for (key, score) in scores.indexed_iter_mut() {
        if visible(key) {
            maximum = Some(maximum.unwrap_or(f64::NEG_INFINITY).max(*score));
        } else {
            *score = f64::NEG_INFINITY;
        }
    }
    let Some(maximum) = maximum else {
        scores.fill(0.0);
        return;
    };
    scores.mapv_inplace(|score| (score - maximum).exp());
    scores /= scores.sum();
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::{array, concatenate};

    /// Deterministic values in [-2, 2), other ones for every seed.
    fn values(shape: [usize; 3], seed: u64) -> Array3<f64> {
        let mut state = seed;
        Array3::from_shape_simple_fn(shape, || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 32) as f64 / f64::from(1 << 30) - 2.0
        })
    }

    fn assert_close(got: &Array3<f64>, expected: &Array3<f64>) {
        assert_eq!(got.dim(), expected.dim());
        let metrics = crate::Metrics::of(got.iter().copied(), expected.iter().copied()).unwrap();
        assert_eq!(crate::tolerance::ORACLE.check(&metrics, None), []);
    }

    /// The definition, element by element.
    fn triple_loop([query, key, value]: [&Array3<f64>; 3], scale: f64, mask: &Mask<'_>) -> Array3<f64> {
        let group = query.dim().0 / key.dim().0;
        Array3::from_shape_fn(query.dim(), |(head, row, column)| {
            let (mut total, mut sum) = (0.0, 0.0);
            for j in (0..key.dim().1).filter(|&j| mask.visible(row, j)) {
                let score: f64 = (0..key.dim().2).map(|c| query[[head, row, c]] * key[[head / group, j, c]]).sum();
                let weight = (score * scale).exp();
                total += weight * value[[head / group, j, column]];
                sum += weight;
            }
            if sum > 0.0 { total / sum } else { 0.0 }
        })
    }

    #[test]
    fn agrees_with_the_triple_loop_whatever_the_blocks() {
        for (heads, kv_heads, m, n, d) in [(1, 1, 1, 1, 1), (2, 2, 64, 3, 8), (6, 2, 129, 70, 5), (4, 1, 65, 33, 16)] {
            let query = values([heads, m, d], 1);
            let (key, value) = (values([kv_heads, n, d], 2), values([kv_heads, n, d], 3));
            let allowed: Vec<bool> = (0..m * n).map(|i| i % 5 != 2 && i / n != m / 2).collect();
            for mask in [
                Mask::new(),
                Mask::new().valid_keys(n / 2),
                Mask::new().causal(0),
                Mask::new().causal(n / 3).allowed(&allowed, n),
            ] {
                let got = attention(query.view(), key.view(), value.view(), 0.3, &mask).unwrap();
                assert_close(&got, &triple_loop([&query, &key, &value], 0.3, &mask));
            }
        }
    }

    #[test]
    fn scores_are_held_for_a_few_queries_at_a_time() {
        assert_eq!([1, 1500, 1 << 16, 1 << 20, 1 << 23].map(block_rows), [64, 64, 64, 4, 1]);
        // Fewer queries at a time than there are.
        let (n, m) = (1 << 17, 40);
        assert_eq!(block_rows(n), 32);
        let (query, key) = (values([1, m, 2], 4), values([1, n, 2], 5));
        let value = values([1, n, 2], 6);
        let got = attention(query.view(), key.view(), value.view(), 1.0, &Mask::new()).unwrap();
        assert_close(&got, &triple_loop([&query, &key, &value], 1.0, &Mask::new()));
    }

    #[test]
    fn visible_keys_are_keys_cut_off() {
        let (query, key, value) = (values([2, 9, 8], 7), values([2, 20, 8], 8), values([2, 20, 8], 9));
        for visible in 1..=20 {
            let mask = Mask::new().valid_keys(visible);
            let got = attention(query.view(), key.view(), value.view(), 0.35, &mask).unwrap();
            let cut = Slice::from(..visible);
            let (key_cut, value_cut) = (key.slice_axis(Axis(1), cut), value.slice_axis(Axis(1), cut));
            let expected = attention(query.view(), key_cut, value_cut, 0.35, &Mask::new());
            assert_close(&got, &expected.unwrap());
        }
    }

    #[test]
    fn strides_do_not_matter() {
        let (query, key, value) = (values([3, 7, 4], 10), values([3, 6, 4], 11), values([3, 6, 4], 12));
        let expected = attention(query.view(), key.view(), value.view(), 0.5, &Mask::new()).unwrap();
        // [rows, heads, dim] in memory, as projections give it.
        let by_row = |x: &Array3<f64>| x.view().permuted_axes([1, 0, 2]).as_standard_layout().into_owned();
        let (q, k, v) = (by_row(&query), by_row(&key), by_row(&value));
        let heads_first = [1, 0, 2];
        let got = attention(
            q.view().permuted_axes(heads_first),
            k.view().permuted_axes(heads_first),
            v.view().permuted_axes(heads_first),
            0.5,
            &Mask::new(),
        );
        assert_close(&got.unwrap(), &expected);
    }

    #[test]
    fn one_head_is_one_head_of_all() {
        let (query, key, value) = (values([4, 5, 8], 13), values([2, 6, 8], 14), values([2, 6, 8], 15));
        let all = attention(query.view(), key.view(), value.view(), 0.35, &Mask::new()).unwrap();
        let heads: Vec<Array3<f64>> = (0..4)
            .map(|head| {
                let at = |x: &Array3<f64>, head| x.index_axis(Axis(0), head).to_owned();
                let (q, k, v) = (at(&query, head), at(&key, head / 2), at(&value, head / 2));
                let out = attention_head(q.view(), k.view(), v.view(), 0.35, &Mask::new()).unwrap();
                out.insert_axis(Axis(0))
            })
            .collect();
        let views: Vec<_> = heads.iter().map(|head| head.view()).collect();
        assert_eq!(concatenate(Axis(0), &views).unwrap(), all);
    }

    #[test]
    fn a_hidden_key_neither_weighs_nor_sets_the_maximum() {
        // The hidden key's score is 1e6 nats above, the visible ones are 1e6 below zero: equal weights.
        let (query, key) = (array![[1000.0]], array![[1000.0], [-1000.0], [-1000.0]]);
        let value = array![[9.0], [1.0], [2.0]];
        let allowed = [false, true, true];
        let got = attention_head(query.view(), key.view(), value.view(), 1.0, &Mask::new().allowed(&allowed, 3));
        assert_eq!(got, Ok(array![[1.5]]));
    }

    #[test]
    fn a_row_without_visible_keys_is_zeros() {
        let ones = array![[1.0, 2.0], [3.0, 4.0]];
        let allowed = [false, false, true, false];
        let mask = Mask::new().allowed(&allowed, 2);
        let got = attention_head(ones.view(), ones.view(), ones.view(), 1.0, &mask);
        assert_eq!(got, Ok(array![[0.0, 0.0], [1.0, 2.0]]));
        let got = attention_head(ones.view(), ones.view(), ones.view(), 1.0, &Mask::new().valid_keys(0));
        assert_eq!(got, Ok(Array2::zeros((2, 2))));
    }

    #[test]
    fn wrong_inputs_are_named() {
        let run = |query: &Array3<f64>, key: &Array3<f64>, value: &Array3<f64>, scale: f64, mask: &Mask<'_>| {
            attention(query.view(), key.view(), value.view(), scale, mask).unwrap_err()
        };
        let ones = |shape| Array3::<f64>::ones(shape);
        let (q, k) = (ones([4, 3, 8]), ones([2, 5, 8]));
        let all = Mask::new();

        let error = run(&ones([4, 0, 8]), &k, &k, 1.0, &all);
        assert_eq!(error, TruthError::Empty { tensor: Tensor::Query, got: [4, 0, 8] });
        assert_eq!(error.to_string(), "query: got shape [4, 0, 8], expected no zero in it");
        let error = run(&q, &ones([0, 5, 8]), &k, 1.0, &all);
        assert_eq!(error, TruthError::Empty { tensor: Tensor::Key, got: [0, 5, 8] });
        let error = run(&q, &k, &ones([2, 5, 0]), 1.0, &all);
        assert_eq!(error, TruthError::Empty { tensor: Tensor::Value, got: [2, 5, 0] });

        let error = run(&q, &ones([2, 5, 7]), &k, 1.0, &all);
        let expected = [2, 5, 8];
        assert_eq!(error, TruthError::Shape { tensor: Tensor::Key, got: [2, 5, 7], expected });
        assert_eq!(error.to_string(), "key: got shape [2, 5, 7], expected [2, 5, 8]");
        for got in [[2, 4, 8], [1, 5, 8], [2, 5, 9]] {
            let error = run(&q, &k, &ones(got), 1.0, &all);
            assert_eq!(error, TruthError::Shape { tensor: Tensor::Value, got, expected });
        }

        let three = ones([3, 5, 8]);
        let error = run(&q, &three, &three, 1.0, &all);
        assert_eq!(error, TruthError::Heads { got: 4, kv_heads: 3 });
        assert_eq!(error.to_string(), "query heads: got 4, expected a multiple of the 3 key heads");
        assert!(matches!(run(&k, &ones([4, 5, 8]), &ones([4, 5, 8]), 1.0, &all), TruthError::Heads { .. }));

        for got in [f64::INFINITY, f64::NEG_INFINITY] {
            assert_eq!(run(&q, &k, &k, got, &all), TruthError::Scale { got });
        }
        let error = run(&q, &k, &k, f64::NAN, &all);
        assert_eq!(error.to_string(), "score scale: got NaN, expected a finite number");

        let mut bad = k.clone();
        bad[[1, 4, 2]] = f64::INFINITY;
        let (index, got) = ([1, 4, 2], f64::INFINITY);
        assert_eq!(run(&q, &bad, &k, 1.0, &all), TruthError::NotFinite { tensor: Tensor::Key, index, got });
        // An element that no query sees is an error all the same.
        let error = run(&q, &k, &bad, 1.0, &Mask::new().valid_keys(2));
        assert_eq!(error, TruthError::NotFinite { tensor: Tensor::Value, index, got });
        let mut bad = q.clone();
        bad[[3, 0, 7]] = f64::NAN;
        let error = run(&bad, &k, &k, 1.0, &all);
        assert_eq!(error.to_string(), "query: got NaN at [3, 0, 7], expected finite numbers");

        let error = run(&q, &k, &k, 1.0, &Mask::new().valid_keys(6));
        assert_eq!(error, TruthError::Mask(MaskError::ValidKeys { got: 6, keys: 5 }));
        assert!(error.source().is_some());
    }

    #[test]
    fn products_that_overflow_are_an_error() {
        let index = [0, 0, 0];
        for (query, key) in [(1e200, 1e200), (1e200, -1e200)] {
            let (query, key) = (array![[query]], array![[key], [key]]);
            let got = attention_head(query.view(), key.view(), key.view(), 1.0, &Mask::new());
            assert_eq!(got, Err(TruthError::Overflow { index }));
        }
    }
}
