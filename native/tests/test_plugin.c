/* The plugin against engines that behave, die, come back, refuse, and lie.  An engine here is a
 * thread that hands back what it gets; it speaks the protocol of realtime_sep/bridge. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdatomic.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <poll.h>
#include <unistd.h>

#include "check.h"
#include "../plugin/link.h"
#include "../plugin/plugin.h"

enum { RATE = 48000, HOP = 128, BLOCK = 64 };

typedef struct {
    rs_answer answer;
    int listener;
    pthread_t thread;
    atomic_int over; /* 1: close the connection, and listen no more */
    atomic_int unet; /* whether that was asked for last */
} engine;

enum { MOST = 16 }; /* connections of one engine */

typedef struct {
    engine *engine;
    int link;
    pthread_t thread;
} connection;

static char directory[64];

static void place(struct sockaddr_un *address) {
    *address = (struct sockaddr_un){.sun_family = AF_UNIX};
    snprintf(address->sun_path, sizeof address->sun_path, "%.40s/realtime-sep/bridge", directory);
}

/* What the plugin sends: descriptors of the memory, of its bell, and of ours. */
static void receive(int link, int files[3]) {
    uint64_t magic = 0;
    union {
        struct cmsghdr head;
        char room[CMSG_SPACE(3 * sizeof(int))];
    } control;
    struct iovec part = {&magic, sizeof magic};
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = control.room,
                             .msg_controllen = sizeof control.room};
    CHECK(recvmsg(link, &message, 0) == (ssize_t)sizeof magic);
    CHECK(magic == RS_SEGMENT_MAGIC);
    CHECK(CMSG_FIRSTHDR(&message) != NULL);
    memcpy(files, CMSG_DATA(CMSG_FIRSTHDR(&message)), 3 * sizeof(int));
}

static void echo(engine *self, int link) {
    int files[3];
    receive(link, files);
    struct stat facts;
    CHECK(fstat(files[0], &facts) == 0 && (facts.st_mode & 0777) == 0600);
    const uint64_t bytes = (uint64_t)facts.st_size;
    unsigned char *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, files[0], 0);
    CHECK((void *)memory != MAP_FAILED);
    CHECK(ftruncate(files[0], 4096) != 0); /* it is sealed */
    rs_segment *segment = (rs_segment *)(void *)memory;
    CHECK(segment->magic == RS_SEGMENT_MAGIC && segment->bytes == bytes);
    CHECK(segment->samplerate == RATE);
    atomic_store(&self->unet, strcmp(segment->model, "unet") == 0);
    rs_ring *in = rs_ring_attach(memory + segment->input_at, segment->output_at - segment->input_at);
    rs_ring *out = rs_ring_attach(memory + segment->output_at, bytes - segment->output_at);
    CHECK(in != NULL && out != NULL && rs_ring_channels(in) == 2);
    const uint32_t width = rs_ring_channels(out);
    CHECK(width == 2 || width == 6);
    CHECK(send(link, &self->answer, sizeof self->answer, MSG_NOSIGNAL) > 0);
    float frames[HOP * 2];
    float made[HOP * 6];
    while (!atomic_load(&self->over)) {
        struct pollfd polled[2] = {{.fd = files[1], .events = POLLIN}, {.fd = link}};
        poll(polled, 2, 20);
        if (polled[1].revents != 0) {
            break;
        }
        uint64_t count;
        if (polled[0].revents != 0) {
            CHECK(read(files[1], &count, sizeof count) == (ssize_t)sizeof count);
        }
        while (self->answer.hop == HOP && rs_ring_read_space(in) >= HOP) {
            rs_span span;
            CHECK(rs_ring_claim_read(in, HOP, &span) == HOP);
            memcpy(frames, span.first, (size_t)span.first_frames * 2 * sizeof(float));
            memcpy(frames + span.first_frames * 2, span.second != NULL ? span.second : span.first,
                   (size_t)span.second_frames * 2 * sizeof(float));
            for (uint32_t i = 0; i < HOP; i++) {
                for (uint32_t c = 0; c < width; c++) { /* stems count from 1 */
                    made[i * width + c] = frames[i * 2 + c % 2] * (float)(1 + c / 2);
                }
            }
            CHECK(rs_ring_write(out, made, HOP) == HOP);
            rs_ring_commit_read(in, HOP); /* last, as an engine does */
            const uint64_t one = 1;
            CHECK(write(files[2], &one, sizeof one) == (ssize_t)sizeof one);
        }
    }
    rs_ring_free(in);
    rs_ring_free(out);
    munmap(memory, bytes);
    for (int i = 0; i < 3; i++) {
        close(files[i]);
    }
}

