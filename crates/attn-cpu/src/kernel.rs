//! The one algorithm, over any [`Simd`]: query rows in lanes, keys in blocks of [`BLOCK`].
//!
//! ```text
//! for each two groups of ROWS queries
//!     for each block of keys
//!         scores        = panel(query, keys)                         one vector a key
//!         powers        = exp2(distance(maximum - scores))           16 bits, two keys a vector
//!         probabilities = powers rounded to 8 bits                   four keys a vector
//!         accumulator   = shifted accumulator + shifted panel(probabilities, values) · fraction
//!         dominated rows: the same again with their far keys alone
//!     requantise
//! ```
//! The steps and their bounds are those of `attn_fixed::block` and `attn_fixed::row`; here is only how they lie in
//! vectors.

use alloc::vec::Vec;

use attn_fixed::{
    BLOCK, Output, Parameters, block,
    exp2::{self, CUBIC, ONE},
    output,
    requantise::Requantiser,
    row::{MERGE_SHIFT, NO_REFERENCE, SUM_BITS, VALUE_BITS, VANISHED},
    types::Distance,
};

use crate::{
    pack::Packed,
    simd::{MAX_ROWS, Simd},
};

/// Keys that are weighed at a time, and columns that are requantised at a time: bytes of a 32-bit lane.
pub(crate) const FOUR: usize = 4;

/// Keys that a row has a 32-bit mask for.
const HALF: usize = BLOCK / 2;

/// `mulhrs(power, ROUND) = (power + 64) >> 7`: powers as probabilities.
pub(crate) const ROUND: i16 = 1 << 8;

/// A head's parameters as the kernel uses them.
#[derive(Clone, Copy)]
pub(crate) struct Constants<'a> {
    parameters: &'a Parameters,
    /// `score_shift`, if it is not negative.
    shift: u32,
    /// `-score_shift`, if that is positive.
    pub(crate) widen: u32,
    multiplier: i32,
    octaves: Octaves,
    /// Scores that are more than this below the maximum are far: `power < FAR_BELOW`.
    pub(crate) near: i32,
}

/// `(m·c + 2^(n-1)) >> n` in 32 bits: `m = high · 2^12 + low`, then `(((low·c + r1) >> n1) + (high·c << l) + r2) >> n2`.
#[derive(Clone, Copy)]
struct Octaves {
    left: u32,
    low_round: i32,
    low_shift: u32,
    round: i32,
    shift: u32,
}

impl<'a> Constants<'a> {
    pub(crate) fn new(parameters: &'a Parameters) -> Self {
        let shift = parameters.score_shift();
        let n = (shift + 16) as u32;
        let octaves = if n < 12 {
            Octaves { left: 12 - n, low_round: 1 << (n - 1), low_shift: n, round: 0, shift: 0 }
        } else {
            let (low_round, round) = if n == 12 { (1 << 11, 0) } else { (0, 1 << (n - 13)) };
            Octaves { left: 0, low_round, low_shift: 12, round, shift: n - 12 }
        };
        Self {
            parameters,
            shift: shift.max(0) as u32,
            widen: (-shift).max(0) as u32,
            multiplier: parameters.score_multiplier().to_bits().into(),
            octaves,
            near: near(parameters),
        }
    }

    /// Whether a difference of scores, shifted to the left, may need more than 32 bits.
    pub(crate) fn is_steep(&self) -> bool {
        let most = 2_i64 * 128 * 128 * self.parameters.dim() as i64;
        most << self.widen > i64::from(i32::MAX)
    }
}

/// The largest difference of scores whose power is not below [`block::FAR_BELOW`]; those that may occur have at most 23 bits.
fn near(parameters: &Parameters) -> i32 {
    /// The first distance that is far: powers fall monotonously.
    const FAR: u64 = {
        let mut distance = 0;
        while exp2::exp2(Distance::from_bits(distance)).to_bits() >= block::FAR_BELOW.to_bits() {
            distance += 1;
        }
        distance as u64
    };
    let shift = parameters.score_shift();
    let multiplier = u64::from(parameters.score_multiplier().to_bits()).max(1);
    // (narrow · multiplier) >> (16 + min(shift, 0)) < FAR, see `block::distance`.
    let narrow = ((FAR << (16 + shift.min(0))) - 1) / multiplier;
    if narrow >= u64::from(u16::MAX) {
        return i32::MAX;
    }
    (((narrow + 1) << shift.max(0)) - 1).min(i32::MAX as u64) as i32
}

