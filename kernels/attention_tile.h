/* Integer attention of a tile: the objects that its entry points take, and the entry points.
 *
 * README.md draws the objects. Every number is little-endian; every object starts on a multiple of ATTN_ALIGNMENT bytes and has
 * a multiple of 64 bytes. Nothing here is checked by the kernel: the host (crates/attn-npu) builds valid objects only.
 */
#ifndef ATTENTION_TILE_H
#define ATTENTION_TILE_H

#include <stdint.h>

#include "attention_constants.h"

/* What the host and the kernel must agree on: changes with every change of an object. */
#define ATTN_ABI 1

#define ATTN_ALIGNMENT 64

/* Rows that are attended together, and so many rows an object can have. */
#define ATTN_ROWS 4
#define ATTN_MAX_QUERIES 64

/* Columns are stored in multiples of this: zeros are added, which change no score, and no other column. */
#define ATTN_DIM_STEP 16

/* `causal` where every query sees every key: more than the last query can lack. */
#define ATTN_NOT_CAUSAL (1 << 30)

/* Starts every tile object and every query object. */
struct attn_parameters {
    int32_t abi;              /* ATTN_ABI */
    int32_t dim;              /* stored columns: 16 to 256, a multiple of ATTN_DIM_STEP */
    int32_t queries;          /* stored rows: 4 to 64, a multiple of ATTN_ROWS */
    int32_t keys;             /* keys of the sequence that are visible: 0 to 2^20; what is stored behind them is not seen */
    int32_t causal;           /* query i of this object sees the keys j <= i + causal; 0 to ATTN_NOT_CAUSAL */
    int32_t score_multiplier; /* c of docs/arithmetic.md, 0 to 65535 */
    int32_t score_shift;      /* sh, -14 to 24 */
    int32_t gain;             /* G, 2^15 to 65535 */
    int32_t gain_exponent;    /* ge, -15 to 17 */
    int32_t reserved[7];      /* 0 */
};

/* Bytes of the parts of an object. The query object is the parameters and the queries; the block object 64 keys and 64 values;
 * the tile object is a query object with one block object behind it. */
#define ATTN_PARAMETERS_BYTES 64
#define ATTN_QUERY_BYTES(queries, dim) ((queries) * (dim))
#define ATTN_KEY_BYTES(dim) (ATTN_BLOCK * (dim))
#define ATTN_BLOCK_BYTES(dim) (2 * ATTN_KEY_BYTES(dim))

/* What is kept between two blocks. Behind it come the accumulators, int32 [queries][dim]. */
struct attn_state {
    int32_t next_key; /* first key of the next block */
    int32_t reserved[15];
    int32_t sum[ATTN_MAX_QUERIES];
    int32_t reference[ATTN_MAX_QUERIES];
};
#define ATTN_STATE_BYTES(queries, dim) (64 + 8 * ATTN_MAX_QUERIES + 4 * (queries) * (dim))

/* The output object is int8 [queries][dim], row by row. */

/* A program with two kernels in it names the second one's entry points apart. */
#ifndef ATTN_ENTRY
#define ATTN_ENTRY(name) attn_##name
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* One tile, at most 64 keys: `out` = softmax(q k^T / sqrt(d)) v. */
void ATTN_ENTRY(tile)(const int8_t *tile, int8_t *out);

/* A sequence of any length: start, then absorb for each block of 64 keys in their order, then finish. The last block may be
 * shorter (`keys` says so); `state` is all that the object needs in between. */
void ATTN_ENTRY(start)(const int8_t *query, int8_t *state);
void ATTN_ENTRY(absorb)(const int8_t *query, const int8_t *block, int8_t *state);
void ATTN_ENTRY(finish)(const int8_t *query, const int8_t *state, int8_t *out);

#ifdef __cplusplus
}
#endif

#endif
