/* A lock-free ring of frames for one producer thread and one consumer thread.
 *
 * Both counters run freely, so full and empty differ and a counter is a place on the timeline. Each
 * side keeps its own counter and its last look at the other's on a line of its own; it looks again
 * only when the last look does not suffice.  A counter is published by a release store and seen by
 * an acquire load: whoever sees the counter sees the frames.  There are no fences, which
 * ThreadSanitizer could not follow. */
#include <errno.h>
#include <stdatomic.h>
#include <string.h>

#include "internal.h"

/* The four orders that matter have numbers, so that a test can weaken one at a time and show that
 * ThreadSanitizer would notice. */
#ifndef RS_MUTANT
#define RS_MUTANT 0
#endif
#define ORDER(number, order) (RS_MUTANT == (number) ? memory_order_relaxed : (order))

enum { VERSION = 1, MAX_CHANNELS = 1024 };
static const uint64_t MAGIC = 0x676e697273747221; /* also tells the byte order */
static const uint64_t MAX_BYTES = UINT64_C(1) << 40;

/* What the two sides share.  It may live in memory that two processes map at different addresses,
 * so it holds no pointers; the frames follow it. */
struct control {
    uint64_t magic;
    uint32_t version;
    uint32_t channels;
    uint64_t capacity;
    unsigned char pad0[128 - 24];
    _Atomic uint64_t written; /* the producer's line */
    uint64_t consumed_seen;
    unsigned char pad1[128 - 16];
    _Atomic uint64_t consumed; /* the consumer's line */
    uint64_t written_seen;
    unsigned char pad2[128 - 16];
};

_Static_assert(sizeof(struct control) == 384, "three lines of 128 bytes");
_Static_assert(ATOMIC_LLONG_LOCK_FREE == 2, "the counters must be lock-free");

/* One process's view.  It keeps its own sizes: should another process spoil the shared ones, the
 * frames may be wrong but no access leaves the ring. */
struct rs_ring {
    struct control *control;
    float *frames;
    uint64_t capacity;
    uint32_t channels;
    int mirrored;
    int owner;
};

/* The capacity for `frames`, or 0 if there can be no such ring. */
static uint64_t round_up(uint64_t frames, uint32_t channels, uint64_t granule) {
    if (frames == 0 || channels == 0 || channels > MAX_CHANNELS || frames > MAX_BYTES) {
        errno = EINVAL;
        return 0;
    }
    const uint64_t frame = channels * sizeof(float);
    uint64_t capacity = 1;
    while (capacity < frames || capacity * frame % granule != 0) {
        capacity *= 2;
    }
    if (capacity > MAX_BYTES / frame || capacity * frame > SIZE_MAX / 4) {
        errno = EINVAL;
        return 0;
    }
    return capacity;
}

static rs_ring *view(struct control *control, float *frames, uint64_t capacity, uint32_t channels) {
    rs_ring *ring = rs_memory_new(sizeof *ring);
    if (ring != NULL) {
        *ring = (rs_ring){control, frames, capacity, channels, 0, 0};
    }
    return ring;
}

static void lay_out(struct control *control, uint64_t capacity, uint32_t channels) {
    memset(control, 0, sizeof *control);
    control->version = VERSION;
    control->channels = channels;
    control->capacity = capacity;
    control->magic = MAGIC;
}

rs_ring *rs_ring_new(uint64_t frames, uint32_t channels, int mirror) {
    uint64_t capacity = round_up(frames, channels, mirror ? rs_memory_page() : 1);
    if (capacity == 0) {
        return NULL;
    }
    size_t bytes = (size_t)(capacity * channels * sizeof(float));
    float *storage = mirror ? rs_mirror_new(bytes) : NULL;
    const int mirrored = storage != NULL;
    if (!mirrored) {
        storage = rs_memory_new(bytes);
    }
    struct control *shared = rs_memory_new(sizeof *shared);
    rs_ring *ring = NULL;
    if (storage != NULL && shared != NULL) {
        ring = view(shared, storage, capacity, channels);
    }
    if (ring == NULL) {
        if (mirrored) {
            rs_mirror_free(storage, bytes);
        } else {
            rs_memory_free(storage);
        }
        rs_memory_free(shared);
        errno = ENOMEM;
        return NULL;
    }
    lay_out(shared, capacity, channels);
    ring->mirrored = mirrored;
    ring->owner = 1;
    return ring;
}

