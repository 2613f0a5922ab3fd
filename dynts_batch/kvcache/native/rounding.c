/* Numbers to codes of 8 bits and back, a row at a time. Numbers are float32, or bfloat16 if
   `halves`. */

#include "vectors.h"

/* A float below 2^22 plus MAGIC has the nearest whole number in its lowest bits; ties are even. */
#define MAGIC 12582912.0f
#define TOP 127.0f
#define SMALLEST 1.17549435e-38f

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

/* codes [R, K] and scales [R] of numbers [R, K]. A code is `zero_point` plus the number over its
   row's scale, in its lowest 8 bits. K is a multiple of VEC. */
void round_rows(uint8_t *codes, float *scales, const void *numbers, long R, long K,
                long zero_point, long halves, long threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
    for (long r = 0; r < R; r++) {
        ivec most = {};
        for (long k = 0; k < K; k += VEC) {
            /* Without signs, larger numbers have larger bits, and NaN has the largest. */
            ivec bits = (ivec)take(numbers, r * K + k, halves) & 0x7fffffff, mask = bits > most;
            most = (mask & bits) | (~mask & most);
        }
        int32_t largest = 0;
        for (long i = 0; i < VEC; i++) largest = most[i] > largest ? most[i] : largest;
        float scale;
        memcpy(&scale, &largest, sizeof scale);
        scale = (scale < SMALLEST ? SMALLEST : scale) / TOP;
        scales[r] = scale;
        for (long k = 0; k < K; k += VEC) {
            ivec whole = (ivec)(take(numbers, r * K + k, halves) / scale + MAGIC) -
                         (ivec)((vec){} + MAGIC);
            store_bytes(codes + r * K + k, whole + (int32_t)zero_point);
        }
    }
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
