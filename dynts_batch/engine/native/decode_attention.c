/* One decode step of grouped-query attention over the arena, float32: each row reads its own live slots once, in place.

   Letters: B rows, K key/value heads, G query heads of each, D head_dim (a multiple of VEC), S slots.
   A row's result depends on that row alone, bit for bit: no sum runs over rows, and none is cut by the number of threads. */

#include <math.h>
#include <omp.h>
#include <stdint.h>
#include <string.h>

#define VEC 16
/* Slots whose values stay in the first-level cache while every query head of the group adds them up. */
#define TILE 64
typedef float vec __attribute__((vector_size(4 * VEC)));
typedef int32_t ivec __attribute__((vector_size(4 * VEC)));

static inline vec load(const float *from) { vec v; memcpy(&v, from, sizeof v); return v; }
static inline void store(float *to, vec v) { memcpy(to, &v, sizeof v); }

static inline vec larger(vec a, vec b) {
    ivec mask = a > b;
    return (vec)((mask & (ivec)a) | (~mask & (ivec)b));
}

static inline float sum(vec v) {
    v += __builtin_shuffle(v, (ivec){8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7});
    v += __builtin_shuffle(v, (ivec){4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11});
    v += __builtin_shuffle(v, (ivec){2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13});
    v += __builtin_shuffle(v, (ivec){1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14});
    return v[0];
}

static inline float maximum(vec v) {
    float most = v[0];
    for (int i = 1; i < VEC; i++) most = v[i] > most ? v[i] : most;
    return most;
}

/* exp(x) for x <= 0: 2^n * e^r with the polynomial of Cephes' expf, error below 2 ulp; what underflows gives 0. */
static inline vec exponential(vec x) {
    x = larger(x, (vec){} - 87.3f);
    ivec n = __builtin_convertvector(x * 1.44269504f - 0.5f, ivec);
    vec whole = __builtin_convertvector(n, vec), r = x - whole * 0.693359375f + whole * 2.12194440e-4f;
    vec p = (vec){} + 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    return p * (vec)((n + 127) << 23);
}

/* Softmax of logits[0..length) in place; `sink` is one more logit that takes mass and gives nothing, or NULL. */
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

/* The sums of 16 vectors, each added up in the order of `sum`: halves of two vectors make one, four times over. */
static inline vec sums(vec v[VEC]) {
    for (int i = 0; i < 8; i++)
        v[i] = __builtin_shuffle(v[2 * i], v[2 * i + 1], (ivec){0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23}) +
               __builtin_shuffle(v[2 * i], v[2 * i + 1], (ivec){8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31});
    for (int i = 0; i < 4; i++)
        v[i] = __builtin_shuffle(v[2 * i], v[2 * i + 1], (ivec){0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27}) +
               __builtin_shuffle(v[2 * i], v[2 * i + 1], (ivec){4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31});
    for (int i = 0; i < 2; i++)
        v[i] = __builtin_shuffle(v[2 * i], v[2 * i + 1], (ivec){0, 1, 4, 5, 8, 9, 12, 13, 16, 17, 20, 21, 24, 25, 28, 29}) +
               __builtin_shuffle(v[2 * i], v[2 * i + 1], (ivec){2, 3, 6, 7, 10, 11, 14, 15, 18, 19, 22, 23, 26, 27, 30, 31});
    return __builtin_shuffle(v[0], v[1], (ivec){0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30}) +
           __builtin_shuffle(v[0], v[1], (ivec){1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31});
}

static inline vec products(const float *a, const float *b, long D) {
    vec dot = {};
    for (long d = 0; d < D; d += VEC) dot += load(a + d) * load(b + d);
    return dot;
}

/* logits[g, 0..length) = scale * (query[g] . each of the keys [length, D]), for the G query heads of a key head. */
static void multiply(float *logits, const float *query, const float *keys, long stride, long length, long G, long D,
                     float scale) {
    long s = 0;
    for (; s + VEC <= length; s += VEC)
        for (long g = 0; g < G; g++) {
            vec dots[VEC];
            for (long i = 0; i < VEC; i++) dots[i] = products(query + g * D, keys + (s + i) * D, D);
            store(logits + g * stride + s, sums(dots) * scale);
        }
    for (; s < length; s++)
        for (long g = 0; g < G; g++) logits[g * stride + s] = sum(products(query + g * D, keys + s * D, D)) * scale;
}

