/* realtime_sep: the native part of the live engine.  It knows no Python.
 *
 * This header has no preprocessor lines on purpose: setup.py hands it to cffi word for word as the
 * cdef, so there is one description of the interface.  C sources include <stdint.h> before it.
 *
 * Units: a frame is one sample of every channel; samples are interleaved float32; times are
 * nanoseconds of the monotonic clock.  Functions that make something return NULL and set errno when
 * they cannot.  Marked [rt]: never allocates, locks, logs or waits.
 */

/* ---- ring.c: lock-free frame ring, one producer thread, one consumer thread ------------------ */

typedef struct rs_ring rs_ring;

/* A claimed stretch of the ring.  `second` is NULL and empty unless the stretch wraps around, which
 * it never does on a mirrored ring. */
typedef struct {
    float *first;
    uint64_t first_frames;
    float *second;
    uint64_t second_frames;
} rs_span;

/* At least `frames` of capacity, rounded up to a power of two (and, for a mirrored ring, to whole
 * pages).  `mirror` asks for the storage to be mapped twice in a row; where the platform cannot,
 * the ring is a plain one: ask rs_ring_mirrored(). */
rs_ring *rs_ring_new(uint64_t frames, uint32_t channels, int mirror);

/* The same ring in memory that several processes share: `rs_ring_bytes` tells how much is needed,
 * `rs_ring_place` lays it out, `rs_ring_attach` opens what another process has laid out (NULL and
 * EINVAL if `memory` of `bytes` does not hold a ring).  The memory must outlive the ring and is not
 * freed with it. */
uint64_t rs_ring_bytes(uint64_t frames, uint32_t channels);
rs_ring *rs_ring_place(void *memory, uint64_t bytes, uint64_t frames, uint32_t channels);
rs_ring *rs_ring_attach(void *memory, uint64_t bytes);

void rs_ring_free(rs_ring *ring);
uint64_t rs_ring_capacity(const rs_ring *ring);
uint32_t rs_ring_channels(const rs_ring *ring);
int rs_ring_mirrored(const rs_ring *ring);
float *rs_ring_storage(rs_ring *ring);

/* Frames ever written and ever read: 64-bit, never wrapping in practice.  They are the timeline. */
uint64_t rs_ring_written(const rs_ring *ring);
uint64_t rs_ring_consumed(const rs_ring *ring);
uint64_t rs_ring_read_space(const rs_ring *ring);
uint64_t rs_ring_write_space(const rs_ring *ring);

/* Set both counters.  Only while neither side runs. */
void rs_ring_seek(rs_ring *ring, uint64_t frames);

/* Claim up to `frames`, then commit what was used (at most what was claimed).  Returns the frames
 * granted.  [rt] */
uint64_t rs_ring_claim_write(rs_ring *ring, uint64_t frames, rs_span *span);
void rs_ring_commit_write(rs_ring *ring, uint64_t frames);
uint64_t rs_ring_claim_read(rs_ring *ring, uint64_t frames, rs_span *span);
void rs_ring_commit_read(rs_ring *ring, uint64_t frames);

/* Copy in or out as many frames as fit; `data` NULL writes silence or discards.  [rt] */
uint64_t rs_ring_write(rs_ring *ring, const float *data, uint64_t frames);
uint64_t rs_ring_read(rs_ring *ring, float *data, uint64_t frames);

/* ---- wake.c: a semaphore that an audio callback may post ------------------------------------- */

typedef struct rs_wake rs_wake;

rs_wake *rs_wake_new(void);
void rs_wake_free(rs_wake *wake);
void rs_wake_post(rs_wake *wake); /* [rt] */
/* 1 if posted (all posts so far are taken at once), 0 after `seconds`. */
int rs_wake_wait(rs_wake *wake, double seconds);

/* ---- thread.c: what a thread asks of the operating system ---------------------------------- */

