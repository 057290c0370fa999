/* The PortAudio callback: moves frames between a device and two rings, counts, and fades when the
 * worker is late.  It never allocates, locks, logs or waits.
 *
 * How wet the output is, `weight` of `guard`, is a whole number.  Two things always hold:
 *
 *   - as long as the weight is above 0, the output ring holds at least `weight` frames after every
 *     frame played, so the way down to dry is always there to be walked;
 *   - `debt` is how far playing ran ahead of the ring: (frames played) - (frames taken from it). It
 *     grows only at weight 0, and the weight rises only at debt 0, so a finished frame is played at
 *     its own time or not at all, and latency cannot change. */
#include <errno.h>
#include <float.h>
#include <math.h>
#include <stdatomic.h>
#include <string.h>

#include "internal.h"

/* Owed silence is written in pieces of at most this many blocks, which bounds a callback's time. */
enum { OWED_BLOCKS = 8 };

enum { BUSY_BUCKETS = 128 };

/* PortAudio's status flags. */
enum {
    INPUT_UNDERFLOW = 0x1,
    INPUT_OVERFLOW = 0x2,
    OUTPUT_UNDERFLOW = 0x4,
    OUTPUT_OVERFLOW = 0x8,
};

/* Written by the callback alone, read by anyone: no order is promised among them. */
typedef _Atomic uint64_t counter;

struct rs_bridge {
    rs_bridge_config config;
    rs_ring *in;
    rs_ring *out;
    rs_wake *wake;

    float *mapped;  /* a block of input in the ring's channels */
    float *delayed; /* the last `latency` frames of it and a block, for the dry signal */
    uint64_t delay_mask;
    float *nowhere; /* takes the output that a host does not want */
    uint64_t position;
    uint64_t owed;     /* frames of silence still to be written to the input ring */
    uint32_t presence; /* of `guard`, of the input in its ring */
    uint64_t lacking;  /* the debt, before it is published */
    uint32_t weight;
    uint32_t volume; /* of `guard`: falls to 0 once finishing, begins there when entering */
    uint64_t muted;  /* frames still to be silent before the volume rises */
    uint64_t pause;  /* ns without a callback after which the stream enters anew; 0: never */
    uint64_t lag;    /* of the dry signal: `latency`, once it could follow */
    int leaving;     /* the weight has fallen since it last rose */
    float gain;      /* of the dry signal, on its way to `dry` */

    const float *source; /* what enters instead of the device's input; or NULL */
    uint64_t source_frames;
    uint64_t source_place;

    _Atomic float dry;
    _Atomic uint64_t latency;
    atomic_int finishing;
    atomic_int finished;

    counter callbacks;
    counter frames;
    counter xruns_in;
    counter xruns_out;
    counter late_blocks;
    counter fades;
    counter dry_frames;
    counter dropped_frames;
    counter overflow_frames;
    counter debt;
    counter last_callback;
    counter last_late;
    counter pauses;
    counter block;
    counter busy_max;
    counter busy_total;
    counter busy[BUSY_BUCKETS];

    _Atomic uint64_t mark_version; /* odd while the two below do not belong together */
    _Atomic uint64_t mark_frames;
    _Atomic uint64_t mark_time;
};

static uint64_t get(const counter *count) {
    return atomic_load_explicit(count, memory_order_relaxed);
}

static void set(counter *count, uint64_t value) {
    atomic_store_explicit(count, value, memory_order_relaxed);
}

/* With one writer a load and a store do what would else take a locked instruction. */
static void add(counter *count, uint64_t value) {
    set(count, get(count) + value);
}

static uint64_t smaller(uint64_t a, uint64_t b) {
    return a < b ? a : b;
}

static float *samples(uint64_t frames, uint32_t channels) {
    return rs_memory_new((size_t)(frames * channels) * sizeof(float));
}

/* Beyond these no audio device goes, and no size below overflows. */
enum { MAX_BLOCK = 1 << 20, MAX_CHANNELS = 1024, MAX_LATENCY = 1 << 24 };