uint64_t rs_ring_bytes(uint64_t frames, uint32_t channels) {
    const uint64_t capacity = round_up(frames, channels, 1);
    return capacity == 0 ? 0 : sizeof(struct control) + capacity * channels * sizeof(float);
}

/* Shared memory begins on a page; anything aligned for any C type will do. */
static int aligned(const void *memory) {
    return memory != NULL && (uintptr_t)memory % _Alignof(max_align_t) == 0;
}

rs_ring *rs_ring_place(void *memory, uint64_t bytes, uint64_t frames, uint32_t channels) {
    const uint64_t capacity = round_up(frames, channels, 1);
    if (capacity == 0) {
        return NULL;
    }
    if (!aligned(memory) || bytes < rs_ring_bytes(frames, channels)) {
        errno = EINVAL;
        return NULL;
    }
    struct control *shared = memory;
    float *storage = (float *)(shared + 1);
    rs_ring *ring = view(shared, storage, capacity, channels);
    if (ring != NULL) {
        memset(storage, 0, (size_t)(capacity * channels * sizeof(float)));
        lay_out(shared, capacity, channels);
    }
    return ring;
}

/* The sizes are looked at once: another process might change them in between. */
static int sound(struct control *shared, uint64_t bytes, uint64_t capacity, uint32_t channels) {
    const uint64_t frame = channels * sizeof(float);
    return shared->magic == MAGIC && shared->version == VERSION && channels != 0 &&
           channels <= MAX_CHANNELS && capacity != 0 && (capacity & (capacity - 1)) == 0 &&
           capacity <= (bytes - sizeof *shared) / frame &&
           atomic_load(&shared->written) - atomic_load(&shared->consumed) <= capacity;
}

rs_ring *rs_ring_attach(void *memory, uint64_t bytes) {
    struct control *shared = memory;
    if (!aligned(memory) || bytes < sizeof *shared) {
        errno = EINVAL;
        return NULL;
    }
    const uint64_t capacity = *(volatile uint64_t *)&shared->capacity;
    const uint32_t channels = *(volatile uint32_t *)&shared->channels;
    if (!sound(shared, bytes, capacity, channels)) {
        errno = EINVAL;
        return NULL;
    }
    return view(shared, (float *)(shared + 1), capacity, channels);
}

void rs_ring_free(rs_ring *ring) {
    if (ring == NULL) {
        return;
    }
    if (ring->owner) {
        if (ring->mirrored) {
            rs_mirror_free(ring->frames, (size_t)(ring->capacity * ring->channels * sizeof(float)));
        } else {
            rs_memory_free(ring->frames);
        }
        rs_memory_free(ring->control);
    }
    rs_memory_free(ring);
}

uint64_t rs_ring_capacity(const rs_ring *ring) {
    return ring->capacity;
}

uint32_t rs_ring_channels(const rs_ring *ring) {
    return ring->channels;
}

int rs_ring_mirrored(const rs_ring *ring) {
    return ring->mirrored;
}

float *rs_ring_storage(rs_ring *ring) {
    return ring->frames;
}

uint64_t rs_ring_written(const rs_ring *ring) {
    return atomic_load_explicit(&ring->control->written, memory_order_acquire);
}

uint64_t rs_ring_consumed(const rs_ring *ring) {
    return atomic_load_explicit(&ring->control->consumed, memory_order_acquire);
}

/* Seen from a third thread the two counters are of different moments; the order of the looks makes
 * both spaces err on the small side, and never below nothing. */
uint64_t rs_ring_read_space(const rs_ring *ring) {
    const uint64_t written = rs_ring_written(ring);
    const uint64_t filled = written - rs_ring_consumed(ring);
    return filled <= ring->capacity ? filled : 0;
}

