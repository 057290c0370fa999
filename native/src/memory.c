/* Memory for the real-time side.  With thread.c and wake.c the only place that knows platforms. */
#if defined(__linux__)
#define _GNU_SOURCE
#include <sys/mman.h>
#include <unistd.h>
#elif defined(__APPLE__)
#include <mach/mach.h>
#include <unistd.h>
#endif

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"

enum { LINE = 128 }; /* two cache lines: neighbours are fetched in pairs */

void *rs_memory_new(size_t bytes) {
    if (bytes > SIZE_MAX - 2 * LINE) {
        errno = ENOMEM;
        return NULL;
    }
    /* One line in front keeps the address that malloc gave, so that no platform's own aligned
     * allocation is needed. */
    unsigned char *raw = malloc(bytes + 2 * LINE);
    if (raw == NULL) {
        return NULL;
    }
    unsigned char *memory = raw + 2 * LINE - (uintptr_t)raw % LINE;
    memcpy(memory - sizeof raw, &raw, sizeof raw);
    memset(memory, 0, bytes);
    /* malloc and memset may be fused into calloc, whose pages are not there yet. */
    for (size_t i = 0; i < bytes; i += 4096) {
        *(volatile unsigned char *)(memory + i) = 0;
    }
    return memory;
}

void rs_memory_free(void *memory) {
    if (memory != NULL) {
        void *raw;
        memcpy(&raw, (unsigned char *)memory - sizeof raw, sizeof raw);
        free(raw);
    }
}

#if defined(__linux__)

size_t rs_memory_page(void) {
    return (size_t)sysconf(_SC_PAGESIZE);
}

void *rs_mirror_new(size_t bytes) {
    int file = memfd_create("realtime_sep", MFD_CLOEXEC);
    if (file < 0) {
        return NULL;
    }
    unsigned char *memory = MAP_FAILED;
    if (ftruncate(file, (off_t)bytes) == 0) {
        /* Reserve the whole room first: the halves then replace what is surely ours. */
        memory = mmap(NULL, 2 * bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    }
    if (memory != MAP_FAILED) {
        const int access = PROT_READ | PROT_WRITE;
        const int flags = MAP_SHARED | MAP_FIXED | MAP_POPULATE;
        if (mmap(memory, bytes, access, flags, file, 0) == MAP_FAILED ||
            mmap(memory + bytes, bytes, access, flags, file, 0) == MAP_FAILED) {
            munmap(memory, 2 * bytes);
            memory = MAP_FAILED;
        }
    }
    close(file);
    return memory == MAP_FAILED ? NULL : memory;
}

void rs_mirror_free(void *memory, size_t bytes) {
    munmap(memory, 2 * bytes);
}

#elif defined(__APPLE__)

size_t rs_memory_page(void) {
    return (size_t)sysconf(_SC_PAGESIZE);
}

void *rs_mirror_new(size_t bytes) {
    const mach_port_t task = mach_task_self();
    vm_address_t memory = 0;
    if (vm_allocate(task, &memory, 2 * bytes, VM_FLAGS_ANYWHERE) != KERN_SUCCESS) {
        return NULL;
    }
    vm_address_t second = memory + bytes;
    vm_prot_t current;
    vm_prot_t highest;
    if (vm_remap(task, &second, bytes, 0, VM_FLAGS_FIXED | VM_FLAGS_OVERWRITE, task, memory, 0,
                 &current, &highest, VM_INHERIT_DEFAULT) != KERN_SUCCESS) {
        vm_deallocate(task, memory, 2 * bytes);
        return NULL;
    }
    memset((void *)memory, 0, bytes);
    return (void *)memory;
}

void rs_mirror_free(void *memory, size_t bytes) {
    vm_deallocate(mach_task_self(), (vm_address_t)memory, 2 * bytes);
}

#else /* a plain ring does it everywhere else */

size_t rs_memory_page(void) {
    return 4096;
}

void *rs_mirror_new(size_t bytes) {
    (void)bytes;
    return NULL;
}

void rs_mirror_free(void *memory, size_t bytes) {
    (void)memory;
    (void)bytes;
}

#endif
