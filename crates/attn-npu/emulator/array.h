/* The array of the emulated NPU: what runs in its columns, and the instructions that move data through them. */
#ifndef ATTN_EMULATOR_ARRAY_H
#define ATTN_EMULATOR_ARRAY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What the stand-in for a PDI says that the columns compute. */
struct array {
    uint32_t columns;
    uint32_t rows;   /* cores of a column */
    uint32_t dim;    /* stored columns of a head */
    uint32_t blocks; /* that each query object absorbs; 0: tiles */
};

/* How a command ended. */
enum outcome { COMPLETED, FAILED, STARVED };

/* Memory of the device: `bytes` from `address` on, or NULL if no buffer holds all of them. */
typedef uint8_t *memory_at(void *device, uint64_t address, uint64_t bytes);

/* Reads a stand-in for a PDI: text. Says on stderr what is wrong. */
bool array_parse(struct array *array, const uint8_t *text, size_t bytes);

/* Follows the instructions of a dispatch, whose arguments are at these addresses, and computes. Says on stderr what is wrong.
 * STARVED: the array would wait for ever. */
enum outcome array_run(const struct array *array, const uint32_t *words, size_t count, const uint64_t *arguments,
                       size_t argument_count, memory_at *at, void *device);

/* What goes wrong is said here. */
__attribute__((format(printf, 1, 2))) void complain(const char *format, ...);

#endif
