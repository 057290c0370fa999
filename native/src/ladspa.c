/* LADSPA plugins: a library opened, a plugin made for a stream of one or two channels, and run on
 * interleaved blocks.  Nothing of LADSPA's is needed to compile it: the header says what the plugin
 * interface looks like, which has not changed since 2002. */
#if defined(_WIN32)
#include <windows.h>
#else
#include <dlfcn.h>
#endif

#include <errno.h>
#include <string.h>

#include "internal.h"

/* What a port is. */
enum { INPUT = 1, OUTPUT = 2, CONTROL = 4, AUDIO = 8 };
enum { MAX_CHANNELS = 2, MAX_PORTS = 4096 };

struct rs_ladspa {
    const rs_ladspa_descriptor *descriptor;
    uint32_t channels; /* of the stream */
    uint32_t inputs;   /* of one instance */
    uint32_t outputs;
    uint32_t instances;
    uint32_t max_frames;
    void *handles[MAX_CHANNELS];
    float *in[MAX_CHANNELS]; /* of all instances together, `max_frames` each */
    float *out[MAX_CHANNELS];
    float *controls; /* one per port */
};

typedef const rs_ladspa_descriptor *(*entry)(unsigned long index);

/* The library stays open: there are some that do not survive being closed. */
static void *find(const char *path, const char **why) {
#if defined(_WIN32)
    const HMODULE library = LoadLibraryA(path);
    *why = library == NULL ? "it cannot be loaded" : "it is no LADSPA library";
    return library == NULL ? NULL : (void *)(uintptr_t)GetProcAddress(library, "ladspa_descriptor");
#else
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) {
        *why = dlerror();
        return NULL;
    }
    *why = "it is no LADSPA library";
    return dlsym(library, "ladspa_descriptor");
#endif
}

const rs_ladspa_descriptor *rs_ladspa_find(const char *path, uint64_t index, const char **why) {
    void *symbol = find(path, why);
    entry function;
    if (symbol == NULL) {
        return NULL;
    }
    memcpy(&function, &symbol, sizeof function); /* ISO C knows no cast for this */
    *why = NULL;
    return function((unsigned long)index);
}

void rs_ladspa_fit(const rs_ladspa_descriptor *descriptor, uint32_t *inputs, uint32_t *outputs) {
    *inputs = *outputs = 0;
    for (unsigned long p = 0; p < descriptor->port_count; p++) {
        const int port = descriptor->ports[p];
        *inputs += (port & AUDIO) && (port & INPUT);
        *outputs += (port & AUDIO) && (port & OUTPUT);
    }
}

static int make_instance(rs_ladspa *plugin, uint32_t number, uint32_t samplerate) {
    const rs_ladspa_descriptor *d = plugin->descriptor;
    void *handle = d->instantiate(d, samplerate);
    if (handle == NULL) {
        return 0;
    }
    plugin->handles[number] = handle;
    plugin->instances = number + 1;
    uint32_t in = number * plugin->inputs;
    uint32_t out = number * plugin->outputs;
    for (unsigned long p = 0; p < d->port_count; p++) {
        const int port = d->ports[p];
        if (!(port & AUDIO)) {
            d->connect_port(handle, p, plugin->controls + p);
        } else {
            d->connect_port(handle, p, port & INPUT ? plugin->in[in++] : plugin->out[out++]);
        }
    }
    if (d->activate != NULL) {
        d->activate(handle);
    }
    return 1;
}

