//! The one exponential: `255/256 · 2^-t`.
//!
//! A cubic in the fraction of `t`, then a shift by its integer part. The coefficients minimise the largest error over
//! all 2048 fractions under the operations used here, among those that keep the function monotone
//! (`docs/arithmetic.md`).

use crate::{
    arith::mulhrs,
    types::{Distance, Power},
};

/// The value at distance 0, the largest: 255/256, so that its 8-bit rounding is 255.
pub const ONE: Power = Power::from_bits(255 << 7);

/// `2^-x ≈ ONE - C1·x + C2·x² - C3·x³` for `0 <= x < 1`, coefficients with 15 fraction bits.
pub const CUBIC: [i16; 3] = [22_579, 7_562, 1_305];

/// `255/256 · 2^-distance`, within 2.9 / 32768 of the exact value, monotone; 0 from 15 octaves on.
///
/// ```
/// use attn_fixed::{exp2::{exp2, ONE}, types::Distance};
///
/// assert_eq!(exp2(Distance::ZERO), ONE);
/// assert_eq!(exp2(Distance::from_num(3)), ONE >> 3);
/// ```
#[must_use]
#[inline]
pub const fn exp2(distance: Distance) -> Power {
    const FRACTION: u32 = Distance::FRAC_NBITS;
    let octaves = distance.to_bits() >> FRACTION;
    // 11 fraction bits become 15.
    let x = ((distance.to_bits() & ((1 << FRACTION) - 1)) << (15 - FRACTION)) as i16;
    let [c1, c2, c3] = CUBIC;
    let mantissa = ONE.to_bits() - mulhrs(x, c1 - mulhrs(x, c2 - mulhrs(x, c3)));
    // At most 31 octaves: an i32 is shifted, so that no shift exceeds its type.
    Power::from_bits((mantissa as i32 >> octaves) as i16)
}

#[cfg(test)]
mod tests {
    use super::*;

    extern crate std;

    #[test]
    fn every_input_is_near_the_exact_value_and_monotone() {
        let mut last = ONE;
        for bits in 0..=u16::MAX {
            let got = exp2(Distance::from_bits(bits));
            let exact = 32_640.0 * (-f64::from(bits) / 2048.0).exp2();
            let octaves = bits >> 11;
            // The cubic's error, halved by each octave, and what the shift cuts off.
            let bound = 2.9 / (1_u64 << octaves) as f64 + if octaves == 0 { 0.0 } else { 1.0 };
            let error = f64::from(got.to_bits()) - exact;
            assert!(error.abs() <= bound, "{bits}: {got} is off by {error}");
            assert!(got <= last && got >= 0, "{bits}: not monotone");
            last = got;
        }
        assert_eq!(last, 0);
    }

    #[test]
    fn the_mantissa_stays_within_an_octave() {
        // The block's fraction is exp2 of less than an octave: its width relies on this.
        for bits in 0..2048 {
            let got = exp2(Distance::from_bits(bits)).to_bits();
            assert!((32_640 / 2..=32_640).contains(&got), "{bits}: {got}");
        }
    }
}
