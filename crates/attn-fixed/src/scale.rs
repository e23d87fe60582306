//! Float scales in, fixed-point parameters out.

use crate::{
    MAX_DIM, MIN_DIM, ParameterError, Tensor, bounds,
    types::{Distance, OutputGain, ScoreMultiplier},
};

/// Largest `scale_q · scale_k · √dim`: logits of up to 2^14 · 32 nats. Scales of 1 (raw integers) reach 16.
pub const MAX_SCORE_SCALE: f64 = 32.0;

/// Smallest `scale_v / scale_out`; every output rounds to 0 long before.
pub const MIN_GAIN: f64 = 1.0 / 65_536.0;

/// Largest `scale_v / scale_out`; reached only where values cancel to 1/65536 of their range.
pub const MAX_GAIN: f64 = 65_536.0;

/// A score shift beyond this would leave nothing of any score.
pub(crate) const MAX_SCORE_SHIFT: i32 = 24;

/// What one step of each int8 tensor is worth, as a float: `value = scale · int8`.
///
/// Raw integers have scales of 1. All must be positive and finite.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scales {
    /// Scale of the queries.
    pub query: f32,
    /// Scale of the keys.
    pub key: f32,
    /// Scale of the values.
    pub value: f32,
    /// Scale of the output; with the values' scale the output never saturates, as it is a convex combination of values.
    pub out: f32,
}

/// The scales of one head as fixed-point numbers: everything that attention needs beside its tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parameters {
    /// 16 bits, so that the compiler sees that a block's length does not overflow.
    dim: u16,
    score_multiplier: ScoreMultiplier,
    score_shift: i32,
    gain: OutputGain,
    gain_exponent: i32,
    /// The bits of a float: parameters can be compared.
    value_scale: u32,
}

impl Parameters {
    /// Fixed-point parameters for heads of dimension `dim` with the logits `scale_q · scale_k · q·k / √dim`; another softmax
    /// scale than `1 / √dim` is a factor of the query scale.
    ///
    /// Uses `core` only, and gives the same bits on every machine.
    ///
    /// # Errors
    /// `dim` outside 8 to 256; a scale that is zero, negative, NaN or infinite;
    /// `scale_q · scale_k · √dim` above [`MAX_SCORE_SCALE`]; `scale_v / scale_out` outside
    /// [`MIN_GAIN`]`..=`[`MAX_GAIN`].
    pub fn new(dim: usize, scales: Scales) -> Result<Self, ParameterError> {
        if !(MIN_DIM..=MAX_DIM).contains(&dim) {
            return Err(ParameterError::Dim { got: dim });
        }
        for (tensor, got) in [
            (Tensor::Query, scales.query),
            (Tensor::Key, scales.key),
            (Tensor::Value, scales.value),
            (Tensor::Out, scales.out),
        ] {
            if !(got > 0.0 && got.is_finite()) {
                return Err(ParameterError::Scale { tensor, got });
            }
        }
        // Exact: two 24-bit mantissas fit a 53-bit one, and no f64 exponent is out of reach.
        let scale = f64::from(scales.query) * f64::from(scales.key);
        let inverse_sqrt = inverse_sqrt(dim);
        let score_scale = scale * dim as f64 * inverse_sqrt;
        if score_scale > MAX_SCORE_SCALE {
            return Err(ParameterError::ScoreScale { got: score_scale });
        }
        let gain = f64::from(scales.value) / f64::from(scales.out);
        if !(MIN_GAIN..=MAX_GAIN).contains(&gain) {
            return Err(ParameterError::Gain { got: gain });
        }

        // Distance steps per score unit, as mantissa · 2^-shift.
        let steps = scale * inverse_sqrt * core::f64::consts::LOG2_E * power_of_two(Distance::FRAC_NBITS as i32);
        let score_shift = (-exponent(steps) - 1).min(MAX_SCORE_SHIFT);
        let gain_exponent = exponent(gain) + 1;
        debug_assert!(bounds::SCORE_SHIFT.contains(score_shift.into()));
        debug_assert!(bounds::GAIN_EXPONENT.contains(gain_exponent.into()));
        let gain = mantissa(gain, gain_exponent);
        debug_assert!(bounds::GAIN.contains(gain.into()));
        Ok(Self {
            dim: dim as u16,
            score_multiplier: ScoreMultiplier::from_bits(mantissa(steps, -score_shift)),
            score_shift,
            gain: OutputGain::from_bits(gain),
            gain_exponent,
            value_scale: scales.value.to_bits(),
        })
    }

    /// Head dimension, 8 to 256.
    #[must_use]
    pub const fn dim(&self) -> usize {
        self.dim as usize
    }

    /// Mantissa of the octaves per score unit.
    #[must_use]
    pub const fn score_multiplier(&self) -> ScoreMultiplier {
        self.score_multiplier
    }

    /// One score unit is `score_multiplier · 2^-score_shift` steps of [`Distance`]; -14 to 24.
    #[must_use]
    pub const fn score_shift(&self) -> i32 {
        self.score_shift
    }

    /// Scale of the values, for outputs in floats.
    #[must_use]
    pub const fn value_scale(&self) -> f32 {
        f32::from_bits(self.value_scale)
    }

    /// Mantissa of `scale_v / scale_out`.
    #[must_use]
    pub const fn gain(&self) -> OutputGain {
        self.gain
    }

    /// `scale_v / scale_out` is `gain · 2^gain_exponent`; -15 to 17.
    #[must_use]
    pub const fn gain_exponent(&self) -> i32 {
        self.gain_exponent
    }
}