uint64_t rs_now(void);
/* CPU time used by the calling thread. */
uint64_t rs_thread_cpu(void);
/* SCHED_FIFO (or the platform's nearest) for the calling thread, not for what it starts afterwards;
 * 0 or an errno. */
int rs_thread_realtime(int priority);
/* Whether denormals are zero in the calling thread from now on; returns whether they were before, or
 * -1 where that cannot be set. */
int rs_thread_flush_denormals(int flush);
/* Keep the pages that the process has and will have in memory; 0 or an errno. */
int rs_lock_memory(void);

/* ---- watch.c: when did the machine itself stall? ------------------------------------------- */

/* A real-time thread that sleeps `period` ns again and again and notes when it wakes more than
 * `threshold` ns late: the machine stalled, nobody else is to blame. */
typedef struct rs_watch rs_watch;
typedef struct {
    uint64_t start; /* when it should have woken */
    uint64_t end;   /* when it did */
} rs_stall;

rs_watch *rs_watch_new(uint64_t period, uint64_t threshold, int priority);
void rs_watch_free(rs_watch *watch);
int rs_watch_realtime(const rs_watch *watch); /* 1 if the priority was granted */
uint64_t rs_watch_count(const rs_watch *watch);
/* The newest stalls, at most `room`, oldest first; returns how many.  The last 4096 are kept. */
uint64_t rs_watch_read(const rs_watch *watch, rs_stall *stalls, uint64_t room);

/* ---- bridge.c: the PortAudio callback -------------------------------------------------------- */

/* Moves frames between a device and two rings.  The input ring carries `channels`, the output ring
 * `out_channels`; the output ring is filled with `prefill` frames of silence when the bridge is
 * made.  The input ring must hold at least a hop, two of the largest blocks and the guard, the
 * output ring a hop, a largest block and the guard.
 *
 * Lateness.  `guard` finished frames are always held back, so that when the worker has not
 * delivered in time there is something left to fade: over `guard` frames to the dry signal (the
 * input delayed by `latency` frames, times the dry gain, clipped at `ceiling`, on the first
 * `channels` output channels; silence on the others).  Frames that the worker delivers after their
 * time are dropped (the debt), so latency never changes; once the debt is paid and the ring holds a
 * block and the guard again, the output fades back over `guard` frames.
 *
 * A bridge may have no input at all: `in` NULL, `in_channels` and `channels` 0.
 *
 * Overflow.  Input that finds the ring full is owed as silence and written as soon as there is
 * room, so the timeline never shifts; it fades out before and in afterwards, over `guard` frames.
 */
typedef struct rs_bridge rs_bridge;

typedef struct {
    uint32_t in_channels;  /* of the device; 0: no input, silence enters */
    uint32_t channels;     /* of the input ring: mono is copied to all, more are cut, fewer padded;
                              several to one are averaged */
    uint32_t out_channels; /* of the device and of the output ring; 0: no output, nothing is read */
    uint32_t max_block;    /* largest block that the host will ask for */
    uint32_t hop; /* frames that the worker takes at once: the wake is posted when the input
                     ring holds as many */
    uint32_t guard;
    uint64_t prefill;
    uint64_t latency;
    float ceiling; /* linear, for the dry signal */
    uint64_t longest; /* latency that rs_bridge_set_latency may come to ask for, if above `latency` */
    uint32_t music;   /* the first so many of `channels` make the dry signal, and are what
                         rs_bridge_play replaces; 0: all */
    int lossy;        /* input that finds the ring full is lost, not owed: a second device, whose
                         timeline is measured, not promised */
} rs_bridge_config;