/// What is kept of some query rows from block to block.
pub(crate) struct Group<V> {
    /// `DEPTH` elements in a lane, each plus `BIAS`.
    pub(crate) query: Vec<V>,
    /// One vector a column.
    accumulator: Vec<V>,
    sum: V,
    reference: V,
    /// Of the block, one vector a key.
    scores: [V; BLOCK],
    /// Of the block, 16 bits, one vector for two keys.
    powers: [V; BLOCK / 2],
    /// Of the block, one vector for `DEPTH` keys, at least 2.
    probabilities: [V; BLOCK / 2],
    /// The keys of the block that each row sees, one bit a key: the first half of the block, then the second.
    pub(crate) seen: [V; 2],
}

/// What a block adds to its rows.
#[derive(Clone, Copy)]
pub(crate) struct Merge<V> {
    fraction: V,
    /// Shifts of what is there and of the block, and half a unit of each.
    lower: V,
    lower_half: V,
    block_lower: V,
    block_half: V,
    /// Whether what is there is shifted in any row.
    pub(crate) lowered: bool,
    /// The far keys of rows that are absorbed as two, one bit a key; they are absorbed after the near ones.
    far: [V; 2],
    /// Whether there are such rows.
    split: bool,
}

impl<V: Copy> Group<V> {
    pub(crate) fn new<S: Simd<V = V>>(s: S) -> Self {
        let zero = s.splat(0);
        Self {
            query: Vec::new(),
            accumulator: Vec::new(),
            sum: zero,
            reference: zero,
            scores: [zero; BLOCK],
            powers: [zero; BLOCK / 2],
            probabilities: [zero; BLOCK / 2],
            seen: [zero; 2],
        }
    }

    /// For heads of this dimension.
    pub(crate) fn resize<S: Simd<V = V>>(&mut self, s: S, dim: usize) {
        self.query.resize(dim.div_ceil(S::DEPTH), s.splat(0));
        self.accumulator.resize(dim.next_multiple_of(WIDEST), s.splat(0));
    }

    #[inline(always)]
    pub(crate) fn start<S: Simd<V = V>>(&mut self, s: S) {
        self.accumulator.fill(s.splat(0));
        self.sum = s.splat(0);
        self.reference = s.splat(NO_REFERENCE);
    }
}

/// Absorbs a block of keys into one or two groups.
///
/// `masked` where not every row sees every key of it. The sums of products stay in registers, 16 where there are 32, else 8.
#[inline(always)]
pub(crate) fn absorb<S: Simd>(
    s: S,
    constants: &Constants<'_>,
    groups: &mut [Group<S::V>],
    packed: &Packed<S::V>,
    block: usize,
    masked: bool,
) {
    match groups {
        [a, b] if S::MANY_REGISTERS => absorb_groups::<S, 2, WIDE>(s, constants, [a, b], packed, block, masked),
        [a, b] => absorb_groups::<S, 2, NARROW>(s, constants, [a, b], packed, block, masked),
        [a] if S::MANY_REGISTERS => absorb_groups::<S, 1, WIDEST>(s, constants, [a], packed, block, masked),
        [a] => absorb_groups::<S, 1, WIDE>(s, constants, [a], packed, block, masked),
        _ => {}
    }
}

/// Keys, or columns of values, that are multiplied at a time.
const WIDEST: usize = 16;
const WIDE: usize = 8;
const NARROW: usize = 4;

/// Products of some groups with some lanes of a panel: `sums[g][c] = init[c] + Σ a[g][step] · b[step][first + c]`.
#[inline(always)]
fn panel<S: Simd, const G: usize, const C: usize>(
    s: S,
    a: [&[S::V]; G],
    b: &[S::V],
    first: usize,
    init: [S::V; C],
) -> [[S::V; C]; G] {
    let mut sums = [init; G];
    let mut a = a;
    for g in 0..G {
        a[g] = &a[g][..b.len()];
    }
    for (step, b) in b.iter().enumerate() {
        for c in 0..C {
            let b = s.broadcast(b, first + c);
            for g in 0..G {
                sums[g][c] = s.dot(sums[g][c], a[g][step], b);
            }
        }
    }
    sums
}

