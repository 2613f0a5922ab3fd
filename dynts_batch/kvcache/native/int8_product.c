/* Products of 8-bit codes on CPUs with AVX-512 VNNI or AVX2. The sums of a few rows times a few
   channels stay in registers. */

#include <immintrin.h>

#include "rounding.c"

#ifdef __AVX512VNNI__

/* At most 6 rows times 64 channels. */
#define WIDTH 16
#define AT_ONCE 4
#define MOST_ROWS 6
#define SIGNED 0
typedef ivec ints;

/* sums += four codes of a row, repeated, times four codes of each of 16 channels. As an intrinsic,
   gcc keeps moving the sums to memory and back. */
#define ADD(sums, row, channels) asm("vpdpbusd %2, %1, %0" : "+v"(sums) : "v"(row), "v"(channels))

#else

/* At most 4 rows times 16 channels. Two products are added in 16 bits, which hold 127 * 127 twice
   but not 255 * 127 twice. So the row's codes are signed here: the channels give them their signs,
   and are taken without. */
#define WIDTH 8
#define AT_ONCE 2
#define MOST_ROWS 4
#define SIGNED 1
typedef int32_t ints __attribute__((vector_size(4 * WIDTH)));

#define ADD(sums, row, channels)                                                     \
    sums += (ints)_mm256_madd_epi16(                                                \
        _mm256_maddubs_epi16(_mm256_abs_epi8((__m256i)(channels)),                   \
                             _mm256_sign_epi8((__m256i)(row), (__m256i)(channels))), \
        _mm256_set1_epi16(1))

#endif

/* Channels whose weights lie together. */
#define PANEL (AT_ONCE * WIDTH)
/* So many of a panel's steps of 4 codes, 16 KiB, stay in the first cache while so many rows pass.
   Weights come out of the second one, or of memory, once for all of these rows. */
#define STEPS (4096 / PANEL)
#define ROWS 48

typedef struct {
    void *out;
    const uint8_t *codes;
    const float *scales;
    const int8_t *weights;
    const int32_t *offsets;
    const float *channel_scales, *bias;
    long N, K, halves;
} product;

/* M rows from row r on times the steps [start, end) of the panel from channel n; M is a constant.
   `kept` has the sums of earlier steps, and takes these unless they are the last. Meanwhile the
   bytes from `ahead` on come nearer. */
INLINE void multiply(const product *p, long r, long n, long start, long end, ints (*kept)[AT_ONCE],
                     const int8_t *ahead, const long M) {
    const uint8_t *codes = p->codes + r * p->K;
    const int8_t *panel = p->weights + n * p->K;
    ints sums[MOST_ROWS][AT_ONCE];
#pragma GCC unroll 6
    for (long m = 0; m < M; m++)
#pragma GCC unroll 4
        for (long i = 0; i < AT_ONCE; i++)
            if (start) sums[m][i] = kept[m][i];
            else if (SIGNED) sums[m][i] = (ints){};
            else memcpy(&sums[m][i], p->offsets + n + i * WIDTH, sizeof(ints));
#pragma GCC unroll 1
    for (long k = start; k < end; k++, ahead += 64) {
        ints channels[AT_ONCE];
#pragma GCC unroll 4
        for (long i = 0; i < AT_ONCE; i++)
            memcpy(&channels[i], panel + 4 * (PANEL * k + WIDTH * i), sizeof(ints));
        __builtin_prefetch(ahead, 0, 2);
#pragma GCC unroll 6
        for (long m = 0; m < M; m++) {
            int32_t four;
            memcpy(&four, codes + m * p->K + 4 * k, sizeof four);
            ints row = (ints){} + four;
#pragma GCC unroll 4
            for (long i = 0; i < AT_ONCE; i++) ADD(sums[m][i], row, channels[i]);
        }
    }
    if (4 * end < p->K) {
#pragma GCC unroll 6
        for (long m = 0; m < M; m++)
#pragma GCC unroll 4
            for (long i = 0; i < AT_ONCE; i++) kept[m][i] = sums[m][i];
        return;
    }
#pragma GCC unroll 6
    for (long m = 0; m < M; m++) {
        ints own[AT_ONCE]; /* a copy: gcc keeps in memory what is read as wider vectors */
#pragma GCC unroll 4
        for (long i = 0; i < AT_ONCE; i++) own[i] = sums[m][i];
#pragma GCC unroll 4
        for (long i = 0; i < PANEL / VEC; i++) {
            long c = n + i * VEC, at = (r + m) * p->N + c, count = p->N - c;
            if (count <= 0) continue;
            ivec whole;
            memcpy(&whole, &own[i * VEC / WIDTH], sizeof whole);
            vec scaled = __builtin_convertvector(whole, vec) * load(p->channel_scales + c);
            scaled = apart(scaled * p->scales[r + m]);
            if (p->bias) scaled = scaled + load(p->bias + c);
            if (count >= VEC) {
                put(p->out, at, scaled, p->halves);
                continue;
            }
            /* The last channels. A length that is no constant is slow to copy. */
            float some[VEC];
            long size = p->halves ? sizeof(uint16_t) : sizeof(float);
            put(some, 0, scaled, p->halves);
            memcpy((char *)p->out + at * size, some, count * size);
        }
    }
}

