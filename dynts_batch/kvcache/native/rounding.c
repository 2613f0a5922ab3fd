/* Numbers to codes of 8 bits and back, a row at a time. Numbers are float32, or bfloat16 if
   `halves`. */

#include "rounding.h"

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
