/* What the tests of crates/attn-npu compare with attn-fixed: what the headers compute, and their layout. Host only. */
#include <stddef.h>

#include "attention_layout.h"
#include "attention_row.h"

int32_t attn_host_exp2(int32_t distance);
int32_t attn_host_octaves(int32_t score, int32_t score_multiplier, int32_t score_shift);
int32_t attn_host_log2(int32_t x);
int32_t attn_host_reciprocal(int32_t mantissa);
void attn_host_requantiser(int32_t sum, int32_t gain, int32_t gain_exponent, int32_t *out);
int32_t attn_host_query_at(int32_t i, int32_t c, int32_t dim);
int32_t attn_host_key_at(int32_t j, int32_t c);
int32_t attn_host_value_at(int32_t j, int32_t c);
void attn_host_objects(int32_t queries, int32_t dim, int32_t *out);

int32_t attn_host_exp2(int32_t distance) { return attn_exp2(distance); }

int32_t attn_host_octaves(int32_t score, int32_t score_multiplier, int32_t score_shift) {
    return attn_octaves(score, score_multiplier, score_shift);
}

int32_t attn_host_log2(int32_t x) { return attn_log2(x); }

int32_t attn_host_reciprocal(int32_t mantissa) { return attn_reciprocal(mantissa); }

/* Three numbers: narrow, multiplier, widen. */
void attn_host_requantiser(int32_t sum, int32_t gain, int32_t gain_exponent, int32_t *out) {
    struct attn_requantiser requantiser = attn_requantiser_of(sum, gain, gain_exponent);
    out[0] = requantiser.narrow;
    out[1] = requantiser.multiplier;
    out[2] = requantiser.widen;
}

int32_t attn_host_query_at(int32_t i, int32_t c, int32_t dim) { return attn_query_at(i, c, dim); }
int32_t attn_host_key_at(int32_t j, int32_t c) { return attn_key_at(j, c); }
int32_t attn_host_value_at(int32_t j, int32_t c) { return attn_value_at(j, c); }

/* The constants of the objects, the sizes of those with so many queries and columns, and the offsets of all fields. */
void attn_host_objects(int32_t queries, int32_t dim, int32_t *out) {
    const int32_t objects[] = {
        ATTN_ABI,
        ATTN_ALIGNMENT,
        ATTN_ROWS,
        ATTN_MAX_QUERIES,
        ATTN_DIM_STEP,
        ATTN_NOT_CAUSAL,
        ATTN_PARAMETERS_BYTES,
        ATTN_QUERY_BYTES(queries, dim),
        ATTN_BLOCK_BYTES(dim),
        ATTN_STATE_BYTES(queries, dim),
        (int32_t)sizeof(struct attn_parameters),
        offsetof(struct attn_parameters, abi),
        offsetof(struct attn_parameters, dim),
        offsetof(struct attn_parameters, queries),
        offsetof(struct attn_parameters, keys),
        offsetof(struct attn_parameters, causal),
        offsetof(struct attn_parameters, score_multiplier),
        offsetof(struct attn_parameters, score_shift),
        offsetof(struct attn_parameters, gain),
        offsetof(struct attn_parameters, gain_exponent),
        (int32_t)sizeof(struct attn_state),
        offsetof(struct attn_state, next_key),
        offsetof(struct attn_state, sum),
        offsetof(struct attn_state, reference),
    };
    for (size_t i = 0; i < sizeof objects / sizeof objects[0]; i++) {
        out[i] = objects[i];
    }
}