/* The rows [first, last), at most ROWS, times a panel. */
static void multiply_panel(const product *p, long first, long last, long n) {
    ints kept[ROWS][AT_ONCE];
    const long R = last - first, num_tiles = (R + MOST_ROWS - 1) / MOST_ROWS, num_steps = p->K / 4,
         num_parts = (num_steps + STEPS - 1) / STEPS;
    for (long part = 0; part < num_parts; part++) {
        long start = num_steps * part / num_parts, end = num_steps * (part + 1) / num_parts;
        for (long t = 0; t < num_tiles; t++) {
            long at = R * t / num_tiles, r = first + at;
            /* A step of a tile fetches 64 bytes of what lies behind these steps. */
            const int8_t *ahead = p->weights + n * p->K + 4 * PANEL * end +
                                  PANEL * (end - start) * (t % (PANEL / 16));
            switch (R * (t + 1) / num_tiles - at) {
            case 1: multiply(p, r, n, start, end, kept + at, ahead, 1); break;
            case 2: multiply(p, r, n, start, end, kept + at, ahead, 2); break;
            case 3: multiply(p, r, n, start, end, kept + at, ahead, 3); break;
            case 4: multiply(p, r, n, start, end, kept + at, ahead, 4); break;
#if MOST_ROWS > 4
            case 5: multiply(p, r, n, start, end, kept + at, ahead, 5); break;
            case 6: multiply(p, r, n, start, end, kept + at, ahead, 6); break;
#endif
            }
        }
    }
}

/* out [R, N]: numbers [R, K], rounded by their rows, times the weights, times channel_scales [N],
   plus bias [N], or without it. Numbers and out are bfloat16 if `halves`, else float32. `scratch`
   has R * (K + 4) bytes. The weights are int8 [N / PANEL, K / 4, PANEL, 4]. If not SIGNED, a row's
   codes are 128 above its numbers, and offsets [N] are -128 times the sum of a channel's weights.
   All that has N is padded to whole panels, but for out. K is a multiple of 4. */
void multiply_rows(void *out, float *scratch, const void *numbers, const int8_t *weights,
                   const int32_t *offsets, const float *channel_scales, const float *bias, long R,
                   long N, long K, long halves, long threads) {
    float *scales = scratch;
    uint8_t *codes = (uint8_t *)(scratch + R);
    const product p = {out, codes, scales, weights, offsets, channel_scales, bias, N, K, halves};
#pragma omp parallel num_threads(threads)
    {
#pragma omp for schedule(static)
        for (long r = 0; r < R; r++)
            scales[r] = round_row(codes + r * K, numbers, r, K, SIGNED ? 0 : 128, halves);
#pragma omp for schedule(static)
        for (long n = 0; n < N; n += PANEL)
            for (long r = 0; r < R; r += ROWS)
                multiply_panel(&p, r, r + ROWS < R ? r + ROWS : R, n);
    }
}

/* What the caller must know: PANEL and SIGNED. */
void layout(long *sizes) { sizes[0] = PANEL, sizes[1] = SIGNED; }
