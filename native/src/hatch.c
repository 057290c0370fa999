/* Blocks to another process, and what it makes of them back: three rings and two bells.
 *
 * The other process runs foreign code, which may write anywhere: what it could have spoilt is looked
 * at before it is used as a size. */
#include <errno.h>
#include <math.h>
#include <stdatomic.h>
#include <string.h>

#include "internal.h"

enum {
    PAGE = 4096, /* of bells; the rings begin on pages, too */
    MAGIC = 0x68637468,
    AUDIO = 0,
    ORDERS,
    RESULTS,
    RINGS,
};

struct page {
    _Alignas(128) uint32_t orders; /* bell of who serves */
    _Atomic uint32_t called;
    _Alignas(128) uint32_t results; /* bell of who handed in */
    _Alignas(128) _Atomic uint64_t made;
    uint64_t magic;
    uint64_t ends[RINGS]; /* from the beginning of the memory */
};

_Static_assert(sizeof(struct page) <= PAGE, "the page of bells is one");

struct rs_hatch {
    struct page *page;
    rs_ring *rings[RINGS];
    uint32_t values;
};

static uint64_t pages(uint64_t bytes) {
    return (bytes + PAGE - 1) / PAGE * PAGE;
}

/* A row of an order is its number of frames and its values: doubles, in a ring of floats. */
static uint32_t row(uint32_t values) {
    return 2 * (1 + values);
}

/* Twice the room for results: those that came too late lie there beside the next ones. */
static void sizes(uint64_t frames, uint32_t channels, uint64_t blocks, uint32_t values,
                  uint64_t length[RINGS], uint32_t width[RINGS]) {
    length[AUDIO] = frames;
    width[AUDIO] = channels;
    length[ORDERS] = blocks;
    width[ORDERS] = row(values);
    length[RESULTS] = 2 * frames;
    width[RESULTS] = channels;
}

uint64_t rs_hatch_bytes(uint64_t frames, uint32_t channels, uint64_t blocks, uint32_t values) {
    uint64_t length[RINGS];
    uint32_t width[RINGS];
    sizes(frames, channels, blocks, values, length, width);
    uint64_t bytes = PAGE;
    for (int i = 0; i < RINGS; i++) {
        bytes += pages(rs_ring_bytes(length[i], width[i]));
    }
    return bytes;
}

void rs_hatch_call(void *memory) {
    struct page *page = memory;
    atomic_store(&page->called, 1);
    rs_bell_ring(&page->orders);
}

static int called(struct page *page) {
    return atomic_load_explicit(&page->called, memory_order_relaxed) != 0 &&
           atomic_exchange(&page->called, 0) != 0;
}

/* A bell may have been rung for what has been seen since: then there is time left, in seconds. */
static double left(uint64_t begin, double seconds) {
    return seconds - 1e-9 * (double)(rs_now() - begin);
}

int rs_hatch_called(void *memory, double seconds) {
    struct page *page = memory;
    const uint64_t begin = rs_now();
    while (!called(page)) {
        if (!rs_bell_wait(&page->orders, left(begin, seconds))) {
            return 0;
        }
    }
    return 1;
}

static rs_hatch *whole(rs_hatch *hatch) {
    for (int i = 0; i < RINGS; i++) {
        if (hatch->rings[i] == NULL) {
            const int code = errno;
            rs_hatch_free(hatch);
            errno = code;
            return NULL;
        }
    }
    return hatch;
}

rs_hatch *rs_hatch_place(void *memory, uint64_t bytes, uint64_t frames, uint32_t channels,
                         uint64_t blocks, uint32_t values) {
    if (memory == NULL || bytes < rs_hatch_bytes(frames, channels, blocks, values)) {
        errno = EINVAL;
        return NULL;
    }
    rs_hatch *hatch = rs_memory_new(sizeof *hatch);
    if (hatch == NULL) {
        return NULL;
    }
    uint64_t length[RINGS];
    uint32_t width[RINGS];
    sizes(frames, channels, blocks, values, length, width);
    hatch->page = memory;
    hatch->values = values;
    uint64_t start = PAGE;
    for (int i = 0; i < RINGS; i++) {
        const uint64_t size = pages(rs_ring_bytes(length[i], width[i]));
        hatch->rings[i] = rs_ring_place((char *)memory + start, size, length[i], width[i]);
        start += size;
        hatch->page->ends[i] = start;
    }
    hatch->page->magic = MAGIC;
    return whole(hatch);
}

