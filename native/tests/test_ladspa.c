/* A LADSPA plugin that is made here: every pairing of its ports with a stream's channels. */
#include <errno.h>

#include "check.h"

enum { INPUT = 1, OUTPUT = 2, CONTROL = 4, AUDIO = 8, FRAMES = 100, MOST = 32 };

struct plugin {
    float *ports[5];
    int active;
};

static int alive;
static int refuse;

static void *make(const rs_ladspa_descriptor *descriptor, unsigned long samplerate) {
    (void)descriptor;
    CHECK(samplerate == 48000);
    if (refuse) {
        return NULL;
    }
    alive++;
    return calloc(1, sizeof(struct plugin));
}

static void connect(void *handle, unsigned long port, float *data) {
    ((struct plugin *)handle)->ports[port] = data;
}

static void activate(void *handle) {
    CHECK(((struct plugin *)handle)->active++ == 0);
}

static void deactivate(void *handle) {
    CHECK(--((struct plugin *)handle)->active == 0);
}

static void cleanup(void *handle) {
    alive--;
    free(handle);
}

/* Ports: control, in, [in], out, [out].  Each output is the sum of the inputs, times the control,
 * and the second one is negative. */
static int ins;
static int outs;

static void run(void *handle, unsigned long frames) {
    float **ports = ((struct plugin *)handle)->ports;
    CHECK(((struct plugin *)handle)->active == 1 && frames <= MOST);
    for (unsigned long i = 0; i < frames; i++) {
        const float sum = ports[1][i] + (ins == 2 ? ports[2][i] : 0);
        ports[1 + ins][i] = sum * *ports[0];
        if (outs == 2) {
            ports[2 + ins][i] = -sum * *ports[0];
        }
    }
}

static rs_ladspa_descriptor described(int inputs, int outputs, int *ports) {
    ins = inputs;
    outs = outputs;
    ports[0] = INPUT | CONTROL;
    for (int p = 1; p <= inputs + outputs; p++) {
        ports[p] = AUDIO | (p <= inputs ? INPUT : OUTPUT);
    }
    return (rs_ladspa_descriptor){.label = "test",
                                  .port_count = (unsigned long)(1 + inputs + outputs),
                                  .ports = ports,
                                  .instantiate = make,
                                  .connect_port = connect,
                                  .activate = activate,
                                  .run = run,
                                  .deactivate = deactivate,
                                  .cleanup = cleanup};
}

static void pair(int inputs, int outputs, uint32_t channels) {
    int ports[5];
    const rs_ladspa_descriptor d = described(inputs, outputs, ports);
    rs_ladspa *plugin = rs_ladspa_new(&d, 48000, channels, MOST);
    CHECK(plugin != NULL && alive == (inputs * outputs == 1 ? (int)channels : 1));
    rs_ladspa_controls(plugin)[0] = 2;
    float block[FRAMES * 2];
    float expected[FRAMES * 2];
    for (uint64_t i = 0; i < FRAMES; i++) {
        float *x = block + i * channels;
        for (uint64_t c = 0; c < channels; c++) {
            x[c] = unit(i * channels + c);
        }
        const float two = channels == 2 ? x[1] : x[0];
        const float sum = inputs == 2 ? x[0] + two : channels == 2 ? 0.5F * (x[0] + two) : x[0];
        for (uint64_t c = 0; c < channels; c++) {
            const float in = inputs * outputs == 1 ? x[c] : sum;
            const float negative = outputs == 2 && channels == 1 ? 0 : outputs == 2 && c == 1 ? -2 : 2;
            expected[i * channels + c] = negative * in;
        }
    }
    rs_ladspa_run(plugin, block, FRAMES);
    rs_ladspa_reset(plugin);
    CHECK(memcmp(block, expected, FRAMES * channels * sizeof(float)) == 0);
    rs_ladspa_free(plugin);
    CHECK(alive == 0);
}

int main(void) {
    for (int shape = 0; shape < 8; shape++) {
        pair(1 + (shape & 1), 1 + (shape >> 1 & 1), 1 + (uint32_t)(shape >> 2));
    }
    int ports[5];
    rs_ladspa_descriptor d = described(1, 1, ports);
    CHECK(rs_ladspa_new(&d, 48000, 3, MOST) == NULL && errno == EINVAL);
    CHECK(rs_ladspa_new(&d, 48000, 2, 0) == NULL && errno == EINVAL);
    refuse = 1;
    CHECK(rs_ladspa_new(&d, 48000, 2, MOST) == NULL && errno == ENOMEM && alive == 0);
    ports[1] = INPUT | CONTROL;
    CHECK(rs_ladspa_new(&d, 48000, 2, MOST) == NULL && errno == EINVAL);
    const char *why = NULL;
    CHECK(rs_ladspa_find("/no/such/library.so", 0, &why) == NULL && why != NULL);
    rs_ladspa_free(NULL);
    return 0;
}