typedef struct {
    uint64_t callbacks;
    uint64_t frames;          /* through the device so far */
    uint64_t xruns_in;        /* reported by the host: input overflow or underflow */
    uint64_t xruns_out;       /* reported by the host: output overflow or underflow */
    uint64_t late_blocks;     /* callbacks that found less than a block and the guard, while wet */
    uint64_t fades;           /* times that the output began to leave the wet signal */
    uint64_t dry_frames;      /* played without any wet part */
    uint64_t dropped_frames;  /* delivered after their time */
    uint64_t overflow_frames; /* input lost because the ring was full */
    uint64_t debt;            /* frames that will be dropped on arrival, now */
    uint64_t last_callback;   /* when, in ns */
    uint64_t last_late;       /* when, in ns; 0: never */
    uint64_t pauses;          /* times that no callback came for so long that the stream entered anew */
    uint64_t block;           /* frames of the last callback */
    uint64_t busy_max;        /* longest callback, ns */
    uint64_t busy_total;      /* ns spent in all callbacks */
} rs_bridge_stats;

rs_bridge *rs_bridge_new(const rs_bridge_config *config, rs_ring *in, rs_ring *out, rs_wake *wake);
void rs_bridge_free(rs_bridge *bridge);

/* The callback itself, of PortAudio's type (PaStreamCallback).  Returns 0 (continue), or 1
 * (complete) once rs_bridge_finish has faded to silence.  [rt] */
int rs_bridge_callback(const void *input, void *output, unsigned long frames, const void *time_info,
                       unsigned long status_flags, void *bridge);

/* Gain of the dry signal in the fallback, slewed by 1 over `guard` frames; 0 is silence; 1 until
 * this is called.  Any thread. */
void rs_bridge_set_dry(rs_bridge *bridge, float gain);
/* What comes out is from now on so many frames behind what comes in, at most `longest` of them; the
 * dry signal follows as soon as nothing of it is heard.  Any thread. */
void rs_bridge_set_latency(rs_bridge *bridge, uint64_t latency);
/* Instead of the device's input, these frames of `music` channels enter, again and again; they must
 * stay where they are.  Only before the first callback. */
void rs_bridge_play(rs_bridge *bridge, const float *source, uint64_t frames);
/* Entering: the output is silent for `latency` frames, until what has come in since comes out, and
 * then fades in over `guard` frames.  From the start on if `now`, and whenever no callback has come
 * for `pause` ns (0: never): the sound before and after it does not belong together.  Only before
 * the first callback. */
void rs_bridge_enter(rs_bridge *bridge, uint64_t pause, int now);
/* Fade to silence over `guard` frames, then complete.  Any thread. */
void rs_bridge_finish(rs_bridge *bridge);
int rs_bridge_finished(const rs_bridge *bridge);
uint64_t rs_bridge_debt(const rs_bridge *bridge);
/* The device's clock: `time` in ns is when the last callback began, `frames` is where on its ring's
 * timeline the device then was: frames that have entered the input ring, those still owed included,
 * or, without an input, frames played of the output ring, those that lacked included.  Returns 0
 * before the first callback, or if no whole pair could be read.  Any thread.  [rt] */
typedef struct {
    uint64_t frames;
    uint64_t time;
} rs_mark;
int rs_bridge_mark(const rs_bridge *bridge, rs_mark *mark);
void rs_bridge_read_stats(const rs_bridge *bridge, rs_bridge_stats *stats);
/* Counts of callback durations: bucket i holds those below 2^(i/4) ns (i < 128). */
void rs_bridge_read_busy(const rs_bridge *bridge, uint64_t *buckets);

/* ---- jack.c: a client of a JACK server ------------------------------------------------------- */

/* What JACK calls; whoever has opened the client and registered its ports hands these functions and
 * the object to JACK.  Of libjack only `buffer`, jack_port_get_buffer, is called from here, so
 * nothing is linked and no header of JACK's is needed. */
typedef struct rs_jack rs_jack;
typedef void *(*rs_jack_buffer)(void *port, uint32_t frames);

/* As many ports as the bridge has channels of the device: `inputs`, then `outputs`.  `block` frames
 * are given to the bridge at once. */
