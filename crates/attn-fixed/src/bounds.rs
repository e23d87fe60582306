//! How far every intermediate value reaches, whatever the input: **nothing overflows**, shown when the crate is compiled.
//!
//! Each interval follows from those before it by the operations of the code; the first ones are the limits of the inputs. What the next
//! operation relies on, a type or the range of a shift, is asserted beside it. Where debug assertions are on, the
//! code holds its values against these intervals, but for those within `exp2`, which tests call with everything there is.

use crate::{
    BLOCK, MAX_DIM, MAX_KEYS, MAX_SCORE, MIN_DIM,
    block::ROUNDING_PARTS,
    exp2::{ONE, exp2},
    requantise::{MANTISSA_BITS, MULTIPLIER_DROPPED, NARROW_SHIFT, OUTPUT_BITS, reciprocal},
    row::{MERGE_SHIFT, NO_REFERENCE, SUM_BITS, VALUE_BITS, VANISHED},
    scale::{MAX_GAIN, MAX_SCORE_SCALE, MAX_SCORE_SHIFT, MIN_GAIN, exponent},
    types::{Distance, Fraction, Power, Probability},
};

/// All integers from `low` to `high`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interval {
    /// The lowest.
    pub low: i64,
    /// The highest.
    pub high: i64,
}

/// `int8`: an element of query, key or value.
pub const INT8: Interval = Interval::new(i8::MIN as i64, i8::MAX as i64);

/// `q · k`, and every sum on the way to it; `int32`.
pub const SCORE: Interval = INT8.times(INT8).sum_of(MAX_DIM).int32();
const _: () = assert!(SCORE.high == MAX_SCORE as i64 && SCORE.low >= -SCORE.high);

/// How far a score lies below the maximum of its block; `int32`.
pub const BELOW: Interval = SCORE.minus(SCORE).at_least(0).int32();

/// What is made 16 bits wide without a sign: differences of scores, the mantissas of the scales.
pub const UNSIGNED16: Interval = Interval::new(0, u16::MAX as i64);

/// [`Parameters::score_shift`](crate::Parameters::score_shift), from that of the steepest scale, which the smallest dimension has.
pub const SCORE_SHIFT: Interval = {
    let steps = MAX_SCORE_SCALE / MIN_DIM as f64 * core::f64::consts::LOG2_E * STEPS;
    assert!(BELOW.high >> MAX_SCORE_SHIFT == 0, "a larger shift would leave the same: nothing");
    Interval::new(-1 - exponent(steps) as i64, MAX_SCORE_SHIFT as i64)
};

/// Steps of a distance in an octave.
const STEPS: f64 = (1_u32 << Distance::FRAC_NBITS) as f64;

/// A difference times the multiplier; `uint32`. It is shifted by 16, or less where the score's shift is negative.
pub const DISTANCE_PRODUCT: Interval = UNSIGNED16.times(UNSIGNED16).uint32();
const _: () = assert!(16 + SCORE_SHIFT.low >= 0);

/// What follows a fraction of an octave in the cubic, each factor of the next product; `int16`.
pub const CUBIC: [Interval; 3] = {
    let [c1, c2, c3] = crate::exp2::CUBIC;
    let x = Interval::new(0, ((1 << Distance::FRAC_NBITS) - 1) << (15 - Distance::FRAC_NBITS));
    let linear = only(c2 as i64).minus(x.times(only(c3 as i64)).int32().rsh(15));
    let square = only(c1 as i64).minus(x.times(linear).int32().rsh(15));
    let one = ONE.to_bits() as i64;
    [linear.int16(), square.int16(), only(one).minus(x.times(square).int32().rsh(15)).int16()]
};

/// A [`Power`] of less than an octave, by every one of them; `int16`.
pub const MANTISSA: Interval = {
    let mut mantissa = only(ONE.to_bits() as i64);
    let mut bits = 0;
    while bits >> Distance::FRAC_NBITS == 0 {
        mantissa = mantissa.with(exp2(Distance::from_bits(bits)).to_bits() as i64);
        bits += 1;
    }
    assert!(CUBIC[2].contains(mantissa.low) && CUBIC[2].contains(mantissa.high));
    mantissa
};

/// A [`Power`]; it is rounded in `int16`.
pub const POWER: Interval = MANTISSA.with(0).int16();

/// A [`Probability`]; `uint8`.
pub const PROBABILITY: Interval = POWER.rsh(Power::FRAC_NBITS - Probability::FRAC_NBITS);
const _: () = assert!(PROBABILITY.high == Probability::MAX.to_bits() as i64);

/// `Σ y`, the powers of a block; `int32`.
pub const POWERS: Interval = POWER.sum_of(BLOCK).int32();

/// `Σ p`, the probabilities of a block; `int32`.
pub const PROBABILITIES: Interval = PROBABILITY.sum_of(BLOCK).int32();