static void *attend(void *argument) {
    connection *self = argument;
    echo(self->engine, self->link);
    close(self->link);
    return NULL;
}

static void *serve(void *argument) {
    engine *self = argument;
    connection connections[MOST];
    int count = 0;
    while (!atomic_load(&self->over)) {
        struct pollfd polled = {.fd = self->listener, .events = POLLIN};
        if (poll(&polled, 1, 20) <= 0) {
            continue;
        }
        CHECK(count < MOST);
        connection *made = &connections[count++];
        made->engine = self;
        made->link = accept(self->listener, NULL, NULL);
        CHECK(made->link >= 0);
        CHECK(pthread_create(&made->thread, NULL, attend, made) == 0);
    }
    for (int i = 0; i < count; i++) {
        pthread_join(connections[i].thread, NULL);
    }
    return NULL;
}

static void begin(engine *self, uint32_t hop, uint64_t latency, const char *error) {
    struct sockaddr_un address;
    place(&address);
    unlink(address.sun_path);
    *self = (engine){.answer = {.abi = RS_SEGMENT_ABI, .hop = hop, .latency = latency}};
    snprintf(self->answer.error, sizeof self->answer.error, "%s", error);
    self->listener = socket(AF_UNIX, SOCK_SEQPACKET, 0);
    CHECK(bind(self->listener, (struct sockaddr *)&address, sizeof address) == 0);
    CHECK(listen(self->listener, 4) == 0);
    CHECK(pthread_create(&self->thread, NULL, serve, self) == 0);
}

static void end(engine *self) {
    struct sockaddr_un address;
    place(&address);
    atomic_store(&self->over, 1);
    pthread_join(self->thread, NULL);
    close(self->listener);
    unlink(address.sun_path);
}

static const rs_plugin_controls live = {.vocals = 0, .music = 0};
static const rs_plugin_controls offline = {.vocals = 0, .music = 0, .wait = 1};

typedef struct {
    rs_plugin *plugin;
    uint64_t position;
    int buses;
} host;

static float noise(uint64_t frame, uint32_t channel) {
    return unit(frame * 2 + channel) - 0.5F;
}

/* One block; returns how many of its samples of bus `bus` are `factor` times the input, delayed. */
static uint32_t block(host *self, const rs_plugin_controls *controls, uint32_t frames, int bus,
                      float factor) {
    float samples[8][4096];
    const float *const in[2] = {samples[6], samples[7]};
    float *out[6] = {0};
    CHECK(frames <= 4096);
    for (int c = 0; c < 2 * self->buses; c++) {
        out[c] = samples[c];
    }
    for (uint32_t i = 0; i < frames; i++) {
        samples[6][i] = noise(self->position + i, 0);
        samples[7][i] = noise(self->position + i, 1);
    }
    rs_plugin_run(self->plugin, controls, in, out, frames);
    const uint64_t latency = rs_plugin_latency(self->plugin);
    uint32_t right = 0;
    for (uint32_t i = 0; i < frames; i++, self->position++) {
        for (uint32_t c = 0; c < 2; c++) {
            const float is = out[2 * bus + (int)c][i];
            const float expected = self->position < latency
                                       ? 0
                                       : factor * noise(self->position - latency, c);
            CHECK(isfinite(is) && fabsf(is) <= 3);
            right += is == expected;
        }
    }
    return right / 2;
}

static host open_host(int stems) {
    host made = {rs_plugin_new(RATE, stems), 0, stems ? RS_PLUGIN_BUSES : 1};
    CHECK(made.plugin != NULL);
    return made;
}

/* Live, until the accompaniment is what the engine makes, or what it is without one. */
static void play_until(host *self, float factor) {
    for (int i = 0; i < 20000; i++) {
        const int begun = self->position > rs_plugin_latency(self->plugin);
        if (block(self, &live, BLOCK, 2, factor) == BLOCK && begun) {
            return;
        }
        rs_sleep_until(rs_now() + 500000);
    }
    CHECK(!"what was waited for has come");
}

static void without_engine(void) {
    host self = open_host(0);
    for (int i = 0; i < 50; i++) {
        CHECK(block(&self, &live, BLOCK, 0, 1) == BLOCK);
    }
    rs_wish wish = {.block = BLOCK};
    CHECK(rs_plugin_latency(self.plugin) == rs_latency(&wish, 256, 256));
    rs_plugin_reset(self.plugin);
    self.position = 0;
    CHECK(block(&self, &live, BLOCK, 0, 1) == BLOCK);
    rs_plugin_free(self.plugin);
}

