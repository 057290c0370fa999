/* The callback against hostile hosts, with arrays of exactly the size that the host promises, so
 * that AddressSanitizer sees every step beside them. */
#include <errno.h>
#include <float.h>

#include "check.h"

static float *array(uint64_t samples) {
    float *memory = malloc((size_t)samples * sizeof(float));
    CHECK(memory != NULL || samples == 0);
    return memory;
}

/* What the device records at frame `n`. */
static float recorded(uint64_t n, uint32_t channel, uint32_t channels) {
    return unit(n * channels + channel) - 0.5F;
}

/* What of it should be in channel `channel` of `to`. */
static float mapped(uint64_t n, uint32_t channel, uint32_t from, uint32_t to) {
    if (from == 0) {
        return 0;
    }
    if (to == 1 && from > 1) {
        float sum = 0;
        for (uint32_t c = 0; c < from; c++) {
            sum += recorded(n, c, from);
        }
        return sum / (float)from;
    }
    if (from == 1) {
        return recorded(n, 0, 1);
    }
    return channel < from ? recorded(n, channel, from) : 0;
}

/* A worker that is always in time: output channel c is input channel c, counted around. */
static void work(rs_ring *in, rs_ring *out, uint32_t hop) {
    const uint32_t channels = rs_ring_channels(in);
    const uint32_t out_channels = out == NULL ? 0 : rs_ring_channels(out);
    float *frames = array((uint64_t)hop * channels);
    float *made = array((uint64_t)hop * out_channels);
    while (rs_ring_read_space(in) >= hop) {
        CHECK(rs_ring_read(in, frames, hop) == hop);
        for (uint64_t i = 0; i < hop; i++) {
            for (uint32_t c = 0; c < out_channels; c++) {
                made[i * out_channels + c] = frames[i * channels + c % channels];
            }
        }
        CHECK(out == NULL || rs_ring_write(out, made, hop) == hop);
    }
    free(frames);
    free(made);
}

static void any_block_any_channels(int mirror) {
    enum { HOP = 64, MAX = 128, GUARD = 64, LARGEST = 4 * MAX + 3 };
    const unsigned long blocks[] = {1, 0, 2, 3, 5, 7, 61, 127, 128, 129, 251, LARGEST, 0, 509, 64};
    const uint32_t ins[] = {0, 1, 2, 3, 6};
    const uint32_t middles[] = {1, 2, 3};
    const uint32_t outs[] = {0, 1, 2, 3, 6};
    const uint64_t prefill = HOP - 1 + LARGEST + GUARD;
    uint64_t seed = 7;
    for (size_t combination = 0; combination < 5 * 3 * 5; combination++) {
        const uint32_t from = ins[combination % 5];
        const uint32_t to = middles[combination / 5 % 3];
        const uint32_t last = outs[combination / 15];
        const rs_bridge_config config = {from,    to,      last, MAX, HOP, GUARD,
                                         prefill, prefill, 0.9F, 0,   0,   0};
        rs_ring *in = rs_ring_new(HOP + 2 * LARGEST + GUARD, to, mirror);
        rs_ring *out = last > 0 ? rs_ring_new(prefill + HOP + LARGEST, last, mirror) : NULL;
        rs_wake *wake = rs_wake_new();
        rs_bridge *bridge = rs_bridge_new(&config, in, out, wake);
        CHECK(bridge != NULL);
        uint64_t position = 0;
        uint64_t calls = 0;
        for (; calls < 200; calls++) {
            const unsigned long frames = calls < 30 ? blocks[calls % 15] : blocks[pick(&seed, 15)];
            float *input = from > 0 ? array(frames * from) : NULL;
            float *output = last > 0 ? array(frames * last) : NULL;
            for (uint64_t i = 0; i < frames * from; i++) {
                input[i] = recorded(position + i / from, (uint32_t)(i % from), from);
            }
            CHECK(rs_bridge_callback(input, output, frames, NULL, 0, bridge) == 0);
            for (uint64_t i = 0; i < frames; i++) {
                for (uint32_t c = 0; c < last; c++) {
                    const uint64_t n = position + i;
                    CHECK(output[i * last + c] ==
                          (n < prefill ? 0 : mapped(n - prefill, c % to, from, to)));
                }
            }
            position += frames;
            CHECK(rs_wake_wait(wake, 0) == (rs_ring_read_space(in) >= HOP));
            work(in, out, HOP);
            free(input);
            free(output);
        }
        rs_bridge_stats stats;
        rs_bridge_read_stats(bridge, &stats);
        CHECK(stats.callbacks == calls && stats.frames == position);
        CHECK(stats.late_blocks == 0 && stats.fades == 0 && stats.dry_frames == 0);
        CHECK(stats.overflow_frames == 0 && stats.debt == 0 && stats.last_late == 0);
        CHECK(rs_ring_written(in) == position);
        uint64_t busy[128];
        uint64_t sum = 0;
        rs_bridge_read_busy(bridge, busy);
        for (int i = 0; i < 128; i++) {
            sum += busy[i];
        }
        CHECK(sum == calls && stats.busy_total >= stats.busy_max && stats.busy_max > 0);
        rs_bridge_free(bridge);
        rs_wake_free(wake);
        rs_ring_free(in);
        rs_ring_free(out);
    }
}

