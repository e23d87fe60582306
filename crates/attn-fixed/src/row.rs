//! One row of attention, block by block: each block's probabilities times values are merged into a running sum whose
//! reference is a power of two, so that merging is shifting.
//!
//! ## Dominated blocks are absorbed as two
//! A probability has 8 bits, because 8-bit products are what hardware multiplies fastest. That is not enough where few keys
//! of a block dominate (the others round to nothing, or to one) or where rounding errs in one direction. Both show in
//! the block's sums, and both matter only if the block reaches the row's reference. Such a block is absorbed as two: the
//! keys near its maximum, then the rest, which thereby gets a maximum of its own ([`Weights::far`]). Nothing else in the
//! arithmetic knows of it.
//!
//! ## Bounds
//! `|Σ p·v| <= 128 · Σ p`, rounding is monotone and the same shifts are applied to both, hence `|accumulator| <= sum`
//! always; and the reference rises by one octave whenever the sum reaches 2^29, so that any number of keys fits
//! ([`bounds`] computes with both). A block without a visible key is skipped altogether: it does not raise the reference either.

use crate::{
    BLOCK, Output, Parameters,
    arith::rsh,
    block::{Weights, probability},
    bounds,
};

/// The reference rises when the sum reaches 2^29.
pub const SUM_BITS: u32 = 29;

/// Shift of a block at the row's reference: the smallest that leaves room to round. The sum then has 15 bits below one
/// probability and the accumulator 8.
pub const MERGE_SHIFT: u32 = 1;

/// Blocks this many octaves below the reference vanish: shifted by 31 they round to 0.
pub const VANISHED: i32 = 31 - MERGE_SHIFT as i32;

/// Below every exponent: the reference of a row without keys.
pub const NO_REFERENCE: i32 = -(1 << 24);

/// Bits that the sum has below the accumulator: that of the largest value, 128, makes their bounds equal.
pub const VALUE_BITS: u32 = 7;

/// The running state of one row.
#[derive(Debug)]
pub struct Row<'a> {
    /// `Σ p·v` of one block, `[dim]`.
    products: &'a mut [i32],
    /// `Σ p·v` so far, relative to the reference, `[dim]`.
    accumulator: &'a mut [i32],
    /// `Σ p` so far, with [`VALUE_BITS`] more fraction bits than the accumulator; 0 before the first key, then 2^21 to 2^30.
    sum: i32,
    /// Octaves of the reference.
    reference: i32,
}

impl<'a> Row<'a> {
    /// Length of the scratch memory of a row, in `i32`.
    #[must_use]
    pub const fn scratch_len(dim: usize) -> usize {
        2 * dim
    }

    /// A row that has seen no key. `scratch` must have [`scratch_len`](Self::scratch_len) elements.
    #[must_use]
    pub fn new(scratch: &'a mut [i32]) -> Self {
        let (products, accumulator) = scratch.split_at_mut(scratch.len() / 2);
        accumulator.fill(0);
        Self { products, accumulator, sum: 0, reference: NO_REFERENCE }
    }

    /// Absorbs one block: its `scores`, each at most [`MAX_SCORE`](crate::MAX_SCORE), of which `visible` counts, one bit a
    /// key; and its `values`, `[keys, dim]`.
    ///
    /// A block without a visible key changes nothing. Only the last block of a sequence has fewer than [`BLOCK`] keys, or the
    /// bits are those of another sequence.
    #[inline]
    pub fn absorb(&mut self, parameters: &Parameters, scores: &[i32; BLOCK], visible: u64, values: &[i8]) {
        if visible == 0 {
            return;
        }
        let weights = Weights::new(parameters, scores, visible);
        let far = if weights.exponent >= self.reference_with(&weights) { weights.far(visible) } else { 0 };
        if far == 0 {
            self.merge(&weights, values);
        } else {
            self.merge(&Weights::new(parameters, scores, visible & !far), values);
            self.merge(&Weights::new(parameters, scores, far), values);
        }
    }

