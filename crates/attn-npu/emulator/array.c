/* The columns of the emulated array.
 *
 * The instruction sequence is the one that mlir-aie made for the real device: buffer descriptors of the shim tiles are written,
 * their addresses patched with those of the arguments, and pushed to the queues of the shim's DMA channels. That is followed
 * here, word by word; what the columns do with what comes through their channels is taken from the design: one object for each
 * core from the first channel, blocks for all of them from the second one, the outputs one after the other. The rest of a real
 * device (routes, locks, the memory tile, the cores' programs) is in the PDI, for which there is a stand-in only. */
#include "array.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "attention_tile.h"

enum { MOST_COLUMNS = 8, MOST_ROWS = 4, DESCRIPTORS = 16, DESCRIPTOR_WORDS = 8, MOST_TRANSFERS = 4096 };

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

struct transfer {
    uint64_t address;
    uint64_t bytes;
    uint32_t times;
};

struct channel {
    struct transfer *transfers;
    uint32_t count;
    /* What was moved: whole transfers, repetitions, and bytes of the next one. */
    uint32_t transfer, time;
    uint64_t offset;
};

struct column {
    uint32_t descriptors[DESCRIPTORS][DESCRIPTOR_WORDS];
    struct channel channels[CHANNELS];
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
    const uint32_t *descriptor = column->descriptors[value & 15];
    const uint32_t times = (value >> 16 & 255) + 1;
    if ((value & ~(UINT32_C(0x80ff000f))) != 0) {
        complain("a queue was given %#x", value);
        return false;
    }
    /* One run of words: no strides, no packets, no locks. */
    static const uint32_t linear[] = {0, 0x80000000, 0x2000000, 0, 0x2000000};
    if (memcmp(descriptor + 3, linear, sizeof linear) != 0 || descriptor[0] == 0) {
        complain("a transfer is not linear");
        return false;
    }
    struct channel *channel = &column->channels[number];
    if (channel->count == MOST_TRANSFERS) {
        complain("more than %d transfers", MOST_TRANSFERS);
        return false;
    }
    if (channel->transfers == NULL)
        channel->transfers = malloc(MOST_TRANSFERS * sizeof *channel->transfers);
    if (channel->transfers == NULL)
        abort();
    const uint64_t address = descriptor[1] | (uint64_t)(descriptor[2] & 0xffff) << 32;
    channel->transfers[channel->count++] = (struct transfer){address, UINT64_C(4) * descriptor[0], times};
    return true;
}