rs_jack *rs_jack_new(rs_bridge *bridge, rs_jack_buffer buffer, void *const *inputs,
                     void *const *outputs, uint32_t block);
void rs_jack_free(rs_jack *jack);
/* JackProcessCallback, JackXRunCallback, JackSampleRateCallback, JackShutdownCallback. */
int rs_jack_process(uint32_t frames, void *jack); /* [rt] */
int rs_jack_xrun(void *jack);
int rs_jack_rated(uint32_t samplerate, void *jack);
void rs_jack_shut(void *jack);
/* For what libjack would write to the terminal. */
void rs_jack_quiet(const char *message);
uint32_t rs_jack_samplerate(const rs_jack *jack); /* as told last; 0: never */
int rs_jack_gone(const rs_jack *jack);            /* 1 once the server has let go of the client */

/* ---- ladspa.c: plugins of the LADSPA kind ---------------------------------------------------- */

/* What a library tells of a plugin, as LADSPA 1.1 lays it out.  `ports` are bits: 1 input, 2 output,
 * 4 control, 8 audio.  `hints` of a port, bits too: 1 and 2 the bounds `lower` and `upper` count,
 * 4 on or off, 8 the bounds are multiples of the sample rate, 16 logarithmic, 32 whole numbers, and
 * the kind of its default in 0x3c0. */
typedef struct rs_ladspa_descriptor rs_ladspa_descriptor;
typedef struct {
    int hints;
    float lower;
    float upper;
} rs_ladspa_range;

struct rs_ladspa_descriptor {
    unsigned long id;
    const char *label;
    int properties;
    const char *name;
    const char *maker;
    const char *copyright;
    unsigned long port_count;
    const int *ports;
    const char *const *port_names;
    const rs_ladspa_range *ranges;
    void *implementation;
    void *(*instantiate)(const rs_ladspa_descriptor *descriptor, unsigned long samplerate);
    void (*connect_port)(void *handle, unsigned long port, float *data);
    void (*activate)(void *handle); /* this one, and the next but `run` and `cleanup`, may be NULL */
    void (*run)(void *handle, unsigned long frames);
    void (*run_adding)(void *handle, unsigned long frames);
    void (*set_run_adding_gain)(void *handle, float gain);
    void (*deactivate)(void *handle);
    void (*cleanup)(void *handle);
};

/* The plugin of this number in a library, which stays loaded for good.  NULL: there is none, and
 * `*why` says why if it is not that the numbers are at their end. */
const rs_ladspa_descriptor *rs_ladspa_find(const char *path, uint64_t index, const char **why);
/* How many audio ports it has. */
void rs_ladspa_fit(const rs_ladspa_descriptor *descriptor, uint32_t *inputs, uint32_t *outputs);

/* A plugin of one or two inputs and outputs, made for a stream of one or two `channels`.  One that
 * has one of each runs once per channel; else two signals for one place are averaged, and one for
 * two goes to both.  NULL and EINVAL if it does not fit, ENOMEM if it cannot be made. */
typedef struct rs_ladspa rs_ladspa;
rs_ladspa *rs_ladspa_new(const rs_ladspa_descriptor *descriptor, uint32_t samplerate,
                         uint32_t channels, uint32_t max_frames);
void rs_ladspa_free(rs_ladspa *plugin);
/* One value per port, whatever it is: write those of control inputs, read those of outputs. */
float *rs_ladspa_controls(rs_ladspa *plugin);
/* Forget the past; the plugin may allocate. */
void rs_ladspa_reset(rs_ladspa *plugin);
/* Change interleaved frames in place; [rt] as far as the plugin is. */
void rs_ladspa_run(rs_ladspa *plugin, float *block, uint32_t frames);

/* ---- hatch.c: blocks to another process, and what it makes of them back ---------------------- */

