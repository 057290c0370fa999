/* A semaphore that an audio callback may post: on Linux a futex, which needs no lock to post and
 * waits by the monotonic clock (POSIX semaphores wait by the one that people set).  A bell is the
 * same as a word of memory that processes share. */
#if defined(__linux__)
#define _GNU_SOURCE
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#elif defined(__APPLE__)
#include <dispatch/dispatch.h>
#elif defined(_WIN32)
#include <windows.h>
#endif

#include <stdatomic.h>

#include "internal.h"

static const double FOREVER = 1e6; /* seconds; nobody waits for more at once */

static uint64_t nanoseconds(double seconds) {
    if (!(seconds > 0)) {
        return 0;
    }
    return (uint64_t)((seconds < FOREVER ? seconds : FOREVER) * 1e9);
}

#if defined(__linux__)

struct rs_wake {
    _Atomic uint32_t posted; /* 0 or 1: waiting takes all posts at once, so one is enough */
};

_Static_assert(sizeof(struct rs_wake) == 4, "a futex is a 32-bit word");

static void post(_Atomic uint32_t *posted, int wake) {
    if (atomic_exchange(posted, 1) == 0) {
        syscall(SYS_futex, posted, wake, 1, NULL, NULL, 0);
    }
}

static int wait_for(_Atomic uint32_t *posted, int wait, double seconds) {
    const uint64_t span = nanoseconds(seconds);
    const uint64_t deadline = rs_now() + span;
    uint64_t left = span;
    while (atomic_exchange(posted, 0) == 0) {
        if (left == 0) {
            return 0;
        }
        const struct timespec time = {(time_t)(left / 1000000000), (long)(left % 1000000000)};
        syscall(SYS_futex, posted, wait, 0, &time, NULL, 0);
        const uint64_t now = rs_now();
        left = now < deadline ? deadline - now : 0;
    }
    return 1;
}

rs_wake *rs_wake_new(void) {
    return rs_memory_new(sizeof(rs_wake));
}

void rs_wake_free(rs_wake *wake) {
    rs_memory_free(wake);
}

void rs_wake_post(rs_wake *wake) {
    post(&wake->posted, FUTEX_WAKE_PRIVATE);
}

int rs_wake_wait(rs_wake *wake, double seconds) {
    return wait_for(&wake->posted, FUTEX_WAIT_PRIVATE, seconds);
}

void rs_bell_ring(uint32_t *bell) {
    post((_Atomic uint32_t *)bell, FUTEX_WAKE);
}

int rs_bell_wait(uint32_t *bell, double seconds) {
    return wait_for((_Atomic uint32_t *)bell, FUTEX_WAIT, seconds);
}

#elif defined(__APPLE__)

struct rs_wake {
    dispatch_semaphore_t semaphore;
};

rs_wake *rs_wake_new(void) {
    rs_wake *wake = rs_memory_new(sizeof *wake);
    if (wake != NULL) {
        wake->semaphore = dispatch_semaphore_create(0);
    }
    return wake;
}

void rs_wake_free(rs_wake *wake) {
    if (wake != NULL) {
        dispatch_release(wake->semaphore);
        rs_memory_free(wake);
    }
}

void rs_wake_post(rs_wake *wake) {
    dispatch_semaphore_signal(wake->semaphore);
}

int rs_wake_wait(rs_wake *wake, double seconds) {
    const int64_t span = (int64_t)nanoseconds(seconds);
    if (dispatch_semaphore_wait(wake->semaphore, dispatch_time(DISPATCH_TIME_NOW, span)) != 0) {
        return 0;
    }
    while (dispatch_semaphore_wait(wake->semaphore, DISPATCH_TIME_NOW) == 0) {
    }
    return 1;
}

#elif defined(_WIN32)

struct rs_wake {
    HANDLE semaphore;
};

rs_wake *rs_wake_new(void) {
    rs_wake *wake = rs_memory_new(sizeof *wake);
    if (wake != NULL) {
        /* At most one post is kept; further ones fail, and nothing is lost. */
        wake->semaphore = CreateSemaphoreW(NULL, 0, 1, NULL);
        if (wake->semaphore == NULL) {
            rs_memory_free(wake);
            wake = NULL;
        }
    }
    return wake;
}

void rs_wake_free(rs_wake *wake) {
    if (wake != NULL) {
        CloseHandle(wake->semaphore);
        rs_memory_free(wake);
    }
}

void rs_wake_post(rs_wake *wake) {
    ReleaseSemaphore(wake->semaphore, 1, NULL);
}

int rs_wake_wait(rs_wake *wake, double seconds) {
    const DWORD milliseconds = (DWORD)((nanoseconds(seconds) + 999999) / 1000000);
    return WaitForSingleObject(wake->semaphore, milliseconds) == WAIT_OBJECT_0;
}

#endif

#if !defined(__linux__)

/* No other system lets processes wait for a word: it is looked at. */
enum { LOOK = 200000 }; /* ns */

void rs_bell_ring(uint32_t *bell) {
    atomic_store((_Atomic uint32_t *)bell, 1);
}

int rs_bell_wait(uint32_t *bell, double seconds) {
    const uint64_t deadline = rs_now() + nanoseconds(seconds);
    while (atomic_exchange((_Atomic uint32_t *)bell, 0) == 0) {
        const uint64_t now = rs_now();
        if (now >= deadline) {
            return 0;
        }
        rs_sleep_until(deadline - now < LOOK ? deadline : now + LOOK);
    }
    return 1;
}

#endif
