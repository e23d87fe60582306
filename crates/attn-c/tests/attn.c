/* What the library does, asked from C: attn VECTORS [npu], with crates/attn-fixed/vectors/attention.csv, and whether it was built with
 * the backend npu. Prints what it ran, exit status 1 if anything is wrong. */
#include <inttypes.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "attn.h"

static int failed = 0;

#define CHECK(condition)                                                                                   \
    do {                                                                                                   \
        if (!(condition)) {                                                                                \
            printf("FAILED line %d: %s (last error: %s)\n", __LINE__, #condition, attn_last_error());      \
            failed = 1;                                                                                    \
        }                                                                                                  \
    } while (0)

/* A status, and a message that holds a text. */
#define FAILS(call, expected, text)                                                                        \
    do {                                                                                                   \
        attn_status got = call;                                                                            \
        if (got != expected || strstr(attn_last_error(), text) == NULL) {                                  \
            printf("FAILED line %d: %s: got %" PRId32 ", `%s`, expected " #expected ", `%s`\n", __LINE__, #call, got,     \
                   attn_last_error(), text);                                                               \
            failed = 1;                                                                                    \
        }                                                                                                  \
    } while (0)

static void *allocate(size_t count, size_t size) {
    void *memory = calloc(count, size);
    if (memory == NULL) {
        exit(2);
    }
    return memory;
}

static uint64_t fnv1a(const int8_t *bytes, size_t len) {
    uint64_t hash = 0xcbf29ce484222325u;
    for (size_t i = 0; i < len; i++) {
        hash = (hash ^ (uint8_t)bytes[i]) * 0x100000001b3u;
    }
    return hash;
}

/* A line of attention.csv, which says what it means. */
typedef struct vector {
    size_t dim, queries, keys, first, sinks, valid, causal;
    int shift, height, runs;
    float query, key, value, out;
    uint64_t hash;
} vector;

static int parse(const char *line, vector *v) {
    return sscanf(line, "%zu,%zu,%zu,%d,%zu,%zu,%d,%f,%f,%f,%f,%zu,%zu,%d,%" SCNx64, &v->dim, &v->queries, &v->keys,
                  &v->shift, &v->first, &v->sinks, &v->height, &v->query, &v->key, &v->value, &v->out, &v->valid,
                  &v->causal, &v->runs, &v->hash) == 15;
}

static int8_t *numbers(uint32_t tensor, size_t rows, size_t dim, int shift) {
    int8_t *tensors = allocate(rows * dim, 1);
    for (size_t i = 0; i < rows * dim; i++) {
        uint32_t x = ((uint32_t)i + (tensor << 24)) * 0x9e3779b1u;
        x = (x ^ x >> 15) * 0x85ebca77u;
        int upper = (int)((x ^ x >> 13) >> 24);
        int number = upper < 128 ? upper : upper - 256;
        /* Arithmetic, whatever the compiler's shift is. */
        tensors[i] = (int8_t)floor(ldexp(number, -shift));
    }
    return tensors;
}

/* The tensors of a vector. */
typedef struct problem {
    int8_t *query, *key, *value, *out;
    uint8_t *allowed;
    attn_heads heads;
    size_t out_len;
} problem;

/* `v` lives as long as it. */
static problem make(const vector *v) {
    problem p;
    p.query = numbers(0, v->queries, v->dim, v->shift);
    p.key = numbers(1, v->keys, v->dim, v->shift);
    p.value = numbers(2, v->keys, v->dim, 0);
    for (size_t i = 0; i < v->queries; i++) {
        p.query[i * v->dim] = 127;
    }
    for (size_t j = 0; j < v->keys; j++) {
        p.key[j * v->dim] = (int8_t)(j >= v->first && j < v->first + v->sinks ? v->height : 0);
    }
    p.allowed = allocate(v->queries * v->keys, 1);
    for (size_t i = 0; i < v->queries; i++) {
        for (size_t j = 0; j < v->keys; j++) {
            p.allowed[i * v->keys + j] = !((i + j) >> v->runs & 1);
        }
    }
    p.out_len = v->queries * v->dim;
    p.out = allocate(p.out_len, 1);
    p.heads = (attn_heads){
        .dim = v->dim, .heads = 1, .kv_heads = 1,
        .query = p.query, .query_len = p.out_len,
        .key = p.key, .key_len = v->keys * v->dim,
        .value = p.value, .value_len = v->keys * v->dim,
        .query_scales = &v->query, .key_scales = &v->key, .value_scales = &v->value, .out_scales = &v->out,
        .mask = {.valid_keys = &v->valid, .causal = &v->causal},
    };
    if (v->runs < 31) {
        p.heads.mask.allowed = p.allowed;
        p.heads.mask.allowed_shape[0] = 1;
        p.heads.mask.allowed_shape[1] = v->queries;
        p.heads.mask.allowed_shape[2] = v->keys;
    }
    return p;
}

static void discard(problem *p) {
    free(p->query);
    free(p->key);
    free(p->value);
    free(p->allowed);
    free(p->out);
}

static int is_kernel(const char *name) {
    return strcmp(name, "kernel") == 0 || strcmp(name, "aie2-model") == 0;
}

/* The vectors on a backend. */
static int vectors(attn_backend *backend, const char *name, const char *path) {
    FILE *file = fopen(path, "r");
    if (file == NULL) {
        perror(path);
        exit(2);
    }
    int count = 0;
    char line[512];
    while (fgets(line, sizeof line, file) != NULL) {
        vector v;
        if (!parse(line, &v)) {
            continue;
        }
        problem p = make(&v);
        if (p.heads.mask.allowed != NULL && is_kernel(name)) {
            FAILS(attn_attend(backend, &p.heads, p.out, p.out_len), ATTN_STATUS_UNSUPPORTED, "mask");
        } else {
            CHECK(attn_attend(backend, &p.heads, p.out, p.out_len) == ATTN_STATUS_OK);
            CHECK(fnv1a(p.out, p.out_len) == v.hash);
            count++;
        }
        discard(&p);
    }
    fclose(file);
    return count;
}

/* 4 heads, whose keys and values are those of 2. */
enum { DIM = 40, HEADS = 4, KV_HEADS = 2, QUERIES = 5, KEYS = 70, QUERY = HEADS * QUERIES * DIM, KEY = KV_HEADS * KEYS * DIM };

static const float QUERY_SCALES[HEADS] = {0.02f, 0.03f, 0.04f, 0.05f}, KEY_SCALES[KV_HEADS] = {0.05f, 0.02f},
                   VALUE_SCALES[KV_HEADS] = {1, 2}, OUT_SCALES[HEADS] = {1, 0.5f, 2, 1};

/* What they are with, without a mask. */
static attn_heads grouped(const int8_t *query, const int8_t *key, const int8_t *value) {
    return (attn_heads){
        .dim = DIM, .heads = HEADS, .kv_heads = KV_HEADS,
        .query = query, .query_len = QUERY, .key = key, .key_len = KEY, .value = value, .value_len = KEY,
        .query_scales = QUERY_SCALES, .key_scales = KEY_SCALES, .value_scales = VALUE_SCALES, .out_scales = OUT_SCALES,
    };
}

/* All heads at once are the heads one by one, masks of every kind included. */
static void heads_one_by_one(attn_backend *backend, const char *name) {
    int8_t *query = numbers(0, HEADS * QUERIES, DIM, 0), *key = numbers(1, KV_HEADS * KEYS, DIM, 0),
           *value = numbers(2, KV_HEADS * KEYS, DIM, 0);
    int8_t together[QUERY], alone[QUERIES * DIM];
    size_t valid_keys[HEADS] = {70, 0, 66, 1}, causal[HEADS] = {3, 70, 60, 0};
    uint8_t allowed[HEADS * KEYS];
    for (size_t i = 0; i < sizeof allowed; i++) {
        allowed[i] = i % 3 != 0;
    }
    attn_heads all = grouped(query, key, value);
    all.mask = (attn_mask){.valid_keys = valid_keys, .causal = causal};
    if (!is_kernel(name)) {
        all.mask.allowed = allowed;
        memcpy(all.mask.allowed_shape, (size_t[3]){HEADS, 1, KEYS}, sizeof(size_t[3]));
    }
    CHECK(attn_attend(backend, &all, together, QUERY) == ATTN_STATUS_OK);
    for (size_t h = 0; h < HEADS; h++) {
        size_t kv = h / (HEADS / KV_HEADS);
        attn_heads one = all;
        one.heads = one.kv_heads = 1;
        one.query += h * QUERIES * DIM;
        one.key += kv * KEYS * DIM;
        one.value += kv * KEYS * DIM;
        one.query_len = QUERIES * DIM;
        one.key_len = one.value_len = KEYS * DIM;
        one.query_scales += h;
        one.key_scales += kv;
        one.value_scales += kv;
        one.out_scales += h;
        one.mask.valid_keys += h;
        one.mask.causal += h;
        if (one.mask.allowed != NULL) {
            one.mask.allowed += h * KEYS;
            one.mask.allowed_shape[0] = 1;
        }
        CHECK(attn_attend(backend, &one, alone, sizeof alone) == ATTN_STATUS_OK);
        CHECK(memcmp(alone, together + h * QUERIES * DIM, sizeof alone) == 0);
    }
    for (size_t i = 0; i < QUERIES * DIM; i++) {
        CHECK(together[QUERIES * DIM + i] == 0); /* No key is valid. */
    }
    free(query);
    free(key);
    free(value);
}

/* Floats are quantised heads, and what comes out is what int8 was rounded from. */
static void floats(attn_backend *backend, attn_backend *scalar) {
    static float query[QUERY], key[KEY], value[KEY], out[QUERY], expected[QUERY];
    static int8_t q[QUERY], k[KEY], v[KEY], rounded[QUERY];
    float query_scales[HEADS], key_scales[KV_HEADS], value_scales[KV_HEADS], out_scales[HEADS];
    for (int i = 0; i < QUERY; i++) {
        query[i] = (float)sin(i);
    }
    for (int i = 0; i < KEY; i++) {
        key[i] = 2 * (float)cos(i);
        value[i] = 3 * (float)sin(i * i);
    }
    CHECK(attn_quantise(query, q, QUERY, query_scales, HEADS) == ATTN_STATUS_OK);
    CHECK(attn_quantise(key, k, KEY, key_scales, KV_HEADS) == ATTN_STATUS_OK);
    CHECK(attn_quantise(value, v, KEY, value_scales, KV_HEADS) == ATTN_STATUS_OK);
    for (int h = 0; h < HEADS; h++) {
        out_scales[h] = value_scales[h / (HEADS / KV_HEADS)];
    }
    attn_heads integers = grouped(q, k, v);
    integers.query_scales = query_scales;
    integers.key_scales = key_scales;
    integers.value_scales = value_scales;
    integers.out_scales = out_scales;
    attn_heads_f32 heads = {
        .dim = DIM, .heads = HEADS, .kv_heads = KV_HEADS,
        .query = query, .query_len = QUERY, .key = key, .key_len = KEY, .value = value, .value_len = KEY,
    };
    CHECK(attn_attend(backend, &integers, rounded, QUERY) == ATTN_STATUS_OK);
    CHECK(attn_attend_f32(backend, &heads, out, QUERY) == ATTN_STATUS_OK);
    CHECK(attn_attend_f32(scalar, &heads, expected, QUERY) == ATTN_STATUS_OK);
    CHECK(memcmp(out, expected, sizeof out) == 0);
    for (int i = 0; i < QUERY; i++) {
        float scale = out_scales[i / (QUERIES * DIM)];
        CHECK(fabsf(out[i] / scale - rounded[i]) < 0.51f); /* int8 is rounded from fewer bits than floats have. */
    }
}

typedef struct thread {
    pthread_t id;
    attn_backend *backend;
    attn_heads heads;
    const int8_t *expected;
    int wrong;
} thread;

static void *call_often(void *argument) {
    thread *self = argument;
    int8_t out[QUERY];
    for (int i = 0; i < 50; i++) {
        self->wrong += attn_attend(self->backend, &self->heads, out, QUERY) != ATTN_STATUS_OK;
        self->wrong += memcmp(out, self->expected, QUERY) != 0;
    }
    /* The messages of other threads are not this one's. */
    self->wrong += attn_last_error()[0] != '\0';
    self->wrong += attn_attend(self->backend, NULL, out, QUERY) != ATTN_STATUS_NULL;
    self->wrong += strstr(attn_last_error(), "heads: got NULL") == NULL;
    return NULL;
}

static void threads(attn_backend *backend) {
    int8_t *query = numbers(0, HEADS * QUERIES, DIM, 0), *key = numbers(1, KV_HEADS * KEYS, DIM, 0),
           *value = numbers(2, KV_HEADS * KEYS, DIM, 0);
    int8_t expected[QUERY];
    thread threads[4];
    attn_heads heads = grouped(query, key, value);
    CHECK(attn_attend(backend, &heads, expected, QUERY) == ATTN_STATUS_OK);
    for (int i = 0; i < 4; i++) {
        threads[i] = (thread){.backend = backend, .heads = heads, .expected = expected};
        if (pthread_create(&threads[i].id, NULL, call_often, &threads[i]) != 0) {
            exit(2);
        }
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(threads[i].id, NULL);
        CHECK(threads[i].wrong == 0);
    }
    free(query);
    free(key);
    free(value);
}

/* Whether `out` is as it was before a call that failed. */
static int untouched(const int8_t *out, size_t len) {
    for (size_t i = 0; i < len; i++) {
        if (out[i] != 99) {
            return 0;
        }
    }
    return 1;
}

static void errors_of_open(int has_npu) {
    attn_backend *backend = (attn_backend *)&failed;
    FAILS(attn_open("auto", NULL, NULL), ATTN_STATUS_NULL, "opened: got NULL, expected an address");
    FAILS(attn_open(NULL, NULL, &backend), ATTN_STATUS_NULL, "name: got NULL");
    CHECK(backend == NULL);
    FAILS(attn_open("cuda", NULL, &backend), ATTN_STATUS_UNKNOWN_BACKEND, "got `cuda`, expected scalar, ");
    FAILS(attn_open("a\nb\x1b[2J", NULL, &backend), ATTN_STATUS_UNKNOWN_BACKEND, "got `a\\nb\\u{1b}[2J`, expected scalar, ");
    FAILS(attn_open("\xff", NULL, &backend), ATTN_STATUS_TEXT, "name: got ");
    FAILS(attn_open("auto", "\xff", &backend), ATTN_STATUS_TEXT, "xclbin: got ");
    FAILS(attn_open("auto", NULL, (attn_backend **)((char *)&backend + 1)), ATTN_STATUS_MISALIGNED, "opened: got address 0x");
    FAILS(attn_open("auto", "attn.xclbin", &backend), ATTN_STATUS_UNSUPPORTED, "got xclbin attn.xclbin, expected none");
    if (has_npu) {
        FAILS(attn_open("npu", NULL, &backend), ATTN_STATUS_NPU, "got no xclbin");
        FAILS(attn_open("npu", "no/such.xclbin", &backend), ATTN_STATUS_NPU, "backend npu: ");
    } else {
        FAILS(attn_open("npu", NULL, &backend), ATTN_STATUS_UNKNOWN_BACKEND, "got `npu`");
    }
    CHECK(backend == NULL);
    CHECK(attn_name(NULL) == NULL);
    attn_close(NULL);
}

static void errors_of_attend(attn_backend *backend, attn_backend *kernel) {
    int8_t *query = numbers(0, HEADS * QUERIES, DIM, 0), *key = numbers(1, KV_HEADS * KEYS, DIM, 0),
           *value = numbers(2, KV_HEADS * KEYS, DIM, 0);
    int8_t out[QUERY];
    memset(out, 99, QUERY);
    const attn_heads good = grouped(query, key, value);
    const size_t most = SIZE_MAX, too_many[HEADS] = {70, 70, 71, 70};
    const float zeros[HEADS] = {0}, big[HEADS] = {200, 1, 1, 1}, tiny[HEADS] = {1e-30f, 1, 1, 1};
    uint8_t allowed[QUERIES * KEYS];
    memset(allowed, 1, sizeof allowed);

    FAILS(attn_attend(NULL, &good, out, QUERY), ATTN_STATUS_NULL, "backend: got NULL");
    FAILS(attn_attend(backend, NULL, out, QUERY), ATTN_STATUS_NULL, "heads: got NULL");
    FAILS(attn_attend(backend, &good, NULL, QUERY), ATTN_STATUS_NULL, "output: got NULL");
    FAILS(attn_attend((attn_backend *)((char *)backend + 1), &good, out, QUERY), ATTN_STATUS_MISALIGNED, "backend: got address");
    FAILS(attn_attend(backend, (const attn_heads *)((const char *)&good + 1), out, QUERY), ATTN_STATUS_MISALIGNED, "heads: got address");

/* One field that is wrong. */
#define WITH(field, wrong, status, text)                                                                   \
    do {                                                                                                   \
        attn_heads bad = good;                                                                             \
        bad.field = wrong;                                                                                 \
        FAILS(attn_attend(backend, &bad, out, QUERY), status, text);                                       \
    } while (0)

    WITH(query, NULL, ATTN_STATUS_NULL, "query: got NULL");
    WITH(key, NULL, ATTN_STATUS_NULL, "key: got NULL");
    WITH(value, NULL, ATTN_STATUS_NULL, "value: got NULL");
    WITH(query_scales, NULL, ATTN_STATUS_NULL, "query scales: got NULL");
    WITH(key_scales, NULL, ATTN_STATUS_NULL, "key scales: got NULL");
    WITH(value_scales, NULL, ATTN_STATUS_NULL, "value scales: got NULL");
    WITH(out_scales, NULL, ATTN_STATUS_NULL, "output scales: got NULL");
    WITH(key_scales, (const float *)((const char *)KEY_SCALES + 1), ATTN_STATUS_MISALIGNED, "expected a multiple of 4");
    WITH(mask.valid_keys, (const size_t *)((const char *)too_many + 1), ATTN_STATUS_MISALIGNED, "valid keys: got address");

    WITH(dim, 7, ATTN_STATUS_SHAPE, "head dimension: got 7, expected 8 to 256");
    WITH(dim, 0, ATTN_STATUS_SHAPE, "head dimension: got 0");
    WITH(dim, most, ATTN_STATUS_SHAPE, "head dimension: got 18446744073709551615");
    WITH(dim, 48, ATTN_STATUS_SHAPE, "expected a multiple of the head dimension 48");
    WITH(heads, 0, ATTN_STATUS_SHAPE, "heads: got 0");
    WITH(heads, 3, ATTN_STATUS_SHAPE, "heads: got 3, expected a positive multiple of the 2");
    WITH(heads, most - 1, ATTN_STATUS_SHAPE, "expected a multiple of 18446744073709551614 heads");
    WITH(kv_heads, 0, ATTN_STATUS_SHAPE, "0 key and value heads");
    WITH(kv_heads, most, ATTN_STATUS_SHAPE, "18446744073709551615 key and value heads");
    WITH(query_len, 0, ATTN_STATUS_SHAPE, "query: got no elements");
    WITH(query_len, QUERY - 1, ATTN_STATUS_SHAPE, "query: got 799 elements, expected a multiple of 4 heads");
    WITH(query_len, most, ATTN_STATUS_SHAPE, "query: got 18446744073709551615 elements");
    WITH(query_len, QUERY - HEADS * DIM, ATTN_STATUS_SHAPE, "output: got 200 elements, expected 160");
    WITH(key_len, 0, ATTN_STATUS_SHAPE, "key: got no elements");
    WITH(key_len, most / 2 + 1, ATTN_STATUS_SHAPE, "key: got 9223372036854775808 elements");
    WITH(value_len, KEY - KV_HEADS * DIM, ATTN_STATUS_SHAPE, "value: got 2760 elements, expected 2800");
    FAILS(attn_attend(backend, &good, out, QUERY - 1), ATTN_STATUS_SHAPE, "output: got 799 elements");
    FAILS(attn_attend(backend, &good, out, most), ATTN_STATUS_SHAPE, "output: got 18446744073709551615 elements");

    WITH(query_scales, zeros, ATTN_STATUS_SCALE, "query scale: got 0, expected a positive finite number");
    WITH(query_scales, big, ATTN_STATUS_SCALE, "expected at most 32");
    WITH(out_scales, tiny, ATTN_STATUS_SCALE, "value scale / output scale: got ");

    WITH(mask.valid_keys, too_many, ATTN_STATUS_MASK, "valid keys: got 71, expected at most 70");
    attn_heads masked = good;
    masked.mask.allowed = allowed;
    memcpy(masked.mask.allowed_shape, (size_t[3]){1, KEYS, QUERIES}, sizeof(size_t[3]));
    FAILS(attn_attend(backend, &masked, out, QUERY), ATTN_STATUS_MASK, "boolean mask: got [1, 70, 5], expected [4 or 1, 5 or 1, 70 or 1]");
    memcpy(masked.mask.allowed_shape, (size_t[3]){most, most, most}, sizeof(size_t[3]));
    FAILS(attn_attend(backend, &masked, out, QUERY), ATTN_STATUS_MASK, "boolean mask: got [18446744073709551615, ");
    memset(masked.mask.allowed_shape, 0, sizeof(size_t[3]));
    FAILS(attn_attend(backend, &masked, out, QUERY), ATTN_STATUS_MASK, "boolean mask: got [0, 0, 0]");
    memcpy(masked.mask.allowed_shape, (size_t[3]){1, QUERIES, KEYS}, sizeof(size_t[3]));
    allowed[7] = 2;
    FAILS(attn_attend(backend, &masked, out, QUERY), ATTN_STATUS_MASK, "got 2 at element 7, expected 0 or 1");
    allowed[7] = 0;
    if (kernel != NULL) {
        FAILS(attn_attend(kernel, &masked, out, QUERY), ATTN_STATUS_UNSUPPORTED, "mask");
    }
    CHECK(untouched(out, QUERY));
    masked.mask.allowed = (const uint8_t *)out;
    memset(out, 1, QUERY);
    FAILS(attn_attend(backend, &masked, out, QUERY), ATTN_STATUS_OVERLAP, "output: got memory of boolean mask");

    int8_t first = query[0];
    FAILS(attn_attend(backend, &good, query, QUERY), ATTN_STATUS_OVERLAP, "output: got memory of query");
    FAILS(attn_attend(backend, &good, key + KEY - QUERY, QUERY), ATTN_STATUS_OVERLAP, "output: got memory of key");
    FAILS(attn_attend(backend, &good, value, QUERY), ATTN_STATUS_OVERLAP, "output: got memory of value");
    CHECK(query[0] == first);
    /* Whatever is read is an input. */
    union {
        int8_t out[QUERY];
        attn_heads heads;
        size_t numbers[HEADS];
        float scales[HEADS];
    } shared;
    memset(&shared, 0, sizeof shared);
    shared.heads = good;
    FAILS(attn_attend(backend, &shared.heads, shared.out, QUERY), ATTN_STATUS_OVERLAP, "output: got memory of heads");
#define SHARED(name, type, field, text)                                                                    \
    do {                                                                                                   \
        attn_heads bad = good;                                                                             \
        for (int h = 0; h < HEADS; h++) {                                                                  \
            shared.name[h] = (type)1;                                                                      \
        }                                                                                                  \
        bad.field = shared.name;                                                                           \
        FAILS(attn_attend(backend, &bad, shared.out, QUERY), ATTN_STATUS_OVERLAP, "output: got memory of " text); \
        CHECK(shared.name[0] == (type)1);                                                                  \
    } while (0)
    SHARED(scales, float, out_scales, "output scales");
    SHARED(numbers, size_t, mask.valid_keys, "valid keys");
    SHARED(numbers, size_t, mask.causal, "causal");
    CHECK(attn_attend(backend, &good, out, QUERY) == ATTN_STATUS_OK);

    static float floats[KEY], outputs[QUERY];
    attn_heads_f32 heads = {
        .dim = DIM, .heads = HEADS, .kv_heads = KV_HEADS,
        .query = floats, .query_len = QUERY, .key = floats, .key_len = KEY, .value = floats, .value_len = KEY,
    };
    CHECK(attn_attend_f32(backend, &heads, outputs, QUERY) == ATTN_STATUS_OK);
    FAILS(attn_attend_f32(NULL, &heads, outputs, QUERY), ATTN_STATUS_NULL, "backend: got NULL");
    FAILS(attn_attend_f32(backend, NULL, outputs, QUERY), ATTN_STATUS_NULL, "heads: got NULL");
    FAILS(attn_attend_f32(backend, &heads, floats, QUERY), ATTN_STATUS_OVERLAP, "output: got memory of query");
    FAILS(attn_attend_f32(backend, &heads, (float *)((char *)outputs + 1), QUERY), ATTN_STATUS_MISALIGNED, "output: got address");
    FAILS(attn_attend_f32(backend, &heads, outputs, QUERY - 1), ATTN_STATUS_SHAPE, "output: got 799 elements");
    heads.query_len = most / 4;
    FAILS(attn_attend_f32(backend, &heads, outputs, QUERY), ATTN_STATUS_SHAPE, "query: got 4611686018427387903 elements");
    heads.query_len = QUERY;
    heads.dim = 300;
    FAILS(attn_attend_f32(backend, &heads, outputs, QUERY), ATTN_STATUS_SHAPE, "head dimension: got 300");
    heads.dim = DIM;
    floats[3] = NAN;
    FAILS(attn_attend_f32(backend, &heads, outputs, QUERY), ATTN_STATUS_NOT_FINITE, "query: quantise: got NaN at element 3");

    float scales[HEADS] = {9, 9, 9, 9};
    FAILS(attn_quantise(floats, key, KEY, scales, KV_HEADS), ATTN_STATUS_NOT_FINITE, "got NaN at element 3, expected finite numbers");
    floats[3] = 0;
    FAILS(attn_quantise(NULL, key, KEY, scales, KV_HEADS), ATTN_STATUS_NULL, "values: got NULL");
    FAILS(attn_quantise(floats, NULL, KEY, scales, KV_HEADS), ATTN_STATUS_NULL, "quantised: got NULL");
    FAILS(attn_quantise(floats, key, KEY, NULL, KV_HEADS), ATTN_STATUS_NULL, "scales: got NULL");
    FAILS(attn_quantise(floats, (int8_t *)floats, KEY, scales, KV_HEADS), ATTN_STATUS_OVERLAP, "quantised: got memory of values");
    FAILS(attn_quantise(floats, (int8_t *)outputs, KEY, outputs, KV_HEADS), ATTN_STATUS_OVERLAP, "scales: got memory of quantised");
    FAILS(attn_quantise(floats, key, KEY, scales, 3), ATTN_STATUS_SHAPE, "got 5600 elements, expected a positive multiple of 3 heads");
    FAILS(attn_quantise(floats, key, KEY, scales, 0), ATTN_STATUS_SHAPE, "0 heads");
    FAILS(attn_quantise(floats, key, 0, scales, 1), ATTN_STATUS_SHAPE, "got 0 elements");
    FAILS(attn_quantise(floats, key, most, scales, 1), ATTN_STATUS_SHAPE, "values: got 18446744073709551615 elements");
    CHECK(scales[0] == 9);
    free(query);
    free(key);
    free(value);
}

int main(int arguments, char **argument) {
    static const char *const NAMES[] = {"avx512-vnni", "avx512-bw", "avx-vnni", "avx2", "kernel", "aie2-model", "auto", "scalar"};
    if (arguments < 2 || arguments > 3) {
        fprintf(stderr, "usage: %s crates/attn-fixed/vectors/attention.csv [npu]\n", argument[0]);
        return 2;
    }
    CHECK(attn_last_error()[0] == '\0');
    printf("attn %s\n", attn_version());
    attn_backend *scalar = NULL, *kernel = NULL;
    CHECK(attn_open("scalar", NULL, &scalar) == ATTN_STATUS_OK);
    CHECK(strcmp(attn_name(scalar), "scalar") == 0);
    for (size_t i = 0; i < sizeof NAMES / sizeof *NAMES; i++) {
        attn_backend *backend = NULL;
        attn_status status = attn_open(NAMES[i], NULL, &backend);
        if (status == ATTN_STATUS_UNAVAILABLE) {
            printf("not here: %s\n", attn_last_error());
            CHECK(backend == NULL);
            continue;
        }
        CHECK(status == ATTN_STATUS_OK);
        int count = vectors(backend, NAMES[i], argument[1]);
        CHECK(count >= (is_kernel(NAMES[i]) ? 5 : 7));
        heads_one_by_one(backend, NAMES[i]);
        floats(backend, scalar);
        threads(backend);
        printf("backend %s (%s): %d vectors, grouped heads, masks, floats, threads\n", NAMES[i], attn_name(backend), count);
        attn_close(backend);
    }
    errors_of_open(arguments == 3);
    if (attn_open("kernel", NULL, &kernel) != ATTN_STATUS_OK) {
        CHECK(kernel == NULL);
    }
    errors_of_attend(scalar, kernel);
    attn_close(kernel);
    attn_close(scalar);
    puts(failed ? "FAILED" : "errors: as expected");
    return failed;
}