#[inline(always)]
fn absorb_groups<S: Simd, const G: usize, const C: usize>(
    s: S,
    constants: &Constants<'_>,
    mut groups: [&mut Group<S::V>; G],
    packed: &Packed<S::V>,
    block: usize,
    masked: bool,
) {
    let zero = s.splat(0);
    // Behind the last key there is nothing to be seen.
    let keys = (packed.keys - block * BLOCK).min(BLOCK);
    let mut maxima = [s.splat(i32::MIN); G];
    for (p, (panel_keys, bias)) in packed.key_panels(block, S::ROWS).enumerate() {
        for first in (0..S::ROWS).step_by(C) {
            let key = p * S::ROWS + first;
            if key >= keys {
                break;
            }
            let mut init = [zero; C];
            if S::BIAS != 0 {
                for c in 0..C {
                    init[c] = s.broadcast(bias, first + c);
                }
            }
            let mut queries = [&[][..]; G];
            for g in 0..G {
                queries[g] = &groups[g].query;
            }
            let sums = panel(s, queries, panel_keys, first, init);
            for g in 0..G {
                let scores: &mut [S::V; C] = groups[g].scores[key..].first_chunk_mut().expect("a part of the block");
                *scores = sums[g];
                for c in 0..C {
                    maxima[g] = s.max(maxima[g], sums[g][c]);
                }
            }
        }
    }
    let mut merges = [Merge::none(s); G];
    for g in 0..G {
        let (group, maximum) = (&mut *groups[g], maxima[g]);
        let seen = group.seen;
        merges[g] = match (masked, constants.widen != 0) {
            (false, false) => weigh::<S, false, true, false>(s, constants, group, seen, maximum),
            (false, true) => weigh::<S, false, true, true>(s, constants, group, seen, maximum),
            (true, false) => weigh::<S, true, true, false>(s, constants, group, seen, maximum),
            (true, true) => weigh::<S, true, true, true>(s, constants, group, seen, maximum),
        };
    }
    let steps = keys.div_ceil(S::DEPTH);
    accumulate::<S, G, C>(s, &mut groups, &merges, packed, block, steps);
    for g in 0..G {
        if merges[g].split {
            let (group, far) = (&mut *groups[g], merges[g].far);
            let merge = if constants.widen == 0 {
                weigh::<S, true, false, false>(s, constants, group, far, zero)
            } else {
                weigh::<S, true, false, true>(s, constants, group, far, zero)
            };
            if S::MANY_REGISTERS {
                accumulate::<S, 1, WIDEST>(s, &mut [groups[g]], &[merge], packed, block, steps);
            } else {
                accumulate::<S, 1, WIDE>(s, &mut [groups[g]], &[merge], packed, block, steps);
            }
        }
    }
}

/// Probabilities of the first `steps · DEPTH` keys times their values, merged into the accumulators.
#[inline(always)]
fn accumulate<S: Simd, const G: usize, const C: usize>(
    s: S,
    groups: &mut [&mut Group<S::V>; G],
    merges: &[Merge<S::V>; G],
    packed: &Packed<S::V>,
    block: usize,
    steps: usize,
) {
    for (p, values) in packed.value_panels(block, BLOCK / S::DEPTH).enumerate() {
        for first in (0..S::ROWS).step_by(C) {
            let column = p * S::ROWS + first;
            let mut probabilities = [&[][..]; G];
            for g in 0..G {
                probabilities[g] = &groups[g].probabilities;
            }
            if column >= packed.dim {
                break;
            }
            let sums = panel(s, probabilities, &values[..steps], first, [s.splat(0); C]);
            for g in 0..G {
                let merge = &merges[g];
                let accumulator: &mut [S::V; C] =
                    groups[g].accumulator[column..].first_chunk_mut().expect("a multiple of the columns");
                if merge.lowered {
                    for accumulator in &mut *accumulator {
                        *accumulator = merge.lower(s, *accumulator);
                    }
                }
                for c in 0..C {
                    accumulator[c] = merge.add(s, accumulator[c], sums[g][c]);
                }
            }
        }
    }
}

impl<V: Copy> Merge<V> {
    /// Of nothing.
    #[inline(always)]
    fn none<S: Simd<V = V>>(s: S) -> Self {
        let zero = s.splat(0);
        Self {
            fraction: zero,
            lower: zero,
            lower_half: zero,
            block_lower: zero,
            block_half: zero,
            lowered: false,
            far: [zero; 2],
            split: false,
        }
    }

