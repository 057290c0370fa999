/* A hatch: one thread hands in blocks of any length, another serves. */
#include <errno.h>
#include <pthread.h>

#include "check.h"

enum { CHANNELS = 2, MOST = 64, VALUES = 3, BLOCKS = 5000, LATE = 100 };

static void *memory;

/* Adds the second value of the order; ends when it is called. */
static void *serve(void *bytes) {
    rs_hatch *hatch = rs_hatch_attach(memory, *(uint64_t *)bytes);
    CHECK(hatch != NULL);
    float block[MOST * CHANNELS];
    double order[VALUES];
    for (;;) {
        const uint64_t frames = rs_hatch_next(hatch, block, MOST, order, 60);
        if (frames == 0) {
            break;
        }
        for (uint64_t i = 0; i < frames * CHANNELS; i++) {
            block[i] += (float)order[1];
        }
        CHECK(rs_hatch_give(hatch, block, frames));
    }
    rs_hatch_free(hatch);
    return NULL;
}

static float at(uint64_t frame) {
    return unit(frame);
}

static void there_and_back(uint64_t bytes) {
    rs_hatch *hatch = rs_hatch_place(memory, bytes, 1000, CHANNELS, 100, VALUES);
    CHECK(hatch != NULL);
    CHECK(rs_hatch_give(hatch, NULL, LATE));
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, serve, &bytes) == 0);
    uint64_t seed = 1;
    uint64_t start = 0;
    float block[MOST * CHANNELS];
    for (int i = 0; i < BLOCKS; i++) {
        const uint64_t frames = 1 + pick(&seed, MOST);
        const double order[VALUES] = {i, 7, -1};
        for (uint64_t f = 0; f < frames * CHANNELS; f++) {
            block[f] = at(start + f / CHANNELS);
        }
        CHECK(rs_hatch_put(hatch, block, frames, order));
        CHECK(rs_hatch_await(hatch, start + frames, 60));
        const int left_out = i % 7 == 3; /* too late: the next one finds its own */
        if (!left_out) {
            CHECK(rs_hatch_take(hatch, block, frames, start, LATE + 5) == 1);
        }
        for (uint64_t f = 0; !left_out && f < frames * CHANNELS; f++) {
            const uint64_t frame = start + f / CHANNELS;
            CHECK(block[f] == (frame < LATE + 5 ? 0 : at(frame - LATE) + 7));
        }
        start += frames;
    }
    CHECK(rs_hatch_made(hatch) <= rs_now());
    CHECK(rs_hatch_await(hatch, start + LATE, 60));
    CHECK(!rs_hatch_await(hatch, start + LATE + 1, 0.01));
    CHECK(rs_hatch_take(hatch, block, 1, start + LATE, 0) == 0);
    rs_hatch_call(memory);
    pthread_join(thread, NULL);

    /* Nobody serves: what is no number is told, and the room ends. */
    const float bad[CHANNELS] = {1, (float)NAN};
    CHECK(rs_hatch_give(hatch, bad, 1));
    CHECK(rs_hatch_take(hatch, block, 1, start + LATE, 0) == -1);
    const double order[VALUES] = {0};
    int put = 0;
    while (rs_hatch_put(hatch, block, MOST, order)) {
        put++;
    }
    CHECK(put >= 1000 / MOST);
    rs_hatch_free(hatch);
}

static void calls(void) {
    CHECK(!rs_hatch_called(memory, 0.01));
    rs_hatch_call(memory);
    rs_hatch_call(memory);
    CHECK(rs_hatch_called(memory, 60));
    CHECK(!rs_hatch_called(memory, 0));
}

int main(void) {
    const uint64_t bytes = rs_hatch_bytes(1000, CHANNELS, 100, VALUES);
    CHECK(bytes != 0 && bytes % 4096 == 0);
    memory = aligned_alloc(4096, bytes);
    CHECK(memory != NULL);
    memset(memory, 0, bytes);
    CHECK(rs_hatch_attach(memory, bytes) == NULL && errno == EINVAL);
    CHECK(rs_hatch_place(memory, bytes - 1, 1000, CHANNELS, 100, VALUES) == NULL);
    calls();
    there_and_back(bytes);
    CHECK(rs_hatch_attach(memory, bytes - 1) == NULL && errno == EINVAL);
    there_and_back(bytes); /* and laid out anew */
    rs_hatch_free(NULL);
    free(memory);
    return 0;
}