uint64_t rs_ring_write_space(const rs_ring *ring) {
    const uint64_t consumed = rs_ring_consumed(ring);
    const uint64_t filled = rs_ring_written(ring) - consumed;
    return filled <= ring->capacity ? ring->capacity - filled : 0;
}

void rs_ring_seek(rs_ring *ring, uint64_t frames) {
    struct control *shared = ring->control;
    shared->consumed_seen = frames;
    shared->written_seen = frames;
    atomic_store(&shared->written, frames);
    atomic_store(&shared->consumed, frames);
}

static uint64_t stretch(const rs_ring *ring, uint64_t from, uint64_t frames, rs_span *span) {
    const uint64_t index = from & (ring->capacity - 1);
    const uint64_t straight = ring->mirrored ? frames : ring->capacity - index;
    const uint64_t first = frames < straight ? frames : straight;
    span->first = ring->frames + index * ring->channels;
    span->first_frames = first;
    span->second = first < frames ? ring->frames : NULL;
    span->second_frames = frames - first;
    return frames;
}

uint64_t rs_ring_claim_write(rs_ring *ring, uint64_t frames, rs_span *span) {
    struct control *shared = ring->control;
    const uint64_t written = atomic_load_explicit(&shared->written, memory_order_relaxed);
    uint64_t filled = written - shared->consumed_seen;
    if (filled > ring->capacity || ring->capacity - filled < frames) {
        shared->consumed_seen =
            atomic_load_explicit(&shared->consumed, ORDER(3, memory_order_acquire));
        filled = written - shared->consumed_seen;
    }
    const uint64_t space = filled <= ring->capacity ? ring->capacity - filled : 0;
    return stretch(ring, written, frames < space ? frames : space, span);
}

void rs_ring_commit_write(rs_ring *ring, uint64_t frames) {
    struct control *shared = ring->control;
    const uint64_t written = atomic_load_explicit(&shared->written, memory_order_relaxed);
    atomic_store_explicit(&shared->written, written + frames, ORDER(1, memory_order_release));
}

uint64_t rs_ring_claim_read(rs_ring *ring, uint64_t frames, rs_span *span) {
    struct control *shared = ring->control;
    const uint64_t consumed = atomic_load_explicit(&shared->consumed, memory_order_relaxed);
    uint64_t filled = shared->written_seen - consumed;
    if (filled > ring->capacity || filled < frames) {
        shared->written_seen =
            atomic_load_explicit(&shared->written, ORDER(4, memory_order_acquire));
        filled = shared->written_seen - consumed;
    }
    const uint64_t space = filled <= ring->capacity ? filled : 0;
    return stretch(ring, consumed, frames < space ? frames : space, span);
}

void rs_ring_commit_read(rs_ring *ring, uint64_t frames) {
    struct control *shared = ring->control;
    const uint64_t consumed = atomic_load_explicit(&shared->consumed, memory_order_relaxed);
    atomic_store_explicit(&shared->consumed, consumed + frames, ORDER(2, memory_order_release));
}

static void put(float *to, const float *from, uint64_t samples) {
    if (samples == 0) {
        return;
    }
    if (from != NULL) {
        memcpy(to, from, (size_t)samples * sizeof(float));
    } else {
        memset(to, 0, (size_t)samples * sizeof(float));
    }
}

uint64_t rs_ring_write(rs_ring *ring, const float *data, uint64_t frames) {
    rs_span span;
    const uint64_t granted = rs_ring_claim_write(ring, frames, &span);
    const uint64_t split = span.first_frames * ring->channels;
    put(span.first, data, split);
    put(span.second, data != NULL ? data + split : NULL, span.second_frames * ring->channels);
    rs_ring_commit_write(ring, granted);
    return granted;
}

uint64_t rs_ring_read(rs_ring *ring, float *data, uint64_t frames) {
    rs_span span;
    const uint64_t granted = rs_ring_claim_read(ring, frames, &span);
    if (data != NULL) {
        const uint64_t split = span.first_frames * ring->channels;
        put(data, span.first, split);
        put(data + split, span.second, span.second_frames * ring->channels);
    }
    rs_ring_commit_read(ring, granted);
    return granted;
}
