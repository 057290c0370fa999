/* The JACK client's callbacks, with ports that are plain memory of exactly a period. */
#include "check.h"

enum { HOP = 64, GUARD = 64, BLOCK = 50, INS = 2, OUTS = 4, PERIOD = 128, CYCLES = 40 };

static void *buffer(void *port, uint32_t frames) {
    CHECK(frames == PERIOD);
    return port;
}

static void *none(void *port, uint32_t frames) {
    (void)port;
    (void)frames;
    return NULL;
}

/* Outputs 0 and 1 are the inputs, 2 and 3 their negatives. */
static void work(rs_ring *in, rs_ring *out) {
    float heard[HOP * INS];
    float made[HOP * OUTS];
    while (rs_ring_read_space(in) >= HOP) {
        CHECK(rs_ring_read(in, heard, HOP) == HOP);
        for (uint64_t i = 0; i < HOP * OUTS; i++) {
            const float sample = heard[i / OUTS * INS + i % INS];
            made[i] = i % OUTS < INS ? sample : -sample;
        }
        CHECK(rs_ring_write(out, made, HOP) == HOP);
    }
}

int main(void) {
    const uint64_t prefill = HOP + PERIOD + GUARD;
    const rs_bridge_config config = {.in_channels = INS,
                                     .channels = INS,
                                     .out_channels = OUTS,
                                     .max_block = PERIOD,
                                     .hop = HOP,
                                     .guard = GUARD,
                                     .prefill = prefill,
                                     .latency = prefill,
                                     .ceiling = 1.0F};
    rs_ring *in = rs_ring_new(4096, INS, 0);
    rs_ring *out = rs_ring_new(4096, OUTS, 0);
    rs_bridge *bridge = rs_bridge_new(&config, in, out, NULL);
    void *ports[INS + OUTS];
    for (int i = 0; i < INS + OUTS; i++) {
        ports[i] = malloc(PERIOD * sizeof(float));
        CHECK(ports[i] != NULL);
    }
    CHECK(rs_jack_new(NULL, buffer, ports, ports + INS, BLOCK) == NULL);
    CHECK(rs_jack_new(bridge, buffer, ports, ports + INS, 0) == NULL);
    rs_jack *jack = rs_jack_new(bridge, buffer, ports, ports + INS, BLOCK);
    CHECK(jack != NULL);
    for (uint64_t cycle = 0; cycle < CYCLES; cycle++) {
        for (uint64_t i = 0; i < PERIOD; i++) {
            for (uint64_t c = 0; c < INS; c++) {
                ((float *)ports[c])[i] = unit((cycle * PERIOD + i) * INS + c) - 0.5F;
            }
        }
        if (cycle == 5) {
            CHECK(rs_jack_xrun(jack) == 0);
        }
        CHECK(rs_jack_process(PERIOD, jack) == 0);
        work(in, out);
        for (uint64_t i = 0; i < PERIOD; i++) {
            const uint64_t n = cycle * PERIOD + i;
            for (uint64_t c = 0; c < OUTS; c++) {
                const float sample = n < prefill ? 0 : unit((n - prefill) * INS + c % INS) - 0.5F;
                CHECK(((float *)ports[INS + c])[i] == (c < INS ? sample : -sample));
            }
        }
    }
    rs_bridge_stats stats;
    rs_bridge_read_stats(bridge, &stats);
    CHECK(stats.frames == CYCLES * PERIOD && stats.late_blocks == 0);
    CHECK(stats.xruns_in == 1 && stats.xruns_out == 1);
    CHECK(stats.block == PERIOD % BLOCK);
    CHECK(rs_jack_samplerate(jack) == 0 && rs_jack_rated(44100, jack) == 0);
    CHECK(rs_jack_samplerate(jack) == 44100);
    CHECK(!rs_jack_gone(jack));
    rs_jack_shut(jack);
    CHECK(rs_jack_gone(jack));
    rs_jack_quiet("nothing");
    rs_jack_free(jack);

    /* Ports without a buffer, which should not be. */
    jack = rs_jack_new(bridge, none, ports, ports + INS, BLOCK);
    CHECK(rs_jack_process(PERIOD, jack) == 0);
    rs_jack_free(jack);
    rs_jack_free(NULL);
    for (int i = 0; i < INS + OUTS; i++) {
        free(ports[i]);
    }
    rs_bridge_free(bridge);
    rs_ring_free(in);
    rs_ring_free(out);
    return 0;
}
