/* Products of 8-bit codes on CPUs with AVX-512 VNNI. One instruction multiplies 16 times 4 codes,
   and up to 6 rows times 64 channels of sums stay in registers. */

#include <stddef.h>

#include "vectors.h"

#define PANEL 64
#define MOST_ROWS 6

/* sums += four codes of a row, repeated, times four codes of each of 16 channels. As an intrinsic,
   gcc keeps moving the sums to memory and back. */
#define ADD(sums, row, channels) asm("vpdpbusd %2, %1, %0" : "+v"(sums) : "v"(row), "v"(channels))

typedef struct {
    void *out;
    const uint8_t *codes;
    const float *scales;
    const int8_t *weights;
    const int32_t *offsets;
    const float *channel_scales, *bias;
    long N, K, halves;
} product;

/* M rows from row r on times a panel from channel n on; M is a constant. Meanwhile the bytes from
   `ahead` on come nearer: they belong to the next panel. */
INLINE void multiply(const product *p, long r, long n, const int8_t *ahead, const long M) {
    const uint8_t *codes = p->codes + r * p->K;
    const int8_t *panel = p->weights + n * p->K;
    ivec sums[MOST_ROWS][PANEL / VEC];
#pragma GCC unroll 6
    for (long m = 0; m < M; m++)
#pragma GCC unroll 4
        for (long i = 0; i < PANEL / VEC; i++)
            memcpy(&sums[m][i], p->offsets + n + i * VEC, sizeof(ivec));
#pragma GCC unroll 1
    for (long k = 0, K = p->K; k < K; k += 4, panel += 4 * PANEL, ahead += 64) {
        ivec channels[PANEL / VEC];
#pragma GCC unroll 4
        for (long i = 0; i < PANEL / VEC; i++) memcpy(&channels[i], panel + 64 * i, sizeof(ivec));
        __builtin_prefetch(ahead, 0, 2);
#pragma GCC unroll 6
        for (long m = 0; m < M; m++) {
            int32_t four;
            memcpy(&four, codes + m * K + k, sizeof four);
            ivec row = (ivec){} + four;
#pragma GCC unroll 4
            for (long i = 0; i < PANEL / VEC; i++) ADD(sums[m][i], row, channels[i]);
        }
    }
#pragma GCC unroll 6
    for (long m = 0; m < M; m++)
#pragma GCC unroll 4
        for (long i = 0; i < PANEL / VEC; i++) {
            long c = n + i * VEC, at = (r + m) * p->N + c;
            if (c >= p->N) continue;
            vec scaled = __builtin_convertvector(sums[m][i], vec) * load(p->channel_scales + c);
            scaled = scaled * p->scales[r + m];
            asm("" : "+v"(scaled)); /* not one operation with the sum, as in scale_rows */
            if (p->bias) scaled = scaled + load(p->bias + c);
            if (p->halves) narrow((uint16_t *)p->out + at, scaled);
            else store((float *)p->out + at, scaled);
        }
}

/* out [R, N], bfloat16 if `halves`, else float32: (codes [R, K] - 128) times the weights, times
   scales [R] and channel_scales [N], plus bias [N], or without it. The weights are int8 [N / PANEL,
   K / 4, PANEL, 4], the last panel padded. offsets [N, padded] are -128 times the sum of a
   channel's weights. K is a multiple of 4, N of VEC. */
void multiply_codes(void *out, const uint8_t *codes, const float *scales, const int8_t *weights,
                    const int32_t *offsets, const float *channel_scales, const float *bias, long R,
                    long N, long K, long halves, long threads) {
    const product p = {out, codes, scales, weights, offsets, channel_scales, bias, N, K, halves};
    long num_tiles = (R + MOST_ROWS - 1) / MOST_ROWS;
#pragma omp parallel for schedule(static) num_threads(threads)
    for (long n = 0; n < N; n += PANEL)
        for (long t = 0; t < num_tiles; t++) {
            long r = R * t / num_tiles;
            const int8_t *ahead = weights + (n + PANEL + 16 * t) * K;
            switch (R * (t + 1) / num_tiles - r) {
            case 1: multiply(&p, r, n, ahead, 1); break;
            case 2: multiply(&p, r, n, ahead, 2); break;
            case 3: multiply(&p, r, n, ahead, 3); break;
            case 4: multiply(&p, r, n, ahead, 4); break;
            case 5: multiply(&p, r, n, ahead, 5); break;
            case 6: multiply(&p, r, n, ahead, 6); break;
            }
        }
}