static bool write_register(struct column *column, uint32_t offset, uint32_t value)
{
    if (offset >= DESCRIPTOR && offset < DESCRIPTOR + 32 * DESCRIPTORS) {
        ((uint32_t *)column->descriptors)[(offset - DESCRIPTOR) / 4] = value;
        return true;
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

/* Reads the whole sequence: what each channel is to move, in order. */
static bool follow(const struct array *array, struct column *columns, const uint32_t *words, size_t count,
                   const uint64_t *arguments, size_t argument_count)
{
    enum { HEADER = 4 };
    if (count < HEADER || words[3] != 4 * count) {
        complain("an instruction sequence of %zu words says that it has %u bytes", count, count < HEADER ? 0 : words[3]);
        return false;
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
            return false;
        }
        const size_t size = operation[forms[form].length] / 4;
        const uint32_t address = operation[forms[form].address];
        const uint32_t column = address >> COLUMN_SHIFT, offset = address & ((1 << COLUMN_SHIFT) - 1);
        if (size < forms[form].least || size > left || (kind != WAIT && column >= array->columns)) {
            complain("operation %u goes beyond the sequence, or to column %u", operations, column);
            return false;
        }
        switch (kind) {
        case WRITE:
            if (!write_register(&columns[column], offset, operation[4]))
                return false;
            break;
        case BLOCK_WRITE:
            for (size_t i = 4; i < size; i++)
                if (!write_register(&columns[column], offset + 4 * (uint32_t)(i - 4), operation[i]))
                    return false;
            break;
        case MASK_WRITE:
            if (offset != OUT_CONTROL) {
                complain("register %#x was changed", offset);
                return false;
            }
            break;
        case PATCH: {
            const uint32_t argument = operation[8];
            const uint32_t place = (offset - DESCRIPTOR) / 4;
            if (argument >= argument_count || place >= DESCRIPTORS * DESCRIPTOR_WORDS || place % DESCRIPTOR_WORDS != 1) {
                complain("operation %u patches %#x with argument %u", operations, offset, argument);
                return false;
            }
            const uint64_t patched = arguments[argument] + operation[10];
            uint32_t *descriptor = (uint32_t *)columns[column].descriptors + place;
            descriptor[0] = (uint32_t)patched;
            descriptor[1] = (descriptor[1] & 0xffff0000) | (uint32_t)(patched >> 32);
            break;
        }
        default:
            /* A wait for an output: nothing is late here. */
            break;
        }
        at += size;
    }
    if (operations != words[2]) {
        complain("%u operations, %u were announced", operations, words[2]);
        return false;
    }
    return true;
}

/* Moves the next bytes of a channel: into `to`, or out of `from`. */
static enum outcome move(struct channel *channel, uint8_t *to, const uint8_t *from, uint64_t bytes, memory_at *at,
                         void *device)
{
    while (bytes > 0) {
        if (channel->transfer == channel->count)
            return STARVED;
        const struct transfer *transfer = &channel->transfers[channel->transfer];
        const uint64_t left = transfer->bytes - channel->offset;
        const uint64_t some = bytes < left ? bytes : left;
        uint8_t *memory = at(device, transfer->address, transfer->bytes);
        if (memory == NULL) {
            complain("a transfer of %llu bytes is not within a buffer", (unsigned long long)transfer->bytes);
            return FAILED;
        }
        memory += channel->offset;
        if (to != NULL) {
            memcpy(to, memory, some);
            to += some;
        } else {
            memcpy(memory, from, some);
            from += some;
        }
        bytes -= some;
        channel->offset += some;
        if (channel->offset == transfer->bytes) {
            channel->offset = 0;
            if (++channel->time == transfer->times) {
                channel->time = 0;
                channel->transfer++;
            }
        }
    }
    return COMPLETED;
}

static bool is_done(const struct channel *channel)
{
    return channel->transfer == channel->count;
}

/* The objects of a core. */
struct core {
    _Alignas(ATTN_ALIGNMENT)
        int8_t in[ATTN_PARAMETERS_BYTES + ATTN_QUERY_BYTES(ATTN_MAX_QUERIES, ATTN_MAX_DIM) + ATTN_BLOCK_BYTES(ATTN_MAX_DIM)];
    _Alignas(ATTN_ALIGNMENT) int8_t state[ATTN_STATE_BYTES(ATTN_MAX_QUERIES, ATTN_MAX_DIM)];
    _Alignas(ATTN_ALIGNMENT) int8_t out[ATTN_MAX_QUERIES * ATTN_MAX_DIM];
};

/* What a real core does not check, so that nothing here is overwritten. */
static bool is_object(const struct core *core, uint32_t dim)
{
    struct attn_parameters parameters;
    memcpy(&parameters, core->in, sizeof parameters);
    return parameters.abi == ATTN_ABI && parameters.dim == (int32_t)dim && parameters.queries >= ATTN_ROWS &&
           parameters.queries <= ATTN_MAX_QUERIES && parameters.queries % ATTN_ROWS == 0 && parameters.keys >= 0 &&
           parameters.causal >= 0 && parameters.causal <= ATTN_NOT_CAUSAL;
}

static enum outcome run_column(const struct array *array, struct column *column, memory_at *at, void *device)
{
    const uint64_t query_bytes = ATTN_PARAMETERS_BYTES + ATTN_QUERY_BYTES(ATTN_MAX_QUERIES, (uint64_t)array->dim);
    const uint64_t block_bytes = ATTN_BLOCK_BYTES((uint64_t)array->dim);
    const uint64_t in_bytes = array->blocks == 0 ? query_bytes + block_bytes : query_bytes;
    struct core *cores = aligned_alloc(ATTN_ALIGNMENT, array->rows * sizeof *cores);
    int8_t *block = aligned_alloc(ATTN_ALIGNMENT, ATTN_BLOCK_BYTES(ATTN_MAX_DIM));
    if (cores == NULL || block == NULL)
        abort();
    memset(cores, 0, array->rows * sizeof *cores);
    struct channel *channels = column->channels;
    enum outcome outcome = COMPLETED;
    while (outcome == COMPLETED && !is_done(&channels[IN])) {
        for (uint32_t row = 0; row < array->rows && outcome == COMPLETED; row++) {
            outcome = move(&channels[IN], (uint8_t *)cores[row].in, NULL, in_bytes, at, device);
            if (outcome == COMPLETED && !is_object(&cores[row], array->dim)) {
                complain("an object is none for this kernel");
                outcome = FAILED;
            }
        }
        if (outcome == COMPLETED && array->blocks == 0)
            for (uint32_t row = 0; row < array->rows; row++)
                attn_tile(cores[row].in, cores[row].out);
        if (array->blocks > 0) {
            for (uint32_t row = 0; row < array->rows && outcome == COMPLETED; row++)
                attn_start(cores[row].in, cores[row].state);
            for (uint32_t number = 0; number < array->blocks && outcome == COMPLETED; number++) {
                outcome = move(&channels[BLOCKS], (uint8_t *)block, NULL, block_bytes, at, device);
                for (uint32_t row = 0; row < array->rows && outcome == COMPLETED; row++)
                    attn_absorb(cores[row].in, block, cores[row].state);
            }
            for (uint32_t row = 0; row < array->rows && outcome == COMPLETED; row++)
                attn_finish(cores[row].in, cores[row].state, cores[row].out);
        }
        for (uint32_t row = 0; row < array->rows && outcome == COMPLETED; row++)
            outcome = move(&channels[OUT], NULL, (const uint8_t *)cores[row].out,
                           ATTN_MAX_QUERIES * (uint64_t)array->dim, at, device);
    }
    if (outcome == COMPLETED && !(is_done(&channels[BLOCKS]) && is_done(&channels[OUT]))) {
        complain("a channel has more to move than the column takes or gives");
        outcome = STARVED;
    } else if (outcome == STARVED) {
        complain("a channel has less to move than the column takes or gives: a real one would wait for ever");
    }
    free(cores);
    free(block);
    return outcome;
}

enum outcome array_run(const struct array *array, const uint32_t *words, size_t count, const uint64_t *arguments,
                       size_t argument_count, memory_at *at, void *device)
{
    struct column *columns = calloc(array->columns, sizeof *columns);
    if (columns == NULL)
        abort();
    enum outcome outcome = FAILED;
    if (follow(array, columns, words, count, arguments, argument_count)) {
        outcome = COMPLETED;
        for (uint32_t column = 0; column < array->columns && outcome == COMPLETED; column++)
            outcome = run_column(array, &columns[column], at, device);
    }
    for (uint32_t column = 0; column < array->columns; column++)
        for (int channel = 0; channel < CHANNELS; channel++)
            free(columns[column].channels[channel].transfers);
    free(columns);
    return outcome;
}
