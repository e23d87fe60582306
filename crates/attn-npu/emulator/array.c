/* The columns of the emulated array.
 *
 * The instruction sequence is the one that mlir-aie made for the real device: buffer descriptors of the shim tiles are written,
 * their addresses patched with those of the arguments, and pushed to the queues of the shim's DMA channels. That is followed
 * here, word by word; what the columns do with what comes through their channels is taken from the design: one object for each
 * core from the first channel, blocks for all of them from the second one, the outputs one after the other. The rest of a real
 * device (routes, locks, the memory tile, the cores' programs) is in the PDI, for which there is a stand-in only.
 *
 * A column does nothing before an output of it is waited for, and then no more than that output takes: the slowest device that
 * obeys the sequence. What is right on it does not depend on time: a descriptor that is written again too early, a queue that is
 * given too much, and what nobody waits for are found. */
#include "array.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "attention_tile.h"

enum { MOST_COLUMNS = 8, MOST_ROWS = 4, DESCRIPTORS = 16, DESCRIPTOR_WORDS = 8, QUEUE = 4 };

/* Operations of an instruction sequence, in the low byte of their first word. */
enum { WRITE = 0, BLOCK_WRITE = 1, MASK_WRITE = 3, WAIT = 128, PATCH = 129 };

/* Registers of a shim tile. */
enum {
    DESCRIPTOR = 0x1d000, /* 32 bytes each */
    OUT_CONTROL = 0x1d200,
    OUT_QUEUE = 0x1d204,
    IN_QUEUE = 0x1d214,
    SECOND_IN_QUEUE = 0x1d21c,
    COLUMN_SHIFT = 25,
};

/* The channels of a column that designs use. */
enum { IN, BLOCKS, OUT, CHANNELS };

static const char *const kChannels[CHANNELS] = {"in", "block", "out"};

struct transfer {
    uint64_t address;
    uint64_t bytes;
    uint32_t times;
    uint32_t descriptor;
    bool has_token; /* its end is reported, to whoever waits */
};

struct channel {
    /* What was pushed and has not ended, in order. */
    struct transfer queue[QUEUE];
    uint32_t count;
    /* What was moved of the first one: repetitions, and bytes of the next one. */
    uint32_t time;
    uint64_t offset;
    uint32_t tokens; /* that nobody has waited for */
};

/* The objects of a core. */
struct core {
    _Alignas(ATTN_ALIGNMENT)
        int8_t in[ATTN_PARAMETERS_BYTES + ATTN_QUERY_BYTES(ATTN_MAX_QUERIES, ATTN_MAX_DIM) + ATTN_BLOCK_BYTES(ATTN_MAX_DIM)];
    _Alignas(ATTN_ALIGNMENT) int8_t state[ATTN_STATE_BYTES(ATTN_MAX_QUERIES, ATTN_MAX_DIM)];
};

struct column {
    uint32_t descriptors[DESCRIPTORS][DESCRIPTOR_WORDS];
    struct channel channels[CHANNELS];
    bool reports; /* it was told to whom */
    struct core cores[MOST_ROWS];
    _Alignas(ATTN_ALIGNMENT) int8_t block[ATTN_BLOCK_BYTES(ATTN_MAX_DIM)];
    /* Outputs of all cores, and how many bytes of them have left. */
    int8_t out[MOST_ROWS * ATTN_MAX_QUERIES * ATTN_MAX_DIM];
    uint64_t out_bytes, out_left;
};

/* A dispatch. */
struct run {
    const struct array *array;
    const uint64_t *arguments;
    size_t argument_count;
    memory_at *at;
    void *device;
    struct column *columns;
};

