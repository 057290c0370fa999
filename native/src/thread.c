/* What a thread asks of the operating system. */
#if defined(__linux__)
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>
#include <time.h>
#elif defined(__APPLE__)
#include <mach/mach.h>
#include <mach/mach_time.h>
#include <mach/thread_policy.h>
#include <pthread.h>
#include <sys/mman.h>
#include <time.h>
#elif defined(_WIN32)
#include <windows.h>
#endif

#if defined(__x86_64__) || defined(__i386__)
#include <xmmintrin.h>
#endif

#include <errno.h>

#include "internal.h"

#if defined(__linux__)

static uint64_t clock_ns(clockid_t clock) {
    struct timespec time;
    clock_gettime(clock, &time);
    return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

uint64_t rs_now(void) {
    return clock_ns(CLOCK_MONOTONIC);
}

uint64_t rs_thread_cpu(void) {
    return clock_ns(CLOCK_THREAD_CPUTIME_ID);
}

void rs_sleep_until(uint64_t when) {
    const struct timespec time = {(time_t)(when / 1000000000), (long)(when % 1000000000)};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &time, NULL) == EINTR) {
    }
}

/* What the thread starts later is not as urgent as the thread itself. */
int rs_thread_realtime(int priority) {
    const struct sched_param parameter = {.sched_priority = priority};
    return pthread_setschedparam(pthread_self(), SCHED_FIFO | SCHED_RESET_ON_FORK, &parameter);
}

/* What is there is fetched now.  What comes later is kept when it is first touched, not fetched as a
   whole when it is asked for: a model's buffer, or a thread's stack, would take tens of milliseconds,
   in which whoever asks may hold a lock that others wait for. */
int rs_lock_memory(void) {
    if (mlockall(MCL_CURRENT) != 0) return errno;
    return mlockall(MCL_FUTURE | MCL_ONFAULT) == 0 ? 0 : errno;
}

#elif defined(__APPLE__)

uint64_t rs_now(void) {
    return clock_gettime_nsec_np(CLOCK_UPTIME_RAW);
}

uint64_t rs_thread_cpu(void) {
    return clock_gettime_nsec_np(CLOCK_THREAD_CPUTIME_ID);
}

static uint64_t ticks(uint64_t nanoseconds) {
    mach_timebase_info_data_t base;
    mach_timebase_info(&base);
    return (uint64_t)((double)nanoseconds * base.denom / base.numer);
}

void rs_sleep_until(uint64_t when) {
    const uint64_t now = rs_now();
    if (when > now) {
        mach_wait_until(mach_absolute_time() + ticks(when - now));
    }
}

/* macOS wants to know how long the work takes instead of how important it is. */
int rs_thread_realtime(int priority) {
    if (priority <= 0) {
        return EINVAL;
    }
    thread_time_constraint_policy_data_t policy = {
        .period = (uint32_t)ticks(5000000),
        .computation = (uint32_t)ticks(1000000),
        .constraint = (uint32_t)ticks(3000000),
        .preemptible = TRUE,
    };
    const kern_return_t result =
        thread_policy_set(pthread_mach_thread_np(pthread_self()), THREAD_TIME_CONSTRAINT_POLICY,
                          (thread_policy_t)&policy, THREAD_TIME_CONSTRAINT_POLICY_COUNT);
    return result == KERN_SUCCESS ? 0 : EPERM;
}

int rs_lock_memory(void) {
    return mlockall(MCL_CURRENT | MCL_FUTURE) == 0 ? 0 : errno;
}

#elif defined(_WIN32)

uint64_t rs_now(void) {
    LARGE_INTEGER rate;
    LARGE_INTEGER count;
    QueryPerformanceFrequency(&rate);
    QueryPerformanceCounter(&count);
    const uint64_t whole = (uint64_t)(count.QuadPart / rate.QuadPart);
    const uint64_t part = (uint64_t)(count.QuadPart % rate.QuadPart);
    return whole * 1000000000 + part * 1000000000 / (uint64_t)rate.QuadPart;
}

uint64_t rs_thread_cpu(void) {
    FILETIME created;
    FILETIME ended;
    FILETIME kernel;
    FILETIME user;
    GetThreadTimes(GetCurrentThread(), &created, &ended, &kernel, &user);
    const uint64_t high = (uint64_t)kernel.dwHighDateTime + user.dwHighDateTime;
    const uint64_t low = (uint64_t)kernel.dwLowDateTime + user.dwLowDateTime;
    return ((high << 32) + low) * 100;
}

#ifndef CREATE_WAITABLE_TIMER_HIGH_RESOLUTION
#define CREATE_WAITABLE_TIMER_HIGH_RESOLUTION 2
#endif

void rs_sleep_until(uint64_t when) {
    const uint64_t now = rs_now();
    if (when <= now) {
        return;
    }
    const HANDLE timer =
        CreateWaitableTimerExW(NULL, NULL, CREATE_WAITABLE_TIMER_HIGH_RESOLUTION, TIMER_ALL_ACCESS);
    LARGE_INTEGER span = {.QuadPart = -(LONGLONG)((when - now + 99) / 100)};
    if (timer != NULL && SetWaitableTimer(timer, &span, 0, NULL, NULL, FALSE)) {
        WaitForSingleObject(timer, INFINITE);
    } else {
        Sleep((DWORD)((when - now + 999999) / 1000000));
    }
    if (timer != NULL) {
        CloseHandle(timer);
    }
}

int rs_thread_realtime(int priority) {
    if (priority <= 0) {
        return EINVAL;
    }
    return SetThreadPriority(GetCurrentThread(), THREAD_PRIORITY_TIME_CRITICAL) ? 0 : EPERM;
}

int rs_lock_memory(void) {
    return ENOTSUP;
}

#endif

#if defined(__x86_64__) || defined(__i386__)

enum { FLUSH = 0x8040 }; /* flush to zero, denormals are zero */

int rs_thread_flush_denormals(int flush) {
    const unsigned before = _mm_getcsr();
    _mm_setcsr(flush ? before | FLUSH : before & ~(unsigned)FLUSH);
    return (before & FLUSH) != 0;
}

#elif defined(__aarch64__)

int rs_thread_flush_denormals(int flush) {
    const uint64_t bit = UINT64_C(1) << 24;
    uint64_t before;
    __asm__ volatile("mrs %0, fpcr" : "=r"(before));
    __asm__ volatile("msr fpcr, %0" : : "r"(flush ? before | bit : before & ~bit));
    return (before & bit) != 0;
}

#else

int rs_thread_flush_denormals(int flush) {
    (void)flush;
    return -1;
}

#endif
