/* The audio side of the plugins. */
#include <math.h>
#include <string.h>

#include "link.h"
#include "plugin.h"

enum {
    CHUNK = 1024,   /* frames that are moved at once */
    LINE = 1 << 15, /* frames of the input that are remembered while there is no engine */
    FADE = 1024,    /* frames in which a session takes over */
    WIDTH = 2 * RS_PLUGIN_BUSES,
    /* What is assumed of the engine before there is one: `center`'s, so that the latency need not
     * change when it comes. */
    ASSUMED_HOP = 256,
    ASSUMED_LATENCY = 256,
};

struct rs_plugin {
    rs_link *link;
    uint32_t samplerate;
    uint32_t buses;
    rs_wish wish;
    rs_session *current; /* what is heard; NULL: none yet */
    rs_session *next;    /* what takes over */
    rs_session *old;     /* to be put down */
    uint64_t listening;  /* frames until `next` begins to be heard */
    uint64_t faded;      /* frames since */
    uint64_t position;
    uint64_t lag; /* without a session */
    int given_up;   /* waiting for one */
    int waited;     /* when it ran last */
    uint64_t muted; /* frames that are still of what is to be forgotten */
    float line[2 * LINE];
    float input[2 * CHUNK];
    float output[WIDTH * CHUNK];
    float other[WIDTH * CHUNK];
};

rs_plugin *rs_plugin_new(double samplerate, int stems) {
    if (!(samplerate >= 1000 && samplerate <= 1e6)) {
        return NULL;
    }
    rs_plugin *plugin = rs_memory_new(sizeof *plugin);
    if (plugin == NULL) {
        return NULL;
    }
    plugin->samplerate = (uint32_t)lround(samplerate);
    plugin->buses = stems ? RS_PLUGIN_BUSES : 1;
    plugin->link = rs_link_new(plugin->samplerate, plugin->buses);
    if (plugin->link == NULL) {
        rs_memory_free(plugin);
        return NULL;
    }
    return plugin;
}

static void drop_all(rs_plugin *plugin) {
    rs_session_free(plugin->old);
    rs_session_free(plugin->next);
    rs_session_free(plugin->current);
    plugin->old = plugin->next = plugin->current = NULL;
}

void rs_plugin_free(rs_plugin *plugin) {
    if (plugin != NULL) {
        rs_link_free(plugin->link);
        drop_all(plugin);
        rs_memory_free(plugin);
    }
}

uint64_t rs_plugin_latency(const rs_plugin *plugin) {
    return plugin->current != NULL ? plugin->current->latency : plugin->lag;
}

/* Live, what has come in before is not let out, and the separator keeps what it knows of the music: a
 * sink that wakes up is heard at once.  Offline everything begins anew, with another separator. */
void rs_plugin_reset(rs_plugin *plugin) {
    if (plugin->position > 0 && !plugin->waited) {
        plugin->muted = rs_plugin_latency(plugin);
    } else if (plugin->position > 0) {
        rs_link_free(plugin->link);
        drop_all(plugin);
        memset(plugin->line, 0, sizeof plugin->line);
        plugin->position = 0;
        plugin->muted = 0;
        plugin->given_up = 0;
        plugin->wish = (rs_wish){0};
        plugin->link = rs_link_new(plugin->samplerate, plugin->buses);
    }
}

unsigned rs_plugin_choice(float value) {
    return value > 0 && value < RS_PLUGIN_MODELS ? (unsigned)(value + 0.5F) : 0;
}

static float gain(float db) {
    const float bounded = db < RS_PLUGIN_HIGHEST ? db : RS_PLUGIN_HIGHEST;
    return db > RS_PLUGIN_LOWEST ? powf(10, bounded / 20) : 0; /* also for what is no number */
}

static void steer(rs_session *session, const rs_plugin_controls *controls) {
    if (session != NULL) {
        rs_segment *to = session->segment;
        atomic_store_explicit(&to->vocals, gain(controls->vocals), memory_order_relaxed);
        atomic_store_explicit(&to->music, gain(controls->music), memory_order_relaxed);
        atomic_store_explicit(&to->bypass, controls->bypass != 0, memory_order_relaxed);
        atomic_store_explicit(&to->wait, controls->wait != 0, memory_order_relaxed);
    }
}

/* Another block may ask for another session, with more time to compute in or to gather. */
static void want(rs_plugin *plugin, const rs_plugin_controls *controls, uint32_t frames) {
    rs_wish *wish = &plugin->wish;
    const uint32_t block = frames < RS_MAX_BLOCK ? frames : RS_MAX_BLOCK;
    if (wish->block == 0) {
        wish->block = block;
        plugin->lag = rs_latency(wish, ASSUMED_HOP, ASSUMED_LATENCY);
    } else if (!controls->wait && block > wish->block) {
        while (wish->block < block) {
            wish->block = wish->block * 2 < RS_MAX_BLOCK ? wish->block * 2 : RS_MAX_BLOCK;
        }
        wish->any |= block % wish->block != 0;
    } else if (!controls->wait) {
        wish->any |= block % wish->block != 0;
    }
    wish->model = controls->model;
    rs_link_wish(plugin->link, rs_wish_pack(wish));
}