rs_ladspa *rs_ladspa_new(const rs_ladspa_descriptor *descriptor, uint32_t samplerate,
                         uint32_t channels, uint32_t max_frames) {
    uint32_t inputs;
    uint32_t outputs;
    rs_ladspa_fit(descriptor, &inputs, &outputs);
    if (inputs < 1 || inputs > MAX_CHANNELS || outputs < 1 || outputs > MAX_CHANNELS ||
        channels < 1 || channels > MAX_CHANNELS || max_frames < 1 || samplerate < 1 ||
        descriptor->port_count > MAX_PORTS) {
        errno = EINVAL;
        return NULL;
    }
    rs_ladspa *plugin = rs_memory_new(sizeof *plugin);
    if (plugin == NULL) {
        return NULL;
    }
    const uint32_t instances = inputs == 1 && outputs == 1 ? channels : 1;
    *plugin = (rs_ladspa){.descriptor = descriptor,
                          .channels = channels,
                          .inputs = inputs,
                          .outputs = outputs,
                          .max_frames = max_frames};
    int good = (plugin->controls = rs_memory_new(descriptor->port_count * sizeof(float))) != NULL;
    for (uint32_t i = 0; i < MAX_CHANNELS; i++) {
        plugin->in[i] = rs_memory_new(max_frames * sizeof(float));
        plugin->out[i] = rs_memory_new(max_frames * sizeof(float));
        good = good && plugin->in[i] != NULL && plugin->out[i] != NULL;
    }
    for (uint32_t i = 0; good && i < instances; i++) {
        good = make_instance(plugin, i, samplerate);
    }
    if (!good) {
        rs_ladspa_free(plugin);
        errno = ENOMEM;
        return NULL;
    }
    return plugin;
}

void rs_ladspa_free(rs_ladspa *plugin) {
    if (plugin == NULL) {
        return;
    }
    for (uint32_t i = 0; i < plugin->instances; i++) {
        if (plugin->descriptor->deactivate != NULL) {
            plugin->descriptor->deactivate(plugin->handles[i]);
        }
        plugin->descriptor->cleanup(plugin->handles[i]);
    }
    for (uint32_t i = 0; i < MAX_CHANNELS; i++) {
        rs_memory_free(plugin->in[i]);
        rs_memory_free(plugin->out[i]);
    }
    rs_memory_free(plugin->controls);
    rs_memory_free(plugin);
}

float *rs_ladspa_controls(rs_ladspa *plugin) {
    return plugin->controls;
}

void rs_ladspa_reset(rs_ladspa *plugin) {
    const rs_ladspa_descriptor *d = plugin->descriptor;
    for (uint32_t i = 0; i < plugin->instances; i++) {
        if (d->deactivate != NULL) {
            d->deactivate(plugin->handles[i]);
        }
        if (d->activate != NULL) {
            d->activate(plugin->handles[i]);
        }
    }
}

/* One signal for two places goes to both; two signals for one place are averaged. */
static void take(const rs_ladspa *plugin, const float *block, uint32_t frames) {
    const uint32_t channels = plugin->channels;
    const uint32_t inputs = plugin->inputs * plugin->instances;
    for (uint32_t c = 0; c < inputs; c++) {
        float *in = plugin->in[c];
        for (uint32_t i = 0; i < frames; i++) {
            const float *frame = block + (size_t)i * channels;
            in[i] = channels > inputs ? 0.5F * (frame[0] + frame[1]) : frame[c % channels];
        }
    }
}

static void give(const rs_ladspa *plugin, float *block, uint32_t frames) {
    const uint32_t channels = plugin->channels;
    const uint32_t outputs = plugin->outputs * plugin->instances;
    for (uint32_t i = 0; i < frames; i++) {
        for (uint32_t c = 0; c < channels; c++) {
            block[(size_t)i * channels + c] = outputs > channels
                                                  ? 0.5F * (plugin->out[0][i] + plugin->out[1][i])
                                                  : plugin->out[c % outputs][i];
        }
    }
}

void rs_ladspa_run(rs_ladspa *plugin, float *block, uint32_t frames) {
    while (frames > 0) {
        const uint32_t some = frames < plugin->max_frames ? frames : plugin->max_frames;
        take(plugin, block, some);
        for (uint32_t i = 0; i < plugin->instances; i++) {
            plugin->descriptor->run(plugin->handles[i], some);
        }
        give(plugin, block, some);
        block += (size_t)some * plugin->channels;
        frames -= some;
    }
}
