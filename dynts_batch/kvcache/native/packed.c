/* Packed keys and values, float32: what kvcache/packed_store.py does with groups and buffers, the same bits; and decode
   attention, which unpacks each group where it reads it, into the first-level cache.

   Letters as in decode_attention.c. A row's result depends on that row alone. */

#include <omp.h>

#include "attention.h"
#include "packed.h"

/* Stores one token, keys and values [B, K, D] with strides, at `slots` [B] of `lanes` [B]. */
void append_packed(const packed_store *s, const int64_t *lanes, const int64_t *slots, const float *keys,
                   const float *values, long B, long key_lane_stride, long key_head_stride, long value_lane_stride,
                   long value_head_stride) {
    size_t size = s->D * sizeof *keys;
    for (long b = 0; b < B; b++)
        for (long k = 0; k < s->K; k++) {
            long lane = lanes[b], group = slots[b] / GROUP, place = slots[b] % GROUP;
            const float *key = keys + b * key_lane_stride + k * key_head_stride;
            const float *value = values + b * value_lane_stride + k * value_head_stride;
            memcpy(buffer_of(s, KEYS, lane, k) + place * s->D, key, size);
            memcpy(buffer_of(s, VALUES, lane, k) + place * s->D, value, size);
            if (place < GROUP - 1) continue;
            uint8_t *mark = mark_of(s, lane, k, group);
            if (mark) *mark = 0;
            for (long part = KEYS; part <= VALUES; part++)
                pack_group(s, buffer_of(s, part, lane, k), part, lane, k, group);
        }
}

/* Packs the complete groups of `states` [2, B, K, T, D], of which `lengths` [B] tokens count, from group `first` of
   `lanes` [B] on, and keeps the rest in the buffers; `is_ternary` has been set. */
void write_packed(const packed_store *s, const int64_t *lanes, long first, const int64_t *lengths, const float *states,
                  long B, long T, long threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
    for (long row = 0; row < 2 * B * s->K; row++) {
        long part = row / (B * s->K), b = row / s->K % B, k = row % s->K, whole = lengths[b] / GROUP;
        const float *own = states + row * T * s->D, *rest = own + whole * GROUP * s->D;
        for (long group = 0; group < whole; group++)
            pack_group(s, own + group * GROUP * s->D, part, lanes[b], k, first + group);
        memcpy(buffer_of(s, part, lanes[b], k), rest, lengths[b] % GROUP * s->D * sizeof *rest);
    }
}

/* The group of keys or values from `slot` on, a multiple of GROUP, of a lane of `length` slots: unpacked to `numbers`,
   or in the buffer. */
static const float *find_group(float *numbers, const packed_store *s, long part, long lane, long k, long slot,
                               long length) {
    if (slot + GROUP > length) return buffer_of(s, part, lane, k);
    unpack_group(numbers, s, part, lane, k, slot / GROUP);
    return numbers;
}

/* The first `num_slots` slots of keys or values of `lanes` [B], which hold `cache_len` [lane], to `out`
   [B, K, num_slots, D]; slots beyond a lane's end become 0. */
void read_packed(float *out, const packed_store *s, long part, const int64_t *lanes, const int64_t *cache_len, long B,
                 long num_slots, long threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
    for (long row = 0; row < B * s->K; row++) {
        long lane = lanes[row / s->K], k = row % s->K, length = cache_len[lane];
        long stop = length < num_slots ? length : num_slots;
        float *own = out + row * num_slots * s->D, numbers[GROUP * s->D];
        for (long slot = 0; slot < stop; slot += GROUP) {
            long count = stop - slot < GROUP ? stop - slot : GROUP;
            const float *found = find_group(numbers, s, part, lane, k, slot, length);
            memcpy(own + slot * s->D, found, count * s->D * sizeof *own);
        }
        memset(own + stop * s->D, 0, (num_slots - stop) * s->D * sizeof *own);
    }
}

/* One head of one lane: query and out [G, D] attend to slots `first`..`last`; scratch [G, stride]. */
typedef struct {
    const packed_store *store;
    float *out, *scratch;
    const float *query, *sinks;
    long lane, k, first, last, G, stride;
    float scale;
} head;

/* Goes through the keys, which give logits, or through the values, which are added up. */
static void walk(const head *h, long part) {
    long D = h->store->D, stop = h->last + 1;
    float numbers[GROUP * D];
    for (long slot = h->first / GROUP * GROUP; slot < stop; slot += GROUP) {
        long begin = slot < h->first ? h->first : slot, count = (slot + GROUP < stop ? slot + GROUP : stop) - begin;
        const float *own = find_group(numbers, h->store, part, h->lane, h->k, slot, stop) + (begin - slot) * D;
        float *logits = h->scratch + begin - h->first;
        if (part == KEYS)
            multiply(logits, h->query, own, h->stride, count, h->G, D, h->scale);
        else
            add_values(h->out, logits, own, h->stride, count, h->G, D);
    }
}

static void attend(const head *h) {
    walk(h, KEYS);
    for (long g = 0; g < h->G; g++)
        softmax(h->scratch + g * h->stride, h->last + 1 - h->first, h->sinks ? h->sinks + g : NULL);
    memset(h->out, 0, h->G * h->store->D * sizeof *h->out);
    walk(h, VALUES);
}

/* query and out [B, K, G, D] contiguous. Row b, in lane b, attends to its slots 0..last_slots[b]; the rest as in
   decode_attention.c. */
void packed_attention(float *out, const float *query, const packed_store *s, const int64_t *last_slots,
                      const int64_t *positions, const int32_t *stored, const float *sinks, float *scratch, long B, long G,
                      long stored_lane_stride, long stored_head_stride, long window, long scratch_stride, long threads,
                      float scale) {
#pragma omp parallel for schedule(static) num_threads(threads)
    for (long row = 0; row < B * s->K; row++) {
        long b = row / s->K, k = row % s->K, last = last_slots[b];
        const int32_t *at = stored + b * stored_lane_stride + k * stored_head_stride;
        attend(&(head){.store = s,
                       .out = out + row * G * s->D,
                       .scratch = scratch + omp_get_thread_num() * G * scratch_stride,
                       .query = query + row * G * s->D,
                       .sinks = sinks ? sinks + k * G : NULL,
                       .lane = b,
                       .k = k,
                       .first = first_visible(at, last, positions[b], window),
                       .last = last,
                       .G = G,
                       .stride = scratch_stride,
                       .scale = scale});
    }
}
