/* The device without hardware: free-running, clocked, and left alone. */
#include <errno.h>
#include <pthread.h>

#include "check.h"

enum { HOP = 64, LARGEST = 96, GUARD = 64, PREFILL = HOP - 1 + LARGEST + GUARD };

typedef struct {
    rs_ring *in;
    rs_ring *out;
    rs_wake *wake;
    rs_bridge *bridge;
    uint64_t stop_after; /* hops; then the worker is gone */
    pthread_t worker;
} scene;

/* Takes what is heard as it is; commits its output before its input. */
static void *work(void *argument) {
    scene *s = argument;
    for (uint64_t hop = 0; hop < s->stop_after;) {
        rs_span from;
        rs_span to;
        if (rs_ring_claim_read(s->in, HOP, &from) < HOP ||
            rs_ring_claim_write(s->out, HOP, &to) < HOP) {
            if (!rs_wake_wait(s->wake, 0.2) && rs_bridge_finished(s->bridge)) {
                break;
            }
            continue;
        }
        for (uint64_t i = 0; i < 2 * HOP; i++) { /* the rings are powers of two and never wrap */
            to.first[i] = from.first[i];
        }
        rs_ring_commit_write(s->out, HOP);
        rs_ring_commit_read(s->in, HOP);
        hop++;
    }
    return NULL;
}

/* `prefill` in whole hops keeps every claim in one piece. */
static void open(scene *s, uint64_t stop_after) {
    const uint64_t prefill = (PREFILL + HOP - 1) / HOP * HOP;
    const rs_bridge_config config = {2, 2, 2, LARGEST, HOP, GUARD, prefill, prefill, 1.0F, 0, 0, 0};
    s->in = rs_ring_new(1024, 2, 0);
    s->out = rs_ring_new(1024, 2, 0);
    s->wake = rs_wake_new();
    s->bridge = rs_bridge_new(&config, s->in, s->out, s->wake);
    s->stop_after = stop_after;
    CHECK(s->bridge != NULL);
    CHECK(pthread_create(&s->worker, NULL, work, s) == 0);
}

static void end(scene *s) {
    float block[2 * LARGEST];
    rs_bridge_finish(s->bridge);
    while (rs_bridge_callback(NULL, block, LARGEST, NULL, 0, s->bridge) == 0) {
    }
    pthread_join(s->worker, NULL);
    rs_bridge_free(s->bridge);
    rs_wake_free(s->wake);
    rs_ring_free(s->in);
    rs_ring_free(s->out);
}

static void wait_for(const rs_null *device, int patience) {
    for (int i = 0; rs_null_running(device); i++) {
        CHECK(i < patience);
        rs_sleep_until(rs_now() + 1000000);
    }
}

static float *song(uint64_t frames) {
    float *samples = malloc((size_t)frames * 2 * sizeof(float));
    for (uint64_t i = 0; i < frames * 2; i++) {
        samples[i] = unit(i) - 0.5F;
    }
    return samples;
}

static const uint32_t BLOCKS[] = {64, 1, 0, 96, 37, 64};

/* Every frame of the song comes out, late by the prefill, however fast it goes. */
static void plays(int clocked, int loop, uint64_t frames, double samplerate) {
    const uint64_t prefill = (PREFILL + HOP - 1) / HOP * HOP;
    const uint64_t length = loop ? 1000 : frames - 500;
    scene s;
    open(&s, UINT64_MAX);
    float *source = song(length);
    float *capture = malloc((size_t)frames * 2 * sizeof(float));
    for (uint64_t i = 0; i < frames * 2; i++) {
        capture[i] = 9;
    }
    uint32_t blocks[6];
    memcpy(blocks, BLOCKS, sizeof blocks);
    const rs_null_config config = {
        .samplerate = samplerate,
        .in_channels = 2,
        .out_channels = 2,
        .blocks = blocks,
        .block_count = 6,
        .source = source,
        .source_frames = length,
        .loop = loop,
        .capture = capture,
        .capture_frames = frames - 10,
        .frames = frames,
        .clocked = clocked,
        .priority = 20,
    };
    rs_null *device = rs_null_new(&config, s.bridge, s.in);
    CHECK(device != NULL);
    memset(blocks, 0, sizeof blocks); /* were copied */
    const uint64_t start = rs_now();
    CHECK(rs_null_position(device) == 0 && !rs_null_running(device));
    CHECK(rs_null_start(device) == 0);
    CHECK(!rs_null_running(device) || rs_null_start(device) == EBUSY);
    wait_for(device, 120000);
    const double seconds = (double)(rs_now() - start) * 1e-9;
    CHECK(!clocked || seconds >= (double)frames / samplerate);
    rs_null_stop(device);
    CHECK(rs_null_position(device) == frames);
    rs_bridge_stats stats;
    rs_bridge_read_stats(s.bridge, &stats);
    CHECK(stats.frames == frames && stats.overflow_frames == 0);
    for (uint64_t n = 0; n < frames; n++) {
        for (uint64_t c = 0; c < 2; c++) {
            const uint64_t from = loop ? (n - prefill) % length : n - prefill;
            const float expected = n < prefill || from >= length ? 0 : source[from * 2 + c];
            if (n >= frames - 10) {
                CHECK(capture[n * 2 + c] == 9); /* the capture was full */
            } else if (stats.late_blocks == 0) {
                CHECK(capture[n * 2 + c] == expected);
            }
        }
    }
    CHECK(clocked || (stats.late_blocks == 0 && stats.xruns_in == 0 && stats.xruns_out == 0));
    rs_null_free(device);
    free(source);
    free(capture);
    end(&s);
}