    /// The reference that the row has when it has merged `weights`.
    #[inline]
    fn reference_with(&self, weights: &Weights) -> i32 {
        weights.exponent.max(self.reference + (self.sum >> SUM_BITS))
    }

    #[inline]
    fn merge(&mut self, weights: &Weights, values: &[i8]) {
        self.products.fill(0);
        let mut sum = 0;
        for (&power, value) in weights.powers.iter().zip(values.chunks_exact(self.products.len().max(1))) {
            let p = i32::from(probability(power).to_bits());
            debug_assert!(bounds::PROBABILITY.contains(p.into()));
            sum += p;
            for (product, &v) in self.products.iter_mut().zip(value) {
                *product += p * i32::from(v);
            }
        }
        debug_assert!(bounds::PROBABILITIES.contains(sum.into()));
        debug_assert!(self.products.iter().all(|&product| bounds::PRODUCTS.contains(product.into())));

        let reference = self.reference_with(weights);
        let lower = (reference - self.reference).min(31) as u32;
        let block_lower = MERGE_SHIFT + (reference - weights.exponent).min(VANISHED) as u32;
        let fraction = i32::from(weights.fraction.to_bits());
        let merge = |old: i32, new: i32| {
            debug_assert!(bounds::BLOCK_PRODUCTS.contains((new * fraction).into()));
            rsh(old, lower) + rsh(new * fraction, block_lower)
        };
        for (accumulator, &product) in self.accumulator.iter_mut().zip(self.products.iter()) {
            *accumulator = merge(*accumulator, product);
        }
        self.sum = merge(self.sum, sum << VALUE_BITS);
        self.reference = reference;
        debug_assert!(bounds::SUM.contains(self.sum.into()) && bounds::REFERENCE.contains(reference.into()));
        debug_assert!(self.accumulator.iter().all(|accumulator| accumulator.abs() <= self.sum));
    }

    /// Writes the row, `[dim]`: the accumulator over the sum; zeros if no key was seen.
    #[inline]
    pub fn finish<O: Output>(self, parameters: &Parameters, out: &mut [O]) {
        O::finish(parameters, self.accumulator, self.sum, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Scales;

    #[test]
    fn blocks_far_apart_do_not_meet() {
        // 1/16 octave a score unit: the largest sum, and one key many octaves above.
        let scale = 8.0 / 16.0 / core::f32::consts::LOG2_E;
        let p = Parameters::new(64, Scales { query: scale, key: 1.0, value: 1.0, out: 1.0 }).expect("in range");
        let state = |blocks: &[(i32, u64)]| {
            let mut scratch = [i32::MAX; 2 * 8];
            let mut row = Row::new(&mut scratch);
            for &(score, visible) in blocks {
                row.absorb(&p, &[score; BLOCK], visible, &[i8::MAX; 8 * BLOCK]);
            }
            (row.sum, row.accumulator[0])
        };
        let (low, high) = ((0, u64::MAX), |exponent: i32| (16 * exponent - 8, 1));
        assert!(state(&[low, low]).0 > 1 << SUM_BITS);
        assert_eq!(state(&[low, low, high(31)]), state(&[high(31)]));
        assert_ne!(state(&[low, low, high(30)]), state(&[high(30)]));
        assert_eq!(state(&[high(30), low]), state(&[high(30)]));
        assert_ne!(state(&[high(29), low]), state(&[high(29)]));
    }

    #[test]
    fn the_reference_rises_when_the_sum_reaches_2_to_the_29() {
        let p = Parameters::new(64, Scales { query: 1.0, key: 1.0, value: 1.0, out: 1.0 }).expect("in range");
        let mut scratch = [0; 2];
        let mut row = Row::new(&mut scratch);
        row.absorb(&p, &[0; BLOCK], 1, &[0; BLOCK]);
        let (weights, reference) = (Weights::new(&p, &[0; BLOCK], 1), row.reference);
        for (sum, expected) in [((1 << 29) - 1, reference), (1 << 29, reference + 1)] {
            row.sum = sum;
            assert_eq!(row.reference_with(&weights), expected, "{sum}");
        }
    }
}
