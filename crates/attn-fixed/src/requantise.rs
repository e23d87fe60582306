//! The end of a row: `accumulator / sum · scale_v / scale_out`, rounded to int8, without a division per element.

use crate::{
    Parameters,
    arith::rsh,
    bounds,
    types::{OutputMultiplier, Reciprocal},
};

/// Fraction bits of a [`Reciprocal`]: the mantissa of a row's sum has one more, its highest bit set.
pub const MANTISSA_BITS: u32 = Reciprocal::FRAC_NBITS;

/// Bits that reciprocal times gain loses to become a multiplier of 15 bits.
pub const MULTIPLIER_DROPPED: u32 = 17;

/// What is shifted in all is the sum's exponent and so many bits, less the gain's exponent.
pub const OUTPUT_BITS: i32 = 8;

/// At most so many of the bits to be shifted are left when the accumulator has been narrowed to 16 bits and multiplied.
pub const NARROW_SHIFT: i32 = 21;

/// The reciprocal `floor(2^31 / mantissa) / 2^15` of a mantissa with 16 fraction bits in `[1/2, 1)`: within 2^-15.
///
/// An integer division here; a backend may use anything that gives the same for all 32768 inputs.
#[must_use]
#[inline]
pub const fn reciprocal(mantissa: u16) -> Reciprocal {
    // The highest bit is set already; said again, it shows the compiler that this never divides by 0.
    let quotient = (1 << (2 * MANTISSA_BITS + 1)) / (mantissa | 1 << MANTISSA_BITS) as u32;
    // Only the reciprocal of exactly 1/2 has 17 bits.
    Reciprocal::from_bits(if quotient > u16::MAX as u32 { u16::MAX } else { quotient as u16 })
}

/// How the accumulator of one row becomes int8: `rsh(clamp(rsh(accumulator, narrow)) · multiplier, widen)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Requantiser {
    /// First shift, 0 to 31, to a 16-bit signed value (saturated).
    pub narrow: u32,
    /// Factor.
    pub multiplier: OutputMultiplier,
    /// Second shift, 12 to 21, to an 8-bit signed value (saturated).
    pub widen: u32,
}

impl Requantiser {
    /// For a row whose sum of probabilities is `sum`, 2^21 to 2^30.
    #[must_use]
    #[inline]
    pub fn new(parameters: &Parameters, sum: i32) -> Self {
        const ROUNDING: u32 = 1 << (MULTIPLIER_DROPPED - 1);
        let log2 = sum.max(1).ilog2() as i32;
        let reciprocal = reciprocal((sum >> (log2 - MANTISSA_BITS as i32)) as u16);
        let product = u32::from(reciprocal.to_bits()) * u32::from(parameters.gain().to_bits());
        let multiplier = ((product + ROUNDING) >> MULTIPLIER_DROPPED) as i16;
        debug_assert!(
            bounds::SUM_LOG2.contains(log2.into()) && bounds::RECIPROCAL.contains(reciprocal.to_bits().into())
        );
        debug_assert!(bounds::OUTPUT_MULTIPLIER.contains(multiplier.into()));
        let shift = log2 + OUTPUT_BITS - parameters.gain_exponent();
        let narrow = (shift - NARROW_SHIFT).max(0);
        debug_assert!(bounds::NARROW.contains(narrow.into()) && bounds::WIDEN.contains((shift - narrow).into()));
        Self {
            narrow: narrow as u32,
            multiplier: OutputMultiplier::from_bits(multiplier),
            widen: (shift - narrow) as u32,
        }
    }

    /// One element.
    #[must_use]
    #[inline]
    pub const fn apply(&self, accumulator: i32) -> i8 {
        let narrowed = clamp(rsh(accumulator, self.narrow), i16::MIN as i32, i16::MAX as i32);
        let product = narrowed * self.multiplier.to_bits() as i32;
        debug_assert!(bounds::OUTPUT_PRODUCT.contains(product as i64));
        let output = rsh(product, self.widen);
        clamp(output, i8::MIN as i32, i8::MAX as i32) as i8
    }
}

/// `Ord::clamp`, which is not `const`.
const fn clamp(x: i32, low: i32, high: i32) -> i32 {
    if x < low {
        low
    } else if x > high {
        high
    } else {
        x
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Scales;

    extern crate std;

    #[test]
    fn every_reciprocal_is_within_one_step() {
        for mantissa in 1 << 15..=u16::MAX {
            let got = f64::from(reciprocal(mantissa));
            let exact = 65_536.0 / f64::from(mantissa);
            assert!((got - exact).abs() <= 1.0 / 32_768.0, "{mantissa}: {got} is not {exact}");
        }
    }

    #[test]
    fn outputs_are_near_the_exact_quotient() {
        let gains = [1.0 / 65_536.0, 0.01, 0.5, 1.0, 1.7, 40.0, 255.0, 65_536.0];
        let sums = (21..30).flat_map(|bits| [0, 1, 12_345].map(|low| (1 << bits) + low));
        for (gain, sum) in gains.into_iter().flat_map(|gain| sums.clone().map(move |sum| (gain, sum))) {
            let p = Parameters::new(64, Scales { query: 1.0, key: 1.0, value: gain, out: 1.0 }).expect("in range");
            let requantiser = Requantiser::new(&p, sum);
            assert!(requantiser.narrow <= 31 && (12..=21).contains(&requantiser.widen), "{gain} {sum}");
            // The whole range of the accumulator, and that of the output.
            let ranges = [f64::from(sum), f64::from(sum) / f64::from(gain).max(1.0)];
            for (range, step) in ranges.into_iter().flat_map(|range| (-1000..=1000).map(move |step| (range, step))) {
                let accumulator = (range * f64::from(step) / 1000.0) as i32;
                let exact = f64::from(accumulator) / f64::from(sum) * 128.0 * f64::from(gain);
                let got = f64::from(requantiser.apply(accumulator));
                // Rounding, and 2^-13 of the value.
                assert!((got - exact.clamp(-128.0, 127.0)).abs() <= 0.53, "{gain} {sum} {accumulator}: {got} {exact}");
            }
        }
    }
}
