//! One query against one block of keys: scores, then weights relative to the block's own maximum.
//!
//! Every block has its own reference, because with one running maximum an early dominating key (an attention sink)
//! would round every later block to zero.

use crate::{
    BLOCK, MAX_DIM, Parameters,
    arith::rsh,
    bounds,
    exp2::{ONE, exp2},
    types::{Distance, Fraction, Power, Probability},
};

/// Largest magnitude of a score: `128 · 128 · 256`.
pub const MAX_SCORE: i32 = 128 * 128 * MAX_DIM as i32;

/// Writes `query · key` for each row of `keys`, `[at most scores.len(), query.len()]`; magnitudes at most [`MAX_SCORE`].
#[inline]
pub fn scores(query: &[i8], keys: &[i8], scores: &mut [i32]) {
    for (score, key) in scores.iter_mut().zip(keys.chunks_exact(query.len().max(1))) {
        *score = query.iter().zip(key).map(|(&q, &k)| i32::from(q) * i32::from(k)).sum();
        debug_assert!(bounds::SCORE.contains((*score).into()));
    }
}

/// A block whose probabilities sum to less (on average 17 of 255 over a full block) is dominated by few keys.
pub const DOMINATED_BELOW: i32 = 17 * BLOCK as i32;

/// Rounding may change a block's sum by one part in this many: by half an output step.
pub const ROUNDING_PARTS: i32 = 256;

/// Keys whose power is less are far from the maximum: more than four octaves below.
pub const FAR_BELOW: Power = Power::from_bits(ONE.to_bits() >> 4);

/// What the keys of one block weigh for one row, and what that is relative to: key `j` weighs
/// `probability(powers[j]) · fraction · 2^exponent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weights {
    /// Relative to the block's maximum; 0 where a key is not visible.
    pub powers: [Power; BLOCK],
    /// The block's maximum in octaves, rounded up.
    pub exponent: i32,
    /// What the maximum lacks to that, as a factor.
    pub fraction: Fraction,
}

impl Weights {
    /// The weights of the keys whose bit is set in `visible`; there must be one.
    ///
    /// The maximum is taken over visible keys only, so that hidden keys change nothing.
    #[must_use]
    #[inline]
    pub fn new(parameters: &Parameters, scores: &[i32; BLOCK], visible: u64) -> Self {
        let seen = |j: usize| visible >> j & 1 == 1;
        let maximum = scores.iter().enumerate().filter(|&(j, _)| seen(j)).map(|(_, &score)| score).max().unwrap_or(0);
        let mut powers = [Power::ZERO; BLOCK];
        for (j, (power, &score)) in powers.iter_mut().zip(scores).enumerate() {
            if seen(j) {
                debug_assert!(bounds::BELOW.contains((maximum - score).into()));
                *power = exp2(distance(parameters, maximum - score));
                debug_assert!(bounds::POWER.contains(power.to_bits().into()));
            }
        }
        let octaves = octaves(parameters, maximum);
        let exponent = (octaves + ((1 << Distance::FRAC_NBITS) - 1)) >> Distance::FRAC_NBITS;
        debug_assert!(bounds::EXPONENT.contains(exponent.into()));
        let lack = Distance::from_bits(((exponent << Distance::FRAC_NBITS) - octaves) as u16);
        Self { powers, exponent, fraction: fraction(lack) }
    }

    /// The visible keys that 8 bits relative to this maximum do not represent, one bit a key; none where they all do.
    ///
    /// 8 bits are not enough where few keys dominate, or where rounding changes the sum by more than 1/256. Then the keys
    /// [far](FAR_BELOW) from the maximum are better absorbed apart.
    #[must_use]
    #[inline]
    pub fn far(&self, visible: u64) -> u64 {
        let exact: i32 = self.powers.iter().map(|power| i32::from(power.to_bits())).sum();
        let rounded: i32 = self.powers.iter().map(|&power| i32::from(probability(power).to_bits())).sum();
        // One probability step is 128 power steps.
        let error = (exact - rounded * 128).abs();
        debug_assert!(bounds::POWERS.contains(exact.into()) && bounds::PROBABILITIES.contains(rounded.into()));
        debug_assert!(bounds::ROUNDING.contains((error * ROUNDING_PARTS).into()));
        if rounded >= DOMINATED_BELOW && error * ROUNDING_PARTS <= rounded * 128 {
            return 0;
        }
        let far = self.powers.iter().enumerate().filter(|(_, power)| **power < FAR_BELOW);
        far.fold(0, |bits, (j, _)| bits | 1 << j) & visible
    }
}

