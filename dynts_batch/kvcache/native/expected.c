/* The scores of kvcache/policies/expected.py, without sliding windows. Axes as in
   kvcache/__init__.py; T are the predicted queries. A row's scores depend on that row alone. */

#include <float.h>
#include <omp.h>

#include "attention.h"

/* Keys that are widened together, to the first-level cache. */
#define BLOCK 32

/* One KV head of one row: keys and values [count, D], bfloat16 if `halves`, else float32; queries
   [T * G, D] and variances [G, D]. */
typedef struct {
    const void *keys, *values;
    const float *queries, *variances;
    long count, T, G, D, halves;
} head;

static void find_mean(float *mean, const head *one) {
    for (long d = 0; d < one->D; d += VEC) {
        vec total = {};
        for (long s = 0; s < one->count; s++) total += take(one->keys, s * one->D + d, one->halves);
        store(mean + d, total / (float)one->count);
    }
}

/* values [count], with zeros up to a multiple of VEC, divided by their sum; zeros stay. */
static void normalise(float *values, long count) {
    vec total = {};
    for (long s = 0; s < count; s += VEC) total += load(values + s);
    float factor = 1 / fmaxf(sum(total), FLT_MIN);
    for (long s = 0; s < count; s += VEC) store(values + s, load(values + s) * factor);
}

/* scores [count]. `scratch` has (T * G + G + 3) * stride floats; a stride is at least `count`, and
   a multiple of VEC. */
static void score(float *scores, const head *one, float *scratch, long stride, float unlikeness) {
    const long D = one->D, G = one->G, num_queries = one->T * G;
    float *logits = scratch, *spread = logits + num_queries * stride, *unlike = spread + G * stride,
          *lengths = unlike + stride, *attention = lengths + stride;
    float mean[D], keys[BLOCK * D], squares[BLOCK * D];
    find_mean(mean, one);
    memset(unlike, 0, 3 * stride * sizeof *unlike);
    for (long first = 0; first < one->count; first += BLOCK) {
        long some = one->count - first < BLOCK ? one->count - first : BLOCK;
        for (long s = 0; s < some; s++) {
            vec distance = {}, length = {};
            for (long d = 0; d < D; d += VEC) {
                long at = (first + s) * D + d;
                vec key = take(one->keys, at, one->halves), far = key - load(mean + d),
                    value = take(one->values, at, one->halves);
                store(keys + s * D + d, key);
                store(squares + s * D + d, key * key);
                distance += far * far, length += value * value;
            }
            lengths[first + s] = sqrtf(sum(length));
            unlike[first + s] = sum(distance) * sum(length);
        }
        multiply(logits + first, one->queries, keys, stride, some, num_queries, D, 1);
        multiply(spread + first, one->variances, squares, stride, some, G, D, 1);
    }
    for (long q = 0; q < num_queries; q++) {
        float *own = logits + q * stride, *more = spread + q % G * stride;
        for (long s = 0; s < one->count; s++) own[s] += more[s];
        softmax(own, one->count, NULL);
        for (long s = 0; s < one->count; s++) attention[s] += own[s];
    }
    for (long s = 0; s < one->count; s++) attention[s] *= lengths[s];
    normalise(attention, one->count);
    normalise(unlike, one->count);
    for (long s = 0; s < one->count; s++) scores[s] = attention[s] + unlikeness * unlike[s];
}

/* scores [L, R, H, C] of the slots first[r]..end[r] - 1 of `lanes` [R], and 0 for the others. keys
   and values: of each layer the address of [lanes, H, C, D]. queries [L, R, H, T, G, D], variances
   [L, R, H, G, D]. `scratch`: as above, for each thread. */
void expected_scores(float *scores, const int64_t *keys, const int64_t *values,
                     const int64_t *lanes, const float *queries, const float *variances,
                     const int64_t *first, const int64_t *end, float *scratch, long L, long R,
                     long H, long C, long T, long G, long D, long stride, long halves, long threads,
                     float unlikeness) {
    const long size = D * (halves ? sizeof(uint16_t) : sizeof(float));
    memset(scores, 0, L * R * H * C * sizeof *scores);
#pragma omp parallel for schedule(static) num_threads(threads)
    for (long row = 0; row < L * R * H; row++) {
        long layer = row / H / R, r = row / H % R, at = (lanes[r] * H + row % H) * C + first[r];
        head one = {(const char *)keys[layer] + at * size, (const char *)values[layer] + at * size,
                    queries + row * T * G * D, variances + row * G * D, end[r] - first[r],
                    T, G, D, halves};
        if (one.count <= 0) continue;
        score(scores + row * C + first[r], &one,
              scratch + omp_get_thread_num() * (T * G + G + 3) * stride, stride, unlikeness);
    }
}
