/* What attention computes once per row: docs/arithmetic.md in scalars of 32 bits, without a division.
 *
 * Shared by the portable kernel and the vector kernel. ATTN_INT and ATTN_UINT are int32_t and uint32_t; the host model of the
 * vector kernel puts types there that count.
 */
#ifndef ATTENTION_ROW_H
#define ATTENTION_ROW_H

#include "attention_tile.h"

#ifndef ATTN_INT
#define ATTN_INT int32_t
#define ATTN_UINT uint32_t
#endif

static inline ATTN_INT attn_min(ATTN_INT a, ATTN_INT b) { return a < b ? a : b; }
static inline ATTN_INT attn_max(ATTN_INT a, ATTN_INT b) { return a > b ? a : b; }

/* x / 2^n, rounded half up; 0 <= n <= 31, |x| < 2^30. */
static inline ATTN_INT attn_rsh(ATTN_INT x, ATTN_INT n) { return (x + (ATTN_INT)(((ATTN_UINT)1 << n) >> 1)) >> n; }

/* 255/256 * 2^-(x / 2048), 15 fraction bits; 0 <= x < 2048. The specification's products have 15 fraction bits and an x of 15. */
static inline ATTN_INT attn_mantissa(ATTN_INT x) {
    const int half = 1 << (ATTN_DISTANCE_BITS - 1);
    ATTN_INT mantissa = ATTN_EXP2_C2 - ((x * ATTN_EXP2_C3 + half) >> ATTN_DISTANCE_BITS);
    mantissa = ATTN_EXP2_C1 - ((x * mantissa + half) >> ATTN_DISTANCE_BITS);
    return ATTN_EXP2_ONE - ((x * mantissa + half) >> ATTN_DISTANCE_BITS);
}

/* The same for any distance, 0 to 65535. */
static inline ATTN_INT attn_exp2(ATTN_INT distance) {
    return attn_mantissa(distance & ((1 << ATTN_DISTANCE_BITS) - 1)) >> (distance >> ATTN_DISTANCE_BITS);
}

/* A score in octaves, with the fraction bits of a distance: (score * c + 2^(s-1)) >> s with s = sh + 16, exactly.
 *
 * The product has 39 bits: its upper part is that of the score without its lowest 12 bits. */
static inline ATTN_INT attn_octaves(ATTN_INT score, ATTN_INT score_multiplier, ATTN_INT score_shift) {
    ATTN_INT shift = score_shift + 16;
    ATTN_INT high = (score >> 12) * score_multiplier;
    ATTN_INT low = (score & 4095) * score_multiplier;
    if (shift > 12) {
        return attn_rsh(high + (low >> 12), shift - 12);
    }
    /* The caller's limit on the scale keeps the result in 32 bits, and with it its upper part. */
    return (ATTN_INT)((ATTN_UINT)high << (12 - shift)) + attn_rsh(low, shift);
}

/* What a block's maximum is relative to, as attn_octaves gives it. */
struct attn_magnitude {
    ATTN_INT exponent; /* its octaves, rounded up */
    ATTN_INT fraction; /* what it lacks to that as a factor, 9 bits */
};

static inline struct attn_magnitude attn_magnitude_of(ATTN_INT octaves) {
    struct attn_magnitude magnitude;
    magnitude.exponent = (octaves + ((1 << ATTN_DISTANCE_BITS) - 1)) >> ATTN_DISTANCE_BITS;
    /* Only the fraction: the exponent may be too large to be shifted back. */
    ATTN_INT lack = (0 - octaves) & ((1 << ATTN_DISTANCE_BITS) - 1);
    const int half = 1 << (ATTN_FRACTION_DROPPED - 1);
    magnitude.fraction = (attn_mantissa(lack) + half) >> ATTN_FRACTION_DROPPED;
    return magnitude;
}

/* Keys that row `row` of the object sees in the block that starts at key `first`: the first so many, 0 to 64. */
static inline ATTN_INT attn_visible(const struct attn_parameters *parameters, ATTN_INT row, ATTN_INT first) {
    ATTN_INT end = attn_min(parameters->keys, row + parameters->causal + 1);
    return attn_max(attn_min(end - first, ATTN_BLOCK), 0);
}

/* The reference that a row's sum asks for. */
static inline ATTN_INT attn_risen(ATTN_INT reference, ATTN_INT sum) { return reference + (sum >> ATTN_SUM_BITS); }

