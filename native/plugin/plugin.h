/* What the LADSPA and the LV2 plugin share: everything but their ports.
 *
 * A plugin carries no separator.  It moves frames through rings in shared memory to a process that
 * has one (`realtime-sep bridge`), by the same callback that moves them between sound cards and the
 * engine (native/src/bridge.c): what comes late, or never, is replaced by the input, as late as what
 * it stands for.  Marked [rt]: never allocates, locks, logs or waits, unless it is told to wait. */
#ifndef RS_PLUGIN_H
#define RS_PLUGIN_H

#include <stdint.h>

enum {
    RS_PLUGIN_MODELS = 5, /* choices of the control `model`; native/plugin/link.c names them */
    RS_PLUGIN_BUSES = 3,  /* stereo: the mix, the vocals, the accompaniment */
};

/* Where the faders end below, in dB: there they are off. */
#define RS_PLUGIN_LOWEST (-60.0F)
#define RS_PLUGIN_HIGHEST 6.0F

typedef struct rs_plugin rs_plugin;

typedef struct {
    float vocals; /* dB */
    float music;  /* dB */
    int bypass;   /* the input, as late as ever */
    unsigned model;
    int wait; /* for the engine: offline, where no clock presses */
} rs_plugin_controls;

/* The model that a port's value stands for. */
unsigned rs_plugin_choice(float value);

/* `stems`: whether the buses of the stems are wanted besides the mix.  NULL: no memory, or a rate
 * that sound does not have. */
rs_plugin *rs_plugin_new(double samplerate, int stems);
void rs_plugin_free(rs_plugin *plugin);
/* Forget the past; not while it runs. */
void rs_plugin_reset(rs_plugin *plugin);
/* `in` has two channels, `out` two for each bus; an `out` that is NULL is not wanted.  Buffers may
 * be the same.  [rt] */
void rs_plugin_run(rs_plugin *plugin, const rs_plugin_controls *controls, const float *const *in,
                   float *const *out, uint32_t frames);
/* Frames by which everything that came out last lags the input.  [rt] */
uint64_t rs_plugin_latency(const rs_plugin *plugin);

#endif
