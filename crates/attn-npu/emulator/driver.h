/* The emulated driver, for the calls that are redirected to it. */
#ifndef ATTN_EMULATOR_DRIVER_H
#define ATTN_EMULATOR_DRIVER_H

#include <stdbool.h>
#include <stddef.h>

/* Opens the device: a descriptor whose memory is the buffers', or -1 and errno. */
int driver_open(void);

/* Whether a descriptor is an open device. */
bool driver_has(int fd);

/* What the driver answers: 0, or -1 and errno. */
int driver_ioctl(int fd, unsigned long request, void *argument);

/* Whether memory of the device may be mapped and locked; else errno. */
bool driver_may_map(size_t bytes);

/* Ends whatever is left of it. */
void driver_close(int fd);

/* What this process did, and left behind: a line for the file that the environment names. */
void driver_report(void);

/* Whether this is what is to go wrong, from its n-th time on (1 if the request does not say). */
bool fault_is(const char *name, unsigned long time);

#endif
