/* The thread that finds an engine, or starts one, and makes sessions with it.
 *
 * `realtime-sep bridge` listens on a local socket.  A session is one connection: the plugin sends
 * three descriptors (memory and two eventfds), the engine answers once, and from then on the socket
 * carries nothing; that it is closed tells either side that the other one has ended, however it did.
 * The memory has no name, so nobody else can open it and nothing is left of it, and it is sealed, so
 * that nobody can make it smaller under the other's feet. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <float.h>
#include <math.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "link.h"
#include "plugin.h"

extern char **environ;

/* As in realtime_sep/bridge/segment.py and realtime_sep.ttl.  The first is what REALTIME_SEP_MODEL
 * names, or else what the engine prefers. */
static const char *const MODELS[RS_PLUGIN_MODELS] = {"", "center", "unet", "nmf", "nmf+unet"};

enum {
    RING = 1 << 16, /* frames: more than a second, and than two of the longest blocks and a hop */
    HIGHEST_HOP = 1 << 14,
    HIGHEST_LATENCY = 1 << 20,
    /* Milliseconds. */
    START = 30000,  /* for the program to listen */
    LOAD = 180000,  /* for a model to be loaded; the first one of all is compiled */
    AGAIN = 1000,   /* before another attempt, twice as long each time */
    LATEST = 30000, /* but no longer */
    LOOK = 500,     /* between looks at an engine that may hang */
    HANGS = 5000,   /* without a hop finished */
};

struct rs_link {
    uint32_t samplerate;
    uint32_t buses;
    char model[128];   /* from the environment */
    char command[512]; /* the program */
    char directory[100];
    char told[640]; /* the last complaint, the command and 100 more: nothing is said twice */

    pthread_t thread;
    int nudge; /* eventfd: the thread is to look */
    rs_wake *news; /* something has come of a wish */
    atomic_int over;
    _Atomic uint64_t wish;
    _Atomic uint64_t failures;
    _Atomic(rs_session *) arriving; /* made by the thread, not yet taken */
    _Atomic(rs_session *) leaving;  /* put down, not yet freed */
    rs_session *live;               /* the newest one, watched by the thread */
};

/* ---- wishes ---------------------------------------------------------------------------------- */

uint64_t rs_wish_pack(const rs_wish *wish) {
    return (uint64_t)(wish->any != 0) << 32 | (uint64_t)(wish->model & 0xff) << 24 |
           (wish->block & 0xffffff);
}

rs_wish rs_wish_unpack(uint64_t word) {
    return (rs_wish){.block = (uint32_t)(word & 0xffffff),
                     .any = (int)(word >> 32 & 1),
                     .model = (unsigned)(word >> 24 & 0xff)};
}

uint64_t rs_latency(const rs_wish *wish, uint32_t hop, uint64_t separator) {
    uint32_t common = wish->any ? 1 : wish->block;
    for (uint32_t rest = hop; rest != 0;) {
        const uint32_t next = common % rest;
        common = rest;
        rest = next;
    }
    return separator + (hop - common) + wish->block + RS_GUARD;
}

/* ---- sessions -------------------------------------------------------------------------------- */

static void shut(int file) {
    if (file >= 0) {
        close(file);
    }
}

void rs_session_free(rs_session *session) {
    if (session != NULL) {
        rs_bridge_free(session->bridge);
        rs_ring_free(session->in);
        rs_ring_free(session->out);
        if (session->segment != NULL) {
            munmap(session->segment, (size_t)session->bytes);
        }
        shut(session->socket);
        shut(session->bell);
        shut(session->done);
        rs_memory_free(session);
    }
}