    /// Merges the probabilities' sum.
    #[inline(always)]
    pub(crate) fn new<S: Simd<V = V>>(
        s: S,
        sum: &mut V,
        reference: &mut V,
        raised: V,
        block_lower: V,
        fraction: V,
        total: V,
    ) -> Self {
        let lower = s.min(s.sub(raised, *reference), s.splat(31));
        let one = s.splat(1);
        let merge = Self {
            fraction,
            lower,
            lower_half: s.shr(s.shlv(one, lower), 1),
            block_lower,
            block_half: s.shr(s.shlv(one, block_lower), 1),
            lowered: s.signs(s.gt(lower, s.splat(0))) != 0,
            ..Self::none(s)
        };
        let old = if merge.lowered { merge.lower(s, *sum) } else { *sum };
        *sum = merge.add(s, old, s.shlv(total, s.splat(VALUE_BITS as i32)));
        *reference = raised;
        merge
    }

    /// What is there, where it is [`lowered`](Self::lowered).
    #[inline(always)]
    pub(crate) fn lower<S: Simd<V = V>>(&self, s: S, old: V) -> V {
        s.sarv(s.add(old, self.lower_half), self.lower)
    }

    /// What is there and a product of the block.
    #[inline(always)]
    pub(crate) fn add<S: Simd<V = V>>(&self, s: S, old: V, product: V) -> V {
        let new = s.add(s.mul(product, self.fraction), self.block_half);
        s.add(old, s.sarv(new, self.block_lower))
    }
}

/// Probabilities of a block, and how it is merged; sum and reference are merged already.
///
/// - `MASKED`: `seen` has the keys that each row sees, one bit a key. Otherwise each row sees all, and `maximum` is known.
/// - `SPLIT`: dominated rows are absorbed as two, and here without their far keys.
/// - `WIDEN`: distances are shifted to the left, not to the right; without `MASKED` they fit 32 bits.
#[inline(always)]
fn weigh<S: Simd, const MASKED: bool, const SPLIT: bool, const WIDEN: bool>(
    s: S,
    constants: &Constants<'_>,
    group: &mut Group<S::V>,
    seen: [S::V; 2],
    maximum: S::V,
) -> Merge<S::V> {
    let Group { sum, reference, scores, powers, probabilities, .. } = group;
    let zero = s.splat(0);

    let mut maximum = maximum;
    if MASKED {
        let lowest = s.splat(i32::MIN);
        maximum = lowest;
        for (seen, scores) in seen.into_iter().zip(scores.as_chunks::<HALF>().0) {
            for i in 0..HALF {
                maximum = s.max(maximum, s.select(sees(s, seen, i), scores[i], lowest));
            }
        }
    }

    let round = s.splat16(ROUND);
    // 16 bits of sums; those of probabilities fit, powers wrap around.
    let (mut sum_powers, mut sum_probabilities) = (zero, zero);
    for half in 0..2 {
        for quad in 0..HALF / FOUR {
            let first = half * HALF + quad * FOUR;
            let mut pairs = [zero; 2];
            for i in 0..2 {
                let key = first + 2 * i;
                let distance = distance::<S, MASKED, WIDEN>(s, constants, maximum, [scores[key], scores[key + 1]]);
                let mut power = exp2(s, distance);
                if MASKED {
                    let bit = quad * FOUR + 2 * i;
                    let seen = s.pack_mask(sees(s, seen[half], bit), sees(s, seen[half], bit + 1));
                    power = s.and(power, seen);
                }
                if SPLIT {
                    powers[key / 2] = power;
                    sum_powers = s.add16(sum_powers, power);
                }
                pairs[i] = s.mulhrs(power, round);
                sum_probabilities = s.add16(sum_probabilities, pairs[i]);
            }
            let to = &mut probabilities[first / S::DEPTH..][..FOUR / S::DEPTH];
            s.store_probabilities(pairs[0], pairs[1], to);
        }
    }
    let mut total = s.sum_pairs(sum_probabilities);

    let (exponent, fraction) = magnitude(s, constants, maximum);
    let risen = s.add(*reference, s.sarv(*sum, s.splat(SUM_BITS as i32)));
    let raised = s.max(exponent, risen);
    // A row that sees nothing of the block stays as it is.
    let blind = if MASKED { s.eq(s.or(seen[0], seen[1]), zero) } else { zero };
    let raised = if MASKED { s.select(blind, *reference, raised) } else { raised };

    // Where 8 bits are not enough, far keys are left out here.
    let mut far = [zero; 2];
    let mut divided = zero;
    if SPLIT {
        let below = s.or(s.gt(risen, exponent), blind);
        let error = rounding(s, sum_powers, sum_probabilities);
        let dominated = s.select(below, zero, is_dominated(s, total, error));
        if s.signs(dominated) != 0 {
            far = far_keys::<S, MASKED>(s, constants, scores, maximum, dominated, seen);
            // A dominated row without far keys is absorbed as it is.
            divided = s.eq(s.eq(s.or(far[0], far[1]), zero), zero);
        }
    }
    let split = SPLIT && s.signs(divided) != 0;
    if split {
        total = leave_out_far(s, powers, divided, probabilities);
    }

    let block_lower = block_shift(s, raised, exponent);
    let block_lower = if MASKED { s.select(blind, s.splat(31), block_lower) } else { block_lower };
    Merge { far, split, ..Merge::new(s, sum, reference, raised, block_lower, fraction, total) }
}

