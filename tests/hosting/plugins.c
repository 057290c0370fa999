/* LADSPA plugins for the tests, made with the header of LADSPA's own kit: so what the host believes
 * of it is checked as well. */
#include <ladspa.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { DELAY = 100, PORTS = 12 };

typedef struct {
    LADSPA_Data *ports[PORTS];
    const LADSPA_Descriptor *descriptor;
    LADSPA_Data line[DELAY];
    unsigned long place, runs;
} Plugin;

static LADSPA_Handle make(const LADSPA_Descriptor *descriptor, unsigned long rate) {
    Plugin *plugin = calloc(1, sizeof *plugin);
    (void)rate;
    plugin->descriptor = descriptor;
    return plugin;
}

static void connect(LADSPA_Handle handle, unsigned long port, LADSPA_Data *data) {
    ((Plugin *)handle)->ports[port] = data;
}

static void activate(LADSPA_Handle handle) {
    Plugin *plugin = handle;
    memset(plugin->line, 0, sizeof plugin->line);
    plugin->place = plugin->runs = 0;
}

/* in, out, mode, latency: a delay by DELAY frames, which goes wrong when told to. */
static void fault(LADSPA_Handle handle, unsigned long frames) {
    Plugin *plugin = handle;
    LADSPA_Data **p = plugin->ports;
    const int mode = (int)p[2][0];
    volatile LADSPA_Data tiny = 1e-30F;
    for (unsigned long i = 0; i < frames; i++) {
        const LADSPA_Data x = p[0][i];
        p[1][i] = plugin->line[plugin->place];
        plugin->line[plugin->place] = x;
        plugin->place = (plugin->place + 1) % DELAY;
        if (mode == 3) {
            p[1][i] = NAN;
        } else if (mode == 5) { /* nothing is left where denormals are flushed */
            volatile LADSPA_Data less = tiny * 1e-12F;
            p[1][i] = less * 1e22F * 1e20F;
        }
    }
    *p[3] = mode == 4 ? 2 * DELAY : DELAY;
    if (mode == 1) {
        abort();
    }
    while (mode == 2) {
        tiny = tiny + 1;
    }
}

static void split(LADSPA_Handle handle, unsigned long frames) {
    LADSPA_Data **p = ((Plugin *)handle)->ports;
    for (unsigned long i = 0; i < frames; i++) {
        p[1][i] = p[0][i];
        p[2][i] = -2 * p[0][i];
    }
}

static void join(LADSPA_Handle handle, unsigned long frames) {
    LADSPA_Data **p = ((Plugin *)handle)->ports;
    for (unsigned long i = 0; i < frames; i++) {
        p[2][i] = p[0][i] - 3 * p[1][i];
    }
}

/* out = in * (the value of the control that `which` numbers), of the ten after it */
static void hints(LADSPA_Handle handle, unsigned long frames) {
    LADSPA_Data **p = ((Plugin *)handle)->ports;
    const LADSPA_Data value = *p[2 + (int)*p[2]];
    for (unsigned long i = 0; i < frames; i++) {
        p[1][i] = value;
    }
}

#define IN (LADSPA_PORT_INPUT | LADSPA_PORT_AUDIO)
#define OUT (LADSPA_PORT_OUTPUT | LADSPA_PORT_AUDIO)
#define TURN (LADSPA_PORT_INPUT | LADSPA_PORT_CONTROL)
#define SHOW (LADSPA_PORT_OUTPUT | LADSPA_PORT_CONTROL)
#define BOUNDED (LADSPA_HINT_BOUNDED_BELOW | LADSPA_HINT_BOUNDED_ABOVE)
#define WHOLE (LADSPA_HINT_INTEGER | LADSPA_HINT_DEFAULT_0)

#define PLUGIN(number, name, run, ...)                                                             \
    static const LADSPA_PortDescriptor name##_kinds[] = {__VA_ARGS__};                             \
    static const LADSPA_Descriptor name##_plugin = {                                               \
        number, #name, 0, "Test: " #name, "", "", sizeof name##_kinds / sizeof name##_kinds[0],    \
        name##_kinds, name##_names, name##_ranges, NULL, make, connect, activate, run, NULL, NULL, \
        NULL, free}

static const char *const fault_names[] = {"In", "Out", "Mode", "latency"};
static const LADSPA_PortRangeHint fault_ranges[] = {{0}, {0}, {BOUNDED | WHOLE, -0.1F, 9.1F}, {0}};
PLUGIN(0xf0001, fault, fault, IN, OUT, TURN, SHOW);

static const char *const split_names[] = {"In", "Left", "Right"};
static const LADSPA_PortRangeHint split_ranges[3];
PLUGIN(0xf0002, split, split, IN, OUT, OUT);

static const char *const join_names[] = {"Left", "Right", "Out"};
static const LADSPA_PortRangeHint join_ranges[3];
PLUGIN(0xf0003, join, join, IN, IN, OUT);

static const char *const wide_names[] = {"1", "2", "3", "Out"};
static const LADSPA_PortRangeHint wide_ranges[4];
PLUGIN(0xf0004, wide, join, IN, IN, IN, OUT);

static const char *const hints_names[] = {
    "In",          "Out",          "Which",  "Cutoff (Hz)", "Decay time [ms]", "Hard knee",
    "Voices (1-4)", "Gain (dB)", "Open", "Gain (dB)", "Ratio (1:n)", "A440"};
static const LADSPA_PortRangeHint hints_ranges[PORTS] = {
    {0},
    {0},
    {BOUNDED | WHOLE, 0, 9},
    {BOUNDED | LADSPA_HINT_SAMPLE_RATE | LADSPA_HINT_LOGARITHMIC | LADSPA_HINT_DEFAULT_MIDDLE,
     0.0001F, 0.4F},
    {BOUNDED | LADSPA_HINT_DEFAULT_LOW, 0, 1000},
    {LADSPA_HINT_TOGGLED | LADSPA_HINT_DEFAULT_1, 0, 0},
    {BOUNDED | LADSPA_HINT_INTEGER | LADSPA_HINT_DEFAULT_MAXIMUM, 0.9F, 4.1F},
    {BOUNDED | LADSPA_HINT_DEFAULT_HIGH, -60, 20},
    {0},
    {BOUNDED | LADSPA_HINT_DEFAULT_MINIMUM, -1, 1},
    {LADSPA_HINT_BOUNDED_BELOW | LADSPA_HINT_DEFAULT_100, 1, 0},
    {LADSPA_HINT_DEFAULT_440, 0, 0}};
PLUGIN(0xf0005, hints, hints, IN, OUT, TURN, TURN, TURN, TURN, TURN, TURN, TURN, TURN, TURN, TURN);

const LADSPA_Descriptor *ladspa_descriptor(unsigned long index) {
    static const LADSPA_Descriptor *const all[] = {&fault_plugin, &split_plugin, &join_plugin,
                                                   &wide_plugin, &hints_plugin};
    return index < sizeof all / sizeof all[0] ? all[index] : NULL;
}

#ifdef CRASHES
__attribute__((constructor)) static void crash(void) {
    abort();
}
#endif
