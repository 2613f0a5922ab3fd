/* One decode step of grouped-query attention over the arena, float32. Each row reads its own live
   slots once, in place.

   Axes as in kvcache/__init__.py; D is a multiple of VEC. A row's result depends on that row alone,
   bit for bit. No sum runs over rows, and the number of threads cuts none. */

#include <omp.h>

#include "attention.h"

/* Slots per tile: its values stay in the first-level cache while every query head of the group adds
   them. */
#define TILE 64

/* One key/value head of one row. query and out [G, D]; keys and values [length, D]; scratch [G,
   padded length]. */
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

/* query and out [R, H, G, D] are contiguous; keys and values [R, H, S, D] have strides
   `lane_stride` and `head_stride`. Row r attends to its slots 0..last_slots[r]. With window > 0 it
   attends only to those with a stored position above positions[r] - window; positions ascend in
   `stored` [R, H or 1, S]. sinks: [H, G] or NULL. scratch: threads x G x scratch_stride. */
void decode_attention(float *out, const float *query, const float *keys, const float *values, const int64_t *last_slots,
                      const int64_t *positions, const int32_t *stored, const float *sinks, float *scratch, long R, long H,
                      long G, long D, long lane_stride, long head_stride, long stored_lane_stride,
                      long stored_head_stride, long window, long scratch_stride, long threads, float scale) {
#pragma omp parallel for schedule(static) num_threads(threads)
    for (long row = 0; row < R * H; row++) {
        long r = row / H, h = row % H, last = last_slots[r];
        const int32_t *at = stored + r * stored_lane_stride + h * stored_head_stride;
        long first = first_visible(at, last, positions[r], window);
        long offset = r * lane_stride + h * head_stride + first * D;
        attend(out + row * G * D, query + row * G * D, keys + offset, values + offset, sinks ? sinks + h * G : NULL,
               scratch + omp_get_thread_num() * G * scratch_stride, scratch_stride, last + 1 - first, G, D, scale);
    }
}