/* Memory with a header and two rings; its descriptor, or -1. */
static int lay_out(const rs_link *link, rs_session *session, const char *model) {
    const uint64_t in = rs_ring_bytes(RING, 2);
    const uint64_t out = rs_ring_bytes(RING, 2 * link->buses);
    const uint64_t first = 4096;
    const uint64_t bytes = first + in + out;
    const int file = memfd_create("realtime_sep", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (file < 0 || fchmod(file, 0600) != 0 || ftruncate(file, (off_t)bytes) != 0 ||
        fcntl(file, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
        shut(file);
        return -1;
    }
    void *memory = mmap(NULL, (size_t)bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE,
                        file, 0);
    if (memory == MAP_FAILED) {
        shut(file);
        return -1;
    }
    rs_segment *segment = memory;
    unsigned char *base = memory;
    session->segment = segment;
    session->bytes = bytes;
    segment->abi = RS_SEGMENT_ABI;
    segment->samplerate = link->samplerate;
    segment->bytes = bytes;
    segment->input_at = first;
    segment->output_at = first + in;
    snprintf(segment->model, sizeof segment->model, "%s", model);
    atomic_store(&segment->vocals, 1.0F);
    atomic_store(&segment->music, 1.0F);
    session->in = rs_ring_place(base + segment->input_at, in, RING, 2);
    session->out = rs_ring_place(base + segment->output_at, out, RING, 2 * link->buses);
    session->bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    session->done = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    segment->magic = RS_SEGMENT_MAGIC;
    if (session->in == NULL || session->out == NULL || session->bell < 0 || session->done < 0) {
        shut(file);
        return -1;
    }
    return file;
}

static int hand_over(const rs_session *session, int memory) {
    uint64_t magic = RS_SEGMENT_MAGIC;
    const int files[3] = {memory, session->bell, session->done};
    union {
        struct cmsghdr head;
        char room[CMSG_SPACE(sizeof files)];
    } control = {.room = {0}};
    struct iovec part = {&magic, sizeof magic};
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = control.room,
                             .msg_controllen = sizeof control.room};
    struct cmsghdr *head = CMSG_FIRSTHDR(&message);
    head->cmsg_level = SOL_SOCKET;
    head->cmsg_type = SCM_RIGHTS;
    head->cmsg_len = CMSG_LEN(sizeof files);
    memcpy(CMSG_DATA(head), files, sizeof files);
    return sendmsg(session->socket, &message, MSG_NOSIGNAL) == (ssize_t)sizeof magic ? 0 : -1;
}

/* ---- the thread ------------------------------------------------------------------------------ */

static uint64_t milliseconds(void) {
    return rs_now() / 1000000;
}

static void complain(rs_link *link, const char *format, const char *detail) {
    char text[sizeof link->told];
    snprintf(text, sizeof text, format, detail);
    if (strcmp(text, link->told) != 0) {
        memcpy(link->told, text, sizeof text);
        fprintf(stderr, "realtime-sep: %s\n", text);
    }
}

/* Free what was put down.  Returns whether to go on. */
static int attend(rs_link *link) {
    uint64_t count;
    (void)!read(link->nudge, &count, sizeof count);
    rs_session *left = atomic_exchange(&link->leaving, NULL);
    if (left == link->live) {
        link->live = NULL;
    }
    rs_session_free(left);
    return !atomic_load(&link->over);
}

/* Wait for `file` (if it is one) at most so long; attends to everything else meanwhile.  Returns 1
 * if there is something to read, 0 if not yet, -1 if the thread is to end. */
static int await(rs_link *link, int file, uint64_t patience) {
    struct pollfd polled[2] = {{.fd = link->nudge, .events = POLLIN},
                               {.fd = file, .events = POLLIN}};
    poll(polled, 2, (int)patience);
    if (!attend(link)) {
        return -1;
    }
    return polled[1].revents != 0;
}

/* A connection to an engine that belongs to the same person; -1 if there is none. */
static int reach(const rs_link *link) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%s/bridge", link->directory);
    const int file = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    struct ucred peer = {.uid = (uid_t)-1};
    socklen_t size = sizeof peer;
    if (file >= 0 && connect(file, (struct sockaddr *)&address, sizeof address) == 0 &&
        getsockopt(file, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 && peer.uid == geteuid()) {
        return file;
    }
    shut(file);
    return -1;
}

/* Start the program beside the host: it inherits nothing but the terminal's error output, and is
 * no child that the host would have to bury. */
static void start(rs_link *link) {
    char *arguments[] = {"sh", "-c", "exec \"$0\" bridge --idle 30 </dev/null >/dev/null &",
                         link->command, NULL};
    posix_spawnattr_t attributes;
    posix_spawn_file_actions_t actions;
    sigset_t none;
    pid_t child;
    sigemptyset(&none);
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSID);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawn_file_actions_init(&actions);
#if defined(__GLIBC__) && __GLIBC_PREREQ(2, 34)
    posix_spawn_file_actions_addclosefrom_np(&actions, 3);
#endif
    if (posix_spawn(&child, "/bin/sh", &actions, &attributes, arguments, environ) == 0) {
        while (waitpid(child, NULL, 0) < 0 && errno == EINTR) {
        }
    }
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
}

/* Likewise, starting the program if need be. */
static int reach_or_start(rs_link *link) {
    int file = reach(link);
    if (file >= 0) {
        return file;
    }
    start(link);
    const uint64_t deadline = milliseconds() + START;
    while (file < 0 && milliseconds() < deadline) {
        if (await(link, -1, 50) < 0) {
            return -1;
        }
        file = reach(link);
    }
    if (file < 0) {
        complain(link, "no engine: %s bridge does not come up; `realtime-sep bridge install` "
                       "tells where it is", link->command);
    }
    return file;
}