/* A page of bells and three rings in shared memory: audio and orders go in, results come out.  Who
 * hands in and who serves are one thread each, of two processes or of one.  An order goes with every
 * block: `values` numbers that mean nothing here, all of them as they are now. */
typedef struct rs_hatch rs_hatch;

/* What `rs_hatch_place` needs: `frames` of audio at least, as many orders as `blocks`. */
uint64_t rs_hatch_bytes(uint64_t frames, uint32_t channels, uint64_t blocks, uint32_t values);
/* Lay it out in `memory`, zeroed or that of an older hatch at rest; open what is laid out. */
rs_hatch *rs_hatch_place(void *memory, uint64_t bytes, uint64_t frames, uint32_t channels,
                         uint64_t blocks, uint32_t values);
rs_hatch *rs_hatch_attach(void *memory, uint64_t bytes);
void rs_hatch_free(rs_hatch *hatch);

/* Who serves can be called for something else, by any thread, and waits for that here while there is
 * no hatch yet: the first page of the memory suffices, zeroed at first. */
void rs_hatch_call(void *memory);
int rs_hatch_called(void *memory, double seconds); /* 1 if called, 0 after `seconds` */

/* Hand in `frames` with an order; 0 if there is no room.  [rt] */
int rs_hatch_put(rs_hatch *hatch, const float *block, uint64_t frames, const double *order);
/* Take the `frames` that begin at `start`, counted from the first result; older ones are dropped,
 * and those before `silent` are silence.  1; 0 if they are not all there; -1 if they were, and are
 * not finite.  [rt] */
int rs_hatch_take(rs_hatch *hatch, float *block, uint64_t frames, uint64_t start, uint64_t silent);
/* Wait until so many frames have been made in all; whether they have. */
int rs_hatch_await(rs_hatch *hatch, uint64_t frames, double seconds);
/* When the last result was there, in ns. */
uint64_t rs_hatch_made(const rs_hatch *hatch);

/* For who serves: wait for a block of at most `most` frames; how many it has, 0 after `seconds` or a
 * call.  `order` is filled as it was handed in. */
uint64_t rs_hatch_next(rs_hatch *hatch, float *block, uint64_t most, double *order, double seconds);
/* What was made of it (NULL: silence); 0 if there is no room. */
int rs_hatch_give(rs_hatch *hatch, const float *block, uint64_t frames);

/* ---- null_device.c: a device without hardware ------------------------------------------------ */

/* Calls the bridge from a thread of its own, as a sound card would: at the pace of the clock, or as
 * fast as the worker delivers (the worker commits its output before it commits its input, so an
 * input ring with less than a hop means that everything possible is delivered).  A clocked device
 * that wakes more than its largest block late behaves like a card that ran dry: it starts its clock
 * anew and reports an xrun. */
typedef struct rs_null rs_null;

typedef struct {
    double samplerate;
    uint32_t in_channels;
    uint32_t out_channels;
    const uint32_t *blocks; /* block sizes, used in turn, again and again */
    uint32_t block_count;
    const float *source; /* in_channels wide; NULL: silence */
    uint64_t source_frames;
    int loop;       /* repeat the source, else silence follows it */
    float *capture; /* out_channels wide, or NULL */
    uint64_t capture_frames;
    uint64_t frames; /* stop after as many; 0: run until stopped */
    int clocked;
    int priority; /* SCHED_FIFO priority to try for; 0: none */
} rs_null_config;

/* `blocks` is copied; `source` and `capture` must outlive the device.  `in` is the bridge's; NULL if
 * it has none, which only a clocked device can do with. */
rs_null *rs_null_new(const rs_null_config *config, rs_bridge *bridge, const rs_ring *in);
int rs_null_start(rs_null *device); /* 0 or an errno */
void rs_null_stop(rs_null *device); /* at once; joins the thread */
void rs_null_free(rs_null *device);
int rs_null_running(const rs_null *device);
uint64_t rs_null_position(const rs_null *device); /* frames so far */
