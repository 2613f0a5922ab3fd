/* What kvcache/clusters.py does, a set of points after another: the same rule of what is equal, so the same choice.

   Letters: B sets, N points, K clusters, D dimensions. All from the products of the points, in double. */

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define VEC 8
typedef double vec __attribute__((vector_size(8 * VEC)));

/* products[i, j] of float points [N, D]; `wide` [N, padded] is room for them as doubles. */
static void multiply(double *products, vec *wide, const float *points, long N, long D) {
    long padded = (D + VEC - 1) / VEC;
    memset(wide, 0, N * padded * sizeof *wide);
    for (long i = 0; i < N; i++)
        for (long d = 0; d < D; d++) ((double *)(wide + i * padded))[d] = points[i * D + d];
    for (long i = 0; i < N; i++)
        for (long j = 0; j <= i; j++) {
            vec part = {};
            for (long d = 0; d < padded; d++) part += wide[i * padded + d] * wide[j * padded + d];
            double total = 0;
            for (long d = 0; d < VEC; d++) total += part[d];
            products[i * N + j] = products[j * N + i] = total;
        }
}

/* The first of `values` that is smallest but for rounding. */
static long first_smallest(const double *values, long length, double tolerance) {
    double least = INFINITY;
    for (long i = 0; i < length; i++) least = values[i] < least ? values[i] : least;
    long first = 0;
    while (values[first] > least + tolerance) first++;
    return first;
}

/* Centres to start with, as their products with all points, [K, N], and with themselves, [K]: the first point, and then
   that farthest from all before. `nearness` [N] is room. */
static void start(double *to_points, double *squares, double *nearness, const double *products, long N, long K,
                  double tolerance) {
    long chosen = 0;
    for (long c = 0; c < K; c++) {
        const double *own = products + chosen * N;
        memcpy(to_points + c * N, own, N * sizeof *own);
        squares[c] = own[chosen];
        for (long i = 0; i < N; i++) {
            double near = 2 * own[i] - own[chosen] - products[i * N + i];
            nearness[i] = c && nearness[i] > near ? nearness[i] : near;
        }
        chosen = first_smallest(nearness, N, tolerance);
    }
}

/* Moves each centre that has points to their mean. */
static void move_centres(double *to_points, double *squares, const int32_t *owner, const double *products, long N, long K) {
    for (long c = 0; c < K; c++) {
        long size = 0;
        for (long i = 0; i < N; i++) size += owner[i] == c;
        if (!size) continue;
        double *mean = to_points + c * N;
        memset(mean, 0, N * sizeof *mean);
        for (long i = 0; i < N; i++)
            if (owner[i] == c)
                for (long j = 0; j < N; j++) mean[j] += products[i * N + j];
        for (long j = 0; j < N; j++) mean[j] /= size;
        squares[c] = 0;
        for (long i = 0; i < N; i++)
            if (owner[i] == c) squares[c] += mean[i];
        squares[c] /= size;
    }
}

/* Each point's cluster, after Lloyd's steps. `costs` [K] is room. */
static void assign(int32_t *owner, double *to_points, double *squares, double *costs, const double *products, long N, long K,
                   long max_steps, double tolerance) {
    for (long step = 0; step < max_steps; step++) {
        int has_changed = step == 0;
        for (long i = 0; i < N; i++) {
            for (long c = 0; c < K; c++) costs[c] = squares[c] - 2 * to_points[c * N + i];
            int32_t found = first_smallest(costs, K, tolerance);
            has_changed |= found != owner[i];
            owner[i] = found;
        }
        if (!has_changed) return;
        move_centres(to_points, squares, owner, products, N, K);
    }
}

/* Marks in `kept` [N] the member nearest each centre, and the first points left where clusters are empty. */
static void mark(uint8_t *kept, const int32_t *owner, const double *to_points, double *distances, const double *products,
                 long N, long K, double tolerance) {
    long num_left = K;
    for (long c = 0; c < K; c++) {
        int has_members = 0;
        for (long i = 0; i < N; i++) {
            has_members |= owner[i] == c;
            distances[i] = owner[i] == c ? products[i * N + i] - 2 * to_points[c * N + i] : INFINITY;
        }
        if (!has_members) continue;
        kept[first_smallest(distances, N, tolerance)] = 1;
        num_left--;
    }
    for (long i = 0; i < N && num_left > 0; i++)
        if (!kept[i]) kept[i] = 1, num_left--;
}

/* kept [B, N]: which `num_kept` [B] of the first `num_points` [B] of points [B, N, D] stand for the others. */
void representatives(uint8_t *kept, const float *points, const int64_t *num_points, const int64_t *num_kept, long B, long N,
                     long D, long max_steps, double share, long threads) {
    memset(kept, 0, B * N);
    size_t wide = N * ((D + VEC - 1) / VEC) * sizeof(vec), doubles = 2 * N * N + 2 * N;
#pragma omp parallel for schedule(dynamic) num_threads(threads)
    for (long b = 0; b < B; b++) {
        long n = num_points[b], k = num_kept[b];
        vec *room = aligned_alloc(sizeof(vec), wide);
        double *products = malloc(doubles * sizeof *products + N * sizeof(int32_t)), *to_points = products + N * N;
        double *squares = to_points + N * N, *values = squares + N, longest = 0;
        int32_t *owner = (int32_t *)(products + doubles);
        memset(owner, 0, N * sizeof *owner);
        multiply(products, room, points + b * N * D, n, D);
        for (long i = 0; i < n; i++) longest = products[i * n + i] > longest ? products[i * n + i] : longest;
        start(to_points, squares, values, products, n, k, share * longest);
        assign(owner, to_points, squares, values, products, n, k, max_steps, share * longest);
        mark(kept + b * N, owner, to_points, values, products, n, k, share * longest);
        free(room);
        free(products);
    }
}