static int valid(const rs_bridge_config *config, const rs_ring *in, const rs_ring *out) {
    const int output = config->out_channels > 0;
    const uint64_t hop = config->hop;
    const uint64_t block = config->max_block;
    return config->max_block > 0 && config->max_block <= MAX_BLOCK &&
           config->guard > 0 && config->guard <= MAX_BLOCK && config->latency <= MAX_LATENCY &&
           config->longest <= MAX_LATENCY && config->in_channels <= MAX_CHANNELS &&
           config->music <= config->channels &&
           config->hop > 0 && config->ceiling > 0 && isfinite(config->ceiling) &&
           (out != NULL || !output) &&
           /* What one callback owes and the next brings must fit at once beside a hop half
            * gathered, or input once lost would be lost for ever; likewise a worker that can write
            * no hop must mean that there is a block and the guard to play. */
           (in == NULL ? output && config->in_channels == 0 && config->channels == 0
                       : rs_ring_channels(in) == config->channels &&
                             rs_ring_capacity(in) >= hop + 2 * block + config->guard) &&
           (!output || (rs_ring_channels(out) == config->out_channels &&
                        rs_ring_capacity(out) >= hop + block + config->guard &&
                        rs_ring_write_space(out) >= config->prefill));
}

rs_bridge *rs_bridge_new(const rs_bridge_config *config, rs_ring *in, rs_ring *out, rs_wake *wake) {
    if (config == NULL || !valid(config, in, out)) {
        errno = EINVAL;
        return NULL;
    }
    rs_bridge *bridge = rs_memory_new(sizeof *bridge);
    if (bridge == NULL) {
        return NULL;
    }
    uint64_t delay = 1;
    const uint64_t longest = config->latency + config->max_block;
    while (delay < longest || delay < config->longest + config->max_block) {
        delay *= 2;
    }
    bridge->config = *config;
    bridge->config.music = config->music > 0 ? config->music : config->channels;
    bridge->in = in;
    bridge->out = out;
    bridge->wake = wake;
    bridge->delay_mask = delay - 1;
    bridge->lag = config->latency;
    atomic_init(&bridge->latency, config->latency);
    bridge->weight = (uint32_t)smaller(config->guard, config->prefill);
    bridge->volume = config->guard;
    atomic_init(&bridge->dry, 1.0F);
    int made = 1;
    if (in != NULL) {
        bridge->presence = (uint32_t)smaller(config->guard, rs_ring_write_space(in));
        bridge->mapped = samples(config->max_block, config->channels);
        made = bridge->mapped != NULL;
    }
    if (in != NULL && config->out_channels > 0) {
        bridge->delayed = samples(delay, config->channels);
        made = made && bridge->delayed != NULL;
    }
    if (config->out_channels > 0) {
        bridge->nowhere = samples(config->max_block, config->out_channels);
        made = made && bridge->nowhere != NULL;
    }
    if (!made) {
        rs_bridge_free(bridge);
        errno = ENOMEM;
        return NULL;
    }
    if (config->out_channels > 0) {
        rs_ring_write(out, NULL, config->prefill);
    }
    return bridge;
}

void rs_bridge_free(rs_bridge *bridge) {
    if (bridge != NULL) {
        rs_memory_free(bridge->mapped);
        rs_memory_free(bridge->delayed);
        rs_memory_free(bridge->nowhere);
        rs_memory_free(bridge);
    }
}

uint32_t rs_bridge_hop(const rs_bridge *bridge) {
    return bridge->config.hop;
}

uint32_t rs_bridge_in_channels(const rs_bridge *bridge) {
    return bridge->config.in_channels;
}

uint32_t rs_bridge_out_channels(const rs_bridge *bridge) {
    return bridge->config.out_channels;
}

/* ---- input --------------------------------------------------------------------------------- */

/* The recording that enters instead of the music. */
static void replace(rs_bridge *bridge, uint64_t frames) {
    const uint32_t to = bridge->config.channels;
    const uint32_t music = bridge->config.music;
    for (uint64_t i = 0; i < frames; i++) {
        memcpy(bridge->mapped + i * to, bridge->source + bridge->source_place * music,
               music * sizeof(float));
        bridge->source_place = (bridge->source_place + 1) % bridge->source_frames;
    }
}

