/* One decode step of grouped-query attention over the arena. Each row reads its own live slots
   once, in place. Without BFLOAT16 all numbers are float32. With it they are widened as they are
   read, while sums and softmax stay float32.

   Axes as in kvcache/__init__.py; D is a multiple of VEC. A row's result depends on that row alone,
   bit for bit. No sum runs over rows, and none depends on the number of threads. */

#include <omp.h>

#include "attention.h"
#include "numbers.h"

/* Slots per tile: they stay in the first-level cache while every query head of the group reads
   them. */
#ifdef BFLOAT16
#define TILE 16
#else
#define TILE 64
#endif

/* One key/value head of one row. query and out [G, D]; keys and values [length, D]; scratch [G,
   padded length]. */
static void attend(number *out, const number *query, const number *keys, const number *values,
                   const float *sinks, float *scratch, long stride, long length, long G, long D,
                   float scale) {
    float sums[G * D], *tile = ROOM(TILE * D), *room = ROOM(G * D);
    const float *asked = floats(room, query, G * D);
    for (long s = 0; s < length; s += TILE) {
        long count = length - s < TILE ? length - s : TILE;
        multiply(scratch + s, asked, floats(tile, keys + s * D, count * D), stride, count, G, D,
                 scale);
    }
    for (long g = 0; g < G; g++) softmax(scratch + g * stride, length, sinks ? sinks + g : NULL);
    memset(sums, 0, sizeof sums);
    for (long s = 0; s < length; s += TILE) {
        long count = length - s < TILE ? length - s : TILE;
        add_values(sums, scratch + s, floats(tile, values + s * D, count * D), stride, count, G, D);
    }
    finish(out, sums, G * D);
}

/* query and out [R, H, G, D] are contiguous; keys and values [R, H, S, D] have strides
   `lane_stride` and `head_stride`. Row r attends to its slots 0..last_slots[r]. With window > 0 it
   attends only to those with a stored position above positions[r] - window; positions ascend in
   `stored` [R, H or 1, S]. sinks: [H, G] or NULL. scratch: threads x G x scratch_stride. */
void decode_attention(number *out, const number *query, const number *keys, const number *values,
                      const int64_t *last_slots, const int64_t *positions, const int32_t *stored,
                      const float *sinks, float *scratch, long R, long H, long G, long D,
                      long lane_stride, long head_stride, long stored_lane_stride,
                      long stored_head_stride, long window, long scratch_stride, long threads,
                      float scale) {
#pragma omp parallel for schedule(static) num_threads(threads)
    for (long row = 0; row < R * H; row++) {
        long r = row / H, h = row % H, last = last_slots[r];
        const int32_t *at = stored + r * stored_lane_stride + h * stored_head_stride;
        long first = first_visible(at, last, positions[r], window);
        long offset = r * lane_stride + h * head_stride + first * D;
        attend(out + row * G * D, query + row * G * D, keys + offset, values + offset,
               sinks ? sinks + h * G : NULL, scratch + omp_get_thread_num() * G * scratch_stride,
               scratch_stride, last + 1 - first, G, D, scale);
    }
}
