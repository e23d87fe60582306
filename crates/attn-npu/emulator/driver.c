/* The driver `amdxdna`, as far as XRT calls it: buffers, contexts and commands of one kind of device, in this process.
 *
 * The device's memory is a file without a name, and a buffer a part of it; its address there is its address in the device.
 * Commands of a context are run in order by a thread.
 *
 * A real device does not see the caches of the host. XRT flushes them itself, which is not seen here, or has the driver do it
 * (`force_driver_sync` in its xrt.ini): then what the device sees is another memory, and buffers are copied when they are
 * synchronised, so that a synchronisation that is forgotten is found. */
#define _GNU_SOURCE
#include "driver.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <drm/amdxdna_accel.h>

#include "array.h"

/* Where the device's addresses start: no pointer of the process, and not 0. */
static const uint64_t kBase = UINT64_C(1) << 40;
static const uint64_t kSpace = UINT64_C(1) << 36;
static const uint64_t kHeapAlignment = 64 << 20;
static const uint64_t kPage = 4096;

enum { DEVICES = 8, BUFFERS = 4096, CONTEXTS = 6, QUEUE = 64 };

/* The array: columns, the first of which is not for programs, and cores of a column. */
enum { COLUMNS = 5, CORES = 4 };

struct buffer {
    uint32_t type; /* AMDXDNA_BO_INVALID: none */
    uint64_t offset;
    uint64_t bytes;
};

struct command {
    uint32_t buffer;
    uint64_t number;
};

struct context {
    bool is_used;
    bool is_ended;
    uint32_t columns; /* of its partition */
    bool has_array;
    struct array array;
    uint64_t submitted, done;
    struct command queue[QUEUE];
    pthread_t thread;
    struct device *device;
};

struct device {
    int fd; /* -1: none */
    uint8_t *memory; /* as the host sees it */
    uint8_t *own;    /* and as the device does, if the driver synchronises */
    bool synchronises;
    uint64_t end; /* of the file */
    struct buffer buffers[BUFFERS];
    uint32_t heap;
    struct context contexts[CONTEXTS];
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed;
static struct device *devices[DEVICES];

/* Counts of this process, for its report. */
static unsigned long dispatches, opened, left_buffers, left_contexts, allocations;

__attribute__((constructor)) static void start(void)
{
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&changed, &attributes);
}

bool fault_is(const char *name, unsigned long time)
{
    const char *fault = getenv("ATTN_EMULATOR_FAULT");
    const size_t length = strlen(name);
    if (fault == NULL || strncmp(fault, name, length) != 0)
        return false;
    if (fault[length] == '\0')
        return true;
    return fault[length] == ':' && time >= strtoul(fault + length + 1, NULL, 10);
}

static int fail(int error)
{
    errno = error;
    return -1;
}

static struct device *find(int fd)
{
    for (int i = 0; i < DEVICES; i++)
        if (devices[i] != NULL && devices[i]->fd == fd)
            return devices[i];
    return NULL;
}

bool driver_has(int fd)
{
    pthread_mutex_lock(&lock);
    const bool has = fd >= 0 && find(fd) != NULL;
    pthread_mutex_unlock(&lock);
    return has;
}

