/* A test is a program: it ends with 0 if every check holds, else it says which one did not. */
#ifndef RS_CHECK_H
#define RS_CHECK_H

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                        \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

/* splitmix64: the same numbers on every machine; also a hash of a place on the timeline. */
static inline uint64_t hash(uint64_t value) {
    value += UINT64_C(0x9e3779b97f4a7c15);
    value = (value ^ (value >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    value = (value ^ (value >> 27)) * UINT64_C(0x94d049bb133111eb);
    return value ^ (value >> 31);
}

static inline uint64_t pick(uint64_t *seed, uint64_t below) {
    *seed = hash(*seed);
    return *seed % below;
}

/* In [0, 1), exact in float32. */
static inline float unit(uint64_t value) {
    return (float)(hash(value) >> 40) / 16777216.0F;
}

#endif
