/* Lateness, by property: whatever the worker does, the output is an honest blend.
 *
 * The wet signal lies in [0.5, 1), the dry in (-1, -0.5], both without any pattern, so each output
 * frame tells its own weight; a frame played at the wrong time would give one that is no whole
 * number of steps.  Nothing here knows how the bridge decides: it states what must hold of any
 * decision, and what the counters then have to say. */
#include "check.h"

enum { CHANNELS = 2, BUSES = 3 };

static const float CEILING = 0.9F;

static float heard(uint64_t n, uint32_t channel) { /* what the device records */
    return -0.5F - unit(n * CHANNELS + channel) / 2;
}

static float made(uint64_t n, uint32_t channel) { /* what the worker makes of frame n */
    return 0.5F + unit(hash(n * BUSES + channel)) / 2;
}

typedef struct {
    rs_bridge_config config;
    rs_ring *in;
    rs_ring *out;
    rs_bridge *bridge;
    uint64_t position;
    uint64_t worked; /* frames that the worker has made */
    uint64_t weight; /* of the last frame played */
    int fell;        /* the weight has fallen since it last rose */
    uint64_t late;
    uint64_t fades;
    uint64_t turned;
    uint64_t dry;
    uint64_t silent;   /* frames that the worker found empty, */
    uint64_t silences; /* in so many gaps */
    uint64_t presence; /* of the last frame that it found */
    float last[BUSES];
} scene;

static float wet_at(const scene *s, uint64_t n, uint32_t channel) {
    return n < s->config.prefill ? 0 : made(n - s->config.prefill, channel);
}

static float dry_at(const scene *s, uint64_t n, uint32_t channel) {
    if (channel >= CHANNELS || n < s->config.latency) {
        return 0;
    }
    const float sample = heard(n - s->config.latency, channel);
    return sample < -CEILING ? -CEILING : sample;
}

/* The weight that frame `n` was played with; fails if there is none. */
static uint64_t weight_of(const scene *s, uint64_t n, const float *output) {
    const double guard = s->config.guard;
    double weight = -1;
    for (uint32_t c = 0; c < BUSES; c++) {
        const double wet = (double)wet_at(s, n, c);
        const double dry = (double)dry_at(s, n, c);
        if (wet == dry) { /* silence against silence tells nothing */
            CHECK((double)output[c] == wet);
            continue;
        }
        const double here = ((double)output[c] - dry) / (wet - dry) * guard;
        CHECK(fabs(here - round(here)) < 1e-4 * guard);
        CHECK(weight < 0 || round(here) == weight);
        weight = round(here);
        CHECK(weight >= 0 && weight <= guard);
        CHECK(weight < guard || (double)output[c] == wet); /* exact where it is all wet, */
        CHECK(weight > 0 || (double)output[c] == dry);     /* or all dry */
    }
    return weight < 0 ? s->weight : (uint64_t)weight;
}

static void no_click(const scene *s, uint64_t n, const float *output) {
    for (uint32_t c = 0; n > 0 && c < BUSES; c++) {
        const float wet = wet_at(s, n - 1, c);
        const float dry = dry_at(s, n - 1, c);
        const float inside = fmaxf(fabsf(wet_at(s, n, c) - wet), fabsf(dry_at(s, n, c) - dry));
        const float allowed = inside + fabsf(wet - dry) / (float)s->config.guard;
        CHECK(fabsf(output[c] - s->last[c]) <= allowed + 1e-6F);
    }
}

