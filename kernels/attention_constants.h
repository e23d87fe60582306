/* Constants of attn-fixed, the specification. Generated: cargo xtask generate. */
#ifndef ATTENTION_CONSTANTS_H
#define ATTENTION_CONSTANTS_H

/* Keys of a block, and the limits that the host has checked: columns, keys, and the magnitude of a score. */
#define ATTN_BLOCK 64
#define ATTN_MAX_DIM 256
#define ATTN_MAX_KEYS 1048576
#define ATTN_MAX_SCORE 4194304

/* exp2(t): fraction bits of t, and of the result; its largest value; the coefficients. */
#define ATTN_DISTANCE_BITS 11
#define ATTN_POWER_BITS 15
#define ATTN_EXP2_ONE 32640
#define ATTN_EXP2_C1 22579
#define ATTN_EXP2_C2 7562
#define ATTN_EXP2_C3 1305

/* Bits that a power loses to become a probability, and a fraction. */
#define ATTN_PROBABILITY_DROPPED 7
#define ATTN_FRACTION_DROPPED 6

/* When a block is absorbed as two. */
#define ATTN_DOMINATED_BELOW 1088
#define ATTN_ROUNDING_PARTS 256
#define ATTN_FAR_BELOW 2040

/* Merging a block into a row. */
#define ATTN_SUM_BITS 29
#define ATTN_MERGE_SHIFT 1
#define ATTN_VANISHED 30
#define ATTN_NO_REFERENCE (-16777216)
#define ATTN_VALUE_BITS 7

/* The end of a row. The mantissa of its sum has one bit more than MANTISSA_BITS, its reciprocal is
 * floor(2^RECIPROCAL_ONE_BITS / mantissa); the others are those of crates/attn-fixed/src/requantise.rs. */
#define ATTN_MANTISSA_BITS 15
#define ATTN_RECIPROCAL_ONE_BITS 31
#define ATTN_MULTIPLIER_DROPPED 17
#define ATTN_OUTPUT_BITS 8
#define ATTN_NARROW_SHIFT 21

#endif