/// `1 / √dim`, relative error below 2^-48, by an integer square root: `core` has no float one.
fn inverse_sqrt(dim: usize) -> f64 {
    ((1_u128 << 104) / dim as u128).isqrt() as f64 / power_of_two(52)
}

/// `floor(log2 x)` of a positive, normal `x`.
pub(crate) const fn exponent(x: f64) -> i32 {
    (x.to_bits() >> 52) as i32 - 1023
}

/// `2^n` for a normal exponent.
const fn power_of_two(n: i32) -> f64 {
    f64::from_bits(((n + 1023) as u64) << 52)
}

/// `x / 2^exponent`, in `[0, 1)`, rounded to 16 fraction bits and kept below 1.
fn mantissa(x: f64, exponent: i32) -> u16 {
    // A float-to-integer cast saturates.
    (x * power_of_two(16 - exponent) + 0.5) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    extern crate std;

    fn scales(query: f32, key: f32, value: f32, out: f32) -> Scales {
        Scales { query, key, value, out }
    }

    #[test]
    fn parameters_are_the_scales() {
        for dim in MIN_DIM..=MAX_DIM {
            for (q, k) in [(1.0, 1.0), (0.07, 0.03), (1e-3, 0.5), (1.5, 1.3)] {
                for gain in [1.0, 0.3, 41.0, 1.0 / 65_536.0, 65_536.0, 255.99] {
                    let p = Parameters::new(dim, scales(q, k, gain, 1.0)).expect("in range");
                    let steps = f64::from(q) * f64::from(k) * std::f64::consts::LOG2_E * 2048.0 / (dim as f64).sqrt();
                    let got = f64::from(p.score_multiplier()) * f64::from(-p.score_shift()).exp2();
                    assert!((got / steps - 1.0).abs() <= 1.0 / 65_536.0, "{dim} {q} {k}");
                    assert!(p.score_multiplier() >= 0.5 && (-14..=MAX_SCORE_SHIFT).contains(&p.score_shift()));
                    let got = f64::from(p.gain()) * f64::from(p.gain_exponent()).exp2();
                    assert!((got / f64::from(gain) - 1.0).abs() <= 1.0 / 65_536.0, "{gain}");
                    assert!(p.gain() >= 0.5 && (-15..=17).contains(&p.gain_exponent()));
                }
            }
        }
    }

    #[test]
    fn every_inverse_root_is_within_its_error() {
        for dim in MIN_DIM..=MAX_DIM {
            // Exact: an integer of 53 bits.
            let root = (inverse_sqrt(dim) * power_of_two(52)) as u128;
            let (square, one) = (root * root * dim as u128, 1_u128 << 104);
            // Twice the error of the root, which is rounded down.
            assert!(square <= one && one - square <= one >> 47, "{dim}");
        }
    }

    #[test]
    fn mantissas_round_half_up_and_stay_below_1() {
        let gain = |value| Parameters::new(64, scales(1.0, 1.0, value, 1.0)).expect("in range").gain().to_bits();
        let half = 1.0 + 1.0 / 65_536.0_f32;
        assert_eq!([half.next_down(), half].map(gain), [32_768, 32_769]);
        assert_eq!([2.0_f32.next_down(), 2.0].map(gain), [65_535, 32_768]);
        // 48 762.498 of 2^13, of which single precision would make 48 762.5.
        let p = Parameters::new(64, scales(1.0, 1.0, 1.497_203_7, 0.251_527_16)).expect("in range");
        assert_eq!((p.gain().to_bits(), p.gain_exponent()), (48_762, 3));
    }

    #[test]
    fn vanishing_scales_make_attention_flat() {
        let tiny = f32::from_bits(1);
        let p = Parameters::new(64, scales(tiny, tiny, 1.0, 1.0)).expect("in range");
        assert_eq!((p.score_multiplier().to_bits(), p.score_shift()), (0, 24));
    }

    #[test]
    fn what_is_no_scale_is_refused() {
        for got in [0.0, -0.0, -1.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for (i, tensor) in [Tensor::Query, Tensor::Key, Tensor::Value, Tensor::Out].into_iter().enumerate() {
                let mut s = [0.5; 4];
                s[i] = got;
                match Parameters::new(64, scales(s[0], s[1], s[2], s[3])) {
                    Err(ParameterError::Scale { tensor: t, got: g }) => {
                        assert_eq!((t, g.to_bits()), (tensor, got.to_bits()));
                    }
                    other => panic!("{got}: {other:?}"),
                }
            }
        }
        for dim in [0, 7, 257, usize::MAX] {
            assert_eq!(Parameters::new(dim, scales(1.0, 1.0, 1.0, 1.0)), Err(ParameterError::Dim { got: dim }));
        }
        // The largest score scale is accepted to the last bit, and nothing above.
        assert!(Parameters::new(64, scales(4.0, 1.0, 1.0, 1.0)).is_ok());
        assert!(matches!(
            Parameters::new(64, scales(4.0, 1.000_001, 1.0, 1.0)),
            Err(ParameterError::ScoreScale { got }) if got > MAX_SCORE_SCALE
        ));
        assert!(Parameters::new(64, scales(f32::MAX, f32::MAX, 1.0, 1.0)).is_err());
        for (value, out) in
            [(1.0, 65_537.0), (65_537.0, 1.0), (f32::MAX, f32::from_bits(1)), (f32::from_bits(1), f32::MAX)]
        {
            assert!(matches!(Parameters::new(64, scales(1.0, 1.0, value, out)), Err(ParameterError::Gain { .. })));
        }
    }
}