void complain(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fputs("attn emulator: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
}

bool array_parse(struct array *array, const uint8_t *text, size_t bytes)
{
    char copy[512];
    if (bytes >= sizeof copy || memchr(text, 0, bytes) != NULL) {
        complain("the PDI is none for the emulated array");
        return false;
    }
    memcpy(copy, text, bytes);
    copy[bytes] = '\0';
    int end = 0;
    const int numbers = sscanf(copy, "attn emulated array\ncolumns %u\nrows %u\ndim %u\nblocks %u\n%n", &array->columns,
                               &array->rows, &array->dim, &array->blocks, &end);
    if (numbers != 4 || (size_t)end != bytes || array->columns < 1 || array->columns > MOST_COLUMNS || array->rows < 1 ||
        array->rows > MOST_ROWS || array->dim < ATTN_DIM_STEP || array->dim > ATTN_MAX_DIM ||
        array->dim % ATTN_DIM_STEP != 0) {
        complain("the PDI is none for the emulated array");
        return false;
    }
    return true;
}

static bool push(struct column *column, int number, uint32_t value)
{
    /* A queue's word: descriptor, repetitions but one, and whether the end is reported. */
    enum { TOKEN = 1U << 31 };
    const uint32_t *descriptor = column->descriptors[value & 15];
    const bool has_token = (value & TOKEN) != 0;
    if ((value & ~(UINT32_C(0x80ff000f))) != 0 || (has_token && !(number == OUT && column->reports))) {
        complain("the queue of `%s` was given %#x", kChannels[number], value);
        return false;
    }
    /* One run of words: no strides, no packets, no locks, no descriptor behind it. */
    static const uint32_t linear[] = {0, 0x80000000, 0x2000000, 0, 0x2000000};
    if (memcmp(descriptor + 3, linear, sizeof linear) != 0 || descriptor[2] >> 16 != 0 || descriptor[0] == 0) {
        complain("a transfer of `%s` is not linear", kChannels[number]);
        return false;
    }
    struct channel *channel = &column->channels[number];
    if (channel->count == QUEUE) {
        complain("the queue of `%s` is full: %d transfers, none of which was waited for", kChannels[number], QUEUE);
        return false;
    }
    channel->queue[channel->count++] = (struct transfer){
        .address = descriptor[1] | (uint64_t)descriptor[2] << 32,
        .bytes = UINT64_C(4) * descriptor[0],
        .times = (value >> 16 & 255) + 1,
        .descriptor = value & 15,
        .has_token = has_token,
    };
    return true;
}

/* Whether no transfer that was pushed still needs a descriptor. */
static bool is_free(const struct column *column, uint32_t descriptor)
{
    for (int number = 0; number < CHANNELS; number++)
        for (uint32_t i = 0; i < column->channels[number].count; i++)
            if (column->channels[number].queue[i].descriptor == descriptor) {
                complain("descriptor %u is written before its transfer of `%s` was waited for", descriptor,
                         kChannels[number]);
                return false;
            }
    return true;
}

static bool write_register(struct column *column, uint32_t offset, uint32_t value)
{
    if (offset >= DESCRIPTOR && offset < DESCRIPTOR + 32 * DESCRIPTORS) {
        ((uint32_t *)column->descriptors)[(offset - DESCRIPTOR) / 4] = value;
        return is_free(column, (offset - DESCRIPTOR) / 32);
    }
    switch (offset) {
    case OUT_QUEUE:
        return push(column, OUT, value);
    case IN_QUEUE:
        return push(column, IN, value);
    case SECOND_IN_QUEUE:
        return push(column, BLOCKS, value);
    default:
        complain("register %#x of a shim tile was written", offset);
        return false;
    }
}

/* Moves the next bytes of a channel, as many as its transfers have: into `to`, or out of `from`. */
static enum outcome move(const struct run *run, struct column *column, int number, int8_t *to, const int8_t *from,
                         uint64_t bytes, uint64_t *moved)
{
    struct channel *channel = &column->channels[number];
    for (*moved = 0; *moved < bytes && channel->count > 0;) {
        const struct transfer *transfer = &channel->queue[0];
        const uint64_t left = transfer->bytes - channel->offset;
        const uint64_t some = bytes - *moved < left ? bytes - *moved : left;
        uint8_t *memory = run->at(run->device, transfer->address, transfer->bytes);
        if (memory == NULL) {
            complain("a transfer of `%s`, %llu bytes, is not within a buffer", kChannels[number],
                     (unsigned long long)transfer->bytes);
            return FAILED;
        }
        memory += channel->offset;
        if (to != NULL)
            memcpy(to + *moved, memory, some);
        else
            memcpy(memory, from + *moved, some);
        *moved += some;
        channel->offset += some;
        if (channel->offset == transfer->bytes) {
            channel->offset = 0;
            if (++channel->time == transfer->times) {
                channel->time = 0;
                channel->tokens += transfer->has_token;
                memmove(channel->queue, channel->queue + 1, --channel->count * sizeof *channel->queue);
            }
        }
    }
    return COMPLETED;
}

/* The same, of what cannot do without all of them. */
static enum outcome take(const struct run *run, struct column *column, int number, int8_t *to, uint64_t bytes)
{
    uint64_t moved = 0;
    const enum outcome outcome = move(run, column, number, to, NULL, bytes, &moved);
    if (outcome == COMPLETED && moved < bytes) {
        complain("`%s` has %llu bytes for an object of %llu: a real column would wait for ever", kChannels[number],
                 (unsigned long long)moved, (unsigned long long)bytes);
        return STARVED;
    }
    return outcome;
}

/* What a real core does not check: `kernels/attention_tile.h` has the ranges. */
static bool is_object(const struct core *core, uint32_t dim)
{
    struct attn_parameters p;
    memcpy(&p, core->in, sizeof p);
    return p.abi == ATTN_ABI && p.dim == (int32_t)dim && p.queries >= ATTN_ROWS && p.queries <= ATTN_MAX_QUERIES &&
           p.queries % ATTN_ROWS == 0 && p.keys >= 0 && p.keys <= 1 << 20 && p.causal >= 0 &&
           p.causal <= ATTN_NOT_CAUSAL && p.score_multiplier >= 0 && p.score_multiplier <= 65535 &&
           p.score_shift >= -14 && p.score_shift <= 24 && p.gain >= 1 << 15 && p.gain <= 65535 &&
           p.gain_exponent >= -15 && p.gain_exponent <= 17;
}

/* An object for each core of a column, and what they make of it. */
static enum outcome compute(const struct run *run, struct column *column)
{
    const struct array *array = run->array;
    const uint64_t query_bytes = ATTN_PARAMETERS_BYTES + ATTN_QUERY_BYTES(ATTN_MAX_QUERIES, (uint64_t)array->dim);
    const uint64_t block_bytes = ATTN_BLOCK_BYTES((uint64_t)array->dim);
    const uint64_t in_bytes = array->blocks == 0 ? query_bytes + block_bytes : query_bytes;
    const uint64_t out_bytes = ATTN_MAX_QUERIES * (uint64_t)array->dim;
    enum outcome outcome = COMPLETED;
    for (uint32_t row = 0; row < array->rows; row++) {
        outcome = take(run, column, IN, column->cores[row].in, in_bytes);
        if (outcome != COMPLETED)
            return outcome;
        if (!is_object(&column->cores[row], array->dim)) {
            complain("an object is none for this kernel");
            return FAILED;
        }
    }
    for (uint32_t row = 0; row < array->rows; row++) {
        struct core *core = &column->cores[row];
        if (array->blocks == 0)
            attn_tile(core->in, column->out + row * out_bytes);
        else
            attn_start(core->in, core->state);
    }
    for (uint32_t number = 0; number < array->blocks; number++) {
        outcome = take(run, column, BLOCKS, column->block, block_bytes);
        if (outcome != COMPLETED)
            return outcome;
        for (uint32_t row = 0; row < array->rows; row++)
            attn_absorb(column->cores[row].in, column->block, column->cores[row].state);
    }
    for (uint32_t row = 0; row < array->rows && array->blocks > 0; row++)
        attn_finish(column->cores[row].in, column->cores[row].state, column->out + row * out_bytes);
    column->out_bytes = column->out_left = array->rows * out_bytes;
    return COMPLETED;
}

/* Until an output is reported: objects in, outputs out. */
static enum outcome wait_for_output(const struct run *run, struct column *column)
{
    while (column->channels[OUT].tokens == 0) {
        enum outcome outcome = COMPLETED;
        if (column->out_left == 0)
            outcome = compute(run, column);
        if (outcome != COMPLETED)
            return outcome;
        uint64_t moved = 0;
        outcome = move(run, column, OUT, NULL, column->out + (column->out_bytes - column->out_left), column->out_left,
                       &moved);
        if (outcome != COMPLETED)
            return outcome;
        column->out_left -= moved;
        if (column->channels[OUT].tokens == 0 && column->out_left > 0) {
            complain("`out` has no room for %llu bytes: a real column would wait for ever",
                     (unsigned long long)column->out_left);
            return STARVED;
        }
    }
    column->channels[OUT].tokens--;
    return COMPLETED;
}

/* Whether a column is as it was before: what is left in it would be part of the next dispatch. */
static bool is_idle(const struct column *column, uint32_t number)
{
    for (int channel = 0; channel < CHANNELS; channel++)
        if (column->channels[channel].count > 0 || column->channels[channel].tokens > 0) {
            complain("at the end, column %u has %u transfers of `%s` and %u reports that were not waited for", number,
                     column->channels[channel].count, kChannels[channel], column->channels[channel].tokens);
            return false;
        }
    if (column->out_left > 0)
        complain("at the end, column %u has %llu bytes of outputs left", number, (unsigned long long)column->out_left);
    return column->out_left == 0;
}

/* Follows the sequence. */
static enum outcome follow(const struct run *run, const uint32_t *words, size_t count)
{
    enum { HEADER = 4 };
    if (count < HEADER || words[3] != 4 * count) {
        complain("an instruction sequence of %zu words says that it has %u bytes", count, count < HEADER ? 0 : words[3]);
        return FAILED;
    }
    uint32_t operations = 0;
    for (size_t at = HEADER; at < count; operations++) {
        const uint32_t *operation = words + at;
        const size_t left = count - at;
        const uint32_t kind = operation[0] & 255;
        /* Words of the operation, and where its register and its length are. */
        static const struct {
            uint32_t kind, least, address, length;
        } forms[] = {
            {WRITE, 6, 2, 5}, {BLOCK_WRITE, 5, 2, 3}, {MASK_WRITE, 7, 2, 6}, {WAIT, 4, 0, 1}, {PATCH, 12, 6, 1},
        };
        size_t form = 0;
        while (form < sizeof forms / sizeof *forms && forms[form].kind != kind)
            form++;
        if (form == sizeof forms / sizeof *forms || left < forms[form].least) {
            complain("operation %u is unknown: %#x", operations, kind);
            return FAILED;
        }
        const size_t size = operation[forms[form].length] / 4;
        /* A wait names its tile by numbers. */
        const uint32_t address = operation[forms[form].address];
        const uint32_t number = kind == WAIT ? operation[2] >> 16 : address >> COLUMN_SHIFT;
        const uint32_t offset = address & ((1 << COLUMN_SHIFT) - 1);
        if (size < forms[form].least || size > left || number >= run->array->columns) {
            complain("operation %u goes beyond the sequence, or to column %u", operations, number);
            return FAILED;
        }
        struct column *column = &run->columns[number];
        switch (kind) {
        case WRITE:
            if (!write_register(column, offset, operation[4]))
                return FAILED;
            break;
        case BLOCK_WRITE:
            for (size_t i = 4; i < size; i++)
                if (!write_register(column, offset + 4 * (uint32_t)(i - 4), operation[i]))
                    return FAILED;
            break;
        case MASK_WRITE:
            if (offset != OUT_CONTROL || operation[5] != 0x1f00) {
                complain("register %#x was changed", offset);
                return FAILED;
            }
            column->reports = true;
            break;
        case PATCH: {
            const uint32_t argument = operation[8];
            const uint32_t place = (offset - DESCRIPTOR) / 4;
            if (argument >= run->argument_count || place >= DESCRIPTORS * DESCRIPTOR_WORDS ||
                place % DESCRIPTOR_WORDS != 1) {
                complain("operation %u patches %#x with argument %u", operations, offset, argument);
                return FAILED;
            }
            const uint64_t patched = run->arguments[argument] + operation[10];
            uint32_t *descriptor = (uint32_t *)column->descriptors + place;
            descriptor[0] = (uint32_t)patched;
            descriptor[1] = (descriptor[1] & 0xffff0000) | (uint32_t)(patched >> 32);
            if (!is_free(column, place / DESCRIPTOR_WORDS))
                return FAILED;
            break;
        }
        default: {
            /* Direction and row, then how many rows and columns, and the channel. */
            if ((operation[2] & 0xffff) != 0 || operation[3] != 0x10100) {
                complain("operation %u waits for something else than an output", operations);
                return FAILED;
            }
            const enum outcome outcome = wait_for_output(run, column);
            if (outcome != COMPLETED)
                return outcome;
        }
        }
        at += size;
    }
    if (operations != words[2]) {
        complain("%u operations, %u were announced", operations, words[2]);
        return FAILED;
    }
    for (uint32_t number = 0; number < run->array->columns; number++)
        if (!is_idle(&run->columns[number], number))
            return FAILED;
    return COMPLETED;
}

enum outcome array_run(const struct array *array, const uint32_t *words, size_t count, const uint64_t *arguments,
                       size_t argument_count, memory_at *at, void *device)
{
    struct column *columns = aligned_alloc(ATTN_ALIGNMENT, array->columns * sizeof *columns);
    if (columns == NULL)
        abort();
    memset(columns, 0, array->columns * sizeof *columns);
    const struct run run = {array, arguments, argument_count, at, device, columns};
    const enum outcome outcome = follow(&run, words, count);
    free(columns);
    return outcome;
}