/* Every sample from the first one on, in blocks of any size, with the buffers of the host's. */
static void waiting(void) {
    engine echoing;
    begin(&echoing, HOP, 0, "");
    host self = open_host(1);
    uint64_t seed = 3;
    CHECK(block(&self, &offline, BLOCK, 2, 3) == BLOCK);
    for (int i = 0; i < 300; i++) {
        const uint32_t frames = 1 + (uint32_t)pick(&seed, 4096);
        CHECK(block(&self, &offline, frames, i % 3, (float)(1 + i % 3)) == frames);
    }
    rs_wish wish = {.block = BLOCK};
    CHECK(rs_plugin_latency(self.plugin) == rs_latency(&wish, HOP, 0));
    CHECK(rs_plugin_latency(self.plugin) == HOP - BLOCK + BLOCK + RS_GUARD);
    rs_plugin_free(self.plugin);
    end(&echoing);
}

static void dying(void) {
    host self = open_host(1);
    play_until(&self, 0);
    for (int turn = 0; turn < 3; turn++) {
        engine echoing;
        begin(&echoing, HOP, 0, "");
        play_until(&self, 3);
        const rs_plugin_controls other = {.model = (unsigned)turn};
        for (int i = 0; i < 20; i++) {
            block(&self, &other, BLOCK, 0, 1);
        }
        end(&echoing);
        play_until(&self, 0);
    }
    rs_plugin_free(self.plugin);
}

static void models(void) {
    engine echoing;
    begin(&echoing, HOP, 0, "");
    host self = open_host(1);
    const rs_plugin_controls second = {.model = 2, .wait = 1};
    block(&self, &second, BLOCK, 0, 1);
    CHECK(atomic_load(&echoing.unet));
    rs_plugin_free(self.plugin);
    end(&echoing);
}

/* Whatever is answered, the input comes out. */
static void lies(void) {
    static const struct {
        uint32_t hop;
        uint64_t latency;
        const char *error;
    } answers[] = {{0, 0, ""}, {UINT32_MAX, 0, ""}, {HOP, UINT64_MAX, ""}, {HOP, 0, "no such model"}};
    for (size_t i = 0; i < sizeof answers / sizeof *answers; i++) {
        engine lying;
        begin(&lying, answers[i].hop, answers[i].latency, answers[i].error);
        host self = open_host(0);
        for (int k = 0; k < 20; k++) {
            CHECK(block(&self, &offline, BLOCK, 0, 1) == BLOCK);
        }
        rs_plugin_free(self.plugin);
        end(&lying);
    }
}

/* Larger blocks than at first, and odd ones, ask for another session; nothing else does. */
static void growing(void) {
    engine echoing;
    begin(&echoing, HOP, 0, "");
    host self = open_host(1);
    play_until(&self, 3);
    const uint64_t first = rs_plugin_latency(self.plugin);
    for (int i = 0; i < 20000 && rs_plugin_latency(self.plugin) == first; i++) {
        block(&self, &live, 5 * BLOCK, 2, 3);
        rs_sleep_until(rs_now() + 1000000);
    }
    rs_wish wish = {.block = 8 * BLOCK, .any = 1};
    CHECK(rs_plugin_latency(self.plugin) == rs_latency(&wish, HOP, 0));
    rs_plugin_free(self.plugin);
    end(&echoing);
}

static void values(void) {
    CHECK(rs_plugin_choice(1) == 1 && rs_plugin_choice(1.6F) == 2 && rs_plugin_choice(-1) == 0);
    CHECK(rs_plugin_choice(1e30F) == 0 && rs_plugin_choice(NAN) == 0);
    CHECK(rs_plugin_new(NAN, 0) == NULL && rs_plugin_new(0, 0) == NULL);
    const rs_wish wish = {.block = RS_MAX_BLOCK, .any = 1, .model = 4};
    const rs_wish same = rs_wish_unpack(rs_wish_pack(&wish));
    CHECK(same.block == wish.block && same.any == 1 && same.model == 4);
}

int main(void) {
    snprintf(directory, sizeof directory, "/tmp/rs-test-XXXXXX");
    CHECK(mkdtemp(directory) != NULL);
    char inner[sizeof directory + 20];
    snprintf(inner, sizeof inner, "%s/realtime-sep", directory);
    CHECK(mkdir(inner, 0700) == 0);
    CHECK(setenv("XDG_RUNTIME_DIR", directory, 1) == 0);
    CHECK(setenv("REALTIME_SEP_COMMAND", "/bin/true", 1) == 0);
    CHECK(unsetenv("REALTIME_SEP_MODEL") == 0);
    values();
    without_engine();
    waiting();
    models();
    lies();
    dying();
    growing();
    rmdir(inner);
    rmdir(directory);
    return 0;
}