static void callback(scene *s, uint64_t frames, int watch_late) {
    float *input = malloc((size_t)frames * CHANNELS * sizeof(float));
    float *output = malloc((size_t)frames * BUSES * sizeof(float));
    for (uint64_t i = 0; i < frames * CHANNELS; i++) {
        input[i] = heard(s->position + i / CHANNELS, (uint32_t)(i % CHANNELS));
    }
    /* The header's words: found less than a block and the guard, while wet. */
    const uint64_t held = rs_ring_read_space(s->out);
    const uint64_t debt = rs_bridge_debt(s->bridge);
    const uint64_t found = held > debt ? held - debt : 0;
    CHECK(debt == 0 || s->weight == 0);
    s->late += frames > 0 && s->weight > 0 && found < frames + s->config.guard;

    CHECK(rs_bridge_callback(input, output, frames, NULL, 0, s->bridge) == 0);

    int falling = 0;
    for (uint64_t i = 0; i < frames; i++) {
        const uint64_t n = s->position + i;
        const float *frame = output + i * BUSES;
        const uint64_t weight = weight_of(s, n, frame);
        CHECK(weight <= s->weight + 1 && s->weight <= weight + 1);
        no_click(s, n, frame);
        falling = weight < s->weight;
        s->fades += weight < s->weight && !s->fell;
        s->turned += weight < s->weight && !s->fell && s->weight < s->config.guard;
        s->fell = weight < s->weight || (s->fell && weight == s->weight);
        s->dry += weight == 0;
        s->weight = weight;
        memcpy(s->last, frame, sizeof s->last);
    }
    s->position += frames;
    /* The way down is always there to be walked. */
    CHECK(rs_ring_read_space(s->out) >= s->weight);
    /* And not a frame before it must be. */
    CHECK(!falling || rs_ring_read_space(s->out) == s->weight);
    CHECK(rs_ring_consumed(s->out) + rs_bridge_debt(s->bridge) == s->position);

    rs_bridge_stats stats;
    rs_bridge_read_stats(s->bridge, &stats);
    CHECK(stats.frames == s->position && stats.debt == rs_bridge_debt(s->bridge));
    CHECK(stats.fades == s->fades && stats.dry_frames == s->dry);
    CHECK(!watch_late || stats.late_blocks == s->late);
    CHECK((stats.last_late > 0) == (stats.late_blocks > 0));
    free(input);
    free(output);
}

/* Input that was lost is silence in its place; towards it and away from it, it fades. */
static void found(scene *s, const float *frame) {
    const double guard = s->config.guard;
    const double share = (double)frame[0] / (double)heard(s->worked, 0) * guard;
    const uint64_t presence = (uint64_t)round(share);
    CHECK(fabs(share - round(share)) < 1e-4 * guard && presence <= s->config.guard);
    CHECK(presence <= s->presence + 1 && s->presence <= presence + 1);
    for (uint32_t c = 0; c < CHANNELS; c++) {
        const float whole = heard(s->worked, c);
        CHECK(fabsf(frame[c] - whole * (float)share / (float)guard) < 1e-6F);
        CHECK(presence < s->config.guard || frame[c] == whole);
    }
    s->silent += presence == 0;
    s->silences += presence == 0 && s->presence > 0;
    s->presence = presence;
}

/* The worker makes at most `hops` hops, as far as there is input and room. */
static void work(scene *s, uint64_t hops) {
    const uint32_t hop = s->config.hop;
    for (; hops > 0 && rs_ring_read_space(s->in) >= hop && rs_ring_write_space(s->out) >= hop;
         hops--) {
        for (uint32_t i = 0; i < hop; i++, s->worked++) {
            float frame[BUSES];
            CHECK(rs_ring_read(s->in, frame, 1) == 1);
            found(s, frame);
            for (uint32_t c = 0; c < BUSES; c++) {
                frame[c] = made(s->worked, c);
            }
            CHECK(rs_ring_write(s->out, frame, 1) == 1);
        }
    }
}

/* Moods of the worker; each lasts a random while. */
enum { PROMPT, ASLEEP, DRIBBLING, JUST_TOO_LATE, MOODS };

/* What all trials together have seen; a test that never met trouble would show nothing. */
static rs_bridge_stats seen;
static uint64_t lost_seen;
static uint64_t turned_seen; /* fades that began before the last one was over */