/* For M query heads: out[m, 0..N * VEC) += the sum over s of weights[m, s] * values[s, 0..N * VEC). M and N are constants,
   so the sums stay in registers. */
static inline __attribute__((always_inline)) void add_weighted(float *out, const float *weights, const float *values,
                                                               long stride, long length, long D, const long M,
                                                               const long N) {
    vec part[2][4];
    for (long m = 0; m < M; m++)
        for (long i = 0; i < N; i++) part[m][i] = load(out + m * D + i * VEC);
    for (long s = 0; s < length; s++)
        for (long m = 0; m < M; m++)
            for (long i = 0; i < N; i++) part[m][i] += weights[m * stride + s] * load(values + s * D + i * VEC);
    for (long m = 0; m < M; m++)
        for (long i = 0; i < N; i++) store(out + m * D + i * VEC, part[m][i]);
}

/* The same over the whole of D. */
static inline __attribute__((always_inline)) void add_rows(float *out, const float *weights, const float *values,
                                                           long stride, long length, long D, const long M) {
    long d = 0;
    for (; d + 4 * VEC <= D; d += 4 * VEC) add_weighted(out + d, weights, values + d, stride, length, D, M, 4);
    for (; d + 2 * VEC <= D; d += 2 * VEC) add_weighted(out + d, weights, values + d, stride, length, D, M, 2);
    for (; d < D; d += VEC) add_weighted(out + d, weights, values + d, stride, length, D, M, 1);
}

/* One key/value head of one row: query and out [G, D], keys and values [length, D]; scratch [G, padded length]. */
static void attend(float *out, const float *query, const float *keys, const float *values, const float *sinks,
                   float *scratch, long stride, long length, long G, long D, float scale) {
    multiply(scratch, query, keys, stride, length, G, D, scale);
    for (long g = 0; g < G; g++) softmax(scratch + g * stride, length, sinks ? sinks + g : NULL);
    memset(out, 0, G * D * sizeof *out);
    for (long s = 0; s < length; s += TILE) {
        const float *weights = scratch + s, *tile = values + s * D;
        long count = length - s < TILE ? length - s : TILE, g = 0;
        for (; g + 2 <= G; g += 2) add_rows(out + g * D, weights + g * stride, tile, stride, count, D, 2);
        if (g < G) add_rows(out + g * D, weights + g * stride, tile, stride, count, D, 1);
    }
}

/* query and out [B, K, G, D] contiguous; keys and values [B, K, S, D] with strides `lane_stride` and `head_stride`.
   Row b attends to its slots 0..last_slots[b]; with window > 0 only to those whose stored position, ascending in
   `stored` [B, K or 1, S], is above positions[b] - window. sinks: [K, G] or NULL. scratch: threads x G x scratch_stride. */
void decode_attention(float *out, const float *query, const float *keys, const float *values, const int64_t *last_slots,
                      const int64_t *positions, const int32_t *stored, const float *sinks, float *scratch, long B, long K,
                      long G, long D, long lane_stride, long head_stride, long stored_lane_stride,
                      long stored_head_stride, long window, long scratch_stride, long threads, float scale) {
#pragma omp parallel for schedule(static) num_threads(threads)
    for (long row = 0; row < B * K; row++) {
        long b = row / K, k = row % K, first = 0, length = last_slots[b] + 1;
        if (window > 0) {
            const int32_t *at = stored + b * stored_lane_stride + k * stored_head_stride;
            while (first < length - 1 && at[first] <= positions[b] - window) first++;
        }
        long offset = b * lane_stride + k * head_stride + first * D;
        attend(out + row * G * D, query + row * G * D, keys + offset, values + offset, sinks ? sinks + k * G : NULL,
               scratch + omp_get_thread_num() * G * scratch_stride, scratch_stride, length - first, G, D, scale);
    }
}
