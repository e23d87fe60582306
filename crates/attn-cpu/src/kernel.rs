//! The one algorithm, over any [`Simd`]: query rows in lanes, keys in blocks of [`BLOCK`].
//!
//! ```text
//! for each group of ROWS queries (GROUPS of them at a time share the loads of keys and values)
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

use alloc::{vec, vec::Vec};

use attn_fixed::{
    BLOCK, Parameters, block,
    exp2::{self, CUBIC, ONE},
    requantise::Requantiser,
    row::{MERGE_SHIFT, NO_REFERENCE, SUM_BITS, VALUE_BITS, VANISHED},
};

use crate::{
    pack::{PANEL, Packed},
    simd::Simd,
};

/// Most rows of a vector.
pub(crate) const MAX_ROWS: usize = 16;

/// Keys that are weighed at a time, and columns that are requantised at a time: bytes of a 32-bit lane.
const FOUR: usize = 4;

/// A head's parameters as the kernel uses them.
#[derive(Clone, Copy)]
pub(crate) struct Constants<'a> {
    parameters: &'a Parameters,
    /// `score_shift`, if it is not negative.
    shift: u32,
    /// `-score_shift`, if that is positive.
    widen: u32,
    multiplier: i32,
    octaves: Octaves,
    /// Scores that are more than this below the maximum are far: `power < FAR_BELOW`.
    near: i32,
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
}

/// The largest difference of scores whose power is not below [`block::FAR_BELOW`]: powers fall monotonously.
fn near(parameters: &Parameters) -> i32 {
    let (mut near, mut beyond) = (0, 2 * block::MAX_SCORE + 1);
    while beyond - near > 1 {
        let middle = near + (beyond - near) / 2;
        if exp2::exp2(block::distance(parameters, middle)) < block::FAR_BELOW {
            beyond = middle;
        } else {
            near = middle;
        }
    }
    near
}

/// What is kept of some query rows from block to block.
pub(crate) struct Group {
    /// `[steps][rows]`: `DEPTH` elements in a lane, each plus `BIAS`.
    pub(crate) query: Vec<i32>,
    /// `[columns][rows]`
    accumulator: Vec<i32>,
    sum: [i32; MAX_ROWS],
    reference: [i32; MAX_ROWS],
    /// `[keys][rows]` of the block.
    scores: Vec<i32>,
    /// `[keys / 2][rows]` of the block, 16 bits.
    powers: Vec<i32>,
    /// `[keys / DEPTH][rows]` of the block: `DEPTH` keys in a lane.
    probabilities: Vec<i32>,
    /// The keys of the block that each row sees, one bit a key: the first half of the block, then the second.
    pub(crate) seen: [[i32; MAX_ROWS]; 2],
}

/// What a block adds to its rows.
#[derive(Clone, Copy)]
struct Merge<V> {
    fraction: V,
    /// Shifts of what is there and of the block, and half a unit of each.
    lower: V,
    lower_half: V,
    block_lower: V,
    block_half: V,
    /// The far keys of rows that are absorbed as two, one bit a key; they are absorbed after the near ones.
    far: [V; 2],
    /// Whether there are such rows.
    split: bool,
}

impl Group {
    pub(crate) fn new<S: Simd>(dim: usize) -> Self {
        let mut group = Self {
            query: Vec::new(),
            accumulator: Vec::new(),
            sum: [0; MAX_ROWS],
            reference: [NO_REFERENCE; MAX_ROWS],
            scores: vec![0; BLOCK * S::ROWS],
            powers: vec![0; BLOCK / 2 * S::ROWS],
            probabilities: vec![0; BLOCK / S::DEPTH * S::ROWS],
            seen: [[0; MAX_ROWS]; 2],
        };
        group.resize::<S>(dim);
        group
    }

    /// For heads of another dimension.
    pub(crate) fn resize<S: Simd>(&mut self, dim: usize) {
        self.query.resize(dim.div_ceil(S::DEPTH) * S::ROWS, 0);
        self.accumulator.resize(dim.next_multiple_of(PANEL) * S::ROWS, 0);
    }

    pub(crate) fn start(&mut self) {
        self.accumulator.fill(0);
        self.sum = [0; MAX_ROWS];
        self.reference = [NO_REFERENCE; MAX_ROWS];
    }
}

