//! Symmetric int8 quantisation, `value ≈ scale · int8` with `int8` in `[-127, 127]`, rounded to nearest (ties to even,
//! as numpy and torch round).

use crate::QuantiseError;

/// The largest quantised magnitude.
pub const MAX_QUANTISED: f32 = 127.0;

/// Quantises one tensor with one scale, its largest magnitude / 127, and returns the scale.
///
/// A tensor of zeros has the scale 1. A scale never falls below the smallest normal `f32`.
///
/// # Errors
/// Empty input, NaN or infinity, or an output of another length; the output is then untouched.
///
/// ```
/// let mut quantised = [0; 3];
/// let scale = attn_fixed::quantise(&[0.5, -2.54, 0.01], &mut quantised)?;
/// assert_eq!((quantised, scale), ([25, -127, 0], 0.02));
/// # Ok::<(), attn_fixed::QuantiseError>(())
/// ```
#[inline]
pub fn quantise(values: &[f32], quantised: &mut [i8]) -> Result<f32, QuantiseError> {
    if quantised.len() != values.len() {
        return Err(QuantiseError::Length { got: quantised.len(), expected: values.len() });
    }
    let scale = scale_of(largest(values)?);
    fill(values, scale, quantised);
    Ok(scale)
}

/// Quantises `scales.len()` heads of equal length, one after the other in `values`, each with a scale of its own.
///
/// # Errors
/// As [`quantise`], and where `values` does not divide into the heads; the outputs are then untouched.
pub fn quantise_heads(values: &[f32], quantised: &mut [i8], scales: &mut [f32]) -> Result<(), QuantiseError> {
    let heads = scales.len();
    if heads == 0 || values.is_empty() || !values.len().is_multiple_of(heads) {
        return Err(QuantiseError::Heads { got: values.len(), heads });
    }
    if quantised.len() != values.len() {
        return Err(QuantiseError::Length { got: quantised.len(), expected: values.len() });
    }
    if let Some((index, &got)) = values.iter().enumerate().find(|(_, x)| !x.is_finite()) {
        return Err(QuantiseError::NotFinite { index, got });
    }
    let head_len = values.len() / heads;
    let head_slices = values.chunks_exact(head_len).zip(quantised.chunks_exact_mut(head_len));
    for (scale, (values, quantised)) in scales.iter_mut().zip(head_slices) {
        *scale = quantise(values, quantised)?;
    }
    Ok(())
}

/// Quantises with a given scale, such as one that was calibrated before, and returns how many elements it saturates: those whose
/// quotient rounds to more than 127 in magnitude become ±127.
///
/// # Errors
/// As [`quantise`], and a scale that is not a positive, finite number; the output is then untouched.
///
/// ```
/// let mut quantised = [0; 3];
/// let saturated = attn_fixed::quantise_with(&[0.5, -2.56, 0.01], 0.02, &mut quantised)?;
/// assert_eq!((quantised, saturated), ([25, -127, 0], 1));
/// # Ok::<(), attn_fixed::QuantiseError>(())
/// ```
#[inline]
pub fn quantise_with(values: &[f32], scale: f32, quantised: &mut [i8]) -> Result<usize, QuantiseError> {
    if quantised.len() != values.len() {
        return Err(QuantiseError::Length { got: quantised.len(), expected: values.len() });
    }
    if !(scale > 0.0 && scale.is_finite()) {
        return Err(QuantiseError::Scale { got: scale });
    }
    // Finds what is not finite, too.
    if largest(values)? <= scale * MAX_QUANTISED {
        fill(values, scale, quantised);
        return Ok(0);
    }
    let mut saturated = 0;
    for (quantised, value) in quantised.iter_mut().zip(values) {
        let quotient = value / scale;
        // A tie is rounded to the even one of 127 and 128.
        saturated += usize::from(quotient.abs() >= MAX_QUANTISED + 0.5);
        *quantised = round(quotient.clamp(-MAX_QUANTISED, MAX_QUANTISED));
    }
    Ok(saturated)
}

/// The largest magnitude; that of a tensor is the largest of its parts.
///
/// # Errors
/// Empty input, NaN or infinity.
#[inline]
pub fn largest(values: &[f32]) -> Result<f32, QuantiseError> {
    if values.is_empty() {
        return Err(QuantiseError::Empty);
    }
    // Of floats without a sign the bits are in order, and NaN and infinity come last.
    let largest = values.iter().fold(0, |largest, value| value.abs().to_bits().max(largest));
    let largest = f32::from_bits(largest);
    if !largest.is_finite() {
        let first = values.iter().enumerate().find(|(_, value)| !value.is_finite());
        return first.map_or(Err(QuantiseError::Empty), |(index, &got)| Err(QuantiseError::NotFinite { index, got }));
    }
    Ok(largest)
}

/// The scale of a tensor with this largest magnitude: the magnitude / 127, 1 for zeros.
#[must_use]
#[inline]
pub fn scale_of(largest: f32) -> f32 {
    if largest == 0.0 { 1.0 } else { (largest / MAX_QUANTISED).max(f32::MIN_POSITIVE) }
}