/// The exponent and the fraction of a maximum.
#[inline(always)]
pub(crate) fn magnitude<S: Simd>(s: S, constants: &Constants<'_>, maximum: S::V) -> (S::V, S::V) {
    let octaves = octaves(s, constants.octaves, s.splat(constants.multiplier), maximum);
    let exponent = s.sarv(s.add(octaves, s.splat(2047)), s.splat(11));
    let lack = s.sub(s.shlv(exponent, s.splat(11)), octaves);
    let fraction = s.shr(s.add(s.and(exp2(s, lack), s.splat(0xffff)), s.splat(32)), 6);
    (exponent, fraction)
}

/// What rounding added to powers, from sums of 16 bits, less than 2^12 in each.
#[inline(always)]
pub(crate) fn rounding<S: Simd>(s: S, sum_powers: S::V, sum_probabilities: S::V) -> S::V {
    // Made positive, as pairs are added up without a sign.
    let error = s.sub16(s.add16(sum_powers, s.splat16(1 << 12)), s.shl16(sum_probabilities, 7));
    s.sub(s.sum_pairs(error), s.splat(2 << 12))
}

/// Whether few keys dominate a block whose probabilities are `total`, or rounding adds too much to it.
#[inline(always)]
pub(crate) fn is_dominated<S: Simd>(s: S, total: S::V, error: S::V) -> S::V {
    let error = s.max(error, s.sub(s.splat(0), error));
    let few = s.gt(s.splat(block::DOMINATED_BELOW), total);
    let biased = s.gt(s.mul(error, s.splat(block::ROUNDING_PARTS)), s.shlv(total, s.splat(7)));
    s.or(few, biased)
}

/// The shift of a block relative to the raised reference.
#[inline(always)]
pub(crate) fn block_shift<S: Simd>(s: S, raised: S::V, exponent: S::V) -> S::V {
    s.add(s.min(s.sub(raised, exponent), s.splat(VANISHED)), s.splat(MERGE_SHIFT as i32))
}

/// The far keys of dominated rows, one bit a key.
#[inline(always)]
fn far_keys<S: Simd, const MASKED: bool>(
    s: S,
    constants: &Constants<'_>,
    scores: &[S::V; BLOCK],
    maximum: S::V,
    dominated: S::V,
    seen: [S::V; 2],
) -> [S::V; 2] {
    let near = s.splat(constants.near);
    let mut far = [s.splat(0); 2];
    for (half, scores) in scores.chunks_exact(HALF).enumerate() {
        for (i, &score) in scores.iter().enumerate() {
            let bit = s.splat((1_u32 << i) as i32);
            let is_far = s.gt(s.sub(maximum, score), near);
            far[half] = s.or(far[half], s.and(is_far, bit));
        }
    }
    for (far, seen) in far.iter_mut().zip(seen) {
        *far = s.and(*far, dominated);
        if MASKED {
            *far = s.and(*far, seen);
        }
    }
    far
}

