//! One query at a time, keys in lanes: where there are too few queries for keys and values to be packed for them.
//!
//! The steps are those of `kernel`, with lanes in another role. Lane `l` of vector `i` holds key `4l + i` of as many keys as
//! four vectors have lanes, so that four vectors of powers become one of probabilities in the order of the keys.

use attn_fixed::{
    BLOCK, Head, MAX_DIM,
    row::{NO_REFERENCE, SUM_BITS},
};

use crate::{
    kernel::{Constants, Element, FOUR, Merge, ROUND, block_shift, distance, exp2, is_dominated, magnitude, rounding},
    pack::{pack_columns, zip_columns},
    simd::{MAX_ROWS, Simd},
};

/// Vectors of the scores of a block, at most: 8 lanes each.
const SCORES: usize = BLOCK / 8;

/// Vectors of a row, at most: 8 columns each, or 16 elements of 16 bits.
const ROW: usize = MAX_DIM / 8;

/// A query, and what is kept of it from block to block; the same in every lane where it is one number.
struct Row<V> {
    /// `DEPTH` elements in a lane.
    query: [V; ROW],
    /// What makes up for the `BIAS` that is added to every key element.
    bias: V,
    /// One lane a column.
    accumulator: [V; ROW],
    sum: V,
    reference: V,
}

/// What the keys of a block weigh.
struct Weights<V> {
    /// One step a lane: `DEPTH` keys.
    probabilities: [V; SCORES],
    maximum: V,
    total: V,
    error: V,
}

/// Attends the queries of a head one by one.
#[inline(always)]
pub(crate) fn attend_rows<S: Simd, E: Element>(s: S, Head { parameters, mask, inputs }: Head<'_>, out: &mut [E]) {
    let dim = parameters.dim();
    let constants = Constants::new(parameters);
    let keys = inputs.key.len() / dim;
    for (i, (query, out)) in inputs.query.chunks_exact(dim).zip(out.chunks_exact_mut(dim)).enumerate() {
        let mut row = Row::new(s, query);
        let blocks = inputs.key.chunks(BLOCK * dim).zip(inputs.value.chunks(BLOCK * dim));
        for (first, (key, value)) in (0..mask.end(i, keys)).step_by(BLOCK).zip(blocks) {
            let visible = mask.block(i, first, keys - first);
            if visible != 0 {
                row.absorb(s, &constants, key, value, dim, visible);
            }
        }
        let mut accumulator = [[0; MAX_ROWS]; ROW];
        let mut flat = [0; MAX_DIM + MAX_ROWS];
        for (i, (lanes, &v)) in accumulator.iter_mut().zip(&row.accumulator).take(dim.div_ceil(S::ROWS)).enumerate() {
            s.store(v, lanes);
            flat[i * S::ROWS..][..S::ROWS].copy_from_slice(&lanes[..S::ROWS]);
        }
        E::finish(parameters, &flat[..dim], first_lane(s, row.sum), out);
    }
}

impl<V: Copy> Row<V> {
    #[inline(always)]
    fn new<S: Simd<V = V>>(s: S, query: &[i8]) -> Self {
        let zero = s.splat(0);
        let mut vectors = [zero; ROW];
        for (to, from) in vectors.iter_mut().zip(query.chunks(S::ROWS * S::DEPTH)) {
            *to = elements(s, from);
        }
        let sum: i32 = query.iter().map(|&x| i32::from(x)).sum();
        Self {
            query: vectors,
            bias: s.splat(-S::BIAS * sum),
            accumulator: [zero; ROW],
            sum: zero,
            reference: s.splat(NO_REFERENCE),
        }
    }

    /// Absorbs a block of keys of which the query sees some, one bit a key.
    #[inline(always)]
    fn absorb<S: Simd<V = V>>(
        &mut self,
        s: S,
        constants: &Constants<'_>,
        key: &[i8],
        value: &[i8],
        dim: usize,
        visible: u64,
    ) {
        let scores = self.scores(s, key, dim);
        let weights = weigh(s, constants, &scores, visible);
        let (exponent, _) = magnitude(s, constants, weights.maximum);
        let below = s.gt(self.risen(s), exponent);
        let dominated = s.select(below, s.splat(0), is_dominated(s, weights.total, weights.error));
        let far = if s.signs(dominated) == 0 { 0 } else { far(s, constants, &scores, weights.maximum) & visible };
        if far == 0 {
            self.merge(s, constants, &weights, value, dim);
        } else {
            for part in [visible & !far, far] {
                let weights = weigh(s, constants, &scores, part);
                self.merge(s, constants, &weights, value, dim);
            }
        }
    }

