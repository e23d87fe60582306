//! Functions of one argument on everything that it can be, where that is too much for every day: 2^28 to 2^31 numbers each.
//! Those of 16 bits are tested beside the code.

use attn_fixed::{
    Parameters, Scales, bounds, output,
    quantise::{MAX_QUANTISED, fill, scale_of},
};

/// What is handed over at once.
const CHUNK: usize = 1 << 12;

/// Calls `check` with all floats from `first` to `last`, neither negative, in chunks.
fn floats(first: f32, last: f32, mut check: impl FnMut(&[f32])) {
    let mut chunk = [0.0; CHUNK];
    for start in (first.to_bits()..=last.to_bits()).step_by(CHUNK) {
        let count = CHUNK.min((last.to_bits() - start) as usize + 1);
        for (float, bits) in chunk.iter_mut().zip(start..) {
            *float = f32::from_bits(bits);
        }
        check(&chunk[..count]);
    }
}

/// Every quotient is rounded as IEEE 754 rounds to an integer, ties to even.
#[test]
#[ignore = "left to `cargo xtask release-checked`"]
fn every_quotient_is_rounded_to_nearest() {
    let mut quantised = [0; CHUNK];
    floats(0.0, 127.001, |quotients| {
        for sign in [1.0, -1.0] {
            fill(quotients, sign, &mut quantised);
            for (quotient, &got) in quotients.iter().zip(&quantised) {
                let expected = (sign * quotient).round_ties_even() as i8;
                assert!(got == expected, "{quotient} · {sign}: {got}");
            }
        }
    });
}

/// The largest magnitude of a tensor becomes 127, or less where its scale is kept from being subnormal, and is given back within
/// half a step.
#[test]
#[ignore = "left to `cargo xtask release-checked`"]
fn every_largest_magnitude_becomes_127() {
    floats(0.0, f32::MAX, |magnitudes| {
        for &largest in magnitudes {
            let scale = scale_of(largest);
            assert!(scale.is_normal() && scale > 0.0, "{largest}: {scale}");
            let mut quantised = [0];
            fill(&[largest], scale, &mut quantised);
            let [got] = quantised;
            assert!(
                got == 127 || (0..127).contains(&got) && largest < MAX_QUANTISED * f32::MIN_POSITIVE,
                "{largest}: {got}"
            );
            let error = f64::from(got) * f64::from(scale) - f64::from(largest);
            assert!(error.abs() <= 0.5 * f64::from(scale) + 1e-5 * f64::from(largest), "{largest}: off by {error}");
        }
    });
}

/// `128 / sum` in single precision, of every sum that a row can have: two roundings away from the exact quotient.
#[test]
#[ignore = "left to `cargo xtask release-checked`"]
fn the_float_reciprocal_of_every_sum() {
    for sum in bounds::SUM.low as i32..=bounds::SUM.high as i32 {
        let quotient = f64::from(output::reciprocal(sum)) * f64::from(sum) / 128.0;
        assert!((quotient - 1.0).abs() <= f64::from(f32::EPSILON) * 1.000_001, "{sum}: off by {}", quotient - 1.0);
    }
}

/// Every gain that is accepted, as mantissa and exponent, within half of the mantissa's last bit.
#[test]
#[ignore = "left to `cargo xtask release-checked`"]
fn every_gain_is_its_mantissa_and_exponent() {
    floats(1.0 / 65_536.0, 65_536.0, |gains| {
        for &value in gains {
            let parameters = Parameters::new(64, Scales { query: 1.0, key: 1.0, value, out: 1.0 }).expect("in range");
            let (mantissa, exponent) = (parameters.gain().to_bits(), parameters.gain_exponent());
            assert!(
                bounds::GAIN.contains(mantissa.into()) && bounds::GAIN_EXPONENT.contains(exponent.into()),
                "{value}"
            );
            let steps = f64::from(value) * f64::from(16 - exponent).exp2();
            // The largest mantissa stands for what would round to the next octave, too.
            let most = if mantissa == u16::MAX { 1.0 } else { 0.5 };
            assert!((f64::from(mantissa) - steps).abs() <= most, "{value}: {mantissa} · 2^{exponent}");
        }
    });
}