/// A power rounded to 8 bits, to nearest.
#[must_use]
#[inline]
pub const fn probability(power: Power) -> Probability {
    const DROPPED: u32 = Power::FRAC_NBITS - Probability::FRAC_NBITS;
    Probability::from_bits(((power.to_bits() + (1 << (DROPPED - 1))) >> DROPPED) as u8)
}

/// How far `below` score units are, in octaves, rounded down; `0 <= below <= 2 · MAX_SCORE`.
#[inline]
#[must_use]
pub fn distance(parameters: &Parameters, below: i32) -> Distance {
    let shift = parameters.score_shift();
    let narrow = (below >> shift.max(0)).min(u16::MAX.into()) as u32;
    let product = narrow * u32::from(parameters.score_multiplier().to_bits());
    debug_assert!(bounds::DISTANCE_PRODUCT.contains(product.into()));
    // Saturates not below 15.99 octaves, where a probability is 0.
    Distance::from_bits((product >> (16 + shift.min(0))).min(u16::MAX.into()) as u16)
}

/// A score in octaves, with the fraction bits of [`Distance`] and **the same multiplier**: with another rounding of it,
/// blocks would disagree by a fraction of an octave. Fits an `i32`: [`bounds::OCTAVES`].
#[inline]
fn octaves(parameters: &Parameters, score: i32) -> i32 {
    let shift = parameters.score_shift() + 16;
    let product = i64::from(score) * i64::from(parameters.score_multiplier().to_bits());
    let octaves = (product + (1 << (shift - 1))) >> shift;
    debug_assert!(bounds::OCTAVES.contains(octaves));
    octaves as i32
}

