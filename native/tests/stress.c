/* Two threads, no word between them but the ring: every frame arrives once, whole and in order.
 *
 *     stress plain|mirrored [frames]
 *
 * ThreadSanitizer reads along; with a mutant of the ring it must object (on the plain ring: it
 * cannot know that two addresses of a mirrored one are the same memory). */
#include <pthread.h>
#include <sched.h>

#include "check.h"

enum { CHANNELS = 3 };

static rs_ring *ring;
static uint64_t total;

static void fill(float *frames, uint64_t count, uint64_t position) {
    for (uint64_t i = 0; i < count * CHANNELS; i++) {
        frames[i] = unit(position * CHANNELS + i);
    }
}

static void verify(const float *frames, uint64_t count, uint64_t position) {
    for (uint64_t i = 0; i < count * CHANNELS; i++) {
        CHECK(frames[i] == unit(position * CHANNELS + i));
    }
}

static void *produce(void *unused) {
    uint64_t seed = 1;
    (void)unused;
    for (uint64_t position = 0; position < total;) {
        rs_span span;
        uint64_t wish = pick(&seed, 300);
        wish = wish < total - position ? wish : total - position;
        uint64_t granted = rs_ring_claim_write(ring, wish, &span);
        CHECK(granted == span.first_frames + span.second_frames && granted <= wish);
        fill(span.first, span.first_frames, position);
        fill(span.second, span.second_frames, position + span.first_frames);
        granted -= granted > 0 ? pick(&seed, granted) / 4 : 0; /* not all that was claimed */
        rs_ring_commit_write(ring, granted);
        position += granted;
        if (granted == 0) {
            sched_yield();
        }
    }
    return NULL;
}

static void *consume(void *unused) {
    uint64_t seed = 2;
    (void)unused;
    for (uint64_t position = 0; position < total;) {
        rs_span span;
        uint64_t granted = rs_ring_claim_read(ring, pick(&seed, 300), &span);
        verify(span.first, span.first_frames, position);
        verify(span.second, span.second_frames, position + span.first_frames);
        granted -= granted > 0 ? pick(&seed, granted) / 4 : 0;
        rs_ring_commit_read(ring, granted);
        position += granted;
        if (granted == 0) {
            sched_yield();
        }
    }
    return NULL;
}

int main(int count, char **words) {
    const int mirror = count > 1 && strcmp(words[1], "mirrored") == 0;
    total = count > 2 ? strtoull(words[2], NULL, 10) : 1000000;
    ring = rs_ring_new(256, CHANNELS, mirror);
    CHECK(ring != NULL);
    pthread_t producer;
    pthread_t consumer;
    CHECK(pthread_create(&producer, NULL, produce, NULL) == 0);
    CHECK(pthread_create(&consumer, NULL, consume, NULL) == 0);
    pthread_join(producer, NULL);
    pthread_join(consumer, NULL);
    CHECK(rs_ring_written(ring) == total);
    CHECK(rs_ring_consumed(ring) == total);
    rs_ring_free(ring);
    return 0;
}