    /// The reference that the sum asks for.
    #[inline(always)]
    fn risen<S: Simd<V = V>>(&self, s: S) -> V {
        s.add(self.reference, s.sarv(self.sum, s.splat(SUM_BITS as i32)))
    }

    /// The scores of the keys that there are.
    #[inline(always)]
    fn scores<S: Simd<V = V>>(&self, s: S, key: &[i8], dim: usize) -> [V; SCORES] {
        // 128 in every byte.
        let bias = s.splat(if S::BIAS == 0 { 0 } else { 0x8080_8080_u32 as i32 });
        let chunk = S::ROWS * S::DEPTH;
        let mut keys = key.chunks_exact(dim);
        let mut scores = [s.splat(0); SCORES];
        for scores in scores[..BLOCK / S::ROWS].chunks_exact_mut(FOUR) {
            // Sums of a key in the lanes of a vector, then keys in lanes.
            let mut squares = [[s.splat(0); MAX_ROWS]; FOUR];
            for l in 0..S::ROWS {
                for square in &mut squares {
                    let Some(key) = keys.next() else { break };
                    let mut sums = s.splat(0);
                    let elements_of = key.chunks_exact(chunk);
                    let rest = elements_of.remainder();
                    for (elements, &query) in elements_of.zip(&self.query) {
                        sums = s.dot(sums, s.xor(s.elements(elements), bias), query);
                    }
                    if !rest.is_empty() {
                        sums = s.dot(sums, s.xor(elements(s, rest), bias), self.query[dim / chunk]);
                    }
                    square[l] = sums;
                }
            }
            for (scores, square) in scores.iter_mut().zip(&mut squares) {
                s.transpose(square);
                for step in [8, 4, 2, 1] {
                    if step < S::ROWS {
                        for i in 0..step {
                            square[i] = s.add(square[i], square[i + step]);
                        }
                    }
                }
                *scores = s.add(square[0], self.bias);
            }
        }
        scores
    }

    #[inline(always)]
    fn merge<S: Simd<V = V>>(
        &mut self,
        s: S,
        constants: &Constants<'_>,
        weights: &Weights<V>,
        value: &[i8],
        dim: usize,
    ) {
        let (exponent, fraction) = magnitude(s, constants, weights.maximum);
        let raised = s.max(exponent, self.risen(s));
        let shift = block_shift(s, raised, exponent);
        let merge = Merge::new(s, &mut self.sum, &mut self.reference, raised, shift, fraction, weights.total);
        for (first, accumulator) in (0..dim).step_by(S::ROWS).zip(&mut self.accumulator) {
            // Two sums, so that none waits for the one before it.
            let mut sums = [s.splat(0); 2];
            let steps = value.chunks_exact(S::DEPTH * dim);
            let (count, rest) = (steps.len(), steps.remainder());
            for (step, rows) in steps.enumerate() {
                let (a, b) = (&rows[..dim], &rows[dim..2 * dim]);
                let (c, d) = if S::DEPTH == 4 { (&rows[2 * dim..3 * dim], &rows[3 * dim..]) } else { (a, b) };
                let values = zip_columns(s, [a, b, c, d], dim, first);
                sums[step % 2] = s.dot(sums[step % 2], weights.step(s, step), values);
            }
            if !rest.is_empty() {
                sums[0] = s.dot(sums[0], weights.step(s, count), pack_columns(s, rest, dim, first));
            }
            let old = if merge.lowered { merge.lower(s, *accumulator) } else { *accumulator };
            *accumulator = merge.add(s, old, s.add(sums[0], sums[1]));
        }
    }
}

impl<V> Weights<V> {
    /// The probabilities of `DEPTH` keys, in every lane.
    #[inline(always)]
    fn step<S: Simd<V = V>>(&self, s: S, step: usize) -> V {
        // Four keys of a lane are one or two vectors.
        let vectors = FOUR / S::DEPTH;
        let (lane, vector) = (step / vectors, step % vectors);
        s.broadcast(&self.probabilities[lane / S::ROWS * vectors + vector], lane % S::ROWS)
    }
}

