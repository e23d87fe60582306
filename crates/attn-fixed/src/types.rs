//! The quantities that have a binary point, each with its range: the widths of the arithmetic, told by types.
//!
//! Scores, sums and accumulators are plain `i32`; how far they reach stands in [`bounds`](crate::bounds).

use fixed::{
    FixedU16,
    types::{I1F15, I2F14, U0F8, U0F16, U1F15, U5F11, extra::U9},
};

/// Mantissa of octaves per score unit, in `[1/2, 1)` (0 to 1/2 only where the scores cannot matter); its binary
/// exponent is [`Parameters::score_shift`](crate::Parameters::score_shift).
pub type ScoreMultiplier = U0F16;

/// How far a score lies below its block's maximum, in octaves (`log2` of a ratio of probabilities), in `[0, 32)`,
/// saturated not below 15.99 octaves, where a power is 0 or 1 and a probability 0.
pub type Distance = U5F11;

/// Weight of a key relative to the largest of its block, `2^-distance` in `[0, 255/256]`, as computed: in 16-bit signed
/// lanes.
pub type Power = I1F15;

/// A [`Power`] as it multiplies values: 8 bits, in `[0, 255/256]`.
pub type Probability = U0F8;

/// What a block's maximum lacks to the next power of two, in `[255/512, 510/512]`.
pub type Fraction = FixedU16<U9>;

/// Reciprocal of the 16-bit mantissa of a row's sum: of `[1/2, 1)`, hence in `[1, 2)`.
pub type Reciprocal = U1F15;

/// Mantissa of `scale_v / scale_out`, in `[1/2, 1)`; its exponent is
/// [`Parameters::gain_exponent`](crate::Parameters::gain_exponent).
pub type OutputGain = U0F16;

/// What a row's normalised accumulator is multiplied by, [`Reciprocal`] × [`OutputGain`], in `[1/2, 2)`.
pub type OutputMultiplier = I2F14;
