#ifndef VECTORS_H
#define VECTORS_H

/* Vectors of VEC floats, one register of the processor. Of wider ones gcc makes slow code. */

#include <stdint.h>
#include <string.h>
#ifdef __AVX2__
#include <immintrin.h>
#endif

#ifdef __AVX512F__
#define VEC 16
#else
#define VEC 8
#endif
/* For functions with a constant among their arguments, which decides their code. */
#define INLINE static inline __attribute__((always_inline))
typedef float vec __attribute__((vector_size(4 * VEC)));
typedef int32_t ivec __attribute__((vector_size(4 * VEC)));

static inline vec load(const float *from) { vec v; memcpy(&v, from, sizeof v); return v; }
static inline void store(float *to, vec v) { memcpy(to, &v, sizeof v); }

/* bfloat16 is the upper half of a float; what is no number stays none. */
typedef uint16_t hvec __attribute__((vector_size(2 * VEC)));
typedef uint32_t uvec __attribute__((vector_size(4 * VEC)));

static inline vec widen(const uint16_t *from) {
    hvec half;
    memcpy(&half, from, sizeof half);
#if defined(__AVX2__) && VEC == 8
    return (vec)((uvec)_mm256_cvtepu16_epi32((__m128i)half) << 16); /* gcc converts it by halves */
#else
    return (vec)(__builtin_convertvector(half, uvec) << 16);
#endif
}

static inline void narrow(uint16_t *to, vec v) {
    uvec bits = (uvec)v, even = (bits + 0x7fff + (bits >> 16 & 1)) >> 16, none = (uvec)(v != v);
    hvec half = __builtin_convertvector((none & 0x7fc0) | (~none & even), hvec);
    memcpy(to, &half, sizeof half);
}

/* Numbers from place i on: float32, or bfloat16 if `halves`. */
static inline vec take(const void *from, long i, long halves) {
    return halves ? widen((const uint16_t *)from + i) : load((const float *)from + i);
}

static inline void put(void *to, long i, vec v, long halves) {
    if (halves) narrow((uint16_t *)to + i, v);
    else store((float *)to + i, v);
}

/* `v` itself, rounded as in torch: the compiler must not make one operation of this product and a
   sum. */
static inline vec apart(vec v) {
#ifdef __AVX__
    asm("" : "+v"(v));
#else
    asm("" : "+m"(v));
#endif
    return v;
}

static inline vec larger(vec a, vec b) {
    ivec mask = a > b;
    return (vec)((mask & (ivec)a) | (~mask & (ivec)b));
}

#ifdef __AVX512F__

static inline float sum(vec v) {
    v += __builtin_shuffle(v, (ivec){8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7});
    v += __builtin_shuffle(v, (ivec){4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11});
    v += __builtin_shuffle(v, (ivec){2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13});
    v += __builtin_shuffle(v, (ivec){1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14});
    return v[0];
}

/* The sums of 16 vectors, each added up in the order of `sum`: halves of two vectors make one, four
   times. */
static inline vec sums(vec v[VEC]) {
    for (int i = 0; i < 8; i++)
        v[i] = __builtin_shuffle(v[2 * i], v[2 * i + 1],
                                 (ivec){0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23}) +
               __builtin_shuffle(
                   v[2 * i], v[2 * i + 1],
                   (ivec){8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31});
    for (int i = 0; i < 4; i++)
        v[i] = __builtin_shuffle(v[2 * i], v[2 * i + 1],
                                 (ivec){0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27}) +
               __builtin_shuffle(
                   v[2 * i], v[2 * i + 1],
                   (ivec){4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31});
    for (int i = 0; i < 2; i++)
        v[i] = __builtin_shuffle(v[2 * i], v[2 * i + 1],
                                 (ivec){0, 1, 4, 5, 8, 9, 12, 13, 16, 17, 20, 21, 24, 25, 28, 29}) +
               __builtin_shuffle(
                   v[2 * i], v[2 * i + 1],
                   (ivec){2, 3, 6, 7, 10, 11, 14, 15, 18, 19, 22, 23, 26, 27, 30, 31});
    return __builtin_shuffle(v[0], v[1],
                             (ivec){0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30}) +
           __builtin_shuffle(v[0], v[1],
                             (ivec){1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31});
}

#else

static inline float sum(vec v) {
    v += __builtin_shuffle(v, (ivec){4, 5, 6, 7, 0, 1, 2, 3});
    v += __builtin_shuffle(v, (ivec){2, 3, 0, 1, 6, 7, 4, 5});
    v += __builtin_shuffle(v, (ivec){1, 0, 3, 2, 5, 4, 7, 6});
    return v[0];
}

/* The same of 8 vectors. Pairs are such that the results come in order. */
static inline vec sums(vec v[VEC]) {
    vec fours[4], twos[2];
    for (int i = 0; i < 4; i++)
        fours[i] = __builtin_shuffle(v[i], v[i + 4], (ivec){0, 1, 2, 3, 8, 9, 10, 11}) +
                   __builtin_shuffle(v[i], v[i + 4], (ivec){4, 5, 6, 7, 12, 13, 14, 15});
    for (int i = 0; i < 2; i++)
        twos[i] = __builtin_shuffle(fours[2 * i], fours[2 * i + 1],
                                    (ivec){0, 1, 8, 9, 4, 5, 12, 13}) +
                  __builtin_shuffle(fours[2 * i], fours[2 * i + 1],
                                    (ivec){2, 3, 10, 11, 6, 7, 14, 15});
    return __builtin_shuffle(twos[0], twos[1], (ivec){0, 2, 8, 10, 4, 6, 12, 14}) +
           __builtin_shuffle(twos[0], twos[1], (ivec){1, 3, 9, 11, 5, 7, 13, 15});
}

#endif

static inline float maximum(vec v) {
    float most = v[0];
    for (int i = 1; i < VEC; i++) most = v[i] > most ? v[i] : most;
    return most;
}

/* exp(x) for x <= 0: 2^n * e^r with the polynomial of Cephes' expf, error below 2 ulp. Below
   -87.3 it is 0. */
static inline vec exponential(vec x) {
    ivec seen = x > -87.3f;
    x = larger(x, (vec){} - 87.3f);
    ivec n = __builtin_convertvector(x * 1.44269504f - 0.5f, ivec);
    vec whole = __builtin_convertvector(n, vec),
        r = x - whole * 0.693359375f + whole * 2.12194440e-4f;
    vec p = (vec){} + 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    return (vec)((ivec)(p * (vec)((n + 127) << 23)) & seen);
}

#endif