/// Quantises a tensor or a part of it with the tensor's [scale](scale_of), as many elements as both slices have.
#[inline]
pub fn fill(values: &[f32], scale: f32, quantised: &mut [i8]) {
    for (quantised, value) in quantised.iter_mut().zip(values) {
        *quantised = round(value / scale);
    }
}

/// The nearest integer, a tie to the even one, of at most 127.001 in magnitude.
#[inline]
fn round(quotient: f32) -> i8 {
    // Adding 1.5 · 2^23 leaves no fraction bits: the sum is rounded to an integer, which its low bits are.
    const ROUND: f32 = 12_582_912.0;
    (quotient + ROUND).to_bits() as i8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_to_nearest_and_reaches_127() {
        let mut out = [0; 6];
        let scale = quantise(&[127.0, 0.5, 1.5, -2.5, -126.51, 3.49], &mut out).expect("finite");
        assert_eq!((scale, out), (1.0, [127, 0, 2, -2, -127, 3]));
    }

    #[test]
    fn extremes() {
        let mut out = [1; 2];
        assert_eq!(quantise(&[0.0, -0.0], &mut out), Ok(1.0));
        assert_eq!(out, [0, 0]);
        assert!(quantise(&[f32::MAX, f32::MIN], &mut out).is_ok());
        assert_eq!(out, [127, -127]);
        assert_eq!(quantise(&[f32::from_bits(3), 0.0], &mut out), Ok(f32::MIN_POSITIVE));
        assert_eq!(out, [0, 0]);
    }

    #[test]
    fn heads_have_their_own_scales() {
        let (mut out, mut scales) = ([0; 6], [0.0; 3]);
        quantise_heads(&[1.0, 0.5, 0.0, 0.0, -254.0, 2.0], &mut out, &mut scales).expect("finite");
        assert_eq!(out, [127, 64, 0, 0, -127, 1]);
        assert_eq!(scales.map(f32::to_bits), [1.0 / 127.0, 1.0, 2.0_f32].map(f32::to_bits));
        assert_eq!(quantise_heads(&[1.0, 0.5], &mut out[..2], &mut scales[..1]), Ok(()));
    }

    #[test]
    fn a_given_scale_saturates() {
        let mut out = [0; 6];
        let values = [127.49, 127.5, -127.5, f32::MAX, 0.5, -1.5];
        assert_eq!(quantise_with(&values, 1.0, &mut out), Ok(3));
        assert_eq!(out, [127, 127, -127, 127, 0, -2]);
        // An infinite quotient.
        assert_eq!(quantise_with(&[-1.0], f32::from_bits(1), &mut out[..1]), Ok(1));
        assert_eq!(out[0], -127);
        // Where nothing saturates, as with the tensor's own scale.
        let scale = quantise(&values[..3], &mut out[..3]).expect("finite");
        let own = out;
        assert_eq!(quantise_with(&values[..3], scale, &mut out[..3]), Ok(0));
        assert_eq!(out, own);
        assert_eq!(quantise_with(&[0.0; 6], 1.0, &mut out), Ok(0));
        assert_eq!(out, [0; 6]);
    }

    #[test]
    fn bad_input_is_refused_and_nothing_written() {
        let (mut out, mut scales) = ([9; 4], [9.0; 2]);
        assert_eq!(quantise(&[], &mut []), Err(QuantiseError::Empty));
        assert_eq!(quantise(&[1.0], &mut out), Err(QuantiseError::Length { got: 4, expected: 1 }));
        for bad in [f32::INFINITY, f32::NEG_INFINITY] {
            let error = QuantiseError::NotFinite { index: 2, got: bad };
            assert_eq!(quantise(&[1.0, 1.0, bad, 1.0], &mut out), Err(error));
            assert_eq!(quantise_heads(&[1.0, 1.0, bad, 1.0], &mut out, &mut scales), Err(error));
        }
        assert!(quantise(&[f32::NAN; 4], &mut out).is_err());
        for heads in [0, 2] {
            assert_eq!(
                quantise_heads(&[1.0; 3], &mut out[..3], &mut scales[..heads]),
                Err(QuantiseError::Heads { got: 3, heads })
            );
        }
        assert_eq!(quantise_heads(&[], &mut [], &mut scales), Err(QuantiseError::Heads { got: 0, heads: 2 }));
        assert!(quantise_heads(&[1.0; 4], &mut out[..3], &mut scales).is_err());
        for got in [0.0, -1.0, f32::INFINITY] {
            assert_eq!(quantise_with(&[1.0; 4], got, &mut out), Err(QuantiseError::Scale { got }));
        }
        assert!(quantise_with(&[1.0; 4], f32::NAN, &mut out).is_err());
        assert_eq!(quantise_with(&[], 1.0, &mut []), Err(QuantiseError::Empty));
        assert_eq!(quantise_with(&[1.0], 1.0, &mut out), Err(QuantiseError::Length { got: 4, expected: 1 }));
        let error = QuantiseError::NotFinite { index: 3, got: f32::INFINITY };
        assert_eq!(quantise_with(&[1.0, 500.0, 1.0, f32::INFINITY], 1.0, &mut out), Err(error));
        assert_eq!((out, scales), ([9; 4], [9.0; 2]));
    }
}
