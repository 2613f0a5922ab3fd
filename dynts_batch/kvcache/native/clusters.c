/* What kvcache/policies/thinkv/clusters.py does, one set of points after another. The rule of
   equality is the same, so the choice is the same.

   Axes as there. All is computed from the products of the points, in double. */

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#ifdef __AVX512F__
#define VEC 8
#else
#define VEC 4
#endif
typedef double vec __attribute__((vector_size(8 * VEC)));

static long num_vectors(long H, long D) { return (H * D + VEC - 1) / VEC; }

/* products[i, j] of N points, whose parts are `stride` floats apart. `wide` [N, padded] is scratch
   for them as doubles. */
static void multiply(double *products, vec *wide, const float *parts, long stride, long N, long H,
                     long D) {
    long padded = num_vectors(H, D);
    memset(wide, 0, N * padded * sizeof *wide);
    for (long i = 0; i < N; i++)
        for (long h = 0; h < H; h++)
            for (long d = 0; d < D; d++)
                ((double *)(wide + i * padded))[h * D + d] = parts[h * stride + i * D + d];
    for (long i = 0; i < N; i++)
        for (long j = 0; j <= i; j++) {
            vec part = {};
            for (long d = 0; d < padded; d++) part += wide[i * padded + d] * wide[j * padded + d];
            double total = 0;
            for (long d = 0; d < VEC; d++) total += part[d];
            products[i * N + j] = products[j * N + i] = total;
        }
}

/* The first of `values` that is smallest within the tolerance. */
static long first_smallest(const double *values, long length, double tolerance) {
    double least = INFINITY;
    for (long i = 0; i < length; i++) least = values[i] < least ? values[i] : least;
    long first = 0;
    while (values[first] > least + tolerance) first++;
    return first;
}

/* The first centres, as their products with all points, [K, N], and with themselves, [K]. The first
   centre is the first point. Each next one is the point farthest from all before. `nearness` [N] is
   scratch. */
static void start(double *to_points, double *squares, double *nearness, const double *products,
                  long N, long K, double tolerance) {
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

/* Moves each centre that has points to their mean. `sizes` [K] is scratch. */
static void move_centres(double *to_points, double *squares, int32_t *sizes, const int32_t *owner,
                         const double *products, long N, long K) {
    memset(sizes, 0, K * sizeof *sizes);
    for (long i = 0; i < N; i++) sizes[owner[i]]++;
    for (long c = 0; c < K; c++) {
        if (!sizes[c]) continue;
        memset(to_points + c * N, 0, N * sizeof *to_points);
        squares[c] = 0;
    }
    for (long i = 0; i < N; i++)
        for (long j = 0; j < N; j++) to_points[owner[i] * N + j] += products[i * N + j];
    for (long c = 0; c < K; c++)
        for (long j = 0; j < N && sizes[c]; j++) to_points[c * N + j] /= sizes[c];
    for (long i = 0; i < N; i++) squares[owner[i]] += to_points[owner[i] * N + i];
    for (long c = 0; c < K; c++)
        if (sizes[c]) squares[c] /= sizes[c];
}

/* Each point's cluster, after Lloyd's steps. `costs` [K, N], `least` [N] and `sizes` [K] are
   scratch. Clusters are the outer loop, so that the compiler takes several points at once. */
static void assign(int32_t *owner, double *to_points, double *squares, double *costs, double *least,
                   int32_t *sizes, const double *products, long N, long K, long max_steps,
                   double tolerance) {
    for (long step = 0; step < max_steps; step++) {
        for (long i = 0; i < N; i++) least[i] = INFINITY;
        for (long c = 0; c < K; c++)
            for (long i = 0; i < N; i++) {
                double cost = squares[c] - 2 * to_points[c * N + i];
                costs[c * N + i] = cost;
                least[i] = cost < least[i] ? cost : least[i];
            }
        int has_changed = step == 0;
        for (long i = 0; i < N; i++) {
            int32_t found = 0;
            while (costs[found * N + i] > least[i] + tolerance) found++;
            has_changed |= found != owner[i];
            owner[i] = found;
        }
        if (!has_changed) return;
        move_centres(to_points, squares, sizes, owner, products, N, K);
    }
}

/* Marks in `kept` [N] the member nearest each centre. For each empty cluster it marks the first
   point left. */
static void mark(uint8_t *kept, const int32_t *owner, const double *to_points, double *distances,
                 const double *products, long N, long K, double tolerance) {
    long num_left = K;
    for (long c = 0; c < K; c++) {
        int has_members = 0;
        for (long i = 0; i < N; i++) {
            has_members |= owner[i] == c;
            distances[i] = owner[i] == c ? products[i * N + i] - 2 * to_points[c * N + i]
                                         : INFINITY;
        }
        if (!has_members) continue;
        kept[first_smallest(distances, N, tolerance)] = 1;
        num_left--;
    }
    for (long i = 0; i < N && num_left > 0; i++)
        if (!kept[i]) kept[i] = 1, num_left--;
}

/* A stretch of points: of row `row`, `size` points from `start` on, of which `num_kept` stay. */
struct stretch { int64_t row, start, size, num_kept; };

/* kept [cuts, L, N]: which points of the cuts stand for the others in each of the `layers` [L]. A
   layer's parts are [*, H, S, D], and a stretch's row r is at where[r] in them. */
void representatives(uint8_t *kept, const float **layers, const int64_t *where,
                     const struct stretch *stretches, long num_cuts, long L, long N, long H, long S,
                     long D, long max_steps, double share, long threads) {
    memset(kept, 0, num_cuts * L * N);
    size_t wide = N * num_vectors(H, D) * sizeof(vec), doubles = 3 * N * N + 2 * N;
#pragma omp parallel for schedule(dynamic) num_threads(threads)
    for (long set = 0; set < num_cuts * L; set++) {
        struct stretch cut = stretches[set / L];
        long n = cut.size, k = cut.num_kept;
        if (!k) continue;
        const float *parts = layers[set % L] + (where[cut.row] * H * S + cut.start) * D;
        vec *room = aligned_alloc(sizeof(vec), wide);
        double *products = malloc(doubles * sizeof *products + 2 * N * sizeof(int32_t)),
               *to_points = products + N * N;
        double *costs = to_points + N * N, *squares = costs + N * N, *values = squares + N,
               longest = 0;
        int32_t *owner = (int32_t *)(products + doubles);
        memset(owner, 0, N * sizeof *owner);
        multiply(products, room, parts, S * D, n, H, D);
        for (long i = 0; i < n; i++)
            longest = products[i * n + i] > longest ? products[i * n + i] : longest;
        start(to_points, squares, values, products, n, k, share * longest);
        assign(owner, to_points, squares, costs, values, owner + N, products, n, k, max_steps,
               share * longest);
        mark(kept + set * N, owner, to_points, values, products, n, k, share * longest);
        free(room);
        free(products);
    }
}
