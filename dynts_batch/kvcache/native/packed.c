/* Packed keys and values. It does what kvcache/stores/packed.py does with groups and buffers, to
   the same bits. Decode attention unpacks each group where it reads it, into the first-level cache.

   Axes as in kvcache/__init__.py. A row's result depends on that row alone. */

#include <omp.h>

#include "attention.h"
#include "packed.h"

/* Packs keys or values [GROUP, D] of the model's own type. */
static void pack_numbers(const packed_store *s, const number *from, long part, long lane, long h,
                         long group) {
    float *room = ROOM(GROUP * s->D);
    pack_group(s, floats(room, from, GROUP * s->D), part, lane, h, group);
}

/* Stores one token, keys and values [R, H, D] with strides, at `slots` [R] of `lanes` [R]. */
void append_packed(const packed_store *s, const int64_t *lanes, const int64_t *slots,
                   const number *keys, const number *values, long R, long key_lane_stride,
                   long key_head_stride, long value_lane_stride, long value_head_stride) {
    size_t size = s->D * sizeof *keys;
    for (long r = 0; r < R; r++)
        for (long h = 0; h < s->H; h++) {
            long lane = lanes[r], group = slots[r] / GROUP, place = slots[r] % GROUP;
            const number *key = keys + r * key_lane_stride + h * key_head_stride;
            const number *value = values + r * value_lane_stride + h * value_head_stride;
            memcpy(buffer_of(s, KEYS, lane, h) + place * s->D, key, size);
            memcpy(buffer_of(s, VALUES, lane, h) + place * s->D, value, size);
            if (place < GROUP - 1) continue;
            uint8_t *mark = mark_of(s, lane, h, group);
            if (mark) *mark = 0;
            for (long part = KEYS; part <= VALUES; part++)
                pack_numbers(s, buffer_of(s, part, lane, h), part, lane, h, group);
        }
}

/* Packs the complete groups of `states` [2, R, H, T, D], from group `first` of `lanes` [R] on. Of
   each row `lengths` [R] tokens count; those behind the last group stay in the buffers.
   `is_ternary` has been set. */
void write_packed(const packed_store *s, const int64_t *lanes, long first, const int64_t *lengths,
                  const number *states, long R, long T, long threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
    for (long row = 0; row < 2 * R * s->H; row++) {
        long part = row / (R * s->H), r = row / s->H % R, h = row % s->H,
             whole = lengths[r] / GROUP;
        const number *own = states + row * T * s->D, *rest = own + whole * GROUP * s->D;
        for (long group = 0; group < whole; group++)
            pack_numbers(s, own + group * GROUP * s->D, part, lanes[r], h, first + group);
        memcpy(buffer_of(s, part, lanes[r], h), rest, lengths[r] % GROUP * s->D * sizeof *rest);
    }
}

/* The group of keys or values from `slot` on, a multiple of GROUP, of a lane of `length` slots. It
   is in `room`, or in the buffer. */
static const float *find_group(float *room, const packed_store *s, long part, long lane, long h,
                               long slot, long length) {
    if (slot + GROUP > length) return floats(room, buffer_of(s, part, lane, h), GROUP * s->D);
    unpack_group(room, s, part, lane, h, slot / GROUP);
    return room;
}

/* The first `num_slots` slots of keys or values of `lanes` [R], to `out` [R, H, num_slots, D]. The
   lanes hold `cache_len` [lane] slots; slots beyond become 0. */
void read_packed(number *out, const packed_store *s, long part, const int64_t *lanes,
                 const int64_t *cache_len, long R, long num_slots, long threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
    for (long row = 0; row < R * s->H; row++) {
        long lane = lanes[row / s->H], h = row % s->H, length = cache_len[lane];
        long stop = length < num_slots ? length : num_slots;
        float room[GROUP * s->D];
        number *own = out + row * num_slots * s->D;
        for (long slot = 0; slot < stop; slot += GROUP) {
            long count = stop - slot < GROUP ? stop - slot : GROUP;
            const float *found = find_group(room, s, part, lane, h, slot, length);
            finish(own + slot * s->D, found, count * s->D);
        }
        memset(own + stop * s->D, 0, (num_slots - stop) * s->D * sizeof *own);
    }
}

/* One head of one lane: query [G, D] attends to slots `first`..`last`; scratch [G, stride]. */
typedef struct {
    const packed_store *store;
    const float *query, *sinks;
    float *scratch;
    long lane, h, first, last, G, stride;
    float scale;
} head;

/* Goes through the keys, which give logits, or the values, which are added up in `sums` [G, D]. */
static void walk(const head *one, long part, float *sums) {
    long D = one->store->D, stop = one->last + 1;
    float room[GROUP * D];
    for (long slot = one->first / GROUP * GROUP; slot < stop; slot += GROUP) {
        long begin = slot < one->first ? one->first : slot,
             count = (slot + GROUP < stop ? slot + GROUP : stop) - begin;
        const float *own = find_group(room, one->store, part, one->lane, one->h, slot, stop) +
                           (begin - slot) * D;
        float *logits = one->scratch + begin - one->first;
        if (part == KEYS)
            multiply(logits, one->query, own, one->stride, count, one->G, D, one->scale);
        else
            add_values(sums, logits, own, one->stride, count, one->G, D);
    }
}

/* The output [G, D] of the query heads `asked` [G, D]. */
static void attend(number *out, const number *asked, head one) {
    long size = one.G * one.store->D;
    float sums[size], *room = ROOM(size);
    one.query = floats(room, asked, size);
    walk(&one, KEYS, NULL);
    for (long g = 0; g < one.G; g++)
        softmax(one.scratch + g * one.stride, one.last + 1 - one.first,
                one.sinks ? one.sinks + g : NULL);
    memset(sums, 0, sizeof sums);
    walk(&one, VALUES, sums);
    finish(out, sums, size);
}

/* query and out [R, H, G, D] are contiguous. Row r, in lane r, attends to its slots
   0..last_slots[r]. The rest is as in decode_attention.c. */
void packed_attention(number *out, const number *query, const packed_store *s,
                      const int64_t *last_slots, const int64_t *positions, const int32_t *stored,
                      const float *sinks, float *scratch, long R, long G, long stored_lane_stride,
                      long stored_head_stride, long window, long scratch_stride, long threads,
                      float scale) {
#pragma omp parallel for schedule(static) num_threads(threads)
    for (long row = 0; row < R * s->H; row++) {
        long r = row / s->H, h = row % s->H, last = last_slots[r], offset = row * G * s->D;
        const int32_t *at = stored + r * stored_lane_stride + h * stored_head_stride;
        attend(out + offset, query + offset,
               (head){.store = s,
                      .sinks = sinks ? sinks + h * G : NULL,
                      .scratch = scratch + omp_get_thread_num() * G * scratch_stride,
                      .lane = r,
                      .h = h,
                      .first = first_visible(at, last, positions[r], window),
                      .last = last,
                      .G = G,
                      .stride = scratch_stride,
                      .scale = scale});
    }
}