static void missing_sides_are_silence(void) {
    const rs_bridge_config config = {2, 2, 2, 64, 64, 64, 256, 256, 1.0F, 0, 0, 0};
    rs_ring *in = rs_ring_new(1024, 2, 0);
    rs_ring *out = rs_ring_new(1024, 2, 0);
    rs_bridge *bridge = rs_bridge_new(&config, in, out, NULL);
    float *block = array(2 * 64);
    for (int i = 0; i < 2 * 64; i++) {
        block[i] = 1;
    }
    CHECK(rs_bridge_callback(NULL, block, 64, NULL, 0x1, bridge) == 0);
    for (int i = 0; i < 2 * 64; i++) {
        CHECK(block[i] == 0);
    }
    CHECK(rs_bridge_callback(block, NULL, 64, NULL, 0x2 | 0x8, bridge) == 0);
    CHECK(rs_bridge_callback(NULL, NULL, 64, NULL, 0x4, bridge) == 0);
    CHECK(rs_bridge_callback(NULL, NULL, 64, NULL, 0x10, bridge) == 0);
    CHECK(rs_bridge_callback(NULL, NULL, 0, NULL, 0, bridge) == 0);
    CHECK(rs_ring_written(in) == 4 * 64 &&
          rs_ring_consumed(out) + rs_bridge_debt(bridge) == 4 * 64);
    rs_bridge_stats stats;
    rs_bridge_read_stats(bridge, &stats);
    CHECK(stats.xruns_in == 2 && stats.xruns_out == 2 && stats.callbacks == 5);
    free(block);
    rs_bridge_free(bridge);
    rs_ring_free(in);
    rs_ring_free(out);
}

/* The worker sleeps while the input ring overflows, then reads on: frame n is in its place or
 * silent. */
static void lost_input_keeps_its_place(void) {
    enum { MAX = 32, CAPACITY = 1024, GUARD = 64 };
    const rs_bridge_config config = {1, 1, 0, MAX, 64, GUARD, 0, 0, 1.0F, 0, 0, 0};
    uint64_t seed = 11;
    for (int trial = 0; trial < 50; trial++) {
        rs_ring *in = rs_ring_new(CAPACITY, 1, 0);
        rs_bridge *bridge = rs_bridge_new(&config, in, NULL, NULL);
        uint64_t position = 0;
        uint64_t seen = 0;
        uint64_t silent = 0;
        uint64_t silences = 0;
        float last = 1;
        const int calls = 1000;
        for (int call = 0; call < calls; call++) {
            const uint64_t frames = pick(&seed, 4 * MAX);
            float *input = array(frames);
            for (uint64_t i = 0; i < frames; i++) {
                input[i] = 1 + unit(position + i);
            }
            const uint64_t before = rs_ring_written(in);
            rs_bridge_callback(input, NULL, frames, NULL, 0, bridge);
            CHECK(rs_ring_written(in) - before <= frames + 8 * MAX);
            free(input);
            position += frames;
            const int awake = call > calls - 200 || (call / 60) % 2 == trial % 2;
            uint64_t wish = awake ? pick(&seed, 2 * CAPACITY) : 0;
            wish = call > calls - 50 ? UINT64_MAX : wish;
            for (float sample; wish > 0 && rs_ring_read(in, &sample, 1) == 1; wish--, seen++) {
                /* In its place, in whole steps of the guard, no step more than one. */
                const float share = sample / (1 + unit(seen));
                CHECK(fabsf(share * GUARD - roundf(share * GUARD)) < 1e-3F);
                CHECK(fabsf(share - last) < 1.001F / GUARD);
                silent += share == 0;
                silences += share == 0 && last > 0;
                last = share;
            }
        }
        CHECK(rs_ring_written(in) == position);
        rs_bridge_stats stats;
        rs_bridge_read_stats(bridge, &stats);
        CHECK(seen == position && last == 1);
        CHECK(stats.overflow_frames == silent - silences && silent > silences);
        rs_bridge_free(bridge);
        rs_ring_free(in);
    }
}