/* The device's channels become the ring's. */
static void map(rs_bridge *bridge, const float *input, uint64_t frames) {
    const uint32_t from = bridge->config.in_channels;
    const uint32_t to = bridge->config.channels;
    float *mapped = bridge->mapped;
    if (input == NULL || from == 0) {
        memset(mapped, 0, (size_t)(frames * to) * sizeof(float));
    } else if (from == to) {
        memcpy(mapped, input, (size_t)(frames * to) * sizeof(float));
    } else if (to == 1) {
        for (uint64_t i = 0; i < frames; i++) {
            float sum = 0;
            for (uint32_t c = 0; c < from; c++) {
                sum += input[i * from + c];
            }
            mapped[i] = sum / (float)from;
        }
    } else {
        for (uint64_t i = 0; i < frames; i++) {
            for (uint32_t c = 0; c < to; c++) {
                const float padding = from == 1 ? input[i] : 0;
                mapped[i * to + c] = c < from ? input[i * from + c] : padding;
            }
        }
    }
    if (bridge->source != NULL) {
        replace(bridge, frames);
    }
}

/* Fades the mapped block where the ring fills up or has room again; returns how many frames of it
 * are to be written.  As in playing: as long as `presence` is above 0 the ring has room for at
 * least as many frames, so the way down to silence is always there to be walked. */
static uint64_t present(rs_bridge *bridge, uint64_t frames) {
    const uint32_t guard = bridge->config.guard;
    const uint32_t channels = bridge->config.channels;
    rs_span span;
    uint64_t room = bridge->owed > 0 ? 0 : rs_ring_claim_write(bridge->in, frames + guard, &span);
    const int enough = room >= frames + guard;
    if (enough && bridge->presence == guard) {
        return frames;
    }
    for (uint64_t i = 0; i < frames; i++, room--) {
        if (enough) {
            bridge->presence += bridge->presence < guard;
        } else if (bridge->presence == 0) {
            return i;
        } else if (bridge->presence == room) {
            bridge->presence--;
        }
        if (bridge->presence < guard) {
            const float share = (float)bridge->presence / (float)guard;
            for (uint32_t c = 0; c < channels; c++) {
                bridge->mapped[i * channels + c] *= share;
            }
        }
    }
    return frames;
}

/* Frames enter the ring in their order, so while silence is owed new frames must be owed too. */
static void record(rs_bridge *bridge, uint64_t frames, uint64_t *patience) {
    const uint64_t silence = rs_ring_write(bridge->in, NULL, smaller(bridge->owed, *patience));
    *patience -= silence;
    bridge->owed -= silence;
    const uint64_t written = rs_ring_write(bridge->in, bridge->mapped, present(bridge, frames));
    bridge->owed += bridge->config.lossy ? 0 : frames - written;
    add(&bridge->overflow_frames, frames - written);
}

/* The mapped block enters the delay line of the dry signal. */
static void remember(rs_bridge *bridge, uint64_t frames) {
    const uint32_t channels = bridge->config.channels;
    const uint64_t start = bridge->position & bridge->delay_mask;
    const uint64_t first = smaller(frames, bridge->delay_mask + 1 - start);
    memcpy(bridge->delayed + start * channels, bridge->mapped,
           (size_t)(first * channels) * sizeof(float));
    memcpy(bridge->delayed, bridge->mapped + first * channels,
           (size_t)((frames - first) * channels) * sizeof(float));
}

/* ---- output -------------------------------------------------------------------------------- */

static float stepped(float value, float target, float step) {
    const float difference = target - value;
    return difference > step ? value + step : difference < -step ? value - step : target;
}

static float clean(float sample, float gain, float ceiling) {
    if (!(fabsf(sample) <= FLT_MAX)) {
        return 0;
    }
    const float scaled = sample * gain;
    return scaled > ceiling ? ceiling : scaled < -ceiling ? -ceiling : scaled;
}

