/* The way to an engine: a session per stream, made by a thread of its own. */
#ifndef RS_LINK_H
#define RS_LINK_H

#include <stdatomic.h>

#include "internal.h"

/* Finished frames that are always held back, to fade with. */
enum { RS_GUARD = 64 };

/* What a session is to be like; one word, so that the audio thread can say it at once. */
typedef struct {
    uint32_t block; /* frames that come at once, at most */
    int any;        /* whether there are blocks that are no multiple of it */
    unsigned model;
} rs_wish;

enum { RS_MAX_BLOCK = 1 << 14 };

uint64_t rs_wish_pack(const rs_wish *wish); /* never 0 */
rs_wish rs_wish_unpack(uint64_t word);

/* The first page of what plugin and engine share; rings follow.  realtime_sep/bridge/segment.py
 * reads the same.  The first two fields stay where they are in every version. */
enum { RS_SEGMENT_ABI = 1 };
#define RS_SEGMENT_MAGIC UINT64_C(0x656764697262735f) /* also tells the byte order */

typedef struct {
    uint64_t magic;
    uint32_t abi;
    uint32_t samplerate;
    uint64_t bytes;    /* of the segment */
    uint64_t input_at; /* where the ring of the input begins, and the ring of the output */
    uint64_t output_at;
    char model[128]; /* UTF-8, ends with a zero; empty: as the engine likes */
    /* Written by the plugin while it runs. */
    _Atomic uint64_t prefill; /* frames of silence with which the output began */
    _Atomic float vocals;     /* linear gains */
    _Atomic float music;
    _Atomic uint32_t bypass;
    _Atomic uint32_t wait;
} rs_segment;

_Static_assert(sizeof(rs_segment) == 192, "as in segment.py");

/* What the engine answers; an `error` that is not empty says why it will not. */
typedef struct {
    uint32_t abi;
    uint32_t hop;
    uint64_t latency; /* of the separator */
    char error[240];
} rs_answer;

_Static_assert(sizeof(rs_answer) == 256, "as in segment.py");

typedef struct {
    uint64_t wish;    /* packed: what it was made for */
    uint64_t latency; /* frames from input to output */
    uint32_t hop;
    int socket; /* its end is the engine's end */
    int bell;   /* eventfd: there is a hop; written by the plugin */
    int done;   /* eventfd: a hop is finished; written by the engine */
    rs_segment *segment;
    uint64_t bytes;
    rs_ring *in;
    rs_ring *out;
    rs_bridge *bridge;
    atomic_int dead; /* nobody is at the other end any more */
} rs_session;

typedef struct rs_link rs_link;

rs_link *rs_link_new(uint32_t samplerate, uint32_t buses);
/* Ends the thread.  Sessions that the audio thread holds are to be freed by `rs_session_free`. */
void rs_link_free(rs_link *link);
void rs_session_free(rs_session *session);

/* For the audio thread.  [rt] */
void rs_link_wish(rs_link *link, uint64_t wish);
/* A session that has been made, or NULL. */
rs_session *rs_link_take(rs_link *link);
/* Put a session down; 0 while there is no place for it. */
int rs_link_put(rs_link *link, rs_session *session);
/* Let the engine look. */
void rs_session_ring(const rs_session *session);

/* For an audio thread that may wait: until there is a session to take (1), or making one has
 * failed (0). */
int rs_link_wait(rs_link *link);
/* Until the engine has done all that it can; 0: it is gone, or hangs. */
int rs_session_wait(rs_session *session);

/* Frames from input to output with such an engine. */
uint64_t rs_latency(const rs_wish *wish, uint32_t hop, uint64_t separator);

#endif