/* Nothing is ever delivered: what is heard is the input, late by the latency. */
static void dry_is_delayed_clipped_and_slewed(void) {
    enum { GUARD = 64, LATENCY = 100, MAX = 48, FRAMES = 2000 };
    const rs_bridge_config config = {1, 1, 2, MAX, 64, GUARD, 0, LATENCY, 0.75F, 0, 0, 0};
    rs_ring *in = rs_ring_new(4 * FRAMES, 1, 0);
    rs_ring *out = rs_ring_new(256, 2, 0);
    rs_bridge *bridge = rs_bridge_new(&config, in, out, NULL);
    float last = 0;
    float gain = 0.5F;
    float target = 0.5F;
    rs_bridge_set_dry(bridge, target); /* before the first sound: at once */
    for (uint64_t position = 0; position < FRAMES;) {
        float input[MAX];
        float output[2 * MAX];
        const uint64_t frames = position / MAX % 2 == 0 ? MAX : 7;
        for (uint64_t i = 0; i < frames; i++) {
            const uint64_t n = position + i;
            input[i] = n % 50 == 3 ? (float)NAN : n % 50 == 4 ? (float)-INFINITY : 0.6F;
            input[i] = n > 1500 ? -FLT_MAX : input[i];
        }
        if (position > 600) {
            target = position > 1000 ? 1.0F : 0.0F;
            rs_bridge_set_dry(bridge, position > 1000 ? 1.0F : -3.0F); /* nonsense is silence */
        }
        rs_bridge_callback(input, output, frames, NULL, 0, bridge);
        for (uint64_t i = 0; i < frames; i++, position++) {
            const float step = 1.0F / GUARD;
            const float way = target - gain;
            gain = fabsf(way) <= step ? target : gain + copysignf(step, way);
            const uint64_t n = position - LATENCY;
            float expected = n % 50 == 3 || n % 50 == 4 ? 0 : 0.6F * gain;
            expected = n > 1500 ? (gain > 0 ? -0.75F : 0) : expected;
            expected = position < LATENCY ? 0 : expected;
            CHECK(fabsf(output[2 * i] - expected) < 1e-6F);
            CHECK(output[2 * i + 1] == 0); /* beyond the input's channels */
            last = output[2 * i];
        }
    }
    CHECK(last == -0.75F);
    rs_bridge_free(bridge);
    rs_ring_free(in);
    rs_ring_free(out);
}

