/* The LV2 plugins: stereo in, karaoke out; and the same with the stems besides.  realtime_sep.ttl
 * describes the ports. */
#if __has_include(<lv2/core/lv2.h>)
#include <lv2/core/lv2.h>
#include <stdlib.h>

#include "plugin.h"

enum { IN, OUT = 2, VOCALS = 4, MUSIC, ENABLED, MODEL, FREEWHEEL, LATENCY, STEMS, PORTS = 14 };

typedef struct {
    rs_plugin *plugin;
    void *ports[PORTS];
} instance;

static const LV2_Descriptor plugins[2];

static LV2_Handle instantiate(const LV2_Descriptor *descriptor, double samplerate,
                              const char *bundle, const LV2_Feature *const *features) {
    (void)bundle;
    (void)features;
    instance *made = calloc(1, sizeof *made);
    if (made != NULL) {
        made->plugin = rs_plugin_new(samplerate, descriptor == &plugins[1]);
        if (made->plugin == NULL) {
            free(made);
            made = NULL;
        }
    }
    return made;
}

static void connect_port(LV2_Handle handle, uint32_t port, void *data) {
    if (port < PORTS) {
        ((instance *)handle)->ports[port] = data;
    }
}

static void activate(LV2_Handle handle) {
    rs_plugin_reset(((instance *)handle)->plugin);
}

static float value(const instance *self, int port, float otherwise) {
    const float *data = self->ports[port];
    return data != NULL ? *data : otherwise;
}

static void run(LV2_Handle handle, uint32_t frames) {
    instance *self = handle;
    const float *const in[2] = {self->ports[IN], self->ports[IN + 1]};
    float *out[2 * RS_PLUGIN_BUSES] = {self->ports[OUT], self->ports[OUT + 1]};
    for (int c = 0; c < PORTS - STEMS; c++) {
        out[2 + c] = self->ports[STEMS + c];
    }
    const rs_plugin_controls controls = {
        .vocals = value(self, VOCALS, RS_PLUGIN_LOWEST),
        .music = value(self, MUSIC, 0),
        .bypass = !(value(self, ENABLED, 1) > 0),
        .model = rs_plugin_choice(value(self, MODEL, 0)),
        .wait = value(self, FREEWHEEL, 0) > 0,
    };
    rs_plugin_run(self->plugin, &controls, in, out, frames);
    if (self->ports[LATENCY] != NULL) {
        *(float *)self->ports[LATENCY] = (float)rs_plugin_latency(self->plugin);
    }
}

static void cleanup(LV2_Handle handle) {
    rs_plugin_free(((instance *)handle)->plugin);
    free(handle);
}

#define PLUGIN(uri) \
    {uri, instantiate, connect_port, activate, run, NULL, cleanup, NULL}

static const LV2_Descriptor plugins[2] = {
    PLUGIN("urn:realtime-sep:karaoke"),
    PLUGIN("urn:realtime-sep:stems"),
};

__attribute__((visibility("default"))) const LV2_Descriptor *lv2_descriptor(uint32_t index) {
    return index < 2 ? &plugins[index] : NULL;
}

#else
typedef int no_lv2; /* a file has to hold something */
#endif