static int listen_to(rs_link *link, const rs_session *session, rs_answer *answer) {
    const uint64_t deadline = milliseconds() + LOAD;
    int heard = 0;
    while (heard == 0 && milliseconds() < deadline) {
        heard = await(link, session->socket, LOOK);
    }
    if (heard <= 0) {
        return -1;
    }
    const ssize_t size = recv(session->socket, answer, sizeof *answer, 0);
    answer->error[sizeof answer->error - 1] = 0;
    if (size != (ssize_t)sizeof *answer) {
        complain(link, "the engine %s", "went away before it was ready");
        return -1;
    }
    if (answer->error[0] != 0) {
        complain(link, "%s", answer->error);
        return -1;
    }
    if (answer->abi != RS_SEGMENT_ABI || answer->hop == 0 || answer->hop > HIGHEST_HOP ||
        answer->latency > HIGHEST_LATENCY) {
        complain(link, "the engine %s", "speaks another language: `realtime-sep bridge install`");
        return -1;
    }
    return 0;
}

static rs_session *establish(rs_link *link, uint64_t word) {
    const rs_wish wish = rs_wish_unpack(word);
    rs_session *session = rs_memory_new(sizeof *session);
    if (session == NULL) {
        return NULL;
    }
    session->wish = word;
    session->socket = session->bell = session->done = -1;
    session->socket = reach_or_start(link);
    const char *model = wish.model < RS_PLUGIN_MODELS ? MODELS[wish.model] : "";
    const int memory = session->socket < 0
                           ? -1
                           : lay_out(link, session, model[0] != 0 ? model : link->model);
    rs_answer answer;
    if (memory < 0 || hand_over(session, memory) != 0 || listen_to(link, session, &answer) != 0) {
        shut(memory);
        rs_session_free(session);
        return NULL;
    }
    shut(memory);
    session->hop = answer.hop;
    session->latency = rs_latency(&wish, answer.hop, answer.latency);
    const rs_bridge_config config = {.in_channels = 2,
                                     .channels = 2,
                                     .out_channels = 2 * link->buses,
                                     .max_block = wish.block,
                                     .hop = answer.hop,
                                     .guard = RS_GUARD,
                                     .prefill = session->latency - answer.latency,
                                     .latency = session->latency,
                                     .ceiling = FLT_MAX};
    session->bridge = rs_bridge_new(&config, session->in, session->out, NULL);
    if (session->bridge == NULL) {
        complain(link, "no session: %s", strerror(errno));
        rs_session_free(session);
        return NULL;
    }
    atomic_store(&session->segment->prefill, config.prefill);
    link->told[0] = 0;
    return session;
}

/* Whether a session has lost its engine: the connection is closed, or hops wait for too long. */
static int lost(const rs_session *session, uint64_t *consumed, uint64_t *since) {
    char byte;
    const ssize_t size = recv(session->socket, &byte, 1, MSG_DONTWAIT | MSG_PEEK);
    if (size >= 0 || (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR)) {
        return 1; /* closed, or it says what it must not */
    }
    const uint64_t place = rs_ring_consumed(session->in);
    if (place != *consumed || rs_ring_read_space(session->in) < session->hop) {
        *consumed = place;
        *since = milliseconds();
    }
    return milliseconds() - *since > HANGS;
}

static void *run(void *argument) {
    rs_link *link = argument;
    uint64_t tried = 0;
    uint64_t delay = 0;
    uint64_t next = 0;
    uint64_t consumed = 0;
    uint64_t since = milliseconds();
    while (attend(link)) {
        rs_session *live = link->live;
        if (live != NULL && !atomic_load(&live->dead) && lost(live, &consumed, &since)) {
            atomic_store(&live->dead, 1);
            rs_wake_post(link->news);
        }
        const uint64_t wish = atomic_load(&link->wish);
        const int wanted = wish != 0 && (live == NULL || live->wish != wish ||
                                         atomic_load(&live->dead));
        if (wish != tried) {
            delay = 0;
            next = 0;
        }
        if (!wanted || milliseconds() < next) {
            const int file = live != NULL && !atomic_load(&live->dead) ? live->socket : -1;
            await(link, file, LOOK);
            continue;
        }
        tried = wish;
        rs_session *made = establish(link, wish);
        if (made == NULL) {
            atomic_fetch_add(&link->failures, 1);
            delay = delay == 0 ? AGAIN : 2 * delay < LATEST ? 2 * delay : LATEST;
            next = milliseconds() + delay;
        } else {
            /* Not sooner than this, should it die at once. */
            next = milliseconds() + AGAIN;
            delay = 0;
            since = milliseconds();
            link->live = made;
            rs_session_free(atomic_exchange(&link->arriving, made));
        }
        rs_wake_post(link->news);
    }
    return NULL;
}

/* ---- from outside ---------------------------------------------------------------------------- */

static const char *told(const char *name) {
    const char *value = getenv(name);
    return value != NULL ? value : "";
}