/// What rounding does to the sum of a block, times [`ROUNDING_PARTS`]: each power lies within half a step of a probability; `int32`.
pub const ROUNDING: Interval = {
    let half = 1 << (Power::FRAC_NBITS - Probability::FRAC_NBITS - 1);
    Interval::new(-half, half).sum_of(BLOCK).times(Interval::new(0, ROUNDING_PARTS as i64)).int32()
};

/// `Σ p·v` of a block, and every sum on the way to it; `int32`.
pub const PRODUCTS: Interval = PROBABILITY.times(INT8).sum_of(BLOCK).int32();

/// A block's maximum in steps of a distance; `int32`, also when it is rounded up to an octave.
///
/// A score is worth `scale · log2(e) / √d`, which is `(scale · √d) · log2(e) / d`, and the largest score is 2^14 a dimension; the
/// multiplier is off by one part in 2^16, and the result is rounded.
pub const OCTAVES: Interval = {
    let most = MAX_SCORE_SCALE * core::f64::consts::LOG2_E * (MAX_SCORE / MAX_DIM as i32) as f64 * STEPS;
    let most = (most * (1.0 + 1.0 / 65_536.0)) as i64 + 1;
    Interval::new(-most, most).plus(Interval::new(0, (1 << Distance::FRAC_NBITS) - 1)).int32();
    Interval::new(-most, most)
};

/// A block's maximum in octaves, rounded up.
pub const EXPONENT: Interval =
    OCTAVES.plus(Interval::new(0, (1 << Distance::FRAC_NBITS) - 1)).shr(Distance::FRAC_NBITS);

/// A [`Fraction`]: 9 bits.
pub const FRACTION: Interval = MANTISSA.rsh(Power::FRAC_NBITS - Fraction::FRAC_NBITS);
const _: () = assert!(FRACTION.high >> Fraction::FRAC_NBITS == 0);

/// A block as it is merged, its products or the sum that bounds them times the fraction; `int32`, also when a shift of up to 31
/// bits rounds it, and a shift by 31 leaves nothing.
pub const BLOCK_PRODUCTS: Interval = PROBABILITIES.shl(VALUE_BITS).hull(PRODUCTS).times(FRACTION).rounded_int32();
const _: () = {
    assert!(
        PROBABILITIES.high << VALUE_BITS >= -PRODUCTS.low && -PRODUCTS.low >= PRODUCTS.high,
        "the sum bounds the products"
    );
    let vanished = BLOCK_PRODUCTS.rsh(MERGE_SHIFT + VANISHED as u32);
    assert!(MERGE_SHIFT + VANISHED as u32 == 31 && vanished.low == 0 && vanished.high == 0);
};

/// A row's sum once it has seen a key; `int32`, also when a shift of up to 31 bits rounds it.
///
/// A block at the row's reference has its largest probability, 255, times a fraction. A sum of 2^29 raises the reference by one octave,
/// no more, and is halved before the next block is added: the interval is what every block leaves it in.
pub const SUM: Interval = {
    let block = PROBABILITIES.at_least(PROBABILITY.high).shl(VALUE_BITS).times(FRACTION).rsh(MERGE_SHIFT);
    let rises_at = 1 << SUM_BITS;
    let sum = Interval::new(block.low, rises_at - 1 + block.high).rounded_int32();
    assert!(sum.high >> SUM_BITS == 1 && only(sum.high).rsh(1).high + block.high <= sum.high);
    assert!(rises_at >> 1 >= sum.low, "nor does it fall below the lowest when it is halved");
    sum
};

/// A row's accumulators, `|Σ p·v|`: rounding is monotone, and what is done to them is done to the sum that bounds them.
pub const ACCUMULATOR: Interval = Interval::new(-SUM.high, SUM.high).rounded_int32();

/// A row's reference in octaves: none, or that of a block, and one more for every rise; at most two merges a block.
pub const REFERENCE: Interval = {
    assert!((NO_REFERENCE as i64) < EXPONENT.low, "the first block raises it");
    Interval::new(NO_REFERENCE as i64, EXPONENT.high + 2 * (MAX_KEYS / BLOCK) as i64).int32()
};
/// Of two references the difference is an `int32` too.
const _: Interval = REFERENCE.minus(REFERENCE.hull(EXPONENT)).int32();

/// `floor(log2 sum)`.
pub const SUM_LOG2: Interval = Interval::new(SUM.low.ilog2() as i64, SUM.high.ilog2() as i64);
const _: () = assert!(SUM_LOG2.low >= MANTISSA_BITS as i64, "the sum has the bits of its mantissa");

/// A mantissa's [`Reciprocal`](crate::types::Reciprocal); `uint16`.
pub const RECIPROCAL: Interval =
    Interval::new(reciprocal(u16::MAX).to_bits() as i64, reciprocal(1 << MANTISSA_BITS).to_bits() as i64);