/* One output frame between `wet` (NULL: nothing) and the dry signal of this moment. */
static void blend(const rs_bridge *bridge, const float *wet, uint64_t position, float *output) {
    const rs_bridge_config *config = &bridge->config;
    const float share = (float)bridge->weight / (float)config->guard;
    const uint64_t place = (position - bridge->lag) & bridge->delay_mask;
    const float *dry = config->music > 0 ? bridge->delayed + place * config->channels : NULL;
    for (uint32_t c = 0; c < config->out_channels; c++) {
        const float other = c < config->music ? clean(dry[c], bridge->gain, config->ceiling) : 0;
        output[c] = bridge->weight > 0 ? wet[c] * share + other * (1 - share) : other;
    }
}

/* The way in and the way out: silent until what has come in since comes out, then up; or down. */
static void fade(rs_bridge *bridge, float *output, uint64_t frames, int finishing) {
    const uint32_t channels = bridge->config.out_channels;
    for (uint64_t i = 0; i < frames; i++) {
        if (finishing) {
            bridge->volume -= bridge->volume > 0;
        } else if (bridge->muted > 0) {
            bridge->muted--;
        } else {
            bridge->volume += bridge->volume < bridge->config.guard;
        }
        const float share = (float)bridge->volume / (float)bridge->config.guard;
        for (uint32_t c = 0; c < channels; c++) {
            float *sample = output + i * channels + c;
            *sample = bridge->volume > 0 ? *sample * share : 0;
        }
    }
}

static void enter(rs_bridge *bridge) {
    bridge->muted = bridge->lag;
    bridge->volume = 0;
}

static const float *frame_of(const rs_span *span, uint64_t frame, uint32_t channels) {
    return frame < span->first_frames ? span->first + frame * channels
                                      : span->second + (frame - span->first_frames) * channels;
}

/* Plays one block; returns whether it was late. */
static int play(rs_bridge *bridge, float *output, uint64_t frames) {
    const rs_bridge_config *config = &bridge->config;
    const uint32_t channels = config->out_channels;
    const float step = 1.0F / (float)config->guard;
    const float target = atomic_load_explicit(&bridge->dry, memory_order_relaxed);
    rs_span span;

    /* Frames that come after their time are of no use. */
    const uint64_t dropped = rs_ring_claim_read(bridge->out, bridge->lacking, &span);
    rs_ring_commit_read(bridge->out, dropped);
    bridge->lacking -= dropped;
    add(&bridge->dropped_frames, dropped);

    /* More may have come since; while anything is owed it is of the past as well. */
    uint64_t left = rs_ring_claim_read(bridge->out, frames + config->guard, &span);
    const int enough = bridge->lacking == 0 && left >= frames + config->guard;
    const int late = !enough && bridge->weight > 0;
    uint64_t taken = 0;

    if (bridge->weight == config->guard) {
        bridge->lag = atomic_load_explicit(&bridge->latency, memory_order_relaxed);
    }
    if (enough && bridge->weight == config->guard) {
        const uint64_t first = smaller(frames, span.first_frames);
        memcpy(output, span.first, (size_t)(first * channels) * sizeof(float));
        if (first < frames) {
            memcpy(output + first * channels, span.second,
                   (size_t)((frames - first) * channels) * sizeof(float));
        }
        taken = frames;
        bridge->gain = stepped(bridge->gain, target, step * (float)frames);
    } else {
        uint64_t dry = 0;
        bridge->leaving = bridge->leaving && !enough;
        for (uint64_t i = 0; i < frames; i++) {
            const int wet = enough || bridge->weight > 0;
            if (enough) {
                bridge->weight += bridge->weight < config->guard;
            } else if (bridge->weight > 0 && bridge->weight == left) {
                add(&bridge->fades, !bridge->leaving);
                bridge->leaving = 1;
                bridge->weight--;
            }
            bridge->gain = stepped(bridge->gain, target, step);
            blend(bridge, wet ? frame_of(&span, taken, channels) : NULL, bridge->position + i,
                  output + i * channels);
            taken += (uint64_t)wet;
            left -= (uint64_t)wet;
            dry += bridge->weight == 0;
            bridge->lacking += !wet;
        }
        add(&bridge->dry_frames, dry);
    }
    rs_ring_commit_read(bridge->out, taken);
    set(&bridge->debt, bridge->lacking);
    return late;
}

