/* What the native sources share among themselves.  The public header has no preprocessor lines and
 * so no include guard: it is included here and nowhere else. */
#ifndef RS_INTERNAL_H
#define RS_INTERNAL_H

#include <stddef.h>
#include <stdint.h>

/* Everything is compiled with hidden symbols; a shared library shows the interface alone. */
#if defined(RS_SHARED) && !defined(_WIN32)
#pragma GCC visibility push(default)
#endif
#include "realtime_sep.h"
#if defined(RS_SHARED) && !defined(_WIN32)
#pragma GCC visibility pop
#endif

/* memory.c: zeroed memory whose pages are already there, so that no callback is the first to touch
 * one.  NULL and errno when there is none. */
void *rs_memory_new(size_t bytes);
void rs_memory_free(void *memory);

/* memory.c: `bytes`, a multiple of rs_memory_page(), mapped twice in a row; NULL where the platform
 * cannot. */
size_t rs_memory_page(void);
void *rs_mirror_new(size_t bytes);
void rs_mirror_free(void *memory, size_t bytes);

/* thread.c: sleep until the monotonic clock shows `when`. */
void rs_sleep_until(uint64_t when);

/* wake.c: the same as a wake, as a word of memory that processes share; 0 at first. */
void rs_bell_ring(uint32_t *bell); /* [rt] */
int rs_bell_wait(uint32_t *bell, double seconds);

/* bridge.c: what the devices must know of the bridge that they drive. */
uint32_t rs_bridge_hop(const rs_bridge *bridge);
uint32_t rs_bridge_in_channels(const rs_bridge *bridge);
uint32_t rs_bridge_out_channels(const rs_bridge *bridge);

#endif