/// The gain's mantissa; `uint16`.
pub const GAIN: Interval = Interval::new(1 << 15, u16::MAX as i64);

/// The gain's exponent.
pub const GAIN_EXPONENT: Interval = Interval::new(exponent(MIN_GAIN) as i64 + 1, exponent(MAX_GAIN) as i64 + 1);

/// [`Requantiser::multiplier`](crate::requantise::Requantiser::multiplier); `int16`. The product of reciprocal and gain is rounded in
/// `uint32`.
pub const OUTPUT_MULTIPLIER: Interval = {
    let product = RECIPROCAL.times(GAIN);
    product.plus(Interval::new(0, 1 << (MULTIPLIER_DROPPED - 1))).uint32();
    product.rsh(MULTIPLIER_DROPPED).int16()
};

/// What is shifted in all.
const OUTPUT_SHIFT: Interval = SUM_LOG2.plus(only(OUTPUT_BITS as i64)).minus(GAIN_EXPONENT);

/// [`Requantiser::narrow`](crate::requantise::Requantiser::narrow).
pub const NARROW: Interval = OUTPUT_SHIFT.minus(only(NARROW_SHIFT as i64)).at_least(0).shift();

/// [`Requantiser::widen`](crate::requantise::Requantiser::widen).
pub const WIDEN: Interval = OUTPUT_SHIFT.hull(only(NARROW_SHIFT as i64)).at_most(NARROW_SHIFT as i64).shift();

/// A narrowed accumulator times the multiplier; `int32`, also when it is rounded.
pub const OUTPUT_PRODUCT: Interval = {
    let product = Interval::new(i16::MIN as i64, i16::MAX as i64).times(OUTPUT_MULTIPLIER).int32();
    product.plus(Interval::new(0, 1 << (WIDEN.high - 1))).int32();
    product
};

/// An interval of one number.
const fn only(x: i64) -> Interval {
    Interval::new(x, x)
}

impl Interval {
    const fn new(low: i64, high: i64) -> Self {
        assert!(low <= high);
        Self { low, high }
    }

    /// Whether it has this number.
    #[must_use]
    pub const fn contains(self, x: i64) -> bool {
        self.low <= x && x <= self.high
    }

    const fn plus(self, other: Self) -> Self {
        Self::new(self.low + other.low, self.high + other.high)
    }

    const fn minus(self, other: Self) -> Self {
        Self::new(self.low - other.high, self.high - other.low)
    }

    const fn times(self, other: Self) -> Self {
        only(self.low * other.low).with(self.low * other.high).with(self.high * other.low).with(self.high * other.high)
    }

    /// Sums of at most `n` of them.
    const fn sum_of(self, n: usize) -> Self {
        self.with(0).times(only(n as i64))
    }

    /// The least interval that has this number too.
    const fn with(self, x: i64) -> Self {
        Self::new(if x < self.low { x } else { self.low }, if x > self.high { x } else { self.high })
    }

    const fn hull(self, other: Self) -> Self {
        self.with(other.low).with(other.high)
    }

    /// The maximum of each number and `low`.
    const fn at_least(self, low: i64) -> Self {
        Self::new(if self.low < low { low } else { self.low }, if self.high < low { low } else { self.high })
    }

    /// The minimum of each number and `high`.
    const fn at_most(self, high: i64) -> Self {
        Self::new(if self.low > high { high } else { self.low }, if self.high > high { high } else { self.high })
    }

    const fn shl(self, n: u32) -> Self {
        self.times(only(1 << n))
    }

    /// Shifted right, rounded down.
    const fn shr(self, n: u32) -> Self {
        Self::new(self.low >> n, self.high >> n)
    }

    /// Shifted right, rounded half up.
    const fn rsh(self, n: u32) -> Self {
        self.plus(only((1 << n) >> 1)).shr(n)
    }

    /// Asserted to fit.
    const fn within(self, low: i64, high: i64) -> Self {
        assert!(low <= self.low && self.high <= high, "overflows");
        self
    }

    const fn int16(self) -> Self {
        self.within(i16::MIN as i64, i16::MAX as i64)
    }

    const fn int32(self) -> Self {
        self.within(i32::MIN as i64, i32::MAX as i64)
    }

    const fn uint32(self) -> Self {
        self.within(0, u32::MAX as i64)
    }

    /// Asserted to fit `int32`, also with what is added before a shift by at most 31 bits, to round.
    const fn rounded_int32(self) -> Self {
        self.plus(Self::new(0, 1 << 30)).int32();
        self.int32()
    }

    /// Asserted to be a shift of an `int32`.
    const fn shift(self) -> Self {
        self.within(0, 31)
    }
}