/* ---- the callback -------------------------------------------------------------------------- */

/* Quarter octaves: 2^(1/4), 2^(2/4) and 2^(3/4), with the top bit standing for 1. */
static const uint64_t QUARTERS[] = {UINT64_C(0x9837f0518db8a970), UINT64_C(0xb504f333f9de6485),
                                    UINT64_C(0xd744fccad69d6af5)};

static unsigned bucket(uint64_t nanoseconds) {
    if (nanoseconds == 0) {
        return 0;
    }
    unsigned octave = 63;
    while (!(nanoseconds >> 63)) {
        nanoseconds <<= 1;
        octave--;
    }
    const unsigned index = 4 * octave + 1 + (nanoseconds >= QUARTERS[0]) +
                           (nanoseconds >= QUARTERS[1]) + (nanoseconds >= QUARTERS[2]);
    return index < BUSY_BUCKETS ? index : BUSY_BUCKETS - 1;
}

/* Without fences, which ThreadSanitizer cannot see: each release publishes what was stored before. */
static void mark(rs_bridge *bridge, uint64_t time) {
    const uint64_t version = atomic_load_explicit(&bridge->mark_version, memory_order_relaxed);
    const uint64_t frames = bridge->in != NULL
                                ? rs_ring_written(bridge->in) + bridge->owed
                                : rs_ring_consumed(bridge->out) + bridge->lacking;
    atomic_store_explicit(&bridge->mark_version, version + 1, memory_order_relaxed);
    atomic_store_explicit(&bridge->mark_frames, frames, memory_order_release);
    atomic_store_explicit(&bridge->mark_time, time, memory_order_release);
    atomic_store_explicit(&bridge->mark_version, version + 2, memory_order_release);
}

static void account(rs_bridge *bridge, uint64_t start, uint64_t frames, unsigned long flags,
                    int late) {
    const uint64_t busy = rs_now() - start;
    add(&bridge->callbacks, 1);
    add(&bridge->frames, frames);
    add(&bridge->xruns_in, (flags & (INPUT_UNDERFLOW | INPUT_OVERFLOW)) != 0);
    add(&bridge->xruns_out, (flags & (OUTPUT_UNDERFLOW | OUTPUT_OVERFLOW)) != 0);
    if (late) {
        add(&bridge->late_blocks, 1);
        set(&bridge->last_late, start);
    }
    set(&bridge->last_callback, start);
    set(&bridge->block, frames);
    add(&bridge->busy_total, busy);
    if (busy > get(&bridge->busy_max)) {
        set(&bridge->busy_max, busy);
    }
    add(&bridge->busy[bucket(busy)], 1);
}

int rs_bridge_callback(const void *input, void *output, unsigned long frames, const void *time_info,
                       unsigned long status_flags, void *argument) {
    rs_bridge *bridge = argument;
    const rs_bridge_config *config = &bridge->config;
    const uint64_t start = rs_now();
    const float *from = input;
    float *to = output;
    uint64_t patience = (uint64_t)OWED_BLOCKS * config->max_block;
    int late = 0;
    (void)time_info;

    if (atomic_load_explicit(&bridge->finished, memory_order_relaxed)) {
        if (to != NULL) {
            memset(to, 0, (size_t)frames * config->out_channels * sizeof(float));
        }
        return 1;
    }
    const int finishing = atomic_load_explicit(&bridge->finishing, memory_order_relaxed);
    const uint64_t last = get(&bridge->last_callback);
    if (bridge->pause > 0 && last > 0 && start - last > bridge->pause) {
        add(&bridge->pauses, 1);
        enter(bridge);
    }
    if (bridge->position == 0) {
        bridge->gain = atomic_load_explicit(&bridge->dry, memory_order_relaxed);
    }

    for (uint64_t done = 0; done < frames;) {
        const uint64_t block = smaller(frames - done, config->max_block);
        if (bridge->in != NULL) {
            map(bridge, from, block);
            if (config->out_channels > 0) {
                remember(bridge, block);
            }
            record(bridge, block, &patience);
        }
        if (config->out_channels > 0) {
            float *played = to != NULL ? to : bridge->nowhere;
            late |= play(bridge, played, block);
            if (finishing || bridge->volume < config->guard) {
                fade(bridge, played, block, finishing);
            }
        }
        bridge->position += block;
        done += block;
        from = from != NULL ? from + block * config->in_channels : NULL;
        to = to != NULL ? to + block * config->out_channels : NULL;
    }

    mark(bridge, start);
    if (bridge->wake != NULL && bridge->in != NULL &&
        rs_ring_read_space(bridge->in) >= config->hop) {
        rs_wake_post(bridge->wake);
    }
    account(bridge, start, frames, status_flags, late);
    if (finishing && (bridge->volume == 0 || config->out_channels == 0)) {
        atomic_store_explicit(&bridge->finished, 1, memory_order_release);
        return 1;
    }
    return 0;
}