/* The program: what the environment says, else what `bridge install` has noted, else `PATH`. */
static void find_command(rs_link *link) {
    const size_t room = sizeof link->command;
    snprintf(link->command, room, "%s", told("REALTIME_SEP_COMMAND"));
    if (link->command[0] != 0) {
        return;
    }
    char path[512];
    const char *config = told("XDG_CONFIG_HOME");
    snprintf(path, sizeof path, "%s%s/realtime-sep/command", config[0] != 0 ? config : told("HOME"),
             config[0] != 0 ? "" : "/.config");
    FILE *file = fopen(path, "re");
    if (file != NULL) {
        if (fgets(link->command, (int)room, file) != NULL) {
            link->command[strcspn(link->command, "\n")] = 0;
        }
        fclose(file);
    }
    if (link->command[0] == 0) {
        snprintf(link->command, room, "realtime-sep");
    }
}

rs_link *rs_link_new(uint32_t samplerate, uint32_t buses) {
    rs_link *link = rs_memory_new(sizeof *link);
    if (link == NULL) {
        return NULL;
    }
    link->samplerate = samplerate;
    link->buses = buses;
    snprintf(link->model, sizeof link->model, "%s", told("REALTIME_SEP_MODEL"));
    const char *runtime = told("XDG_RUNTIME_DIR");
    if (runtime[0] != 0) {
        snprintf(link->directory, sizeof link->directory, "%.80s/realtime-sep", runtime);
    } else {
        snprintf(link->directory, sizeof link->directory, "/tmp/realtime-sep-%u",
                 (unsigned)geteuid());
    }
    find_command(link);
    link->nudge = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    link->news = rs_wake_new();

    /* The thread is nobody's: no signal of the host's, and no priority that it may have here. */
    sigset_t every;
    sigset_t before;
    pthread_attr_t attributes;
    const struct sched_param ordinary = {.sched_priority = 0};
    sigfillset(&every);
    pthread_attr_init(&attributes);
    pthread_attr_setinheritsched(&attributes, PTHREAD_EXPLICIT_SCHED);
    pthread_attr_setschedpolicy(&attributes, SCHED_OTHER);
    pthread_attr_setschedparam(&attributes, &ordinary);
    pthread_sigmask(SIG_BLOCK, &every, &before);
    const int failed = link->nudge < 0 || link->news == NULL ||
                       pthread_create(&link->thread, &attributes, run, link) != 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    if (failed) {
        rs_wake_free(link->news);
        shut(link->nudge);
        rs_memory_free(link);
        return NULL;
    }
    return link;
}

static void nudge(const rs_link *link) {
    const uint64_t one = 1;
    (void)!write(link->nudge, &one, sizeof one);
}

void rs_link_free(rs_link *link) {
    if (link != NULL) {
        atomic_store(&link->over, 1);
        nudge(link);
        pthread_join(link->thread, NULL);
        rs_session_free(atomic_exchange(&link->arriving, NULL));
        rs_session_free(atomic_exchange(&link->leaving, NULL));
        rs_wake_free(link->news);
        shut(link->nudge);
        rs_memory_free(link);
    }
}

void rs_link_wish(rs_link *link, uint64_t wish) {
    if (atomic_load_explicit(&link->wish, memory_order_relaxed) != wish) {
        atomic_store(&link->wish, wish);
        nudge(link);
    }
}

rs_session *rs_link_take(rs_link *link) {
    if (atomic_load_explicit(&link->arriving, memory_order_relaxed) == NULL) {
        return NULL;
    }
    return atomic_exchange(&link->arriving, NULL);
}

int rs_link_put(rs_link *link, rs_session *session) {
    rs_session *none = NULL;
    const int put = atomic_compare_exchange_strong(&link->leaving, &none, session);
    if (put) {
        nudge(link);
    }
    return put;
}

void rs_session_ring(const rs_session *session) {
    const uint64_t one = 1;
    (void)!write(session->bell, &one, sizeof one);
}

int rs_link_wait(rs_link *link) {
    const uint64_t failures = atomic_load(&link->failures);
    while (atomic_load(&link->arriving) == NULL) {
        if (atomic_load(&link->failures) != failures) {
            return 0;
        }
        rs_wake_wait(link->news, 1);
    }
    return 1;
}

int rs_session_wait(rs_session *session) {
    const uint64_t deadline = milliseconds() + HANGS;
    while (rs_ring_read_space(session->in) >= session->hop) {
        uint64_t count;
        struct pollfd polled = {.fd = session->done, .events = POLLIN};
        poll(&polled, 1, LOOK);
        (void)!read(session->done, &count, sizeof count);
        if (atomic_load(&session->dead) || milliseconds() > deadline) {
            return 0;
        }
    }
    return 1;
}
