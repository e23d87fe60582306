//! What a row ends as: int8 in steps of the output scale, or floats.

use crate::{Parameters, requantise::Requantiser};

mod sealed {
    pub trait Sealed {}
    impl Sealed for i8 {}
    impl Sealed for f32 {}
}

/// An element of the output: `i8`, requantised with the output scale, or `f32`, which needs none and is not rounded to 8 bits.
pub trait Output: Copy + sealed::Sealed {
    /// Ends a row: its accumulator, `[dim]`, over the sum of its probabilities, 2^21 to 2^30; zeros where that is 0 as no key
    /// was visible.
    fn finish(parameters: &Parameters, accumulator: &[i32], sum: i32, out: &mut [Self]);
}

impl Output for i8 {
    #[inline]
    fn finish(parameters: &Parameters, accumulator: &[i32], sum: i32, out: &mut [Self]) {
        if sum == 0 {
            out.fill(0);
            return;
        }
        let requantiser = Requantiser::new(parameters, sum);
        for (out, &accumulator) in out.iter_mut().zip(accumulator) {
            *out = requantiser.apply(accumulator);
        }
    }
}

/// Single-precision operations in this order, each rounded to nearest, so that the bits are the same on every machine. The
/// mean of the values comes before their scale: neither overflows nor underflows where the output does not.
impl Output for f32 {
    #[inline]
    fn finish(parameters: &Parameters, accumulator: &[i32], sum: i32, out: &mut [Self]) {
        if sum == 0 {
            out.fill(0.0);
            return;
        }
        let reciprocal = reciprocal(sum);
        for (out, &accumulator) in out.iter_mut().zip(accumulator) {
            // 127 times the scale of the largest float is beyond it, as that scale was rounded up.
            *out = (accumulator as Self * reciprocal * parameters.value_scale()).clamp(Self::MIN, Self::MAX);
        }
    }
}

/// What turns an accumulator into the mean of the values: the sum has [`VALUE_BITS`](crate::row::VALUE_BITS) more.
#[must_use]
#[inline]
pub fn reciprocal(sum: i32) -> f32 {
    (1_u32 << crate::row::VALUE_BITS) as f32 / sum as f32
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "exact")]
mod tests {
    use super::*;
    use crate::{MAX_DIM, Scales, row::SUM_BITS};

    fn finish(scale: f32, accumulator: i32, sum: i32) -> f32 {
        let scales = Scales { query: 1e-3, key: 1.0, value: scale, out: scale };
        let parameters = Parameters::new(MAX_DIM, scales).expect("in range");
        let mut out = [f32::NAN];
        f32::finish(&parameters, &[accumulator], sum, &mut out);
        out[0]
    }

    #[test]
    fn the_mean_of_the_values_times_their_scale() {
        for bits in 21..=30 {
            let sum = 1 << bits;
            assert_eq!(finish(0.5, sum, sum), 64.0);
            assert_eq!(finish(0.5, -sum, sum), -64.0);
            assert_eq!(finish(0.5, sum >> 7, sum), 0.5);
        }
        assert_eq!(finish(3.0, 0, 0), 0.0);
    }

    #[test]
    fn extreme_scales_give_finite_outputs() {
        let largest = f32::MAX / 127.0;
        let sum = 1 << SUM_BITS;
        assert_eq!(finish(largest, -sum, sum), f32::MIN);
        let almost = (i64::from(sum) * 127 / 128) as i32;
        assert!((finish(largest, almost, sum) / f32::MAX - 1.0).abs() < 1e-6);
        // A step of the smallest normal scale is exact.
        assert_eq!(finish(f32::MIN_POSITIVE, sum >> 7, sum), f32::MIN_POSITIVE);
        assert_eq!(finish(f32::MIN_POSITIVE, sum >> 8, sum), f32::MIN_POSITIVE / 2.0);
    }
}
