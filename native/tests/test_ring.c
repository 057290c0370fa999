/* The ring in one thread, and across processes. */
#if defined(__unix__) || defined(__APPLE__)
#define _GNU_SOURCE
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#define HAVE_FORK 1
#endif

#include <errno.h>

#include "check.h"

static void empty_one_and_full(int mirror) {
    rs_span span;
    rs_ring *ring = rs_ring_new(5, 2, mirror);
    const uint64_t capacity = rs_ring_capacity(ring);
    CHECK(capacity >= 5 && (capacity & (capacity - 1)) == 0);
    CHECK(rs_ring_channels(ring) == 2);
    CHECK(mirror || !rs_ring_mirrored(ring));

    CHECK(rs_ring_claim_read(ring, 1, &span) == 0);
    CHECK(span.first_frames == 0 && span.second == NULL && span.second_frames == 0);
    CHECK(rs_ring_claim_write(ring, 0, &span) == 0);
    CHECK(rs_ring_write(ring, NULL, 0) == 0 && rs_ring_read(ring, NULL, 0) == 0);

    const float one[2] = {0.25F, -0.5F};
    float back[2] = {0, 0};
    CHECK(rs_ring_write(ring, one, 1) == 1);
    CHECK(rs_ring_read_space(ring) == 1 && rs_ring_write_space(ring) == capacity - 1);
    CHECK(rs_ring_read(ring, back, 7) == 1);
    CHECK(back[0] == one[0] && back[1] == one[1]);

    /* Full, from a place where the stretch wraps around. */
    CHECK(rs_ring_claim_write(ring, UINT64_MAX, &span) == capacity);
    CHECK(span.first_frames + span.second_frames == capacity);
    CHECK((span.second == NULL) == (rs_ring_mirrored(ring) || span.first_frames == capacity));
    CHECK(rs_ring_write(ring, NULL, capacity + 1) == capacity);
    CHECK(rs_ring_write_space(ring) == 0 && rs_ring_read_space(ring) == capacity);
    CHECK(rs_ring_write(ring, one, 1) == 0);
    CHECK(rs_ring_claim_write(ring, 1, &span) == 0);
    CHECK(rs_ring_read(ring, NULL, UINT64_MAX) == capacity);
    CHECK(rs_ring_consumed(ring) == capacity + 1);
    rs_ring_free(ring);

    ring = rs_ring_new(1, 1, 0);
    CHECK(rs_ring_capacity(ring) == 1);
    for (uint64_t i = 0; i < 5; i++) {
        const float value = (float)i;
        float got = -1;
        CHECK(rs_ring_write(ring, &value, 2) == 1);
        CHECK(rs_ring_read(ring, &got, 2) == 1 && got == value);
    }
    rs_ring_free(ring);
}

/* Random steps against the obvious: frame n of channel c is unit(n * channels + c). */
static void walk(rs_ring *ring, uint64_t from, uint64_t seed) {
    const uint32_t channels = rs_ring_channels(ring);
    const uint64_t capacity = rs_ring_capacity(ring);
    float *buffer = malloc((size_t)(capacity + 9) * channels * sizeof(float));
    uint64_t written = from;
    uint64_t consumed = from;
    rs_ring_seek(ring, from);
    for (int step = 0; step < 3000; step++) {
        const uint64_t wish = pick(&seed, capacity + 9);
        if (pick(&seed, 2) == 0) {
            for (uint64_t i = 0; i < wish * channels; i++) {
                buffer[i] = unit(written * channels + i);
            }
            const uint64_t space = capacity - (written - consumed);
            const uint64_t granted = rs_ring_write(ring, buffer, wish);
            CHECK(granted == (wish < space ? wish : space));
            written += granted;
        } else {
            const uint64_t space = written - consumed;
            const uint64_t granted = rs_ring_read(ring, buffer, wish);
            CHECK(granted == (wish < space ? wish : space));
            for (uint64_t i = 0; i < granted * channels; i++) {
                CHECK(buffer[i] == unit(consumed * channels + i));
            }
            consumed += granted;
        }
        CHECK(rs_ring_written(ring) == written && rs_ring_consumed(ring) == consumed);
        CHECK(rs_ring_read_space(ring) == written - consumed);
        CHECK(rs_ring_write_space(ring) == capacity - (written - consumed));
    }
    free(buffer);
}

static void counters_run_on(int mirror) {
    const uint64_t places[] = {0, (UINT64_C(1) << 32) - 1000, (UINT64_C(1) << 63) - 1000,
                               UINT64_MAX - 1000};
    for (uint32_t channels = 1; channels <= 6; channels += channels == 1 ? 1 : 2) {
        rs_ring *ring = rs_ring_new(100, channels, mirror);
        for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
            walk(ring, places[i], i);
        }
        rs_ring_free(ring);
    }
}

