/* The entry points of attention_tile.h in portable C11: the algorithm of crates/attn-fixed/src/row.rs, the same bits.
 *
 * Freestanding: no library, no heap, no 64-bit arithmetic, no division, no writable data. The stack holds one row of
 * accumulators and a few numbers a key: about 2.2 KB.
 */
#include "attention_layout.h"
#include "attention_row.h"

_Static_assert(sizeof(struct attn_parameters) == ATTN_PARAMETERS_BYTES, "the queries follow");
_Static_assert(sizeof(struct attn_state) == ATTN_STATE_BYTES(0, 0), "the accumulators follow");

/* What the keys of a block weigh for one row. */
struct weights {
    int32_t powers[ATTN_BLOCK]; /* relative to the largest, 15 fraction bits; 0 where a key is not seen */
    struct attn_magnitude magnitude;
};

/* What a row has absorbed so far. */
struct row {
    int32_t sum; /* 0 before the first key */
    int32_t reference;
    int32_t *accumulator; /* [dim] */
};

static int32_t clamp(int32_t x, int32_t low, int32_t high) { return attn_max(low, attn_min(x, high)); }

/* scores[j] = q_i k_j, for all keys that the block has room for. */
static void score(const int8_t *queries, int32_t i, const int8_t *keys, int32_t dim, int32_t *scores) {
    for (int32_t j = 0; j < ATTN_BLOCK; j++) {
        scores[j] = 0;
    }
    for (int32_t c = 0; c < dim; c++) {
        int32_t q = queries[attn_query_at(i, c, dim)];
        for (int32_t j = 0; j < ATTN_BLOCK; j++) {
            scores[j] += q * keys[attn_key_at(j, c)];
        }
    }
}

/* How far `below` score units are, in octaves, 11 fraction bits, saturated; 0 <= below <= 2 * ATTN_MAX_SCORE. */
static int32_t distance(const struct attn_parameters *parameters, int32_t below) {
    int32_t shift = parameters->score_shift;
    uint32_t narrow = (uint32_t)attn_min(below >> attn_max(shift, 0), 65535);
    uint32_t steps = (narrow * (uint32_t)parameters->score_multiplier) >> (16 + attn_min(shift, 0));
    return steps < 65535 ? (int32_t)steps : 65535;
}

/* Weighs the keys that are seen, at least one: a byte a key. */
static void weigh(const struct attn_parameters *parameters, const int32_t *scores, const uint8_t *seen,
                  struct weights *weights) {
    int32_t maximum = -ATTN_MAX_SCORE;
    for (int32_t j = 0; j < ATTN_BLOCK; j++) {
        maximum = seen[j] ? attn_max(maximum, scores[j]) : maximum;
    }
    for (int32_t j = 0; j < ATTN_BLOCK; j++) {
        weights->powers[j] = seen[j] ? attn_exp2(distance(parameters, maximum - scores[j])) : 0;
    }
    weights->magnitude = attn_magnitude_of(attn_octaves(maximum, parameters->score_multiplier, parameters->score_shift));
}

static int32_t probability(int32_t power) { return attn_rsh(power, ATTN_PROBABILITY_DROPPED); }

/* Moves the keys that 8 bits do not represent from `seen` to `far`. Returns how many they are: none where 8 bits are enough. */
static int32_t split(const struct weights *weights, uint8_t *seen, uint8_t *far) {
    int32_t exact = 0;
    int32_t rounded = 0;
    for (int32_t j = 0; j < ATTN_BLOCK; j++) {
        exact += weights->powers[j];
        rounded += probability(weights->powers[j]);
    }
    if (!attn_is_dominated(rounded, exact)) {
        return 0;
    }
    int32_t count = 0;
    for (int32_t j = 0; j < ATTN_BLOCK; j++) {
        far[j] = seen[j] && weights->powers[j] < ATTN_FAR_BELOW;
        seen[j] = seen[j] && !far[j];
        count += far[j];
    }
    return count;
}

/* Adds what weights and values give to a row. */
static void merge(const struct weights *weights, const int8_t *values, int32_t dim, struct row *row) {
    int32_t probabilities[ATTN_BLOCK];
    int32_t sum = 0;
    for (int32_t j = 0; j < ATTN_BLOCK; j++) {
        probabilities[j] = probability(weights->powers[j]);
        sum += probabilities[j];
    }
    struct attn_merge merge = attn_merge_of(row->reference, row->sum, weights->magnitude, sum);
    for (int32_t c = 0; c < dim; c++) {
        int32_t product = 0;
        for (int32_t j = 0; j < ATTN_BLOCK; j++) {
            product += probabilities[j] * values[attn_value_at(j, c)];
        }
        row->accumulator[c] = attn_rsh(row->accumulator[c], merge.lower) +
                              attn_rsh(product * weights->magnitude.fraction, merge.block_lower);
    }
    row->sum = merge.sum;
    row->reference = merge.reference;
}

