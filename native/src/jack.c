/* A client of a JACK server: its ports carry one channel each, the bridge interleaved frames. */
#include <errno.h>
#include <stdatomic.h>
#include <string.h>

#include "internal.h"

enum { XRUN = 0x2 | 0x4 }; /* PortAudio's input overflow and output underflow */

struct rs_jack {
    rs_bridge *bridge;
    rs_jack_buffer buffer;
    uint32_t ins;
    uint32_t outs;
    uint32_t block;
    void **ports; /* inputs, then outputs */
    float *input; /* a block of each, interleaved */
    float *output;
    atomic_int xrun;
    atomic_int gone;
    _Atomic uint32_t samplerate;
};

rs_jack *rs_jack_new(rs_bridge *bridge, rs_jack_buffer buffer, void *const *inputs,
                     void *const *outputs, uint32_t block) {
    if (bridge == NULL || buffer == NULL || block == 0) {
        errno = EINVAL;
        return NULL;
    }
    rs_jack *jack = rs_memory_new(sizeof *jack);
    if (jack == NULL) {
        return NULL;
    }
    jack->bridge = bridge;
    jack->buffer = buffer;
    jack->block = block;
    jack->ins = rs_bridge_in_channels(bridge);
    jack->outs = rs_bridge_out_channels(bridge);
    jack->ports = rs_memory_new((size_t)(jack->ins + jack->outs) * sizeof *jack->ports);
    jack->input = rs_memory_new((size_t)block * jack->ins * sizeof(float));
    jack->output = rs_memory_new((size_t)block * jack->outs * sizeof(float));
    if (jack->ports == NULL || jack->input == NULL || jack->output == NULL) {
        rs_jack_free(jack);
        errno = ENOMEM;
        return NULL;
    }
    for (uint32_t c = 0; c < jack->ins; c++) {
        jack->ports[c] = inputs[c];
    }
    for (uint32_t c = 0; c < jack->outs; c++) {
        jack->ports[jack->ins + c] = outputs[c];
    }
    return jack;
}

void rs_jack_free(rs_jack *jack) {
    if (jack != NULL) {
        rs_memory_free(jack->ports);
        rs_memory_free(jack->input);
        rs_memory_free(jack->output);
        rs_memory_free(jack);
    }
}

/* A port without a buffer (there is none that should be) records silence and plays nothing. */
static void gather(rs_jack *jack, uint32_t start, uint32_t block, uint32_t frames) {
    for (uint32_t c = 0; c < jack->ins; c++) {
        const float *from = jack->buffer(jack->ports[c], frames);
        for (uint32_t i = 0; i < block; i++) {
            jack->input[i * jack->ins + c] = from != NULL ? from[start + i] : 0;
        }
    }
}

static void spread(rs_jack *jack, uint32_t start, uint32_t block, uint32_t frames) {
    for (uint32_t c = 0; c < jack->outs; c++) {
        float *to = jack->buffer(jack->ports[jack->ins + c], frames);
        for (uint32_t i = 0; to != NULL && i < block; i++) {
            to[start + i] = jack->output[i * jack->outs + c];
        }
    }
}

int rs_jack_process(uint32_t frames, void *argument) {
    rs_jack *jack = argument;
    unsigned long flags = atomic_exchange_explicit(&jack->xrun, 0, memory_order_relaxed) ? XRUN : 0;
    for (uint32_t start = 0; start < frames;) {
        const uint32_t rest = frames - start;
        const uint32_t block = rest < jack->block ? rest : jack->block;
        gather(jack, start, block, frames);
        (void)rs_bridge_callback(jack->ins > 0 ? jack->input : NULL,
                                 jack->outs > 0 ? jack->output : NULL, block, NULL, flags,
                                 jack->bridge);
        spread(jack, start, block, frames);
        start += block;
        flags = 0;
    }
    return 0; /* anything else would throw the client out */
}

int rs_jack_xrun(void *argument) {
    rs_jack *jack = argument;
    atomic_store_explicit(&jack->xrun, 1, memory_order_relaxed);
    return 0;
}

int rs_jack_rated(uint32_t samplerate, void *argument) {
    rs_jack *jack = argument;
    atomic_store(&jack->samplerate, samplerate);
    return 0;
}

void rs_jack_shut(void *argument) {
    rs_jack *jack = argument;
    atomic_store(&jack->gone, 1);
}

void rs_jack_quiet(const char *message) {
    (void)message;
}

uint32_t rs_jack_samplerate(const rs_jack *jack) {
    return atomic_load(&jack->samplerate);
}

int rs_jack_gone(const rs_jack *jack) {
    return atomic_load(&jack->gone);
}