/* A machine that sleeps through several blocks: the clock starts anew, the xrun is reported. */
static void slips(void) {
    scene s;
    open(&s, UINT64_MAX);
    const uint32_t block = 1;
    const rs_null_config config = {
        .samplerate = 1e7, /* 100 ns a block: no machine keeps up */
        .in_channels = 2,
        .out_channels = 2,
        .blocks = &block,
        .block_count = 1,
        .frames = 300,
        .clocked = 1,
    };
    rs_null *device = rs_null_new(&config, s.bridge, s.in);
    CHECK(rs_null_start(device) == 0);
    wait_for(device, 60000);
    rs_bridge_stats stats;
    rs_bridge_read_stats(s.bridge, &stats);
    CHECK(stats.xruns_in > 0 && stats.xruns_in == stats.xruns_out);
    CHECK(rs_null_position(device) == 300);
    rs_null_free(device);
    end(&s);
}

/* Stopping never waits for a worker that is gone, and the device can go on afterwards. */
static void stops_alone(int clocked) {
    scene s;
    open(&s, 10);
    const uint32_t blocks[] = {64};
    const rs_null_config config = {
        .samplerate = 48000,
        .out_channels = 2,
        .blocks = blocks,
        .block_count = 1,
        .clocked = clocked,
    };
    rs_null *device = rs_null_new(&config, s.bridge, s.in);
    CHECK(rs_null_start(device) == 0);
    while (rs_null_position(device) < 11 * HOP) {
        rs_sleep_until(rs_now() + 1000000);
    }
    const uint64_t start = rs_now();
    rs_null_stop(device);
    CHECK(rs_now() - start < UINT64_C(5000000000));
    CHECK(!rs_null_running(device));
    const uint64_t position = rs_null_position(device);
    CHECK(rs_null_start(device) == 0);
    while (rs_null_position(device) <= position) {
        rs_sleep_until(rs_now() + 1000000);
    }
    rs_null_free(device);
    end(&s);
}

static void finishes(void) {
    scene s;
    open(&s, UINT64_MAX);
    const rs_null_config config = {
        .samplerate = 48000,
        .in_channels = 2,
        .out_channels = 2,
        .blocks = BLOCKS,
        .block_count = 6,
    };
    rs_null *device = rs_null_new(&config, s.bridge, s.in);
    CHECK(rs_null_start(device) == 0);
    rs_bridge_finish(s.bridge);
    wait_for(device, 60000);
    CHECK(rs_bridge_finished(s.bridge));
    rs_null_free(device);
    end(&s);
}

static void nonsense_is_refused(void) {
    scene s;
    open(&s, 0);
    const uint32_t nothing[] = {0, 0};
    rs_null_config config = {.samplerate = 48000, .blocks = nothing, .block_count = 2};
    CHECK(rs_null_new(&config, s.bridge, s.in) == NULL && errno == EINVAL);
    config.blocks = BLOCKS;
    config.samplerate = 0;
    CHECK(rs_null_new(&config, s.bridge, s.in) == NULL && errno == EINVAL);
    config.samplerate = 48000;
    CHECK(rs_null_new(&config, NULL, s.in) == NULL && errno == EINVAL);
    CHECK(rs_null_new(NULL, s.bridge, s.in) == NULL && errno == EINVAL);
    rs_null_free(NULL);
    end(&s);
}

int main(void) {
    plays(0, 0, 50000, 48000);
    plays(0, 1, 5000, 44100);
    plays(1, 0, 9000, 48000);
    slips();
    stops_alone(0);
    stops_alone(1);
    finishes();
    nonsense_is_refused();
    return 0;
}
