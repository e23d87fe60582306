//! One row of attention, block by block: each block's probabilities times values are merged into a running sum whose
//! reference is a power of two, so that merging is shifting.
//!
//! ## 8 bits where they suffice, 15 where they do not
//! A probability has 8 bits, because 8-bit products are what hardware multiplies fastest. Two kinds of blocks need more:
//! where few keys dominate (the others round to nothing or to one), and where rounding errs in one
//! direction. Both
//! show in the block's sums, and both matter only if the block reaches the row's reference. Such a block keeps all
//! 15 bits. With `p = 128 · p8 + r` and `r` in `[-64, 63]`, `Σ p·v / 2^7` is `Σ p8·v + (Σ r·v) / 2^7`: a backend of 8-bit
//! products adds a second one for the remainders.
//!
//! ## Bounds
//! `|Σ p·v / 2^7| <= Σ p`, rounding is monotone and the same shifts are applied to both, hence `|accumulator| <= sum`
//! always; and the reference rises by one octave whenever the sum reaches 2^29, so that any number of keys fits. A block
//! without a visible key is skipped altogether: it does not raise the reference either.

use crate::{
    BLOCK, MAX_KEYS, Parameters,
    arith::rsh,
    block::Weights,
    exp2::ONE,
    requantise::requantise,
    types::{Fraction, Probability},
};

/// Low bits that an 8-bit probability does without.
pub const LOW_BITS: u32 = 7;

/// A block whose 8-bit probabilities sum to less (on average 17 of 255 over a full block) keeps 15 bits.
pub const FULL_PRECISION_BELOW: i32 = 17 * BLOCK as i32;

/// The reference rises when the sum reaches 2^29.
pub const SUM_BITS: u32 = 29;

/// Shift of a block at the row's reference: the smallest that leaves room to round. The sum then has 15 bits below one
/// 8-bit probability and the accumulator 8: enough for what a sink of 2^20 leaves of the other keys.
pub const MERGE_SHIFT: u32 = 1;

/// Blocks this many octaves below the reference vanish: shifted by 31 they round to 0.
pub const VANISHED: i32 = 31 - MERGE_SHIFT as i32;

/// Below every exponent: the reference of a row without keys.
pub const NO_REFERENCE: i32 = -(1 << 24);

// The bounds of the arithmetic, for any input.
const _: () = {
    let full = ONE.to_bits() as i64 * BLOCK as i64; // Σ p of a block
    assert!(full * 128 < 1 << 31, "Σ p·v");
    let block = full * 510; // times the largest fraction: (Σ p)·f, and the bound of (Σ p·v / 2^7)·f
    assert!(block + (1 << 30) < 1 << 31, "rounding by any shift up to 31");
    assert!(block < 1 << 30, "a shift by 31 leaves nothing");
    let merged = block >> MERGE_SHIFT; // what one block adds at most
    let most = (1 << SUM_BITS) + merged; // the sum before it, below 2^29, and one block
    assert!(most < 1 << (SUM_BITS + 1), "the sum raises the reference by one octave at most");
    assert!((most + 1) / 2 + merged <= most, "and that makes room for a block");
    assert!(most + (1 << 30) < 1 << 31, "rounding the sum by any shift up to 31");
    // The lowest reference that a block can have stays above NO_REFERENCE, the highest has room for every rise.
    assert!(NO_REFERENCE < -(1 << (31 - 11)));
    assert!((1 << (31 - 11)) + MAX_KEYS as i64 / BLOCK as i64 + 2048 < 1 << 31);
};