static void finishing_fades_to_silence(int wet) {
    enum { GUARD = 64, BLOCK = 24, PREFILL = 4096 };
    const rs_bridge_config config = {1, 1, 1, BLOCK, 64, GUARD, 0, 0, 1.0F, 0, 0, 0};
    rs_ring *in = rs_ring_new(2 * PREFILL, 1, 0);
    rs_ring *out = rs_ring_new(PREFILL, 1, 0);
    rs_bridge *bridge = rs_bridge_new(&config, in, out, NULL);
    const float one = 1.0F;
    for (int i = 0; wet && i < PREFILL; i++) {
        rs_ring_write(out, &one, 1);
    }
    float block[BLOCK];
    for (int k = 0; k < BLOCK; k++) {
        block[k] = 1;
    }
    for (int i = 0; i < 5; i++) { /* from all dry, since there was no prefill, to all wet */
        float output[BLOCK];
        CHECK(rs_bridge_callback(block, output, BLOCK, NULL, 0, bridge) == 0);
        CHECK(output[BLOCK - 1] == 1);
    }
    rs_bridge_finish(bridge);
    int result = 0;
    for (int n = 0; n < 8 * BLOCK;) {
        float output[BLOCK];
        result = rs_bridge_callback(block, output, BLOCK, NULL, 0, bridge);
        for (int i = 0; i < BLOCK; i++, n++) {
            CHECK(output[i] == (n < GUARD - 1 ? (float)(GUARD - 1 - n) / GUARD : 0));
        }
        CHECK(result == (n >= GUARD) && rs_bridge_finished(bridge) == result);
    }
    CHECK(result == 1);
    const uint64_t before = rs_ring_written(in);
    CHECK(rs_bridge_callback(NULL, NULL, BLOCK, NULL, 0, bridge) == 1);
    CHECK(rs_bridge_callback(NULL, NULL, 0, NULL, 0, bridge) == 1);
    CHECK(rs_ring_written(in) == before);
    rs_bridge_free(bridge);
    rs_ring_free(in);
    rs_ring_free(out);
}

/* A second device: what finds no room is lost, and the rest goes on at once when there is some. */
static void lossy_input_owes_nothing(void) {
    enum { MAX = 32, CAPACITY = 512, GUARD = 64 };
    const rs_bridge_config config = {1, 1, 0, MAX, 1, GUARD, 0, 0, 1.0F, 0, 0, 1};
    rs_ring *in = rs_ring_new(CAPACITY, 1, 0);
    rs_bridge *bridge = rs_bridge_new(&config, in, NULL, NULL);
    float ones[MAX];
    for (int i = 0; i < MAX; i++) {
        ones[i] = 1;
    }
    rs_mark mark;
    CHECK(rs_bridge_mark(bridge, &mark) == 0);
    for (int call = 0; call < 1000; call++) {
        const uint64_t before = rs_now();
        rs_bridge_callback(ones, NULL, MAX, NULL, 0, bridge);
        CHECK(rs_bridge_mark(bridge, &mark) == 1);
        CHECK(mark.frames == rs_ring_written(in) && mark.time >= before && mark.time <= rs_now());
    }
    CHECK(rs_ring_written(in) <= CAPACITY);
    float last = 1;
    for (int call = 0; call < 100; call++) {
        float sample;
        while (rs_ring_read(in, &sample, 1) == 1) {
            CHECK(fabsf(sample - last) < 1.001F / GUARD);
            last = sample;
        }
        CHECK(last == (call == 0 ? 0 : last) && (call < 3 || last == 1));
        rs_bridge_callback(ones, NULL, MAX, NULL, 0, bridge);
    }
    rs_bridge_free(bridge);
    rs_ring_free(in);
}

/* A second output: no input ring, silence until there is something, nothing after its time. */
static void an_output_alone(void) {
    enum { MAX = 32, GUARD = 64 };
    const rs_bridge_config config = {0, 0, 2, MAX, 1, GUARD, 0, 0, 1.0F, 0, 0, 0};
    rs_ring *out = rs_ring_new(1024, 2, 0);
    rs_bridge *bridge = rs_bridge_new(&config, NULL, out, NULL);
    CHECK(bridge != NULL);
    float played[2 * MAX];
    rs_mark mark;
    rs_bridge_callback(NULL, played, MAX, NULL, 0, bridge);
    CHECK(played[0] == 0 && played[2 * MAX - 1] == 0);
    CHECK(rs_bridge_mark(bridge, &mark) == 1 && mark.frames == MAX);
    float tone[2 * 512];
    for (int i = 0; i < 2 * 512; i++) {
        tone[i] = 0.5F;
    }
    CHECK(rs_ring_write(out, tone, 512) == 512);
    for (int call = 0; call < 4; call++) {
        rs_bridge_callback(NULL, played, MAX, NULL, 0, bridge);
        CHECK(fabsf(played[2 * MAX - 1] - 0.5F * fminf(1, (float)(call + 1) * MAX / GUARD)) < 1e-6F);
    }
    CHECK(rs_bridge_mark(bridge, &mark) == 1 && mark.frames == 5 * MAX);
    CHECK(rs_ring_consumed(out) == 5 * MAX);
    for (int call = 0; call < 20; call++) {
        rs_bridge_callback(NULL, played, MAX, NULL, 0, bridge);
    }
    rs_bridge_stats stats;
    rs_bridge_read_stats(bridge, &stats);
    CHECK(stats.fades == 1 && stats.debt == 25 * MAX - 512 && played[0] == 0);
    CHECK(rs_bridge_mark(bridge, &mark) == 1 && mark.frames == 25 * MAX);
    rs_bridge_free(bridge);
    rs_ring_free(out);
}

