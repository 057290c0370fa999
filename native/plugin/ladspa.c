/* The LADSPA plugin: stereo in, karaoke out. */
#if __has_include(<ladspa.h>)
#include <ladspa.h>
#include <stdlib.h>

#include "plugin.h"

enum { IN, OUT = 2, VOCALS = 4, MUSIC, BYPASS, MODEL, WAIT, LATENCY, PORTS };

typedef struct {
    rs_plugin *plugin;
    LADSPA_Data *ports[PORTS];
} instance;

static LADSPA_Handle instantiate(const LADSPA_Descriptor *descriptor, unsigned long samplerate) {
    (void)descriptor;
    instance *made = calloc(1, sizeof *made);
    if (made != NULL) {
        made->plugin = rs_plugin_new((double)samplerate, 0);
        if (made->plugin == NULL) {
            free(made);
            made = NULL;
        }
    }
    return made;
}

static void connect_port(LADSPA_Handle handle, unsigned long port, LADSPA_Data *data) {
    if (port < PORTS) {
        ((instance *)handle)->ports[port] = data;
    }
}

static void activate(LADSPA_Handle handle) {
    rs_plugin_reset(((instance *)handle)->plugin);
}

static void run(LADSPA_Handle handle, unsigned long frames) {
    instance *self = handle;
    LADSPA_Data **ports = self->ports;
    const float *const in[2] = {ports[IN], ports[IN + 1]};
    float *const out[2] = {ports[OUT], ports[OUT + 1]};
    const rs_plugin_controls controls = {
        .vocals = *ports[VOCALS],
        .music = *ports[MUSIC],
        .bypass = *ports[BYPASS] > 0,
        .model = rs_plugin_choice(*ports[MODEL]),
        .wait = *ports[WAIT] > 0,
    };
    rs_plugin_run(self->plugin, &controls, in, out, (uint32_t)frames);
    if (ports[LATENCY] != NULL) {
        *ports[LATENCY] = (LADSPA_Data)rs_plugin_latency(self->plugin);
    }
}

static void cleanup(LADSPA_Handle handle) {
    rs_plugin_free(((instance *)handle)->plugin);
    free(handle);
}

#define INPUT (LADSPA_PORT_INPUT | LADSPA_PORT_AUDIO)
#define OUTPUT (LADSPA_PORT_OUTPUT | LADSPA_PORT_AUDIO)
#define CONTROL (LADSPA_PORT_INPUT | LADSPA_PORT_CONTROL)

static const LADSPA_PortDescriptor kinds[PORTS] = {
    INPUT,   INPUT,   OUTPUT,  OUTPUT,  CONTROL,
    CONTROL, CONTROL, CONTROL, CONTROL, LADSPA_PORT_OUTPUT | LADSPA_PORT_CONTROL,
};

static const char *const names[PORTS] = {
    "Input (left)", "Input (right)", "Output (left)", "Output (right)", "Vocals (dB)",
    "Music (dB)", "Bypass", "Model", "Wait for the engine (offline)",
    "latency", /* hosts know it by this name */
};

#define BOUNDED (LADSPA_HINT_BOUNDED_BELOW | LADSPA_HINT_BOUNDED_ABOVE)

static const LADSPA_PortRangeHint ranges[PORTS] = {
    [VOCALS] = {BOUNDED | LADSPA_HINT_DEFAULT_MINIMUM, RS_PLUGIN_LOWEST, RS_PLUGIN_HIGHEST},
    [MUSIC] = {BOUNDED | LADSPA_HINT_DEFAULT_0, RS_PLUGIN_LOWEST, RS_PLUGIN_HIGHEST},
    [BYPASS] = {LADSPA_HINT_TOGGLED | LADSPA_HINT_DEFAULT_0, 0, 1},
    [MODEL] = {BOUNDED | LADSPA_HINT_INTEGER | LADSPA_HINT_DEFAULT_0, 0, RS_PLUGIN_MODELS - 1},
    [WAIT] = {LADSPA_HINT_TOGGLED | LADSPA_HINT_DEFAULT_0, 0, 1},
};

static const LADSPA_Descriptor karaoke = {
    .UniqueID = 0x727370,
    .Label = "karaoke",
    .Properties = LADSPA_PROPERTY_HARD_RT_CAPABLE,
    .Name = "realtime_sep: Karaoke",
    .Maker = "realtime_sep",
    .Copyright = "MIT",
    .PortCount = PORTS,
    .PortDescriptors = kinds,
    .PortNames = names,
    .PortRangeHints = ranges,
    .instantiate = instantiate,
    .connect_port = connect_port,
    .activate = activate,
    .run = run,
    .cleanup = cleanup,
};

__attribute__((visibility("default"))) const LADSPA_Descriptor *
ladspa_descriptor(unsigned long index) {
    return index == 0 ? &karaoke : NULL;
}

#else
typedef int no_ladspa; /* a file has to hold something */
#endif