rs_hatch *rs_hatch_attach(void *memory, uint64_t bytes) {
    struct page *page = memory;
    if (memory == NULL || bytes < PAGE || page->magic != MAGIC) {
        errno = EINVAL;
        return NULL;
    }
    rs_hatch *hatch = rs_memory_new(sizeof *hatch);
    if (hatch == NULL) {
        return NULL;
    }
    hatch->page = page;
    uint64_t start = PAGE;
    for (int i = 0; i < RINGS; i++) {
        const uint64_t end = page->ends[i];
        if (end < start || end > bytes) {
            errno = EINVAL;
            break;
        }
        hatch->rings[i] = rs_ring_attach((char *)memory + start, end - start);
        start = end;
    }
    if (whole(hatch) == NULL) {
        return NULL;
    }
    hatch->values = rs_ring_channels(hatch->rings[ORDERS]) / 2 - 1;
    return hatch;
}

void rs_hatch_free(rs_hatch *hatch) {
    if (hatch == NULL) {
        return;
    }
    for (int i = 0; i < RINGS; i++) {
        rs_ring_free(hatch->rings[i]);
    }
    rs_memory_free(hatch);
}

int rs_hatch_put(rs_hatch *hatch, const float *block, uint64_t frames, const double *order) {
    rs_span span;
    if (rs_ring_write_space(hatch->rings[AUDIO]) < frames ||
        rs_ring_claim_write(hatch->rings[ORDERS], 1, &span) < 1) {
        return 0;
    }
    rs_ring_write(hatch->rings[AUDIO], block, frames);
    const double length = (double)frames;
    memcpy(span.first, &length, sizeof length);
    memcpy(span.first + 2, order, hatch->values * sizeof *order);
    rs_ring_commit_write(hatch->rings[ORDERS], 1);
    rs_bell_ring(&hatch->page->orders);
    return 1;
}

/* What was made is looked at here, for foreign code made it. */
static int finite(const float *samples, uint64_t count) {
    int all = 1;
    for (uint64_t i = 0; i < count; i++) {
        all &= isfinite(samples[i]) != 0;
    }
    return all;
}

int rs_hatch_take(rs_hatch *hatch, float *block, uint64_t frames, uint64_t start, uint64_t silent) {
    rs_ring *results = hatch->rings[RESULTS];
    if (rs_ring_written(results) < start + frames) {
        return 0;
    }
    rs_ring_read(results, NULL, start - rs_ring_consumed(results));
    if (rs_ring_read(results, block, frames) < frames) {
        return 0;
    }
    const uint32_t channels = rs_ring_channels(results);
    uint64_t quiet = silent > start ? silent - start : 0;
    quiet = quiet < frames ? quiet : frames;
    memset(block, 0, (size_t)(quiet * channels) * sizeof *block);
    return finite(block, frames * channels) ? 1 : -1;
}

int rs_hatch_await(rs_hatch *hatch, uint64_t frames, double seconds) {
    const uint64_t begin = rs_now();
    while (rs_ring_written(hatch->rings[RESULTS]) < frames) {
        if (!rs_bell_wait(&hatch->page->results, left(begin, seconds))) {
            return rs_ring_written(hatch->rings[RESULTS]) >= frames;
        }
    }
    return 1;
}

uint64_t rs_hatch_made(const rs_hatch *hatch) {
    return atomic_load_explicit(&hatch->page->made, memory_order_relaxed);
}

uint64_t rs_hatch_next(rs_hatch *hatch, float *block, uint64_t most, double *order, double seconds) {
    rs_ring *orders = hatch->rings[ORDERS];
    rs_span span;
    const uint64_t begin = rs_now();
    while (rs_ring_claim_read(orders, 1, &span) < 1) {
        if (called(hatch->page) || !rs_bell_wait(&hatch->page->orders, left(begin, seconds))) {
            return 0;
        }
    }
    if (called(hatch->page)) {
        return 0;
    }
    double length;
    memcpy(&length, span.first, sizeof length);
    memcpy(order, span.first + 2, hatch->values * sizeof *order);
    rs_ring_commit_read(orders, 1);
    if (!(length >= 0 && length <= (double)most)) {
        return 0;
    }
    return rs_ring_read(hatch->rings[AUDIO], block, (uint64_t)length);
}

int rs_hatch_give(rs_hatch *hatch, const float *block, uint64_t frames) {
    rs_ring *results = hatch->rings[RESULTS];
    if (rs_ring_write_space(results) < frames) {
        return 0;
    }
    rs_ring_write(results, block, frames);
    atomic_store_explicit(&hatch->page->made, rs_now(), memory_order_relaxed);
    rs_bell_ring(&hatch->page->results);
    return 1;
}
