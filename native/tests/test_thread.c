/* Wakes, clocks, and the watch. */
#include <errno.h>
#include <pthread.h>

#include "check.h"

static rs_wake *ping;
static rs_wake *pong;

static void *answer(void *count) {
    for (int i = 0; i < *(int *)count; i++) {
        CHECK(rs_wake_wait(ping, 60));
        rs_wake_post(pong);
    }
    return NULL;
}

static void wakes(void) {
    ping = rs_wake_new();
    pong = rs_wake_new();
    CHECK(!rs_wake_wait(ping, 0) && !rs_wake_wait(ping, -1) && !rs_wake_wait(ping, (double)NAN));
    const uint64_t start = rs_now();
    CHECK(!rs_wake_wait(ping, 0.02));
    CHECK(rs_now() - start >= 20000000);
    for (int i = 0; i < 5; i++) {
        rs_wake_post(ping);
    }
    CHECK(rs_wake_wait(ping, 1)); /* all posts so far are taken at once */
    CHECK(!rs_wake_wait(ping, 0));

    int count = 20000;
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, answer, &count) == 0);
    for (int i = 0; i < count; i++) {
        rs_wake_post(ping);
        CHECK(rs_wake_wait(pong, 60)); /* no post is ever lost */
    }
    pthread_join(thread, NULL);
    rs_wake_free(ping);
    rs_wake_free(pong);
    rs_wake_free(NULL);
}

static void clocks(void) {
    const uint64_t start = rs_now();
    rs_sleep_until(start + 5000000);
    CHECK(rs_now() - start >= 5000000);
    rs_sleep_until(start);

    const uint64_t cpu = rs_thread_cpu();
    volatile float sum = 0;
    for (int i = 0; i < 3000000; i++) {
        sum += 1;
    }
    CHECK(sum > 0 && rs_thread_cpu() > cpu);
    CHECK(rs_thread_realtime(100000) != 0);
    volatile float tiny = 1e-38F;
    if (rs_thread_flush_denormals(1) == 0) {
        CHECK(tiny * 0.1F == 0);
        CHECK(rs_thread_flush_denormals(0) == 1);
        CHECK(tiny * 0.1F > 0);
    }
}

static void watch(void) {
    rs_stall stalls[8];
    CHECK(rs_watch_new(0, 0, 0) == NULL && errno == EINVAL);
    rs_watch *calm = rs_watch_new(1000000, UINT64_C(60000000000), 0);
    CHECK(!rs_watch_realtime(calm));
    /* Nobody wakes after less than nothing: every look is a stall. */
    rs_watch *nervous = rs_watch_new(200000, 0, 0);
    while (rs_watch_count(nervous) < 20) {
        rs_sleep_until(rs_now() + 1000000);
    }
    CHECK(rs_watch_read(nervous, stalls, 8) == 8);
    for (int i = 0; i < 8; i++) {
        CHECK(stalls[i].start < stalls[i].end);
        CHECK(i == 0 || stalls[i - 1].end <= stalls[i].start);
    }
    CHECK(rs_watch_read(nervous, stalls, 0) == 0);
    CHECK(rs_watch_count(calm) == 0 && rs_watch_read(calm, stalls, 8) == 0);
    rs_watch_free(nervous);
    rs_watch_free(calm);
    rs_watch_free(NULL);
}

int main(void) {
    wakes();
    clocks();
    watch();
    return 0;
}