/* Look for a session that takes over, and let the one before go. */
static void receive(rs_plugin *plugin, int wait) {
    if (plugin->old != NULL && rs_link_put(plugin->link, plugin->old)) {
        plugin->old = NULL;
    }
    if (plugin->next != NULL && atomic_load_explicit(&plugin->next->dead, memory_order_relaxed) &&
        plugin->old == NULL) {
        plugin->old = plugin->next;
        plugin->next = NULL;
    }
    if (plugin->next != NULL || plugin->old != NULL) {
        return;
    }
    const int none = plugin->current == NULL || atomic_load(&plugin->current->dead);
    if (wait && none && !plugin->given_up) {
        plugin->given_up = !rs_link_wait(plugin->link);
    }
    plugin->next = rs_link_take(plugin->link);
    if (plugin->next != NULL) {
        plugin->given_up = 0;
        plugin->faded = 0;
        plugin->listening = plugin->next->latency + plugin->samplerate / 2;
        if (wait && plugin->position == 0) { /* there is nothing to fade from */
            plugin->current = plugin->next;
            plugin->next = NULL;
        }
    }
}

/* Let an engine that is waited for do all that it can.  Returns how many of `frames` may be moved
 * at once: blocks that come as they like leave less in hand than regular ones. */
static uint32_t catch_up(rs_session *session, uint32_t frames) {
    if (session == NULL || atomic_load(&session->dead)) {
        return frames;
    }
    if (!rs_session_wait(session)) {
        atomic_store(&session->dead, 1);
        return frames;
    }
    const uint64_t finished = rs_ring_read_space(session->out);
    const uint64_t most = finished > RS_GUARD ? finished - RS_GUARD : 1;
    return frames < most ? frames : (uint32_t)most;
}

static void pass(const rs_session *session, const float *input, float *output, uint32_t frames) {
    rs_bridge_callback(input, output, frames, NULL, 0, session->bridge);
    if (rs_ring_read_space(session->in) >= session->hop) {
        rs_session_ring(session);
    }
}

/* The input, late, where there never was an engine. */
static void pass_dry(rs_plugin *plugin, float *output, uint32_t frames) {
    const uint32_t width = 2 * plugin->buses;
    memset(output, 0, (size_t)frames * width * sizeof(float));
    for (uint32_t i = 0; i < frames; i++) {
        const uint64_t from = (plugin->position + i - plugin->lag) & (LINE - 1);
        memcpy(output + (size_t)i * width, plugin->line + 2 * from, 2 * sizeof(float));
    }
}

/* Let `next` be heard more and more, and then alone. */
static void cross(rs_plugin *plugin, uint32_t frames) {
    const uint32_t width = 2 * plugin->buses;
    for (uint32_t i = 0; i < frames; i++) {
        if (plugin->listening > 0) {
            plugin->listening--;
            continue;
        }
        plugin->faded += plugin->faded < FADE;
        const float share = (float)plugin->faded / (float)FADE;
        for (uint32_t c = 0; c < width; c++) {
            float *sample = plugin->output + (size_t)i * width + c;
            *sample += share * (plugin->other[(size_t)i * width + c] - *sample);
        }
    }
    if (plugin->faded == FADE) {
        plugin->old = plugin->current;
        plugin->current = plugin->next;
        plugin->next = NULL;
    }
}

static void remember(rs_plugin *plugin, uint32_t frames) {
    for (uint32_t i = 0; i < frames; i++) {
        const uint64_t to = (plugin->position + i) & (LINE - 1);
        memcpy(plugin->line + 2 * to, plugin->input + 2 * (size_t)i, 2 * sizeof(float));
    }
}

void rs_plugin_run(rs_plugin *plugin, const rs_plugin_controls *controls, const float *const *in,
                   float *const *out, uint32_t frames) {
    const uint32_t width = 2 * plugin->buses;
    if (plugin->link == NULL || frames == 0) {
        return;
    }
    want(plugin, controls, frames);
    plugin->waited = controls->wait;
    for (uint32_t done = 0; done < frames;) {
        receive(plugin, controls->wait);
        steer(plugin->current, controls);
        steer(plugin->next, controls);
        const uint32_t most = plugin->wish.block < CHUNK ? plugin->wish.block : CHUNK;
        uint32_t some = frames - done < most ? frames - done : most;
        if (controls->wait) {
            some = catch_up(plugin->current, some);
            some = catch_up(plugin->next, some);
        }
        for (uint32_t i = 0; i < some; i++) {
            plugin->input[2 * i] = in[0][done + i];
            plugin->input[2 * i + 1] = in[1][done + i];
        }
        remember(plugin, some);
        if (plugin->current != NULL) {
            pass(plugin->current, plugin->input, plugin->output, some);
        } else {
            pass_dry(plugin, plugin->output, some);
        }
        if (plugin->next != NULL) {
            pass(plugin->next, plugin->input, plugin->other, some);
            cross(plugin, some);
        }
        const uint64_t muted = plugin->muted < some ? plugin->muted : some;
        memset(plugin->output, 0, (size_t)muted * width * sizeof(float));
        plugin->muted -= muted;
        for (uint32_t c = 0; c < width; c++) {
            for (uint32_t i = 0; out[c] != NULL && i < some; i++) {
                out[c][done + i] = plugin->output[(size_t)i * width + c];
            }
        }
        plugin->position += some;
        done += some;
    }
}