/// Writes the probabilities again, those of far keys of these rows as 0; returns the sums.
#[inline(always)]
fn leave_out_far<S: Simd>(s: S, powers: &[S::V; BLOCK / 2], rows: S::V, probabilities: &mut [S::V; BLOCK / 2]) -> S::V {
    let rows = s.pack_mask(rows, rows);
    let (round, far_below) = (s.splat16(ROUND), s.splat16(block::FAR_BELOW.to_bits()));
    let mut sum = s.splat(0);
    for quad in 0..BLOCK / FOUR {
        let mut pairs = [s.splat(0); 2];
        for i in 0..2 {
            let power = powers[2 * quad + i];
            let is_far = s.and(rows, s.gt16(far_below, power));
            pairs[i] = s.select(is_far, s.splat(0), s.mulhrs(power, round));
            sum = s.add16(sum, pairs[i]);
        }
        let to = &mut probabilities[quad * FOUR / S::DEPTH..][..FOUR / S::DEPTH];
        s.store_probabilities(pairs[0], pairs[1], to);
    }
    s.sum_pairs(sum)
}

/// All bits set in the rows that see a key of half a block.
#[inline(always)]
fn sees<S: Simd>(s: S, seen: S::V, key: usize) -> S::V {
    const BIT: [i32; HALF] = {
        let mut bits = [0; HALF];
        let mut i = 0;
        while i < HALF {
            bits[i] = 1 << i;
            i += 1;
        }
        bits
    };
    let bit = s.splat(BIT[key]);
    s.eq(s.and(seen, bit), bit)
}

/// `attn_fixed::block::distance` of two keys; where that is beyond 15 octaves, so that the power is 0, as far as 15 at least.
///
/// Widened distances are those of widened differences: either fits 16 bits exactly, or is beyond them with a multiplier of at
/// least 2^15.
#[inline(always)]
pub(crate) fn distance<S: Simd, const MASKED: bool, const WIDEN: bool>(
    s: S,
    constants: &Constants<'_>,
    maximum: S::V,
    [a, b]: [S::V; 2],
) -> S::V {
    let (mut a, mut b) = (s.sub(maximum, a), s.sub(maximum, b));
    if WIDEN {
        if MASKED {
            let most = s.splat(u16::MAX.into());
            (a, b) = (s.min(a, most), s.min(b, most));
        }
        (a, b) = (s.shl(a, constants.widen), s.shl(b, constants.widen));
    } else {
        (a, b) = (s.shr(a, constants.shift), s.shr(b, constants.shift));
    }
    s.mulhi_u16(s.pack_u32(a, b), s.splat16(constants.multiplier as i16))
}

/// `attn_fixed::exp2` of 16-bit distances.
#[inline(always)]
pub(crate) fn exp2<S: Simd>(s: S, distance: S::V) -> S::V {
    let x = s.and(s.shl16(distance, 4), s.splat16(0x7ff0));
    let (c1, c2, c3) = (s.splat16(CUBIC[0]), s.splat16(CUBIC[1]), s.splat16(CUBIC[2]));
    let inner = s.sub16(c2, s.mulhrs(x, c3));
    let inner = s.sub16(c1, s.mulhrs(x, inner));
    let mantissa = s.sub16(s.splat16(ONE.to_bits()), s.mulhrs(x, inner));
    s.shr_octaves(mantissa, distance)
}

/// `(m·c + 2^(n-1)) >> n`, see [`Octaves`].
#[inline(always)]
fn octaves<S: Simd>(s: S, octaves: Octaves, multiplier: S::V, maximum: S::V) -> S::V {
    let high = s.mul(s.sarv(maximum, s.splat(12)), multiplier);
    let low = s.mul(s.and(maximum, s.splat(0xfff)), multiplier);
    let low = s.shr(s.add(low, s.splat(octaves.low_round)), octaves.low_shift);
    let sum = s.add(s.add(s.shlv(high, s.splat(octaves.left as i32)), low), s.splat(octaves.round));
    s.sarv(sum, s.splat(octaves.shift as i32))
}