/* The dry signal is of the music alone, and a recording replaces nothing else. */
static void more_than_the_music(void) {
    enum { BLOCK = 32, GUARD = 64 };
    const rs_bridge_config config = {2, 2, 2, BLOCK, 32, GUARD, 0, 0, 1.0F, 0, 1, 0};
    rs_ring *in = rs_ring_new(1024, 2, 0);
    rs_ring *out = rs_ring_new(1024, 2, 0);
    rs_bridge *bridge = rs_bridge_new(&config, in, out, NULL);
    const float song[3] = {0.1F, 0.2F, 0.3F};
    rs_bridge_play(bridge, song, 3);
    float heard[2 * BLOCK];
    float played[2 * BLOCK];
    float entered[2 * BLOCK];
    for (int i = 0; i < 2 * BLOCK; i++) {
        heard[i] = i % 2 == 0 ? 0.9F : 0.7F;
    }
    rs_bridge_callback(heard, played, BLOCK, NULL, 0, bridge);
    CHECK(rs_ring_read(in, entered, BLOCK) == BLOCK);
    for (int i = 0; i < BLOCK; i++) {
        CHECK(entered[2 * i] == song[i % 3] && entered[2 * i + 1] == 0.7F);
        CHECK(played[2 * i] == song[i % 3] && played[2 * i + 1] == 0);
    }
    rs_bridge_free(bridge);
    rs_ring_free(in);
    rs_ring_free(out);
}

static void nonsense_is_refused(void) {
    rs_ring *in = rs_ring_new(256, 2, 0);
    rs_ring *out = rs_ring_new(256, 2, 0);
    const rs_bridge_config good = {2, 2, 2, 64, 64, 64, 256, 256, 1.0F, 0, 0, 0};
    rs_bridge_config bad;
    rs_bridge_free(rs_bridge_new(&good, in, out, NULL));
    rs_ring_read(out, NULL, 256);
    rs_bridge_free(NULL);
#define REFUSED(field, value)                                                                      \
    bad = good;                                                                                    \
    bad.field = (value);                                                                           \
    CHECK(rs_bridge_new(&bad, in, out, NULL) == NULL && errno == EINVAL)
    REFUSED(in_channels, UINT32_MAX);
    REFUSED(channels, 1);
    REFUSED(channels, 0);
    REFUSED(out_channels, 3);
    REFUSED(max_block, 0);
    REFUSED(max_block, 65); /* with a hop and the guard more than the ring holds */
    REFUSED(max_block, UINT32_MAX);
    REFUSED(hop, 0);
    REFUSED(hop, 65);
    REFUSED(guard, 0);
    REFUSED(guard, 65);
    REFUSED(guard, UINT32_MAX);
    REFUSED(prefill, 257);
    REFUSED(latency, UINT64_MAX);
    REFUSED(music, 3);
    REFUSED(ceiling, 0);
    REFUSED(ceiling, (float)NAN);
    REFUSED(ceiling, (float)INFINITY);
#undef REFUSED
    CHECK(rs_bridge_new(NULL, in, out, NULL) == NULL && errno == EINVAL);
    CHECK(rs_bridge_new(&good, NULL, out, NULL) == NULL && errno == EINVAL);
    CHECK(rs_bridge_new(&good, in, NULL, NULL) == NULL && errno == EINVAL);
    rs_ring_free(in);
    rs_ring_free(out);
}

int main(void) {
    any_block_any_channels(0);
    any_block_any_channels(1);
    missing_sides_are_silence();
    lost_input_keeps_its_place();
    dry_is_delayed_clipped_and_slewed();
    finishing_fades_to_silence(0);
    finishing_fades_to_silence(1);
    lossy_input_owes_nothing();
    an_output_alone();
    more_than_the_music();
    nonsense_is_refused();
    return 0;
}
