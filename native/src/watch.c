/* A real-time thread that notices when the machine stalls. */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>

#include "internal.h"

/* The thread writes without asking whether anyone reads.  Twice as many places as are ever read
 * keep the one being written far from those being read. */
enum { KEPT = 4096, PLACES = 2 * KEPT };

struct rs_watch {
    pthread_t thread;
    rs_wake *ready;
    uint64_t period;
    uint64_t threshold;
    int priority;
    int realtime;
    atomic_int stop;
    _Atomic uint64_t count;
    struct {
        _Atomic uint64_t start;
        _Atomic uint64_t end;
    } stalls[PLACES];
};

static void *run(void *argument) {
    rs_watch *watch = argument;
    watch->realtime = watch->priority > 0 && rs_thread_realtime(watch->priority) == 0;
    rs_wake_post(watch->ready);
    uint64_t count = 0;
    uint64_t next = rs_now() + watch->period;
    while (!atomic_load(&watch->stop)) {
        rs_sleep_until(next);
        const uint64_t now = rs_now();
        if (now > next && now - next > watch->threshold) {
            atomic_store_explicit(&watch->stalls[count % PLACES].start, next, memory_order_relaxed);
            atomic_store_explicit(&watch->stalls[count % PLACES].end, now, memory_order_relaxed);
            count++;
            atomic_store_explicit(&watch->count, count, memory_order_release);
            next = now;
        }
        next += watch->period;
    }
    return NULL;
}

rs_watch *rs_watch_new(uint64_t period, uint64_t threshold, int priority) {
    if (period == 0) {
        errno = EINVAL;
        return NULL;
    }
    rs_watch *watch = rs_memory_new(sizeof *watch);
    if (watch == NULL) {
        return NULL;
    }
    watch->period = period;
    watch->threshold = threshold;
    watch->priority = priority;
    watch->ready = rs_wake_new();
    const int error =
        watch->ready == NULL ? ENOMEM : pthread_create(&watch->thread, NULL, run, watch);
    if (error != 0) {
        rs_wake_free(watch->ready);
        rs_memory_free(watch);
        errno = error;
        return NULL;
    }
    while (!rs_wake_wait(watch->ready, 1.0)) {
    }
    return watch;
}

void rs_watch_free(rs_watch *watch) {
    if (watch != NULL) {
        atomic_store(&watch->stop, 1);
        pthread_join(watch->thread, NULL);
        rs_wake_free(watch->ready);
        rs_memory_free(watch);
    }
}

int rs_watch_realtime(const rs_watch *watch) {
    return watch->realtime;
}

uint64_t rs_watch_count(const rs_watch *watch) {
    return atomic_load_explicit(&watch->count, memory_order_acquire);
}

uint64_t rs_watch_read(const rs_watch *watch, rs_stall *stalls, uint64_t room) {
    const uint64_t count = rs_watch_count(watch);
    uint64_t some = count < KEPT ? count : KEPT;
    some = some < room ? some : room;
    for (uint64_t i = 0; i < some; i++) {
        const uint64_t place = (count - some + i) % PLACES;
        stalls[i].start = atomic_load_explicit(&watch->stalls[place].start, memory_order_relaxed);
        stalls[i].end = atomic_load_explicit(&watch->stalls[place].end, memory_order_relaxed);
    }
    return some;
}