/* Whether 8 bits are not enough for a block whose probabilities sum to `rounded`, and its powers to `exact`. */
static inline int attn_is_dominated(ATTN_INT rounded, ATTN_INT exact) {
    ATTN_INT probabilities = rounded << ATTN_PROBABILITY_DROPPED;
    ATTN_INT error = attn_max(exact - probabilities, probabilities - exact);
    return rounded < ATTN_DOMINATED_BELOW || error * ATTN_ROUNDING_PARTS > probabilities;
}

/* How a block and a row come together. */
struct attn_merge {
    ATTN_INT lower;       /* shift of the row, 0 to 31 */
    ATTN_INT block_lower; /* shift of the block's products times the fraction, 1 to 31 */
    ATTN_INT reference;   /* of both together */
    ATTN_INT sum;
};

static inline struct attn_merge attn_merge_of(ATTN_INT reference, ATTN_INT sum, struct attn_magnitude block,
                                              ATTN_INT probabilities) {
    struct attn_merge merge;
    merge.reference = attn_max(block.exponent, attn_risen(reference, sum));
    merge.lower = attn_min(merge.reference - reference, 31);
    merge.block_lower = ATTN_MERGE_SHIFT + attn_min(merge.reference - block.exponent, ATTN_VANISHED);
    merge.sum = attn_rsh(sum, merge.lower) + attn_rsh((probabilities << ATTN_VALUE_BITS) * block.fraction, merge.block_lower);
    return merge;
}

/* What `estimate` lacks to 2^31 / mantissa, times mantissa. */
static inline ATTN_INT attn_lack(ATTN_INT mantissa, ATTN_INT estimate) {
    return (ATTN_INT)((ATTN_UINT)(1u << ATTN_RECIPROCAL_ONE_BITS) - (ATTN_UINT)mantissa * (ATTN_UINT)estimate);
}

/* floor(2^31 / mantissa), 2^15 <= mantissa < 2^16: the line 2^15 * (48 - 32 u) / 17 for 1 / u, two steps of Newton's, which
 * never end above the quotient and at most 1 below it, for any mantissa. */
static inline ATTN_INT attn_reciprocal(ATTN_INT mantissa) {
    ATTN_INT estimate = 92520 - (ATTN_INT)(((ATTN_UINT)mantissa * 61680u) >> 16);
    estimate = estimate + ((estimate * (attn_lack(mantissa, estimate) >> 14)) >> 17);
    estimate = estimate + ((estimate * (attn_lack(mantissa, estimate) >> 9)) >> 22);
    return attn_lack(mantissa, estimate) >= mantissa ? estimate + 1 : estimate;
}

/* How an accumulator becomes int8: rsh(clamp(rsh(accumulator, narrow)) * multiplier, widen), clamped. */
struct attn_requantiser {
    ATTN_INT narrow;     /* 0 to 31 */
    ATTN_INT multiplier; /* at most 32767 */
    ATTN_INT widen;      /* 11 to 21 */
};

/* Floor of the binary logarithm; 1 <= x < 2^30. */
static inline ATTN_INT attn_log2(ATTN_INT x) { return 31 - (ATTN_INT)__builtin_clz((uint32_t)x); }

/* For a row whose sum is 2^21 to 2^30. */
static inline struct attn_requantiser attn_requantiser_of(ATTN_INT sum, ATTN_INT gain, ATTN_INT gain_exponent) {
    struct attn_requantiser requantiser;
    ATTN_INT log2 = attn_log2(sum);
    ATTN_UINT reciprocal = (ATTN_UINT)attn_min(attn_reciprocal(sum >> (log2 - ATTN_MANTISSA_BITS)), 65535);
    ATTN_UINT product = reciprocal * (ATTN_UINT)gain;
    requantiser.multiplier = (ATTN_INT)((product + (1u << (ATTN_MULTIPLIER_DROPPED - 1))) >> ATTN_MULTIPLIER_DROPPED);
    ATTN_INT shift = log2 + ATTN_OUTPUT_BITS - gain_exponent;
    requantiser.narrow = attn_max(shift - ATTN_NARROW_SHIFT, 0);
    requantiser.widen = shift - requantiser.narrow;
    return requantiser;
}

#endif
