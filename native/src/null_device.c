/* A device without hardware: a thread that calls the bridge as a sound card's driver would. */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "internal.h"

/* How often a free-running device looks whether the worker is done. */
static const uint64_t POLL = 20000;
/* No single sleep is longer, so that stopping never waits for more. */
static const uint64_t NAP = 20000000;

enum { XRUN = 0x2 | 0x4 }; /* PortAudio's input overflow and output underflow */

struct rs_null {
    rs_null_config config;
    rs_bridge *bridge;
    const rs_ring *in;
    uint32_t *blocks;
    uint32_t largest;
    float *input;
    float *output;
    pthread_t thread;
    int started;
    atomic_int stop;
    atomic_int running;
    _Atomic uint64_t position;
    uint64_t turn; /* of the block sizes; survives a stop */
};

rs_null *rs_null_new(const rs_null_config *config, rs_bridge *bridge, const rs_ring *in) {
    uint64_t sum = 0;
    uint32_t largest = 0;
    if (config != NULL && config->blocks != NULL) {
        for (uint32_t i = 0; i < config->block_count; i++) {
            sum += config->blocks[i];
            largest = config->blocks[i] > largest ? config->blocks[i] : largest;
        }
    }
    if (sum == 0 || bridge == NULL || (in == NULL && !config->clocked) ||
        !(config->samplerate >= 1 && config->samplerate <= 1e9) ||
        (config->loop && config->source != NULL && config->source_frames == 0)) {
        errno = EINVAL;
        return NULL;
    }
    rs_null *device = rs_memory_new(sizeof *device);
    if (device == NULL) {
        return NULL;
    }
    device->config = *config;
    device->bridge = bridge;
    device->in = in;
    device->largest = largest;
    device->blocks = rs_memory_new(config->block_count * sizeof *device->blocks);
    device->input = rs_memory_new((size_t)largest * config->in_channels * sizeof(float));
    device->output = rs_memory_new((size_t)largest * config->out_channels * sizeof(float));
    if (device->blocks == NULL || device->input == NULL || device->output == NULL) {
        rs_null_free(device);
        errno = ENOMEM;
        return NULL;
    }
    memcpy(device->blocks, config->blocks, config->block_count * sizeof *device->blocks);
    device->config.blocks = device->blocks;
    return device;
}

/* What a microphone would hear from `position` on. */
static void listen(rs_null *device, uint64_t position, uint64_t frames) {
    const rs_null_config *config = &device->config;
    const uint32_t channels = config->in_channels;
    float *input = device->input;
    memset(input, 0, (size_t)(frames * channels) * sizeof(float));
    while (config->source != NULL && frames > 0) {
        const uint64_t at = config->loop ? position % config->source_frames : position;
        if (at >= config->source_frames) {
            break;
        }
        const uint64_t rest = config->source_frames - at;
        const uint64_t some = frames < rest ? frames : rest;
        memcpy(input, config->source + at * channels, (size_t)(some * channels) * sizeof(float));
        input += some * channels;
        position += some;
        frames -= some;
    }
}

/* What loudspeakers would play from `position` on. */
static void keep(rs_null *device, uint64_t position, uint64_t frames) {
    const rs_null_config *config = &device->config;
    if (config->capture != NULL && position < config->capture_frames) {
        const uint64_t rest = config->capture_frames - position;
        const uint64_t some = frames < rest ? frames : rest;
        memcpy(config->capture + position * config->out_channels, device->output,
               (size_t)(some * config->out_channels) * sizeof(float));
    }
}

static int stopped(rs_null *device) {
    return atomic_load_explicit(&device->stop, memory_order_relaxed);
}

/* The clock counts frames from where it began, so rounding never adds up. */
struct pace {
    uint64_t start;
    uint64_t frames;
    double frame_ns;
};

static uint64_t due(const struct pace *pace) {
    return pace->start + (uint64_t)((double)pace->frames * pace->frame_ns);
}

/* Waits until `frames` more have gone by; returns the flags of the callback that follows.  The
 * largest block stands for the card's buffer: being later than that, it has run dry. */
static unsigned long pass_time(rs_null *device, struct pace *pace, uint64_t frames) {
    pace->frames += frames;
    const uint64_t when = due(pace);
    uint64_t now = rs_now();
    while (now < when && !stopped(device)) {
        rs_sleep_until(when - now > NAP ? now + NAP : when);
        now = rs_now();
    }
    if (now > when && (double)(now - when) > (double)device->largest * pace->frame_ns) {
        pace->start = now;
        pace->frames = 0;
        return XRUN;
    }
    return 0;
}

static void wait_for_worker(rs_null *device) {
    const uint32_t hop = rs_bridge_hop(device->bridge);
    while (rs_ring_read_space(device->in) >= hop && !stopped(device)) {
        rs_sleep_until(rs_now() + POLL);
    }
}

static void *run(void *argument) {
    rs_null *device = argument;
    const rs_null_config *config = &device->config;
    uint64_t position = atomic_load_explicit(&device->position, memory_order_relaxed);
    int result = 0;
    if (config->priority > 0) {
        (void)rs_thread_realtime(config->priority);
    }
    struct pace pace = {rs_now(), 0, 1e9 / config->samplerate};
    while (!stopped(device) && result == 0 && (config->frames == 0 || position < config->frames)) {
        uint64_t frames = device->blocks[device->turn++ % config->block_count];
        if (config->frames != 0 && frames > config->frames - position) {
            frames = config->frames - position;
        }
        const unsigned long flags = config->clocked ? pass_time(device, &pace, frames) : 0;
        if (stopped(device)) {
            break;
        }
        listen(device, position, frames);
        result = rs_bridge_callback(config->in_channels > 0 ? device->input : NULL,
                                    config->out_channels > 0 ? device->output : NULL,
                                    (unsigned long)frames, NULL, flags, device->bridge);
        keep(device, position, frames);
        position += frames;
        atomic_store_explicit(&device->position, position, memory_order_release);
        if (!config->clocked) {
            wait_for_worker(device);
        }
    }
    atomic_store_explicit(&device->running, 0, memory_order_release);
    return NULL;
}

int rs_null_start(rs_null *device) {
    if (rs_null_running(device)) {
        return EBUSY;
    }
    rs_null_stop(device);
    atomic_store(&device->stop, 0);
    atomic_store(&device->running, 1);
    const int error = pthread_create(&device->thread, NULL, run, device);
    device->started = error == 0;
    if (error != 0) {
        atomic_store(&device->running, 0);
    }
    return error;
}

void rs_null_stop(rs_null *device) {
    if (device->started) {
        atomic_store(&device->stop, 1);
        pthread_join(device->thread, NULL);
        device->started = 0;
    }
}

void rs_null_free(rs_null *device) {
    if (device != NULL) {
        rs_null_stop(device);
        rs_memory_free(device->blocks);
        rs_memory_free(device->input);
        rs_memory_free(device->output);
        rs_memory_free(device);
    }
}

int rs_null_running(const rs_null *device) {
    return atomic_load_explicit(&device->running, memory_order_acquire);
}

uint64_t rs_null_position(const rs_null *device) {
    return atomic_load_explicit(&device->position, memory_order_acquire);
}