/// The running state of one row.
#[derive(Debug)]
pub struct Row<'a> {
    /// `Σ p·v` of one block, `[dim]`.
    products: &'a mut [i32],
    /// `Σ p·v` so far, relative to the reference, `[dim]`.
    accumulator: &'a mut [i32],
    /// `Σ p` so far, with 7 more fraction bits than the accumulator; 0 before the first key, then 2^21 to 2^30.
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

    /// Merges one block: its `scores` (of which `visible` counts, one bit a key) and its `values`, `[keys, dim]`.
    ///
    /// A block without a visible key changes nothing. Only the last block of a sequence has fewer than [`BLOCK`] keys, or the
    /// bits are those of another sequence.
    #[inline]
    pub fn absorb(&mut self, parameters: &Parameters, scores: &[i32; BLOCK], visible: u64, values: &[i8]) {
        if visible == 0 {
            return;
        }
        let Weights { mut probabilities, exponent, fraction } = Weights::new(parameters, scores, visible);
        let reference = exponent.max(self.reference + (self.sum >> SUM_BITS));
        if exponent < reference || !needs_full_precision(&probabilities) {
            for p in &mut probabilities {
                *p = Probability::from_bits(round_to_8_bits(*p) << LOW_BITS);
            }
        }

        self.products.fill(0);
        let mut sum = 0;
        for (&p, value) in probabilities.iter().zip(values.chunks_exact(self.products.len().max(1))) {
            sum += i32::from(p.to_bits());
            for (product, &v) in self.products.iter_mut().zip(value) {
                *product += i32::from(p.to_bits()) * i32::from(v);
            }
        }

        let lower = (reference - self.reference).min(31) as u32;
        let block_lower = MERGE_SHIFT + (reference - exponent).min(VANISHED) as u32;
        let merge = |old: i32, new: i32| rsh(old, lower) + rsh(new * weight(fraction), block_lower);
        for (accumulator, &product) in self.accumulator.iter_mut().zip(self.products.iter()) {
            *accumulator = merge(*accumulator, rsh(product, LOW_BITS));
        }
        self.sum = merge(self.sum, sum);
        self.reference = reference;
    }

    /// Writes the row, `[dim]`: the accumulator over the sum, in units of the output scale; zeros if no key was seen.
    #[inline]
    pub fn finish(self, parameters: &Parameters, out: &mut [i8]) {
        requantise(parameters, self.accumulator, self.sum, out);
    }
}

/// The probability with 8 fraction bits, 0 to 255, rounded to nearest.
#[inline]
const fn round_to_8_bits(p: Probability) -> i16 {
    (p.to_bits() + (1 << (LOW_BITS - 1))) >> LOW_BITS
}

/// Whether 8 bits are not enough: few keys dominate, or rounding changes the sum by more than 1/256, half an output step.
#[inline]
fn needs_full_precision(probabilities: &[Probability; BLOCK]) -> bool {
    let exact: i32 = probabilities.iter().map(|p| i32::from(p.to_bits())).sum();
    let rounded: i32 = probabilities.iter().map(|&p| i32::from(round_to_8_bits(p))).sum();
    rounded < FULL_PRECISION_BELOW || 2 * (exact - (rounded << LOW_BITS)).abs() > rounded
}

/// The fraction as a factor.
#[inline]
const fn weight(fraction: Fraction) -> i32 {
    fraction.to_bits() as i32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_probability_rounds_to_8_bits() {
        for bits in 0..=ONE.to_bits() {
            let got = f64::from(round_to_8_bits(Probability::from_bits(bits)));
            assert!((got - f64::from(bits) / 128.0).abs() <= 0.5 && (0.0..=255.0).contains(&got), "{bits}");
        }
    }

    #[test]
    fn full_precision_is_kept_where_8_bits_err() {
        let p = |bits: i16| Probability::from_bits(bits);
        let full = ONE.to_bits();
        // All equal: exact in 8 bits.
        assert!(!needs_full_precision(&[ONE; BLOCK]));
        // One key dominates, the others lose their 0.49.
        let mut sink = [p(63); BLOCK];
        sink[5] = ONE;
        assert!(needs_full_precision(&sink));
        // Enough weight, but all rounded in one direction by 1/100.
        let mut biased = [p((50 << LOW_BITS) + 63); BLOCK];
        biased[0] = ONE;
        assert!(needs_full_precision(&biased.map(|q| p(q.to_bits().min(full)))));
        // The same weight, rounded in both directions.
        let mut even = biased;
        for q in even.iter_mut().step_by(2) {
            *q = p((50 << LOW_BITS) - 63);
        }
        even[0] = ONE;
        assert!(!needs_full_precision(&even));
    }
}