static void mirrored_is_one_stretch(void) {
    rs_ring *ring = rs_ring_new(1, 2, 1);
    if (!rs_ring_mirrored(ring)) {
        puts("no mirrored memory here");
    } else {
        const uint64_t capacity = rs_ring_capacity(ring);
        float *storage = rs_ring_storage(ring);
        storage[0] = 0.5F;
        CHECK(*(volatile float *)(storage + capacity * 2) == 0.5F);
        rs_ring_seek(ring, capacity - 1);
        rs_span span;
        CHECK(rs_ring_claim_write(ring, capacity, &span) == capacity);
        CHECK(span.first_frames == capacity && span.second == NULL);
    }
    rs_ring_free(ring);
}

static void nonsense_is_refused(void) {
    CHECK(rs_ring_new(0, 2, 0) == NULL && errno == EINVAL);
    CHECK(rs_ring_new(64, 0, 1) == NULL && errno == EINVAL);
    CHECK(rs_ring_new(64, 1u << 31, 0) == NULL && errno == EINVAL);
    CHECK(rs_ring_new(UINT64_MAX, 2, 0) == NULL && errno == EINVAL);
    CHECK(rs_ring_new(UINT64_C(1) << 40, 2, 1) == NULL && errno == EINVAL);
    CHECK(rs_ring_bytes(0, 1) == 0);
    rs_ring_free(NULL);

    const uint64_t bytes = rs_ring_bytes(64, 2);
    unsigned char *memory = rs_memory_new(bytes);
    CHECK(rs_ring_attach(memory, bytes) == NULL && errno == EINVAL); /* zeros */
    CHECK(rs_ring_attach(NULL, bytes) == NULL);
    CHECK(rs_ring_place(memory, bytes - 1, 64, 2) == NULL && errno == EINVAL);
    CHECK(rs_ring_place(memory + 1, bytes - 1, 8, 2) == NULL && errno == EINVAL);
    uint64_t seed = 3;
    for (int i = 0; i < 1000; i++) {
        for (uint64_t at = 0; at < bytes; at++) {
            memory[at] = (unsigned char)pick(&seed, 256);
        }
        CHECK(rs_ring_attach(memory, pick(&seed, bytes + 1)) == NULL && errno == EINVAL);
    }

    rs_ring *ring = rs_ring_place(memory, bytes, 64, 2);
    CHECK(ring != NULL);
    for (uint64_t small = 0; small < bytes; small++) { /* cut off */
        CHECK(rs_ring_attach(memory, small) == NULL && errno == EINVAL);
    }
    for (uint64_t at = 0; at < 24; at++) { /* one byte of the description changed */
        memory[at] ^= 0x55;
        CHECK(rs_ring_attach(memory, bytes) == NULL && errno == EINVAL);
        memory[at] ^= 0x55;
    }
    rs_ring_commit_write(ring, 65); /* counters that cannot be */
    CHECK(rs_ring_attach(memory, bytes) == NULL && errno == EINVAL);

    /* What another process does to the counters never leads outside. */
    rs_span span;
    for (int i = 0; i < 1000; i++) {
        rs_ring_seek(ring, pick(&seed, UINT64_MAX));
        rs_ring_commit_write(ring, pick(&seed, UINT64_MAX));
        CHECK(rs_ring_claim_read(ring, UINT64_MAX, &span) <= 64);
        CHECK(rs_ring_claim_write(ring, UINT64_MAX, &span) <= 64);
        CHECK(rs_ring_read_space(ring) <= 64 && rs_ring_write_space(ring) <= 64);
    }
    rs_ring_free(ring);
    rs_memory_free(memory);
}

#ifdef HAVE_FORK
/* A child produces at the address where it finds the memory, the parent consumes. */
static void across_processes(void) {
    const uint64_t total = 200000;
    const uint64_t bytes = rs_ring_bytes(200, 2);
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(memory != MAP_FAILED);
    rs_ring *ring = rs_ring_place(memory, bytes, 200, 2);
    CHECK(ring != NULL && !rs_ring_mirrored(ring));
    const pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        rs_ring *mine = rs_ring_attach(memory, bytes);
        CHECK(mine != NULL && rs_ring_capacity(mine) == 256 && rs_ring_channels(mine) == 2);
        float block[2 * 37];
        for (uint64_t position = 0; position < total;) {
            for (uint64_t i = 0; i < 2 * 37; i++) {
                block[i] = unit(position * 2 + i);
            }
            position += rs_ring_write(mine, block, total - position < 37 ? total - position : 37);
        }
        rs_ring_free(mine);
        _exit(0);
    }
    float block[2 * 53];
    for (uint64_t position = 0; position < total;) {
        const uint64_t granted = rs_ring_read(ring, block, 53);
        for (uint64_t i = 0; i < granted * 2; i++) {
            CHECK(block[i] == unit(position * 2 + i));
        }
        position += granted;
    }
    int status = 1;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    rs_ring_free(ring);
    munmap(memory, bytes);
}
#endif

int main(void) {
    for (int mirror = 0; mirror <= 1; mirror++) {
        empty_one_and_full(mirror);
        counters_run_on(mirror);
    }
    mirrored_is_one_stretch();
    nonsense_is_refused();
#ifdef HAVE_FORK
    across_processes();
#endif
    return 0;
}
