/* Scaled dot-product attention in integers. Generated: cargo xtask generate. */

#ifndef ATTN_H
#define ATTN_H

#include <stddef.h>
#include <stdint.h>

/**
 * What came of a call. The numbers stay as they are.
 */
enum attn_status
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * It was done.
     */
    ATTN_STATUS_OK = 0,
    /**
     * A pointer is NULL where one is needed.
     */
    ATTN_STATUS_NULL = 1,
    /**
     * A pointer is not aligned for what it is to.
     */
    ATTN_STATUS_MISALIGNED = 2,
    /**
     * An output lies in the memory of an input.
     */
    ATTN_STATUS_OVERLAP = 3,
    /**
     * A text is not UTF-8.
     */
    ATTN_STATUS_TEXT = 4,
    /**
     * Lengths, numbers of heads and the dimension do not fit each other, or are more than is taken.
     */
    ATTN_STATUS_SHAPE = 5,
    /**
     * A scale, or scales together, that cannot be.
     */
    ATTN_STATUS_SCALE = 6,
    /**
     * A mask does not fit, or has a byte that is neither 0 nor 1.
     */
    ATTN_STATUS_MASK = 7,
    /**
     * A float is NaN or infinite.
     */
    ATTN_STATUS_NOT_FINITE = 8,
    /**
     * No backend has this name.
     */
    ATTN_STATUS_UNKNOWN_BACKEND = 9,
    /**
     * This CPU, or this library, does not have the backend.
     */
    ATTN_STATUS_UNAVAILABLE = 10,
    /**
     * Other backends take this, this one does not: boolean masks, float32, so many keys, an xclbin.
     */
    ATTN_STATUS_UNSUPPORTED = 11,
    /**
     * What an NPU lacks, or what happened to it.
     */
    ATTN_STATUS_NPU = 12,
    /**
     * A bug in the library. A backend that it happened to can only be closed.
     */
    ATTN_STATUS_INTERNAL = 13,
    /**
     * The system has no memory, or no threads, for what a call needs.
     */
    ATTN_STATUS_RESOURCES = 14,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum attn_status attn_status;
#else
typedef int32_t attn_status;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * A backend, ready to compute. Several threads may use one: their calls wait for each other.
 */
typedef struct attn_backend attn_backend;

/**
 * Which keys the queries see: those that every part lets through. Where all of it is zero, every query sees every key.
 */
typedef struct attn_mask {
    /**
     * `[heads]`: the first so many keys are visible (padding behind them); 0 hides all, and the outputs are 0. NULL: all are.
     */
    const size_t *valid_keys;
    /**
     * `[heads]`: query `i` sees the keys `j <= i + causal`; it is the number of keys cached before the first query. NULL: no
     * such rule.
     */
    const size_t *causal;
    /**
     * `allowed_shape`, row-major: 1 where a query sees a key, 0 where not. NULL: no boolean mask. `kernel`, `aie2-model` and
     * `npu` take none.
     */
    const uint8_t *allowed;
    /**
     * `[heads, queries, keys]`, each of which may be 1 instead, and then holds for all.
     */
    size_t allowed_shape[3];
} attn_mask;

/**
 * Attention over several heads of one shape, in int8: what an element stands for is `scale * element`. Batches are heads, too.
 *
 * Lengths are in elements, and say how many queries and keys there are.
 */
typedef struct attn_heads {
    /**
     * Head dimension, 8 to 256.
     */
    size_t dim;
    /**
     * Number of query heads.
     */
    size_t heads;
    /**
     * Number of key and value heads, a divisor of `heads`: query head `h` reads head `h / (heads / kv_heads)`.
     */
    size_t kv_heads;
    /**
     * `[heads, queries, dim]`
     */
    const int8_t *query;
    /**
     * `heads * queries * dim`, with at least 1 query.
     */
    size_t query_len;
    /**
     * `[kv_heads, keys, dim]`
     */
    const int8_t *key;
    /**
     * `kv_heads * keys * dim`, with 1 to 2^20 keys.
     */
    size_t key_len;
    /**
     * `[kv_heads, keys, dim]`
     */
    const int8_t *value;
    /**
     * As `key_len`.
     */
    size_t value_len;
    /**
     * `[heads]`, positive and finite. The softmax scale is `1 / sqrt(dim)`; another one is a factor of these.
     */
    const float *query_scales;
    /**
     * `[kv_heads]`, positive and finite, with `query scale * key scale * sqrt(dim) <= 32`.
     */
    const float *key_scales;
    /**
     * `[kv_heads]`, positive and finite.
     */
    const float *value_scales;
    /**
     * `[heads]`, those of the output, with `2^-16 <= value scale / output scale <= 2^16`. With the scale of the values no
     * output saturates.
     */
    const float *out_scales;
    /**
     * Which keys are seen.
     */
    struct attn_mask mask;
} attn_heads;

