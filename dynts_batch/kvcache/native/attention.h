/* The parts of a decode step's attention: logits, softmax, weighted sum. Axes as in
   kvcache/__init__.py; D is a multiple of VEC. */

#include <math.h>

#include "vectors.h"

/* A short loop without a loop, so that arrays which it goes through become registers. */
#define EACH(i, count) _Pragma("GCC unroll 8") for (long i = 0; i < count; i++)

/* Keys at once: their sums stay in registers, and hide each other's latency. */
#define AT_ONCE 4

static inline vec products(const float *a, const float *b, long D) {
    vec dot = {};
    for (long d = 0; d < D; d += VEC) dot += load(a + d) * load(b + d);
    return dot;
}

/* The products of a query [D] with VEC keys [VEC, D]. */
INLINE vec products_of_keys(const float *query, const float *keys, const long D) {
    vec dots[VEC];
#pragma GCC unroll 16
    for (long i = 0; i < VEC; i += AT_ONCE) {
        vec some[AT_ONCE] = {};
#pragma GCC unroll 8
        for (long d = 0; d < D; d += VEC)
            EACH(j, AT_ONCE) some[j] += load(query + d) * load(keys + (i + j) * D + d);
        EACH(j, AT_ONCE) dots[i + j] = some[j];
    }
    return sums(dots);
}

INLINE void multiply_by(float *logits, const float *query, const float *keys, long stride,
                        long length, long G, const long D, float scale) {
    long s = 0;
    for (; s + VEC <= length; s += VEC)
        for (long g = 0; g < G; g++) {
            vec dots = products_of_keys(query + g * D, keys + s * D, D);
            store(logits + g * stride + s, dots * scale);
        }
    for (; s < length; s++)
        for (long g = 0; g < G; g++)
            logits[g * stride + s] = sum(products(query + g * D, keys + s * D, D)) * scale;
}

/* logits[g, 0..length) = scale * (query[g] . each key of [length, D]), for the G query heads of a
   key head. Where D is a constant, a query stays in registers. */
static void multiply(float *logits, const float *query, const float *keys, long stride, long length,
                     long G, long D, float scale) {
    if (D == 64) multiply_by(logits, query, keys, stride, length, G, 64, scale);
    else if (D == 128) multiply_by(logits, query, keys, stride, length, G, 128, scale);
    else multiply_by(logits, query, keys, stride, length, G, D, scale);
}

/* Softmax of logits[0..length) in place. `sink`, or NULL, is one more logit that takes mass and
   gives nothing. */
static void softmax(float *logits, long length, const float *sink) {
    long padded = (length + VEC - 1) / VEC * VEC;
    for (long s = length; s < padded; s++) logits[s] = -1e30f;
    vec most = load(logits);
    for (long s = VEC; s < padded; s += VEC) most = larger(load(logits + s), most);
    float top = maximum(most);
    if (sink && *sink > top) top = *sink;
    vec total = {};
    for (long s = 0; s < padded; s += VEC) {
        vec weight = exponential(load(logits + s) - top);
        store(logits + s, weight);
        total += weight;
    }
    float share = 1 / (sum(total) + (sink ? expf(*sink - top) : 0));
    for (long s = 0; s < padded; s += VEC) store(logits + s, load(logits + s) * share);
}

/* For M query heads: out[m, 0..N * VEC) += the sum over s of weights[m, s] * values[s, 0..N *
   VEC). M and N are constants, so the sums stay in registers. */
INLINE void add_weighted(float *out, const float *weights, const float *values, long stride,
                         long length, long D, const long M, const long N) {
    vec part[2][4];
    EACH(m, M) EACH(i, N) part[m][i] = load(out + m * D + i * VEC);
    for (long s = 0; s < length; s++) {
        vec found[4];
        EACH(i, N) found[i] = load(values + s * D + i * VEC);
        EACH(m, M) EACH(i, N) part[m][i] += weights[m * stride + s] * found[i];
    }
    EACH(m, M) EACH(i, N) store(out + m * D + i * VEC, part[m][i]);
}

/* The same over the whole of D. */
INLINE void add_rows(float *out, const float *weights, const float *values, long stride,
                     long length, long D, const long M) {
    long d = 0;
    for (; d + 4 * VEC <= D; d += 4 * VEC)
        add_weighted(out + d, weights, values + d, stride, length, D, M, 4);
    for (; d + 2 * VEC <= D; d += 2 * VEC)
        add_weighted(out + d, weights, values + d, stride, length, D, M, 2);
    for (; d < D; d += VEC) add_weighted(out + d, weights, values + d, stride, length, D, M, 1);
}

/* For the G query heads of a key head: out [G, D] += the sum over s of weights[g, s] *
   values[s]. */
static inline void add_values(float *out, const float *weights, const float *values, long stride,
                              long length, long G, long D) {
    long g = 0;
    for (; g + 2 <= G; g += 2)
        add_rows(out + g * D, weights + g * stride, values, stride, length, D, 2);
    if (g < G) add_rows(out + g * D, weights + g * stride, values, stride, length, D, 1);
}

/* The first of slots 0..last whose stored position is in the window of a token at `position`.
   Positions ascend in `stored`. */
static inline long first_visible(const int32_t *stored, long last, long position, long window) {
    long first = 0;
    while (window > 0 && first < last && stored[first] <= position - window) first++;
    return first;
}
