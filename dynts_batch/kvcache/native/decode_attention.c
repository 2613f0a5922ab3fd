/* One decode step of grouped-query attention over the arena, float32: each row reads its own live slots once, in place.

   Letters: B rows, K key/value heads, G query heads of each, D head_dim (a multiple of VEC), S slots.
   A row's result depends on that row alone, bit for bit: no sum runs over rows, and none is cut by the number of
   threads. */

#include <omp.h>

#include "attention.h"

/* Slots whose values stay in the first-level cache while every query head of the group adds them up. */
#define TILE 64

/* One key/value head of one row: query and out [G, D], keys and values [length, D]; scratch [G, padded length]. */
static void attend(float *out, const float *query, const float *keys, const float *values, const float *sinks,
                   float *scratch, long stride, long length, long G, long D, float scale) {
    multiply(scratch, query, keys, stride, length, G, D, scale);
    for (long g = 0; g < G; g++) softmax(scratch + g * stride, length, sinks ? sinks + g : NULL);
    memset(out, 0, G * D * sizeof *out);
    for (long s = 0; s < length; s += TILE) {
        long count = length - s < TILE ? length - s : TILE;
        add_values(out, scratch + s, values + s * D, stride, count, G, D);
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
        long b = row / K, k = row % K, last = last_slots[b];
        const int32_t *at = stored + b * stored_lane_stride + k * stored_head_stride;
        long first = first_visible(at, last, positions[b], window);
        long offset = b * lane_stride + k * head_stride + first * D;
        attend(out + row * G * D, query + row * G * D, keys + offset, values + offset, sinks ? sinks + k * G : NULL,
               scratch + omp_get_thread_num() * G * scratch_stride, scratch_stride, last + 1 - first, G, D, scale);
    }
}