/// `exp2` of less than an octave, rounded to 9 bits: as many as keep [`bounds::BLOCK_PRODUCTS`] below 2^30.
#[inline]
#[must_use]
pub fn fraction(lack: Distance) -> Fraction {
    const DROPPED: u32 = Power::FRAC_NBITS - Fraction::FRAC_NBITS;
    let fraction = rsh(exp2(lack).to_bits().into(), DROPPED);
    debug_assert!(bounds::FRACTION.contains(fraction.into()));
    Fraction::from_bits(fraction as u16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Scales;

    extern crate std;

    fn parameters(dim: usize, scale: f32) -> Parameters {
        Parameters::new(dim, Scales { query: scale, key: 1.0, value: 1.0, out: 1.0 }).expect("in range")
    }

    #[test]
    fn the_largest_score() {
        let (lowest, highest) = ([i8::MIN; MAX_DIM], [i8::MAX; MAX_DIM]);
        let mut got = [0; 2];
        scores(&lowest, [lowest, highest].as_flattened(), &mut got);
        assert_eq!(got, [MAX_SCORE, -127 * 128 * 256]);
    }

    #[test]
    fn every_fraction_is_within_its_range() {
        for bits in 0..2048 {
            let got = f64::from(fraction(Distance::from_bits(bits)));
            let exact = 255.0 / 256.0 * (-f64::from(bits) / 2048.0).exp2();
            assert!((255.0..=510.0).contains(&(got * 512.0)), "{bits}: {got}");
            assert!((got - exact).abs() <= 0.6 / 512.0, "{bits}: {got} is not {exact}");
        }
    }

    #[test]
    fn every_maximum_is_its_octaves_rounded_up_and_a_fraction() {
        // One score unit is one step of a distance.
        let p = parameters(64, 8.0 / 2048.0 / std::f32::consts::LOG2_E);
        for maximum in -10_000..=10_000_i32 {
            let mut scores = [MAX_SCORE; BLOCK];
            scores[7] = maximum;
            let got = Weights::new(&p, &scores, 1 << 7);
            assert_eq!(got.exponent, (f64::from(maximum) / 2048.0).ceil() as i32, "{maximum}");
            assert_eq!(got.fraction, fraction(Distance::from_bits((got.exponent * 2048 - maximum) as u16)));
        }
    }

    #[test]
    fn every_distance_is_near_the_exact_one_or_saturated_far_away() {
        for dim in [8, 64, 256] {
            for scale in [1e-9, 1e-4, 0.003, 0.03, 0.2, 1.0, 2.0, 32.0 / (dim as f32).sqrt()] {
                if f64::from(scale) * (dim as f64).sqrt() > 32.0 {
                    continue;
                }
                let p = parameters(dim, scale);
                let unit = f64::from(scale) / (dim as f64).sqrt() * std::f64::consts::LOG2_E;
                let largest = 2 * 128 * 128 * dim as i32;
                for below in (0..70_000).chain((70_000..largest).step_by(997)).chain([largest]) {
                    let got = f64::from(distance(&p, below));
                    let exact = f64::from(below) * unit;
                    if exact < 15.9 {
                        // Rounded down twice, and the multiplier's own rounding.
                        let lowest = exact * (1.0 - 1.0 / 32_768.0) - 2.0 / 2048.0;
                        assert!((lowest..=exact * (1.0 + 1.0 / 32_768.0)).contains(&got), "{dim} {scale} {below}");
                    } else {
                        assert!(got >= 15.8, "{dim} {scale} {below}: {got} is not far");
                    }
                }
            }
        }
    }

    #[test]
    fn hidden_keys_change_nothing() {
        let p = parameters(64, 0.01);
        let mut scores = [0; BLOCK];
        for (j, score) in scores.iter_mut().enumerate() {
            *score = (j as i32 * 7919) % 5000;
        }
        let visible = 0x5a5a_0ff0_1234_8001;
        let expected = Weights::new(&p, &scores, visible);
        for (j, score) in scores.iter_mut().enumerate() {
            if visible >> j & 1 == 0 {
                *score = if j % 2 == 0 { MAX_SCORE } else { -MAX_SCORE };
            }
        }
        assert_eq!(Weights::new(&p, &scores, visible), expected);
    }

    #[test]
    fn every_power_rounds_to_8_bits() {
        for bits in 0..=ONE.to_bits() {
            let got = f64::from(probability(Power::from_bits(bits)).to_bits());
            assert!((got - f64::from(bits) / 128.0).abs() <= 0.5, "{bits}: {got}");
        }
    }

    #[test]
    fn far_keys_are_split_off_where_8_bits_err() {
        let weights = |powers| Weights { powers, exponent: 0, fraction: Fraction::ZERO };
        let power = Power::from_bits;
        let all = u64::MAX;
        // All equal: exact in 8 bits.
        assert_eq!(weights([ONE; BLOCK]).far(all), 0);
        // One key dominates, the others would lose their 0.49; hidden keys are not split off.
        let mut sink = [power(63); BLOCK];
        sink[5] = ONE;
        assert_eq!(weights(sink).far(all), !(1 << 5));
        assert_eq!(weights(sink).far(0xf0), 0xd0);
        // Enough weight, but nearly all of it rounded in one direction, by 1/80.
        let mut biased = [power((20 << 7) + 32); BLOCK];
        biased[0] = ONE;
        biased[1] = power(63);
        assert_eq!(weights(biased).far(all), 1 << 1);
        // The same weight, rounded in both directions.
        let mut even = biased;
        for power in even.iter_mut().skip(2).step_by(2) {
            *power = Power::from_bits((20 << 7) - 32);
        }
        assert_eq!(weights(even).far(all), 0);
        // An error of exactly 1/256 is allowed: 640 of 1280 · 128 power steps, 63 + 18 · 32 and the rest.
        for (rest, expected) in [(1, 0), (2, 1 << 1)] {
            let mut powers = [power(20 << 7); BLOCK];
            powers[1] = power(63);
            powers[2] = power(40 << 7);
            powers[3..21].fill(power((20 << 7) + 32));
            powers[21] = power((20 << 7) + rest);
            assert_eq!(weights(powers).far(all), expected, "{rest}");
        }
        // The boundaries: a sum of DOMINATED_BELOW is enough, and four octaves below is not far.
        let mut edge = [power(17 << 7); BLOCK];
        assert_eq!(weights(edge).far(all), 0);
        edge[9] = power(16 << 7);
        assert_eq!(weights(edge).far(all), 0, "nothing is far");
        edge[10] = power((16 << 7) - 8);
        edge[11] = power((16 << 7) - 9);
        assert_eq!(weights(edge).far(all), 1 << 11);
    }
}
