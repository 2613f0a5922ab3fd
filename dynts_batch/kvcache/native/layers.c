/* Parts of a decoder layer, a row at a time. Numbers are float32, or bfloat16 if `halves`, and are
   rounded where torch rounds them. A row's bits depend on that row alone. */

#include <math.h>

#include "vectors.h"

static inline vec rounded(vec v, long halves) {
    uint16_t half[VEC];
    if (!halves) return v;
    narrow(half, v);
    return widen(half);
}

/* out [R, D] = weight [D] * numbers [R, D] over the root of their row's mean square. D is a
   multiple of VEC. */
void rms_norm(void *out, const void *numbers, const void *weight, long R, long D, long halves,
              long threads, float epsilon) {
#pragma omp parallel for schedule(static) num_threads(threads)
    for (long r = 0; r < R; r++) {
        vec squares = {};
        for (long d = 0; d < D; d += VEC) {
            vec some = take(numbers, r * D + d, halves);
            squares += some * some;
        }
        float share = 1 / sqrtf(sum(squares) / D + epsilon);
        for (long d = 0; d < D; d += VEC) {
            vec some = rounded(take(numbers, r * D + d, halves) * share, halves);
            put(out, r * D + d, take(weight, d, halves) * some, halves);
        }
    }
}

/* out [R, D] = silu(gate) * up. A row of these begins `gate_stride` or `up_stride` numbers behind
   the one before. D is a multiple of VEC. */
void gate_rows(void *out, const void *gate, const void *up, long R, long D, long gate_stride,
               long up_stride, long halves, long threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
    for (long r = 0; r < R; r++)
        for (long d = 0; d < D; d += VEC) {
            vec x = take(gate, r * gate_stride + d, halves);
            ivec is_positive = x > 0;
            vec power = exponential((vec)((ivec)x | (int32_t)0x80000000)); /* of -|x| */
            vec one = (vec){} + 1.0f, top = (vec)((is_positive & (ivec)one) |
                                                  (~is_positive & (ivec)power));
            vec silu = rounded(x * (top / (one + power)), halves);
            put(out, r * D + d, silu * take(up, r * up_stride + d, halves), halves);
        }
}
