/* Sends what a process does with an NPU's files to the emulated driver, and to a device tree below ATTN_EMULATOR. */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "driver.h"

/* This file defines what others would declare with checks of their own. */
#undef open
#undef open64

#define NODE "/dev/accel/accel0"

/* The function that would have been called. */
#define NEXT(name) ((__typeof__(&name))next(#name))

static void *next(const char *name)
{
    void *function = dlsym(RTLD_NEXT, name);
    if (function == NULL)
        abort();
    return function;
}

/* Where a path leads: below the tree, or where it says. */
static const char *redirect(const char *path, char *room)
{
    static const char *const kPrefixes[] = {"/sys/bus/pci/", "/sys/devices/pci", "/sys/module/amdxdna", "/dev/accel"};
    const char *tree = getenv("ATTN_EMULATOR");
    if (tree == NULL || path == NULL)
        return path;
    /* XRT takes its settings from beside the program only where root runs it. */
    const char *name = strrchr(path, '/');
    if (name != NULL && strcmp(name, "/xrt.ini") == 0 && snprintf(room, PATH_MAX, "%s%s", tree, name) < PATH_MAX)
        return room;
    for (size_t i = 0; i < sizeof kPrefixes / sizeof *kPrefixes; i++) {
        if (strncmp(path, kPrefixes[i], strlen(kPrefixes[i])) != 0)
            continue;
        const char *none = fault_is("no-device", 1) ? "/none" : fault_is("no-driver", 1) ? "/no-driver" : "";
        if (snprintf(room, PATH_MAX, "%s%s%s", tree, none, path) < PATH_MAX)
            return room;
    }
    return path;
}

static bool is_node(const char *path)
{
    return getenv("ATTN_EMULATOR") != NULL && path != NULL && strcmp(path, NODE) == 0 && !fault_is("no-device", 1) &&
           !fault_is("no-driver", 1);
}

#define REDIRECTED(path) redirect(path, (char[PATH_MAX]){0})

#define OPEN(name)                                                                                                     \
    int name(const char *path, int flags, ...)                                                                         \
    {                                                                                                                  \
        va_list arguments;                                                                                             \
        va_start(arguments, flags);                                                                                    \
        const mode_t mode = (flags & (O_CREAT | O_TMPFILE)) != 0 ? va_arg(arguments, mode_t) : 0;                      \
        va_end(arguments);                                                                                             \
        return is_node(path) ? driver_open() : NEXT(name)(REDIRECTED(path), flags, mode);                              \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(name)                                                                                                   \
    int name(int folder, const char *path, int flags, ...)                                                             \
    {                                                                                                                  \
        va_list arguments;                                                                                             \
        va_start(arguments, flags);                                                                                    \
        const mode_t mode = (flags & (O_CREAT | O_TMPFILE)) != 0 ? va_arg(arguments, mode_t) : 0;                      \
        va_end(arguments);                                                                                             \
        return is_node(path) ? driver_open() : NEXT(name)(folder, REDIRECTED(path), flags, mode);                      \
    }
OPENAT(openat)
OPENAT(openat64)

FILE *fopen(const char *path, const char *mode)
{
    return NEXT(fopen)(REDIRECTED(path), mode);
}

FILE *fopen64(const char *path, const char *mode)
{
    return NEXT(fopen64)(REDIRECTED(path), mode);
}

DIR *opendir(const char *path)
{
    return NEXT(opendir)(REDIRECTED(path));
}

int stat(const char *path, struct stat *status)
{
    return NEXT(stat)(REDIRECTED(path), status);
}

int lstat(const char *path, struct stat *status)
{
    return NEXT(lstat)(REDIRECTED(path), status);
}

int stat64(const char *path, struct stat64 *status)
{
    return NEXT(stat64)(REDIRECTED(path), status);
}

int lstat64(const char *path, struct stat64 *status)
{
    return NEXT(lstat64)(REDIRECTED(path), status);
}

int fstatat(int folder, const char *path, struct stat *status, int flags)
{
    return NEXT(fstatat)(folder, REDIRECTED(path), status, flags);
}

int fstatat64(int folder, const char *path, struct stat64 *status, int flags)
{
    return NEXT(fstatat64)(folder, REDIRECTED(path), status, flags);
}

int statx(int folder, const char *path, int flags, unsigned mask, struct statx *status)
{
    return NEXT(statx)(folder, REDIRECTED(path), flags, mask, status);
}

int access(const char *path, int mode)
{
    return NEXT(access)(REDIRECTED(path), mode);
}

ssize_t readlink(const char *path, char *to, size_t bytes)
{
    return NEXT(readlink)(REDIRECTED(path), to, bytes);
}

/* XRT asks whether a device is really one of /sys/devices. */
char *realpath(const char *path, char *to)
{
    char *real = NEXT(realpath)(REDIRECTED(path), to);
    const char *tree = getenv("ATTN_EMULATOR");
    if (real != NULL && tree != NULL && strncmp(real, tree, strlen(tree)) == 0 && real[strlen(tree)] == '/')
        memmove(real, real + strlen(tree), strlen(real + strlen(tree)) + 1);
    return real;
}

int ioctl(int fd, unsigned long request, ...)
{
    va_list arguments;
    va_start(arguments, request);
    void *argument = va_arg(arguments, void *);
    va_end(arguments);
    int (*real)(int, unsigned long, ...) = (int (*)(int, unsigned long, ...))next("ioctl");
    return driver_has(fd) ? driver_ioctl(fd, request, argument) : real(fd, request, argument);
}

static void *map(void *(*real)(void *, size_t, int, int, int, off_t), void *address, size_t bytes, int protection,
                 int flags, int fd, off_t offset)
{
    if (fd >= 0 && driver_has(fd)) {
        if ((flags & MAP_LOCKED) != 0 && !driver_may_map(bytes))
            return MAP_FAILED;
        /* The limit of a real device's memory is not that of this process's. */
        flags &= ~MAP_LOCKED;
    }
    return real(address, bytes, protection, flags, fd, offset);
}

void *mmap(void *address, size_t bytes, int protection, int flags, int fd, off_t offset)
{
    return map(NEXT(mmap), address, bytes, protection, flags, fd, offset);
}

void *mmap64(void *address, size_t bytes, int protection, int flags, int fd, off64_t offset)
{
    return map(NEXT(mmap64), address, bytes, protection, flags, fd, offset);
}

/* Nothing else is called at such an end. */
void _exit(int status)
{
    driver_report();
    NEXT(_exit)(status);
    abort();
}

int close(int fd)
{
    if (driver_has(fd))
        driver_close(fd);
    return NEXT(close)(fd);
}