/// Products of some groups with one panel: `sums[g][c] = init[c] + Σ a[g][step] · b[step][c]`.
#[inline(always)]
#[expect(clippy::needless_range_loop, reason = "loops and no closures: a closure is not always inlined")]
fn panel<S: Simd, const G: usize>(s: S, a: [&[i32]; G], b: &[[u32; PANEL]], init: &[i32; PANEL]) -> [[S::V; PANEL]; G] {
    let mut sums = [[s.splat(0); PANEL]; G];
    for g in 0..G {
        for c in 0..PANEL {
            sums[g][c] = s.splat(init[c]);
        }
    }
    for (step, b) in b.iter().enumerate() {
        for g in 0..G {
            let a = s.load(&a[g][step * S::ROWS..]);
            for c in 0..PANEL {
                sums[g][c] = s.dot(sums[g][c], a, b[c]);
            }
        }
    }
    sums
}

/// Absorbs a block of keys. `masked` where not every row sees every key of it.
#[inline(always)]
pub(crate) fn absorb<S: Simd, const G: usize>(
    s: S,
    constants: &Constants<'_>,
    groups: &mut [Group; G],
    packed: &Packed,
    block: usize,
    masked: bool,
) {
    for (p, (keys, bias)) in packed.key_panels(block).enumerate() {
        let sums = panel(s, groups.each_ref().map(|group| &group.query[..]), keys, bias);
        for (group, sums) in groups.iter_mut().zip(sums) {
            let to = &mut group.scores[p * PANEL * S::ROWS..][..PANEL * S::ROWS];
            for (to, sums) in to.chunks_exact_mut(S::ROWS).zip(sums) {
                s.store(sums, to);
            }
        }
    }
    let mut merges = [Merge::none(s); G];
    for (group, merge) in groups.iter_mut().zip(&mut merges) {
        let seen = [s.load(&group.seen[0]), s.load(&group.seen[1])];
        *merge = if masked {
            weigh::<S, true, true>(s, constants, group, seen)
        } else {
            weigh::<S, false, true>(s, constants, group, seen)
        };
    }
    accumulate(s, groups, &merges, packed, block);
    for (group, merge) in groups.iter_mut().zip(&merges) {
        if merge.split {
            let merge = weigh::<S, true, false>(s, constants, group, merge.far);
            accumulate(s, core::array::from_mut(group), &[merge], packed, block);
        }
    }
}