/// An element of the output.
pub(crate) trait Element: Output + Send {
    /// Writes the rows that there are, `[rows, dim]`.
    fn write_rows<S: Simd>(s: S, constants: &Constants<'_>, group: &Group<S::V>, dim: usize, out: &mut [Self]);
}

impl Element for i8 {
    #[inline(always)]
    fn write_rows<S: Simd>(s: S, constants: &Constants<'_>, group: &Group<S::V>, dim: usize, out: &mut [Self]) {
        requantise(s, constants, group, dim, out);
    }
}

impl Element for f32 {
    #[inline(always)]
    fn write_rows<S: Simd>(s: S, constants: &Constants<'_>, group: &Group<S::V>, dim: usize, out: &mut [Self]) {
        dequantise(s, constants, group, dim, out);
    }
}

#[inline(always)]
fn requantise<S: Simd>(s: S, constants: &Constants<'_>, group: &Group<S::V>, dim: usize, out: &mut [i8]) {
    let mut sums = [0; MAX_ROWS];
    s.store(group.sum, &mut sums);
    let (mut narrow, mut multiplier, mut widen) = ([0; MAX_ROWS], [0; MAX_ROWS], [0; MAX_ROWS]);
    for r in 0..S::ROWS {
        // The accumulators of a row that sees nothing are zero, which any multiplier leaves.
        let sum = if sums[r] == 0 { 1 << SUM_BITS } else { sums[r] };
        let requantiser = Requantiser::new(constants.parameters, sum);
        narrow[r] = requantiser.narrow as i32;
        multiplier[r] = requantiser.multiplier.to_bits().into();
        widen[r] = requantiser.widen as i32;
    }
    let (narrow, multiplier, widen) = (s.load(&narrow), s.load(&multiplier), s.load(&widen));
    let one = s.splat(1);
    let narrow_half = s.shr(s.shlv(one, narrow), 1);
    let widen_half = s.shr(s.shlv(one, widen), 1);
    let (low, high) = (s.splat(i16::MIN.into()), s.splat(i16::MAX.into()));
    // So many columns are one vector of bytes when rows and columns have changed places.
    let columns = FOUR * S::ROWS;
    for (i, accumulators) in group.accumulator.chunks(columns).enumerate() {
        let mut square = [s.splat(0); MAX_ROWS];
        for (quad, accumulators) in square.iter_mut().zip(accumulators.as_chunks::<FOUR>().0) {
            let mut columns = *accumulators;
            for column in &mut columns {
                let narrowed = s.sarv(s.add(*column, narrow_half), narrow);
                let narrowed = s.max(low, s.min(high, narrowed));
                *column = s.sarv(s.add(s.mul(narrowed, multiplier), widen_half), widen);
            }
            *quad = s.pack_i8(columns);
        }
        s.transpose(&mut square);
        let first = i * columns;
        for (row, &bytes) in out.chunks_exact_mut(dim).zip(&square[..S::ROWS]) {
            let row = &mut row[first..];
            if row.len() >= columns {
                s.store_bytes(bytes, row);
            } else {
                let mut all = [0; FOUR * MAX_ROWS];
                s.store_bytes(bytes, &mut all);
                row.copy_from_slice(&all[..row.len()]);
            }
        }
    }
}

#[inline(always)]
fn dequantise<S: Simd>(s: S, constants: &Constants<'_>, group: &Group<S::V>, dim: usize, out: &mut [f32]) {
    let mut sums = [0; MAX_ROWS];
    s.store(group.sum, &mut sums);
    let mut reciprocals = [0; MAX_ROWS];
    for r in 0..S::ROWS {
        let sum = if sums[r] == 0 { 1 << SUM_BITS } else { sums[r] };
        reciprocals[r] = output::reciprocal(sum).to_bits() as i32;
    }
    let reciprocals = s.load(&reciprocals);
    let scale = s.splat(constants.parameters.value_scale().to_bits() as i32);
    for (i, accumulators) in group.accumulator.chunks(S::ROWS).enumerate() {
        let mut square = [s.splat(0); MAX_ROWS];
        for (column, &accumulator) in square.iter_mut().zip(accumulators) {
            let mean = s.mul_floats(s.floats(accumulator), reciprocals);
            *column = s.finite(s.mul_floats(mean, scale));
        }
        s.transpose(&mut square);
        let first = i * S::ROWS;
        for (row, &floats) in out.chunks_exact_mut(dim).zip(&square[..S::ROWS]) {
            let row = row.get_mut(first..).unwrap_or(&mut []);
            if row.len() >= S::ROWS {
                s.store_floats(floats, row);
            } else {
                let mut all = [0.0; MAX_ROWS];
                s.store_floats(floats, &mut all);
                row.copy_from_slice(&all[..row.len()]);
            }
        }
    }
}
