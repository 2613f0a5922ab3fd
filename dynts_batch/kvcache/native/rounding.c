/* Numbers to codes of 8 bits and back, a row at a time. Numbers are float32, or bfloat16 if
   `halves`. */

#include <float.h>

#include "vectors.h"

/* A float below 2^22 plus MAGIC has the nearest whole number in its lowest bits; ties are even. */
#define MAGIC 12582912.0f
#define TOP 127.0f

/* The numbers from place i on, and zeros behind the last of `count`. */
static inline vec take_some(const void *from, long i, long count, long halves) {
    if (count >= VEC) return take(from, i, halves);
    float some[VEC] = {};
    long size = halves ? sizeof(uint16_t) : sizeof(float);
    memcpy(some, (const char *)from + i * size, count * size);
    return take(some, 0, halves);
}

/* The lowest 8 bits of each number. */
static inline void store_bytes(uint8_t *to, ivec v) {
#if defined(__AVX2__) && VEC == 8
    __m256i low = (__m256i)(v & 255); /* gcc takes them out one by one */
    __m128i words = _mm_packus_epi32(_mm256_castsi256_si128(low), _mm256_extracti128_si256(low, 1));
    _mm_storel_epi64((void *)to, _mm_packus_epi16(words, words));
#else
    typedef uint8_t bvec __attribute__((vector_size(VEC)));
    bvec bytes = __builtin_convertvector(v, bvec);
    memcpy(to, &bytes, sizeof bytes);
#endif
}

/* The codes [K] of row r of numbers [R, K]; returns their scale. A code is `zero_point` plus the
   number over the scale, in its lowest 8 bits. */
static inline float round_row(uint8_t *codes, const void *numbers, long r, long K, long zero_point,
                              long halves) {
    ivec most = {};
    for (long k = 0; k < K; k += VEC) {
        /* Without signs, larger numbers have larger bits, and NaN has the largest. */
        ivec bits = (ivec)take_some(numbers, r * K + k, K - k, halves) & 0x7fffffff,
             mask = bits > most;
        most = (mask & bits) | (~mask & most);
    }
    int32_t largest = 0;
    for (long i = 0; i < VEC; i++) largest = most[i] > largest ? most[i] : largest;
    float scale;
    memcpy(&scale, &largest, sizeof scale);
    scale = (scale < FLT_MIN ? FLT_MIN : scale) / TOP;
    for (long k = 0; k < K; k += VEC) {
        ivec whole = (ivec)(take_some(numbers, r * K + k, K - k, halves) / scale + MAGIC) -
                     (ivec)((vec){} + MAGIC) + (int32_t)zero_point;
        uint8_t some[VEC];
        store_bytes(K - k < VEC ? some : codes + k, whole);
        if (K - k < VEC) memcpy(codes + k, some, K - k);
    }
    return scale;
}

/* codes [R, K] and scales [R] of numbers [R, K], by `round_row`. */
void round_rows(uint8_t *codes, float *scales, const void *numbers, long R, long K,
                long zero_point, long halves, long threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
    for (long r = 0; r < R; r++)
        scales[r] = round_row(codes + r * K, numbers, r, K, zero_point, halves);
}

/* out [R, N] = sums [R, N] * scales [R] + bias [N], or without it. N is a multiple of VEC. */
void scale_rows(void *out, const float *sums, const float *scales, const float *bias, long R,
                long N, long halves, long threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
    for (long r = 0; r < R; r++)
        for (long n = 0; n < N; n += VEC) {
            vec scaled = apart(load(sums + r * N + n) * scales[r]);
            if (bias) scaled = scaled + load(bias + n);
            put(out, r * N + n, scaled, halves);
        }
}