/* Row i absorbs the first `visible` keys of a block. */
static void absorb(const struct attn_parameters *parameters, int32_t i, const int8_t *block, int32_t visible, struct row *row) {
    if (visible == 0) {
        return;
    }
    const int8_t *queries = (const int8_t *)parameters + ATTN_PARAMETERS_BYTES;
    const int8_t *values = block + ATTN_KEY_BYTES(parameters->dim);
    int32_t scores[ATTN_BLOCK];
    uint8_t seen[ATTN_BLOCK];
    uint8_t far[ATTN_BLOCK];
    struct weights weights;
    score(queries, i, block, parameters->dim, scores);
    for (int32_t j = 0; j < ATTN_BLOCK; j++) {
        seen[j] = j < visible;
    }
    weigh(parameters, scores, seen, &weights);
    /* A block below the row's reference gains nothing from being absorbed as two. */
    if (weights.magnitude.exponent >= attn_risen(row->reference, row->sum) && split(&weights, seen, far) > 0) {
        weigh(parameters, scores, seen, &weights);
        merge(&weights, values, parameters->dim, row);
        weigh(parameters, scores, far, &weights);
    }
    merge(&weights, values, parameters->dim, row);
}

/* A row that has seen no key, over this memory. */
static struct row start(int32_t *accumulator, int32_t dim) {
    for (int32_t c = 0; c < dim; c++) {
        accumulator[c] = 0;
    }
    return (struct row){.sum = 0, .reference = ATTN_NO_REFERENCE, .accumulator = accumulator};
}

/* Writes a row: the accumulator over the sum, in steps of the output scale; zeros if it saw no key. */
static void finish(const struct attn_parameters *parameters, int32_t sum, const int32_t *accumulator, int8_t *out) {
    if (sum == 0) {
        for (int32_t c = 0; c < parameters->dim; c++) {
            out[c] = 0;
        }
        return;
    }
    struct attn_requantiser requantiser = attn_requantiser_of(sum, parameters->gain, parameters->gain_exponent);
    for (int32_t c = 0; c < parameters->dim; c++) {
        int32_t narrow = clamp(attn_rsh(accumulator[c], requantiser.narrow), INT16_MIN, INT16_MAX);
        out[c] = (int8_t)clamp(attn_rsh(narrow * requantiser.multiplier, requantiser.widen), INT8_MIN, INT8_MAX);
    }
}

void ATTN_ENTRY(tile)(const int8_t *tile, int8_t *out) {
    const struct attn_parameters *parameters = (const void *)tile;
    const int8_t *block = tile + ATTN_PARAMETERS_BYTES + ATTN_QUERY_BYTES(parameters->queries, parameters->dim);
    int32_t accumulator[ATTN_MAX_DIM];
    for (int32_t i = 0; i < parameters->queries; i++) {
        struct row row = start(accumulator, parameters->dim);
        absorb(parameters, i, block, attn_visible(parameters, i, 0), &row);
        finish(parameters, row.sum, accumulator, out + i * parameters->dim);
    }
}

void ATTN_ENTRY(start)(const int8_t *query, int8_t *state) {
    const struct attn_parameters *parameters = (const void *)query;
    struct attn_state *rows = (void *)state;
    int32_t *accumulators = (void *)(rows + 1);
    rows->next_key = 0;
    for (int32_t i = 0; i < parameters->queries; i++) {
        struct row row = start(accumulators + i * parameters->dim, parameters->dim);
        rows->sum[i] = row.sum;
        rows->reference[i] = row.reference;
    }
}

void ATTN_ENTRY(absorb)(const int8_t *query, const int8_t *block, int8_t *state) {
    const struct attn_parameters *parameters = (const void *)query;
    struct attn_state *rows = (void *)state;
    int32_t *accumulators = (void *)(rows + 1);
    for (int32_t i = 0; i < parameters->queries; i++) {
        struct row row = {rows->sum[i], rows->reference[i], accumulators + i * parameters->dim};
        absorb(parameters, i, block, attn_visible(parameters, i, rows->next_key), &row);
        rows->sum[i] = row.sum;
        rows->reference[i] = row.reference;
    }
    rows->next_key += ATTN_BLOCK;
}

void ATTN_ENTRY(finish)(const int8_t *query, const int8_t *state, int8_t *out) {
    const struct attn_parameters *parameters = (const void *)query;
    const struct attn_state *rows = (const void *)state;
    const int32_t *accumulators = (const void *)(rows + 1);
    for (int32_t i = 0; i < parameters->queries; i++) {
        finish(parameters, rows->sum[i], accumulators + i * parameters->dim, out + i * parameters->dim);
    }
}