/// Probabilities times values, merged into the accumulators.
#[inline(always)]
fn accumulate<S: Simd, const G: usize>(
    s: S,
    groups: &mut [Group; G],
    merges: &[Merge<S::V>; G],
    packed: &Packed,
    block: usize,
) {
    for (p, values) in packed.value_panels(block).enumerate() {
        let sums = panel(s, groups.each_ref().map(|group| &group.probabilities[..]), values, &[0; PANEL]);
        for ((group, merge), sums) in groups.iter_mut().zip(merges).zip(sums) {
            let accumulator = &mut group.accumulator[p * PANEL * S::ROWS..][..PANEL * S::ROWS];
            for (accumulator, product) in accumulator.chunks_exact_mut(S::ROWS).zip(sums) {
                let new = s.mul(product, merge.fraction);
                let new = s.sarv(s.add(new, merge.block_half), merge.block_lower);
                let old = s.sarv(s.add(s.load(accumulator), merge.lower_half), merge.lower);
                s.store(s.add(old, new), accumulator);
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
            far: [zero; 2],
            split: false,
        }
    }
}

/// Probabilities of a block, and how it is merged; sum and reference are merged already.
///
/// `seen` has the keys that each row sees, one bit a key; all of them unless `MASKED`. `SPLIT`: dominated rows are absorbed
/// as two, and here without their far keys.
#[inline(always)]
fn weigh<S: Simd, const MASKED: bool, const SPLIT: bool>(
    s: S,
    constants: &Constants<'_>,
    group: &mut Group,
    seen: [S::V; 2],
) -> Merge<S::V> {
    let Group { sum, reference, scores, powers, probabilities, .. } = group;
    let row = |key: usize| key * S::ROWS..(key + 1) * S::ROWS;
    let zero = s.splat(0);

    let lowest = s.splat(i32::MIN);
    let mut maxima = [lowest; 4];
    for key in 0..BLOCK {
        let mut score = s.load(&scores[row(key)]);
        if MASKED {
            score = s.select(sees(s, seen, key), score, lowest);
        }
        maxima[key % 4] = s.max(maxima[key % 4], score);
    }
    let maximum = s.max(s.max(maxima[0], maxima[1]), s.max(maxima[2], maxima[3]));

    let (half, rest) = (s.splat16(64), s.splat16(127));
    let (mut errors, mut total) = (zero, zero);
    for quad in 0..BLOCK / FOUR {
        let mut pairs = [zero; 2];
        for (i, pair) in pairs.iter_mut().enumerate() {
            let key = quad * FOUR + 2 * i;
            let a = s.shr(s.sub(maximum, s.load(&scores[row(key)])), constants.shift);
            let b = s.shr(s.sub(maximum, s.load(&scores[row(key + 1)])), constants.shift);
            let mut power = exp2(s, distance(s, constants, s.pack_u32(a, b)));
            if MASKED {
                power = s.and(power, s.pack_mask(sees(s, seen, key), sees(s, seen, key + 1)));
            }
            if SPLIT {
                s.store(power, &mut powers[row(key / 2)]);
            }
            let rounded = s.add16(power, half);
            if SPLIT {
                errors = s.add16(errors, s.and(rounded, rest));
            }
            *pair = s.shr16(rounded, 7);
        }
        let to = &mut probabilities[quad * FOUR / S::DEPTH * S::ROWS..];
        s.store_probabilities(pairs[0], pairs[1], to);
        total = s.sum_probabilities(total, to);
    }

    let octaves = octaves(s, constants.octaves, s.splat(constants.multiplier), maximum);
    let exponent = s.sarv(s.add(octaves, s.splat(2047)), s.splat(11));
    let lack = s.sub(s.shlv(exponent, s.splat(11)), octaves);
    let fraction = s.shr(s.add(s.and(exp2(s, lack), s.splat(0xffff)), s.splat(32)), 6);

    let (old_sum, old_reference) = (s.load(sum), s.load(reference));
    let risen = s.add(old_reference, s.sarv(old_sum, s.splat(SUM_BITS as i32)));
    let raised = s.max(exponent, risen);
    // A row that sees nothing of the block stays as it is.
    let blind = if MASKED { s.eq(s.or(seen[0], seen[1]), zero) } else { zero };
    let raised = if MASKED { s.select(blind, old_reference, raised) } else { raised };

    // Where 8 bits are not enough, far keys are left out here.
    let mut far = [zero; 2];
    let mut divided = zero;
    if SPLIT {
        let error = s.sub(s.sum_pairs(errors), s.splat(64 * BLOCK as i32));
        let error = s.max(error, s.sub(zero, error));
        let few = s.gt(s.splat(block::DOMINATED_BELOW), total);
        let biased = s.gt(s.mul(error, s.splat(block::ROUNDING_PARTS)), s.shlv(total, s.splat(7)));
        let below = s.or(s.gt(risen, exponent), blind);
        let dominated = s.select(below, zero, s.or(few, biased));
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

    let lower = s.min(s.sub(raised, old_reference), s.splat(31));
    let block_lower = s.min(s.sub(raised, exponent), s.splat(VANISHED));
    let block_lower = s.add(block_lower, s.splat(MERGE_SHIFT as i32));
    let block_lower = if MASKED { s.select(blind, s.splat(31), block_lower) } else { block_lower };
    let one = s.splat(1);
    let lower_half = s.shr(s.shlv(one, lower), 1);
    let block_half = s.shr(s.shlv(one, block_lower), 1);
    let new = s.mul(s.shlv(total, s.splat(VALUE_BITS as i32)), fraction);
    let new = s.sarv(s.add(new, block_half), block_lower);
    let old = s.sarv(s.add(old_sum, lower_half), lower);
    s.store(s.add(old, new), sum);
    s.store(raised, reference);
    Merge { fraction, lower, lower_half, block_lower, block_half, far, split }
}

/// The far keys of dominated rows, one bit a key.
#[inline(always)]
fn far_keys<S: Simd, const MASKED: bool>(
    s: S,
    constants: &Constants<'_>,
    scores: &[i32],
    maximum: S::V,
    dominated: S::V,
    seen: [S::V; 2],
) -> [S::V; 2] {
    let near = s.splat(constants.near);
    let mut far = [s.splat(0); 2];
    for (key, score) in scores.chunks_exact(S::ROWS).enumerate() {
        let bit = s.splat((1_u32 << (key % 32)) as i32);
        let is_far = s.gt(s.sub(maximum, s.load(score)), near);
        far[key / 32] = s.or(far[key / 32], s.and(is_far, bit));
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
fn leave_out_far<S: Simd>(s: S, powers: &[i32], rows: S::V, probabilities: &mut [i32]) -> S::V {
    let rows = s.pack_mask(rows, rows);
    let (half, far_below) = (s.splat16(64), s.splat16(block::FAR_BELOW.to_bits()));
    let mut total = s.splat(0);
    for (quad, powers) in powers.chunks_exact(2 * S::ROWS).enumerate() {
        let mut pairs = [s.splat(0); 2];
        for (pair, power) in pairs.iter_mut().zip(powers.chunks_exact(S::ROWS)) {
            let power = s.load(power);
            let is_far = s.and(rows, s.gt16(far_below, power));
            *pair = s.select(is_far, s.splat(0), s.shr16(s.add16(power, half), 7));
        }
        let to = &mut probabilities[quad * FOUR / S::DEPTH * S::ROWS..];
        s.store_probabilities(pairs[0], pairs[1], to);
        total = s.sum_probabilities(total, to);
    }
    total
}

/// All bits set in the rows that see a key.
#[inline(always)]
fn sees<S: Simd>(s: S, seen: [S::V; 2], key: usize) -> S::V {
    let bit = s.splat((1_u32 << (key % 32)) as i32);
    s.eq(s.and(seen[key / 32], bit), bit)
}

/// `attn_fixed::block::distance` of 16-bit differences of scores.
#[inline(always)]
fn distance<S: Simd>(s: S, constants: &Constants<'_>, below: S::V) -> S::V {
    let multiplier = s.splat16(constants.multiplier as i16);
    let high = s.mulhi_u16(below, multiplier);
    if constants.widen == 0 {
        return high;
    }
    let low = s.mullo16(below, multiplier);
    let wide = s.or(s.shl16(high, constants.widen), s.shr16(low, 16 - constants.widen));
    // What is shifted out of the high half saturates.
    let fits = s.eq16(s.shr16(high, 16 - constants.widen), s.splat(0));
    s.select(fits, wide, s.splat16(-1))
}

/// `attn_fixed::exp2` of 16-bit distances.
#[inline(always)]
fn exp2<S: Simd>(s: S, distance: S::V) -> S::V {
    let x = s.shr16(s.shl16(distance, 5), 1);
    let (c1, c2, c3) = (s.splat16(CUBIC[0]), s.splat16(CUBIC[1]), s.splat16(CUBIC[2]));
    let inner = s.sub16(c2, s.mulhrs(x, c3));
    let inner = s.sub16(c1, s.mulhrs(x, inner));
    let mantissa = s.sub16(s.splat16(ONE.to_bits()), s.mulhrs(x, inner));
    s.shrv16(mantissa, s.shr16(distance, 11))
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

/// Writes the rows that there are, `[rows, dim]`.
#[inline(always)]
pub(crate) fn finish<S: Simd>(s: S, constants: &Constants<'_>, group: &Group, dim: usize, out: &mut [i8]) {
    let (mut narrow, mut multiplier, mut widen) = ([0; MAX_ROWS], [0; MAX_ROWS], [0; MAX_ROWS]);
    for (r, &sum) in group.sum.iter().enumerate() {
        // The accumulators of a row that sees nothing are zero, which any multiplier leaves.
        let requantiser = Requantiser::new(constants.parameters, if sum == 0 { 1 << SUM_BITS } else { sum });
        narrow[r] = requantiser.narrow as i32;
        multiplier[r] = requantiser.multiplier.to_bits().into();
        widen[r] = requantiser.widen as i32;
    }
    let (narrow, multiplier, widen) = (s.load(&narrow), s.load(&multiplier), s.load(&widen));
    let one = s.splat(1);
    let narrow_half = s.shr(s.shlv(one, narrow), 1);
    let widen_half = s.shr(s.shlv(one, widen), 1);
    let (low, high) = (s.splat(i16::MIN.into()), s.splat(i16::MAX.into()));
    let (out_low, out_high, byte) = (s.splat(i8::MIN.into()), s.splat(i8::MAX.into()), s.splat(0xff));
    let mut lanes = [0; MAX_ROWS];
    for (quad, accumulators) in group.accumulator.chunks_exact(FOUR * S::ROWS).enumerate().take(dim.div_ceil(FOUR)) {
        let mut columns = [s.splat(0); FOUR];
        for c in 0..FOUR {
            let accumulator = s.load(&accumulators[c * S::ROWS..]);
            let narrowed = s.sarv(s.add(accumulator, narrow_half), narrow);
            let narrowed = s.max(low, s.min(high, narrowed));
            let output = s.sarv(s.add(s.mul(narrowed, multiplier), widen_half), widen);
            columns[c] = s.and(s.max(out_low, s.min(out_high, output)), byte);
        }
        let bytes = s.pack_bytes(s.pack_u32(columns[0], columns[1]), s.pack_u32(columns[2], columns[3]));
        s.store(bytes, &mut lanes);
        let first = quad * FOUR;
        let count = FOUR.min(dim - first);
        for (row, lane) in out.chunks_exact_mut(dim).zip(lanes) {
            let lane = lane.to_le_bytes();
            if count == FOUR {
                row[first..first + FOUR].copy_from_slice(&lane.map(|x| x as i8));
            } else {
                for (to, x) in row[first..].iter_mut().zip(lane) {
                    *to = x as i8;
                }
            }
        }
    }
}