int driver_open(void)
{
    if (fault_is("permission", 1))
        return fail(EACCES);
    struct device *device = calloc(1, sizeof *device);
    const int fd = memfd_create("attn-emulated-npu", MFD_CLOEXEC);
    if (device == NULL || fd < 0)
        return fail(ENOMEM);
    device->fd = fd;
    device->memory = mmap(NULL, kSpace, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
    device->own = mmap(NULL, kSpace, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    const bool has_memory = device->memory != MAP_FAILED && device->own != MAP_FAILED;
    pthread_mutex_lock(&lock);
    int place = 0;
    while (place < DEVICES && devices[place] != NULL)
        place++;
    if (place < DEVICES && has_memory) {
        devices[place] = device;
        opened++;
    }
    pthread_mutex_unlock(&lock);
    if (place == DEVICES || !has_memory) {
        close(fd);
        free(device);
        return fail(ENOMEM);
    }
    return fd;
}

bool driver_may_map(size_t bytes)
{
    /* What the kernel does for MAP_LOCKED beyond the limit. */
    const bool may = bytes < kHeapAlignment || !fault_is("memlock", 1);
    if (!may)
        errno = EAGAIN;
    return may;
}

/* All below: with the lock. */

static struct buffer *buffer_of(struct device *device, uint32_t handle)
{
    if (handle == 0 || handle >= BUFFERS || device->buffers[handle].type == AMDXDNA_BO_INVALID)
        return NULL;
    return &device->buffers[handle];
}

/* What the device sees of a buffer. */
static uint8_t *seen(struct device *device, const struct buffer *buffer)
{
    return (device->synchronises ? device->own : device->memory) + buffer->offset;
}

static uint8_t *memory_of(void *of, uint64_t address, uint64_t bytes)
{
    struct device *device = of;
    for (uint32_t i = 1; i < BUFFERS; i++) {
        const struct buffer *buffer = &device->buffers[i];
        if (buffer->type == AMDXDNA_BO_INVALID || buffer->type == AMDXDNA_BO_DEV_HEAP)
            continue;
        const uint64_t first = kBase + buffer->offset;
        if (address >= first && address - first < buffer->bytes && bytes <= buffer->bytes - (address - first))
            return seen(device, buffer) + (address - first);
    }
    return NULL;
}

/* The same for a thread that computes: buffers come and go meanwhile, but not those of a command. */
static uint8_t *locked_memory_of(void *of, uint64_t address, uint64_t bytes)
{
    pthread_mutex_lock(&lock);
    uint8_t *memory = memory_of(of, address, bytes);
    pthread_mutex_unlock(&lock);
    return memory;
}

/* The first place of so many bytes, from `offset` to `end`, that no buffer of these types has. */
static bool place(const struct device *device, uint64_t bytes, uint64_t alignment, uint64_t end, bool in_heap,
                  uint64_t *offset)
{
    *offset = (*offset + alignment - 1) / alignment * alignment;
    for (bool moved = true; moved;) {
        moved = false;
        for (uint32_t i = 1; i < BUFFERS; i++) {
            const struct buffer *other = &device->buffers[i];
            if (other->type == AMDXDNA_BO_INVALID || (other->type == AMDXDNA_BO_DEV) != in_heap)
                continue;
            if (*offset < other->offset + other->bytes && other->offset < *offset + bytes) {
                *offset = (other->offset + other->bytes + alignment - 1) / alignment * alignment;
                moved = true;
            }
        }
    }
    return *offset <= end && bytes <= end - *offset;
}

static int create_buffer(struct device *device, struct amdxdna_drm_create_bo *create)
{
    if (fault_is("allocation", ++allocations))
        return fail(ENOMEM);
    const uint64_t bytes = (create->size + kPage - 1) / kPage * kPage;
    const bool in_heap = create->type == AMDXDNA_BO_DEV;
    if (create->vaddr != 0 || create->size == 0 || bytes > kSpace || create->type > AMDXDNA_BO_CMD ||
        create->type == AMDXDNA_BO_INVALID)
        return fail(EINVAL);
    uint32_t handle = 1;
    while (handle < BUFFERS && device->buffers[handle].type != AMDXDNA_BO_INVALID)
        handle++;
    const struct buffer *heap = buffer_of(device, device->heap);
    if (handle == BUFFERS || (in_heap && heap == NULL))
        return fail(in_heap ? EINVAL : ENOMEM);
    uint64_t offset = in_heap ? heap->offset : 0;
    const uint64_t end = in_heap ? heap->offset + heap->bytes : kSpace;
    const uint64_t alignment = create->type == AMDXDNA_BO_DEV_HEAP ? kHeapAlignment : kPage;
    if (!place(device, bytes, alignment, end, in_heap, &offset))
        return fail(in_heap ? EAGAIN : ENOMEM);
    if (offset + bytes > device->end) {
        if (ftruncate(device->fd, (off_t)(offset + bytes)) != 0)
            return -1;
        device->end = offset + bytes;
    }
    device->buffers[handle] = (struct buffer){create->type, offset, create->size};
    if (create->type == AMDXDNA_BO_DEV_HEAP)
        device->heap = handle;
    create->handle = handle;
    return 0;
}

static int buffer_info(struct device *device, struct amdxdna_drm_get_bo_info *info)
{
    const struct buffer *buffer = buffer_of(device, info->handle);
    if (buffer == NULL)
        return fail(ENOENT);
    info->map_offset = buffer->type == AMDXDNA_BO_DEV ? AMDXDNA_INVALID_ADDR : buffer->offset;
    info->vaddr = AMDXDNA_INVALID_ADDR;
    info->xdna_addr = kBase + buffer->offset;
    return 0;
}

static int close_buffer(struct device *device, uint32_t handle)
{
    struct buffer *buffer = buffer_of(device, handle);
    if (buffer == NULL)
        return fail(EINVAL);
    if (buffer->type != AMDXDNA_BO_DEV) {
        /* Its memory goes back, and the next one finds zeros. */
        const uint64_t bytes = (buffer->bytes + kPage - 1) / kPage * kPage;
        (void)fallocate(device->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)buffer->offset, (off_t)bytes);
        (void)madvise(device->own + buffer->offset, bytes, MADV_DONTNEED);
    }
    buffer->type = AMDXDNA_BO_INVALID;
    return 0;
}

static int sync_buffer(struct device *device, const struct amdxdna_drm_sync_bo *sync)
{
    const struct buffer *buffer = buffer_of(device, sync->handle);
    if (buffer == NULL)
        return fail(ENOENT);
    if (sync->offset > buffer->bytes || sync->size > buffer->bytes - sync->offset)
        return fail(EINVAL);
    device->synchronises = true;
    uint8_t *host = device->memory + buffer->offset + sync->offset;
    uint8_t *own = device->own + buffer->offset + sync->offset;
    if (sync->direction == SYNC_DIRECT_TO_DEVICE)
        memcpy(own, host, sync->size);
    else
        memcpy(host, own, sync->size);
    return 0;
}

/* A command: XRT's packet. Its first word has the state, the number of words behind it and the opcode. */
enum { NEW = 1, DONE = 4, ERROR = 5, ABORT = 6, TIMEOUT = 8 };
enum { START_KERNEL = 0 };

/* Offsets of the kernel's arguments in its registers, in words. */
enum { OPCODE = 0, INSTRUCTIONS = 2, COUNT = 4, DATA = 5, ARGUMENTS = 5, RUN_INSTRUCTIONS = 3 };

static uint64_t wide(const uint32_t *words)
{
    return words[0] | (uint64_t)words[1] << 32;
}

/* Without the lock: what a command computes. The state that it ends in, or 0 if it never does. */
static unsigned run(struct context *context, const uint32_t *packet, size_t words)
{
    /* The mask of compute units, then the registers. */
    enum { REGISTERS = 2 };
    const uint32_t opcode = packet[0] >> 23 & 31;
    const size_t count = packet[0] >> 12 & 0x7ff;
    if (opcode != START_KERNEL || count + 1 > words || count < REGISTERS - 1 + DATA) {
        complain("a command has opcode %u and %zu words", opcode, count);
        return ERROR;
    }
    const uint32_t *registers = packet + REGISTERS;
    const size_t register_count = count - 1;
    if (wide(registers + OPCODE) != RUN_INSTRUCTIONS) {
        complain("the kernel's opcode is %llu", (unsigned long long)wide(registers + OPCODE));
        return ERROR;
    }
    if (!context->has_array) {
        complain("the context has no array");
        return ERROR;
    }
    uint64_t arguments[ARGUMENTS];
    size_t argument_count = 0;
    while (argument_count < ARGUMENTS && DATA + 2 * argument_count + 2 <= register_count) {
        arguments[argument_count] = wide(registers + DATA + 2 * argument_count);
        argument_count++;
    }
    const uint64_t instruction_count = registers[COUNT];
    const uint8_t *instructions = locked_memory_of(context->device, wide(registers + INSTRUCTIONS), 4 * instruction_count);
    pthread_mutex_lock(&lock);
    const unsigned long number = ++dispatches;
    pthread_mutex_unlock(&lock);
    if (instructions == NULL || instruction_count == 0) {
        complain("the instructions are not within a buffer");
        return ERROR;
    }
    if (fault_is("slow", number))
        nanosleep(&(struct timespec){0, 50 * 1000 * 1000}, NULL);
    if (fault_is("command-error", number))
        return ERROR;
    if (fault_is("abort", number))
        return ABORT;
    if (fault_is("timeout", number))
        return TIMEOUT;
    if (fault_is("hang", number))
        return 0;
    /* What a session computes to test itself is computed. */
    if (fault_is("idle", context->done + 1))
        return DONE;
    uint32_t *copy = malloc(4 * instruction_count);
    if (copy == NULL)
        abort();
    memcpy(copy, instructions, 4 * instruction_count);
    const enum outcome outcome =
        array_run(&context->array, copy, instruction_count, arguments, argument_count, locked_memory_of, context->device);
    free(copy);
    if (outcome == COMPLETED && fault_is("wrong-result", number)) {
        /* The output is the last argument that designs have: the first ones of the rest are 0. */
        size_t last = argument_count;
        while (last > 0 && arguments[last - 1] == 0)
            last--;
        uint8_t *out = last > 0 ? locked_memory_of(context->device, arguments[last - 1], 1) : NULL;
        if (out != NULL)
            *out ^= 1;
    }
    return outcome == COMPLETED ? DONE : outcome == FAILED ? ERROR : 0;
}

static void *work(void *of)
{
    struct context *context = of;
    struct device *device = context->device;
    pthread_mutex_lock(&lock);
    for (;;) {
        while (!context->is_ended && context->done == context->submitted)
            pthread_cond_wait(&changed, &lock);
        if (context->done == context->submitted)
            break;
        const struct command command = context->queue[context->done % QUEUE];
        const struct buffer *buffer = buffer_of(device, command.buffer);
        uint32_t *packet = buffer == NULL ? NULL : (uint32_t *)(device->memory + buffer->offset);
        const size_t words = buffer == NULL ? 0 : buffer->bytes / 4;
        const bool is_ended = context->is_ended;
        pthread_mutex_unlock(&lock);
        unsigned state = packet == NULL ? ERROR : is_ended ? ABORT : run(context, packet, words);
        pthread_mutex_lock(&lock);
        while (state == 0 && !context->is_ended)
            pthread_cond_wait(&changed, &lock);
        if (state == 0)
            state = ABORT;
        if (packet != NULL)
            __atomic_store_n(packet, (packet[0] & ~UINT32_C(15)) | state, __ATOMIC_RELEASE);
        context->done++;
        pthread_cond_broadcast(&changed);
    }
    pthread_mutex_unlock(&lock);
    return NULL;
}

static struct context *context_of(struct device *device, uint32_t handle)
{
    if (handle == 0 || handle > CONTEXTS || !device->contexts[handle - 1].is_used)
        return NULL;
    return &device->contexts[handle - 1];
}

static int create_context(struct device *device, struct amdxdna_drm_create_hwctx *create)
{
    uint32_t handle = 1;
    while (handle <= CONTEXTS && device->contexts[handle - 1].is_used)
        handle++;
    const uint32_t columns = create->num_tiles / CORES;
    if (handle > CONTEXTS || columns < 1 || columns > COLUMNS - 1 || fault_is("contexts", 1))
        return fail(EINVAL);
    struct context *context = &device->contexts[handle - 1];
    *context = (struct context){.is_used = true, .device = device, .columns = columns};
    if (pthread_create(&context->thread, NULL, work, context) != 0) {
        context->is_used = false;
        return fail(EAGAIN);
    }
    create->handle = handle;
    /* The timeline that says how many commands are done. */
    create->syncobj_handle = handle;
    create->umq_doorbell = 0;
    return 0;
}

static int configure_context(struct device *device, const struct amdxdna_drm_config_hwctx *config)
{
    struct context *context = context_of(device, config->handle);
    if (context == NULL || config->param_type != DRM_AMDXDNA_HWCTX_CONFIG_CU)
        return fail(EINVAL);
    const struct amdxdna_hwctx_param_config_cu *units = (const void *)(uintptr_t)config->param_val;
    if (config->param_val_size < sizeof *units + sizeof units->cu_configs[0] || units->num_cus != 1)
        return fail(EINVAL);
    const struct buffer *pdi = buffer_of(device, units->cu_configs[0].cu_bo);
    if (pdi == NULL)
        return fail(EINVAL);
    context->has_array = array_parse(&context->array, seen(device, pdi), pdi->bytes);
    if (context->has_array && context->array.columns != context->columns) {
        complain("the array has %u columns, and its partition %u", context->array.columns, context->columns);
        context->has_array = false;
    }
    return context->has_array ? 0 : fail(EINVAL);
}

/* Ends a context's thread; with the lock, which is let go in between. */
static void end_context(struct context *context)
{
    context->is_ended = true;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
    pthread_join(context->thread, NULL);
    pthread_mutex_lock(&lock);
    context->is_used = false;
}

static int destroy_context(struct device *device, uint32_t handle)
{
    struct context *context = context_of(device, handle);
    if (context == NULL)
        return fail(EINVAL);
    end_context(context);
    return 0;
}

static int execute(struct device *device, struct amdxdna_drm_exec_cmd *exec)
{
    struct context *context = context_of(device, exec->hwctx);
    const uint32_t handle = (uint32_t)exec->cmd_handles;
    const struct buffer *command = buffer_of(device, handle);
    if (context == NULL || exec->type != AMDXDNA_CMD_SUBMIT_EXEC_BUF || exec->cmd_count != 1 || command == NULL ||
        command->type != AMDXDNA_BO_CMD)
        return fail(EINVAL);
    const uint32_t *handles = (const void *)(uintptr_t)exec->args;
    for (uint32_t i = 0; i < exec->arg_count; i++)
        if (buffer_of(device, handles[i]) == NULL)
            return fail(ENOENT);
    if (context->submitted - context->done == QUEUE)
        return fail(EBUSY);
    context->queue[context->submitted % QUEUE] = (struct command){handle, context->submitted};
    /* Points of a timeline start at 1. */
    exec->seq = ++context->submitted;
    pthread_cond_broadcast(&changed);
    return 0;
}

static int wait_until(struct context *context, uint64_t point, const struct timespec *deadline)
{
    while (context->done < point) {
        const int error = deadline == NULL ? pthread_cond_wait(&changed, &lock)
                                           : pthread_cond_timedwait(&changed, &lock, deadline);
        if (error != 0)
            return fail(ETIME);
    }
    return 0;
}

static int wait_timeline(struct device *device, const struct drm_syncobj_timeline_wait *wait)
{
    if (wait->count_handles != 1)
        return fail(EINVAL);
    struct context *context = context_of(device, *(const uint32_t *)(uintptr_t)wait->handles);
    if (context == NULL)
        return fail(ENOENT);
    const int64_t timeout = wait->timeout_nsec;
    const struct timespec deadline = {timeout / 1000000000, timeout % 1000000000};
    return wait_until(context, *(const uint64_t *)(uintptr_t)wait->points, timeout == INT64_MAX ? NULL : &deadline);
}

static void copy_info(struct amdxdna_drm_get_info *info, const void *from, size_t bytes)
{
    if (info->buffer_size > bytes)
        info->buffer_size = (uint32_t)bytes;
    memcpy((void *)(uintptr_t)info->buffer, from, info->buffer_size);
}

static int get_info(struct amdxdna_drm_get_info *info)
{
    switch (info->param) {
    case DRM_AMDXDNA_QUERY_AIE_METADATA: {
        const struct amdxdna_drm_query_aie_metadata metadata = {
            .col_size = 1 << 25,
            .cols = COLUMNS,
            .rows = CORES + 2,
            .version = {1, 1},
            .core = {.row_count = CORES, .row_start = 2, .dma_channel_count = 2, .lock_count = 16, .event_reg_count = 4},
            .mem = {.row_count = 1, .row_start = 1, .dma_channel_count = 6, .lock_count = 64, .event_reg_count = 4},
            .shim = {.row_count = 1, .row_start = 0, .dma_channel_count = 2, .lock_count = 16, .event_reg_count = 4},
        };
        copy_info(info, &metadata, sizeof metadata);
        return 0;
    }
    case DRM_AMDXDNA_QUERY_AIE_VERSION: {
        const struct amdxdna_drm_query_aie_version version = {1, 1};
        copy_info(info, &version, sizeof version);
        return 0;
    }
    case DRM_AMDXDNA_QUERY_FIRMWARE_VERSION: {
        const struct amdxdna_drm_query_firmware_version version = {0};
        copy_info(info, &version, sizeof version);
        return 0;
    }
    case DRM_AMDXDNA_QUERY_CLOCK_METADATA: {
        const struct amdxdna_drm_query_clock_metadata clocks = {.mp_npu_clock = {.name = "emulated"},
                                                                .h_clock = {.name = "emulated"}};
        copy_info(info, &clocks, sizeof clocks);
        return 0;
    }
    case DRM_AMDXDNA_QUERY_HW_CONTEXTS:
        info->buffer_size = 0;
        return 0;
    case DRM_AMDXDNA_GET_POWER_MODE: {
        const struct amdxdna_drm_get_power_mode mode = {0};
        copy_info(info, &mode, sizeof mode);
        return 0;
    }
    default:
        return fail(EOPNOTSUPP);
    }
}

static int answer(struct device *device, unsigned long request, void *argument)
{
    switch (request) {
    case DRM_IOCTL_AMDXDNA_CREATE_BO:
        return create_buffer(device, argument);
    case DRM_IOCTL_AMDXDNA_GET_BO_INFO:
        return buffer_info(device, argument);
    case DRM_IOCTL_AMDXDNA_SYNC_BO:
        return sync_buffer(device, argument);
    case DRM_IOCTL_GEM_CLOSE:
        return close_buffer(device, ((struct drm_gem_close *)argument)->handle);
    case DRM_IOCTL_AMDXDNA_CREATE_HWCTX:
        return create_context(device, argument);
    case DRM_IOCTL_AMDXDNA_CONFIG_HWCTX:
        return configure_context(device, argument);
    case DRM_IOCTL_AMDXDNA_DESTROY_HWCTX:
        return destroy_context(device, ((struct amdxdna_drm_destroy_hwctx *)argument)->handle);
    case DRM_IOCTL_AMDXDNA_EXEC_CMD:
        return execute(device, argument);
    case DRM_IOCTL_SYNCOBJ_TIMELINE_WAIT:
        return wait_timeline(device, argument);
    case DRM_IOCTL_SYNCOBJ_DESTROY:
        return 0;
    case DRM_IOCTL_AMDXDNA_GET_INFO:
        return get_info(argument);
    default:
        return fail(EOPNOTSUPP);
    }
}

int driver_ioctl(int fd, unsigned long request, void *argument)
{
    pthread_mutex_lock(&lock);
    struct device *device = find(fd);
    const int result = device == NULL ? fail(EBADF) : answer(device, request, argument);
    const int error = errno;
    pthread_mutex_unlock(&lock);
    errno = error;
    return result;
}

/* Counts what is left of a device. */
static void count_left(const struct device *device)
{
    for (uint32_t i = 1; i < BUFFERS; i++)
        left_buffers += device->buffers[i].type != AMDXDNA_BO_INVALID;
    for (uint32_t i = 0; i < CONTEXTS; i++)
        left_contexts += device->contexts[i].is_used;
}

void driver_close(int fd)
{
    pthread_mutex_lock(&lock);
    struct device *device = find(fd);
    if (device != NULL) {
        count_left(device);
        for (uint32_t i = 0; i < CONTEXTS; i++)
            if (device->contexts[i].is_used)
                end_context(&device->contexts[i]);
        for (int i = 0; i < DEVICES; i++)
            if (devices[i] == device)
                devices[i] = NULL;
        munmap(device->memory, kSpace);
        munmap(device->own, kSpace);
        free(device);
    }
    pthread_mutex_unlock(&lock);
}

__attribute__((destructor)) void driver_report(void)
{
    const char *path = getenv("ATTN_EMULATOR_REPORT");
    if (path == NULL || opened == 0)
        return;
    pthread_mutex_lock(&lock);
    for (int i = 0; i < DEVICES; i++)
        if (devices[i] != NULL)
            count_left(devices[i]);
    pthread_mutex_unlock(&lock);
    FILE *file = fopen(path, "a");
    if (file == NULL)
        return;
    fprintf(file, "emulated: %lu opened, %lu dispatches, %lu buffers and %lu contexts left\n", opened, dispatches,
            left_buffers, left_contexts);
    fclose(file);
}