/* ---- from outside -------------------------------------------------------------------------- */

void rs_bridge_set_dry(rs_bridge *bridge, float gain) {
    const float sane = gain >= 0 && gain <= FLT_MAX ? gain : 0;
    atomic_store_explicit(&bridge->dry, sane, memory_order_relaxed);
}

void rs_bridge_enter(rs_bridge *bridge, uint64_t pause, int now) {
    bridge->pause = pause;
    if (now) {
        enter(bridge);
    }
}

void rs_bridge_set_latency(rs_bridge *bridge, uint64_t latency) {
    const uint64_t most = bridge->delay_mask + 1 - bridge->config.max_block;
    atomic_store_explicit(&bridge->latency, smaller(latency, most), memory_order_relaxed);
}

void rs_bridge_play(rs_bridge *bridge, const float *source, uint64_t frames) {
    bridge->source = frames > 0 ? source : NULL;
    bridge->source_frames = frames;
    bridge->source_place = 0;
}

void rs_bridge_finish(rs_bridge *bridge) {
    atomic_store_explicit(&bridge->finishing, 1, memory_order_relaxed);
}

int rs_bridge_finished(const rs_bridge *bridge) {
    return atomic_load_explicit(&bridge->finished, memory_order_acquire);
}

uint64_t rs_bridge_debt(const rs_bridge *bridge) {
    return get(&bridge->debt);
}

int rs_bridge_mark(const rs_bridge *bridge, rs_mark *mark) {
    enum { ATTEMPTS = 100 };
    for (int i = 0; i < ATTEMPTS; i++) {
        const uint64_t version = atomic_load_explicit(&bridge->mark_version, memory_order_acquire);
        mark->frames = atomic_load_explicit(&bridge->mark_frames, memory_order_acquire);
        mark->time = atomic_load_explicit(&bridge->mark_time, memory_order_acquire);
        if (version > 0 && version % 2 == 0 &&
            atomic_load_explicit(&bridge->mark_version, memory_order_relaxed) == version) {
            return 1;
        }
    }
    return 0;
}

void rs_bridge_read_stats(const rs_bridge *bridge, rs_bridge_stats *stats) {
    *stats = (rs_bridge_stats){
        .callbacks = get(&bridge->callbacks),
        .frames = get(&bridge->frames),
        .xruns_in = get(&bridge->xruns_in),
        .xruns_out = get(&bridge->xruns_out),
        .late_blocks = get(&bridge->late_blocks),
        .fades = get(&bridge->fades),
        .dry_frames = get(&bridge->dry_frames),
        .dropped_frames = get(&bridge->dropped_frames),
        .overflow_frames = get(&bridge->overflow_frames),
        .debt = get(&bridge->debt),
        .last_callback = get(&bridge->last_callback),
        .last_late = get(&bridge->last_late),
        .pauses = get(&bridge->pauses),
        .block = get(&bridge->block),
        .busy_max = get(&bridge->busy_max),
        .busy_total = get(&bridge->busy_total),
    };
}

void rs_bridge_read_busy(const rs_bridge *bridge, uint64_t *buckets) {
    for (int i = 0; i < BUSY_BUCKETS; i++) {
        buckets[i] = get(&bridge->busy[i]);
    }
}
