/* The parts of a decode step's attention: logits, softmax, weighted sum. Axes as in
   kvcache/__init__.py; D is a multiple of VEC. */

#include <math.h>

#include "vectors.h"

static inline vec products(const float *a, const float *b, long D) {
    vec dot = {};
    for (long d = 0; d < D; d += VEC) dot += load(a + d) * load(b + d);
    return dot;
}

/* The products of a query [D] with VEC keys [VEC, D]. */
static inline vec products_of_keys(const float *query, const float *keys, long D) {
#ifdef __AVX512F__
    vec dots[VEC];
    for (long i = 0; i < VEC; i++) dots[i] = products(query, keys + i * D, D);
    return sums(dots);
#else
    reg dots[VEC];
    for (long i = 0; i < VEC; i += 4) { /* four dots fit the registers */
        vec four[4] = {};
        for (long d = 0; d < D; d += VEC)
            for (long j = 0; j < 4; j++) four[j] += load(query + d) * load(keys + (i + j) * D + d);
        for (long j = 0; j < 4; j++) dots[i + j] = folded(four[j]);
    }
    reg low = reg_sums(dots), high = reg_sums(dots + REG);
    vec all;
    memcpy(&all, &low, sizeof low);
    memcpy((char *)&all + sizeof low, &high, sizeof high);
    return all;
#endif
}

/* logits[g, 0..length) = scale * (query[g] . each key of [length, D]), for the G query heads of a
   key head. */
static void multiply(float *logits, const float *query, const float *keys, long stride, long length,
                     long G, long D, float scale) {
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
        for (long i = length - s; i < VEC; i++) weight[i] = 0;
        store(logits + s, weight);
        total += weight;
    }
    float share = 1 / (sum(total) + (sink ? expf(*sink - top) : 0));
    for (long s = 0; s < padded; s += VEC) store(logits + s, load(logits + s) * share);
}

/* For M query heads: out[m, 0..N * REG) += the sum over s of weights[m, s] * values[s, 0..N *
   REG). M and N are constants, so the sums stay in registers. */
INLINE void add_weighted(float *out, const float *weights, const float *values, long stride,
                         long length, long D, const long M, const long N) {
    reg part[2][4];
    for (long m = 0; m < M; m++)
        for (long i = 0; i < N; i++) memcpy(&part[m][i], out + m * D + i * REG, sizeof(reg));
    for (long s = 0; s < length; s++) {
        reg found[4];
        for (long i = 0; i < N; i++)
            memcpy(&found[i], values + s * D + i * REG, sizeof(reg));
        for (long m = 0; m < M; m++)
            for (long i = 0; i < N; i++) part[m][i] += weights[m * stride + s] * found[i];
    }
    for (long m = 0; m < M; m++)
        for (long i = 0; i < N; i++) memcpy(out + m * D + i * REG, &part[m][i], sizeof(reg));
}

/* The same over the whole of D. */
INLINE void add_rows(float *out, const float *weights, const float *values, long stride,
                     long length, long D, const long M) {
    long d = 0;
    for (; d + 4 * REG <= D; d += 4 * REG)
        add_weighted(out + d, weights, values + d, stride, length, D, M, 4);
    for (; d + 2 * REG <= D; d += 2 * REG)
        add_weighted(out + d, weights, values + d, stride, length, D, M, 2);
    for (; d < D; d += REG) add_weighted(out + d, weights, values + d, stride, length, D, M, 1);
}

/* For the G query heads of a key head: out [G, D] += the sum over s of weights[g, s] *
   values[s]. */
static void add_values(float *out, const float *weights, const float *values, long stride,
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