/// The keys whose bit is set in `visible`; there is one.
#[inline(always)]
fn weigh<S: Simd>(s: S, constants: &Constants<'_>, scores: &[S::V; SCORES], visible: u64) -> Weights<S::V> {
    let zero = s.splat(0);
    let seen = if visible == u64::MAX { [s.splat(-1); SCORES] } else { lanes_of(s, visible) };
    let mut maximum = s.splat(i32::MIN);
    for i in 0..BLOCK / S::ROWS {
        maximum = s.max(maximum, s.select(seen[i], scores[i], s.splat(i32::MIN)));
    }
    let mut lanes = [i32::MIN; MAX_ROWS];
    s.store(maximum, &mut lanes);
    let maximum = s.splat(lanes.into_iter().fold(i32::MIN, i32::max));

    let round = s.splat16(ROUND);
    let (mut sum_powers, mut sum_probabilities) = (zero, zero);
    let mut probabilities = [zero; SCORES];
    for quad in 0..BLOCK / S::ROWS / FOUR {
        let mut pairs = [zero; 2];
        for i in 0..2 {
            let at = quad * FOUR + 2 * i;
            let of = [scores[at], scores[at + 1]];
            let distance = if constants.widen == 0 {
                distance::<S, true, false>(s, constants, maximum, of)
            } else {
                distance::<S, true, true>(s, constants, maximum, of)
            };
            let power = s.and(exp2(s, distance), s.pack_mask(seen[at], seen[at + 1]));
            sum_powers = s.add16(sum_powers, power);
            pairs[i] = s.mulhrs(power, round);
            sum_probabilities = s.add16(sum_probabilities, pairs[i]);
        }
        let to = &mut probabilities[quad * FOUR / S::DEPTH..][..FOUR / S::DEPTH];
        s.store_probabilities(pairs[0], pairs[1], to);
    }
    Weights {
        probabilities,
        maximum,
        total: add_lanes(s, s.sum_pairs(sum_probabilities)),
        error: add_lanes(s, rounding(s, sum_powers, sum_probabilities)),
    }
}

/// The key in a lane of a vector of scores.
#[inline(always)]
fn key_of<S: Simd>(vector: usize, lane: usize) -> usize {
    (vector / FOUR * S::ROWS + lane) * FOUR + vector % FOUR
}

/// All bits set in the lanes of the keys whose bit is set.
#[inline(always)]
fn lanes_of<S: Simd>(s: S, visible: u64) -> [S::V; SCORES] {
    let mut seen = [s.splat(0); SCORES];
    for (i, seen) in seen[..BLOCK / S::ROWS].iter_mut().enumerate() {
        let mut lanes = [0; MAX_ROWS];
        for (l, lane) in lanes[..S::ROWS].iter_mut().enumerate() {
            *lane = -((visible >> key_of::<S>(i, l) & 1) as i32);
        }
        *seen = s.load(&lanes);
    }
    seen
}

/// The keys that are far from the maximum, one bit a key.
fn far<S: Simd>(s: S, constants: &Constants<'_>, scores: &[S::V; SCORES], maximum: S::V) -> u64 {
    let mut far = 0;
    for (i, &score) in scores[..BLOCK / S::ROWS].iter().enumerate() {
        let lanes = s.signs(s.gt(s.sub(maximum, score), s.splat(constants.near)));
        for l in 0..S::ROWS {
            far |= u64::from(lanes >> l & 1) << key_of::<S>(i, l);
        }
    }
    far
}

/// The sum of all lanes, in every lane.
#[inline(always)]
fn add_lanes<S: Simd>(s: S, v: S::V) -> S::V {
    let mut lanes = [0; MAX_ROWS];
    s.store(v, &mut lanes);
    s.splat(lanes.into_iter().sum())
}

#[inline(always)]
fn first_lane<S: Simd>(s: S, v: S::V) -> i32 {
    let mut lanes = [0; MAX_ROWS];
    s.store(v, &mut lanes);
    lanes[0]
}

/// Fewer elements than a vector has, and zeros.
#[inline(always)]
fn elements<S: Simd>(s: S, from: &[i8]) -> S::V {
    let mut all = [0; 4 * MAX_ROWS];
    for (to, &from) in all.iter_mut().zip(from) {
        *to = from;
    }
    s.elements(&all)
}
