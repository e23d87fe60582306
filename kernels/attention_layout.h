/* Where an element lies in a packed object, in bytes from the start of its part. README.md draws it; layout.rs of
 * crates/attn-npu packs by the same formulas.
 *
 * Everything is cut into the tiles of mmul<4, 8, 8>: queries 4 x 8, keys (transposed) and values 8 x 8, each tile row by row.
 */
#ifndef ATTENTION_LAYOUT_H
#define ATTENTION_LAYOUT_H

#include "attention_tile.h"

/* Column c of query row i. The tiles of 4 rows lie together, in the order of their columns. */
static inline int32_t attn_query_at(int32_t i, int32_t c, int32_t dim) {
    return ((i >> 2) * (dim >> 3) + (c >> 3)) * 32 + (i & 3) * 8 + (c & 7);
}

/* Column c of key j of a block. A tile has 8 columns as its rows, 8 keys as its columns; the tiles of 8 columns lie together. */
static inline int32_t attn_key_at(int32_t j, int32_t c) { return ((c >> 3) * 8 + (j >> 3)) * 64 + (c & 7) * 8 + (j & 7); }

/* Column c of value j of a block. A tile has 8 values as its rows; the tiles of 8 columns lie together. */
static inline int32_t attn_value_at(int32_t j, int32_t c) { return ((c >> 3) * 8 + (j >> 3)) * 64 + (j & 7) * 8 + (c & 7); }

#endif