/**
 * The same in float32. Each head of each tensor is quantised by its largest magnitude / 127; the output is not rounded to 8
 * bits.
 */
typedef struct attn_heads_f32 {
    /**
     * Head dimension, 8 to 256.
     */
    size_t dim;
    /**
     * Number of query heads.
     */
    size_t heads;
    /**
     * Number of key and value heads, a divisor of `heads`: query head `h` reads head `h / (heads / kv_heads)`.
     */
    size_t kv_heads;
    /**
     * `[heads, queries, dim]`, finite.
     */
    const float *query;
    /**
     * `heads * queries * dim`, with at least 1 query.
     */
    size_t query_len;
    /**
     * `[kv_heads, keys, dim]`, finite.
     */
    const float *key;
    /**
     * `kv_heads * keys * dim`, with 1 to 2^20 keys.
     */
    size_t key_len;
    /**
     * `[kv_heads, keys, dim]`, finite.
     */
    const float *value;
    /**
     * As `key_len`.
     */
    size_t value_len;
    /**
     * Which keys are seen.
     */
    struct attn_mask mask;
} attn_heads_f32;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * The version of the library, such as `0.1.0`.
 */
const char *attn_version(void);

/**
 * Why the last call of this thread that failed did so: one line, with what was given and what is expected. Empty before the
 * first one; there until the next one.
 */
const char *attn_last_error(void);

/**
 * Makes a backend ready to compute.
 *
 * `name`: `auto`, which is the fastest one of this CPU; `scalar`, the specification; `avx512-vnni`, `avx512-bw`, `avx-vnni`,
 * `avx2`; `kernel`, `aie2-model`, the NPU's kernels on this CPU; `npu`, in a library that was built with it. All give the same
 * bits, and none stands in for another one.
 *
 * `xclbin`: the file that an NPU is to run, in UTF-8; NULL for the other backends.
 *
 * `opened`: where the backend is written, to be closed with `attn_close`; NULL if this fails.
 *
 * The vector backends compute on as many threads as there are cores, or as `RAYON_NUM_THREADS` in the environment says, which
 * the first call starts: a process that forks after that must not use them in the child.
 *
 * # Safety
 * `name` and `xclbin` are NULL or end with a zero; `opened` is NULL or can be written.
 */
attn_status attn_open(const char *name,
                      const char *xclbin,
                      struct attn_backend **opened);

/**
 * What computes: the name of the backend, of the chosen one for `auto`; of an NPU also its device, driver, firmware and xclbin.
 * There until the backend is closed. NULL for NULL.
 *
 * # Safety
 * `backend` is NULL or open.
 */
const char *attn_name(const struct attn_backend *backend);

/**
 * Computes attention and writes `out`, `[heads, queries, dim]`: the same bits on every backend.
 *
 * If it fails, `out` is untouched; only an NPU that fails while it computes leaves it of no use.
 *
 * # Safety
 * `backend` is NULL or open. Every other pointer is NULL or to as many elements as are stated.
 */
attn_status attn_attend(const struct attn_backend *backend,
                        const struct attn_heads *heads,
                        int8_t *out,
                        size_t out_len);

/**
 * The same in float32, not rounded to 8 bits at the end: the same bits on every backend but `npu`, which has no float32.
 *
 * # Safety
 * As `attn_attend`.
 */
attn_status attn_attend_f32(const struct attn_backend *backend,
                            const struct attn_heads_f32 *heads,
                            float *out,
                            size_t out_len);

/**
 * Quantises `values`, `heads` heads of equal length one after the other, to `quantised`, each with a scale of its own, its
 * largest magnitude / 127, which is written to `scales`.
 *
 * `len` is the number of values and of quantised ones, a positive multiple of `heads`, the number of scales. If this fails,
 * the outputs are untouched.
 *
 * # Safety
 * Every pointer is NULL or to as many elements as are stated.
 */
attn_status attn_quantise(const float *values,
                          int8_t *quantised,
                          size_t len,
                          float *scales,
                          size_t heads);

/**
 * Closes a backend, which no thread may use any longer. NULL is fine.
 *
 * # Safety
 * `backend` is NULL or open.
 */
void attn_close(struct attn_backend *backend);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* ATTN_H */