static void trial(uint64_t seed) {
    const uint32_t guards[] = {64, 65, 100, 256};
    const uint32_t hops[] = {64, 128, 256, 96};
    const uint32_t maxes[] = {1, 31, 64, 128, 300};
    scene s = {0};
    const uint32_t max = maxes[pick(&seed, 5)];
    const uint32_t guard = guards[pick(&seed, 4)];
    const uint32_t hop = hops[pick(&seed, 4)];
    const int oversize = pick(&seed, 4) == 0;
    const uint32_t largest = oversize ? 3 * max : max;
    const int mirror = pick(&seed, 2) == 0;
    const uint64_t prefill = hop - 1 + largest + guard;
    s.config = (rs_bridge_config){
        CHANNELS, CHANNELS, BUSES, max, hop, guard, prefill, prefill + pick(&seed, 500), CEILING,
        0, 0, 0};
    s.weight = guard;
    s.presence = guard;
    /* Now and then a ring so small that sleeping also loses input. */
    s.in = rs_ring_new(hop + 2 * largest + guard + pick(&seed, 4000), CHANNELS, mirror);
    s.out = rs_ring_new(prefill + hop + largest + pick(&seed, 2000), BUSES, mirror);
    s.bridge = rs_bridge_new(&s.config, s.in, s.out, NULL);
    CHECK(s.bridge != NULL);

    uint64_t mood = PROMPT;
    uint64_t rest = 0;
    const uint64_t callbacks = max == 1 ? 6000 : 1200;
    for (uint64_t i = 0; i < callbacks; i++) {
        if (s.position <= s.config.latency) {
            mood = PROMPT; /* in the silence of the beginning no weight could be seen */
        } else if (rest-- == 0) {
            mood = pick(&seed, MOODS);
            rest = 1 + pick(&seed, max == 1 ? 2000 : 60);
        }
        const uint64_t frames = pick(&seed, 8) == 0 ? pick(&seed, largest + 1) : max;
        if (mood == JUST_TOO_LATE) { /* all but the newest hop, then nothing, by turns */
            const uint64_t ready = rs_ring_read_space(s.in) / hop;
            work(&s, ready > 0 ? ready - 1 : 0);
        }
        callback(&s, frames, !oversize);
        work(&s, mood == PROMPT ? UINT64_MAX : mood == DRIBBLING ? pick(&seed, 2) : 0);
    }

    /* In time again: all wet after a while, at the old place on the timeline. */
    uint64_t calm = 0;
    for (int i = 0; i < 20000 && calm < 3 * guard + 10; i++) {
        work(&s, UINT64_MAX);
        callback(&s, max, !oversize);
        calm = s.weight == guard ? calm + max : 0;
    }
    CHECK(calm >= 3 * guard + 10 && rs_bridge_debt(s.bridge) == 0);

    rs_bridge_stats stats;
    rs_bridge_read_stats(s.bridge, &stats);
    CHECK(rs_ring_consumed(s.out) == s.position);
    for (int i = 0; i < 20000 && (rs_ring_written(s.in) < s.position || s.presence < guard);
         i++) { /* what is owed */
        callback(&s, max, !oversize);
        work(&s, UINT64_MAX);
    }
    CHECK(rs_ring_written(s.in) == s.position && s.presence == guard);
    /* The last frame of a fade is silent, though not lost. */
    CHECK(stats.overflow_frames == s.silent - s.silences);
    seen.late_blocks += stats.late_blocks;
    seen.fades += stats.fades;
    seen.dropped_frames += stats.dropped_frames;
    lost_seen += stats.overflow_frames;
    turned_seen += s.turned;
    rs_bridge_free(s.bridge);
    rs_ring_free(s.in);
    rs_ring_free(s.out);
}

int main(int count, char **words) {
    const uint64_t trials = count > 1 ? strtoull(words[1], NULL, 10) : 60;
    for (uint64_t seed = 0; seed < trials; seed++) {
        trial(hash(seed));
    }
    CHECK(seen.late_blocks > 100 && seen.fades > 100 && seen.dropped_frames > 10000);
    CHECK(lost_seen > 1000 && turned_seen > 10);
    return 0;
}
