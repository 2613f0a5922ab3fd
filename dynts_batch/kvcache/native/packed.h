/* Groups of 16 tokens of one head, packed and unpacked exactly as kvcache/stores/formats.py does.
   Codes have 2 bits (ternary), 4 (NVFP4, or INT4 for keys) or 8 (FP8), and scales are FP8 E4M3.
   Keys share a scale along 16 tokens of a channel, values along 16 channels of a token. */

#include "numbers.h"

#define GROUP 16
#define KEYS 0
#define VALUES 1

/* The arena's store of one layer, of `num_lanes` lanes and N groups a head. The first axis of the
   arrays: keys, values. `zero_points` [num_lanes, H, N, D] are for keys in INT4, else NULL.
   `is_ternary` is [num_lanes, H or 1, N], or NULL. */
typedef struct {
    uint8_t *codes, *scales;
    int16_t *zero_points;
    number *buffer;
    uint8_t *is_ternary;
    long num_lanes, H, N, D, bits, marks_per_lane;
} packed_store;

typedef uint32_t words __attribute__((vector_size(4 * VEC)));
typedef uint8_t bytes __attribute__((vector_size(VEC)));

#ifdef __AVX512F__
#define LANE ((words){0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15})
#else
#define LANE ((words){0, 1, 2, 3, 4, 5, 6, 7})
#endif
/* Where in its 32-bit word the code of each lane begins. */
#define SHIFTS(bits) (LANE * (uint32_t)(bits) & 31)

static inline long group_bytes(const packed_store *s) { return GROUP * s->D * s->bits / 8; }
static inline long head_of(const packed_store *s, long part, long lane, long h) {
    return (part * s->num_lanes + lane) * s->H + h;
}
static inline uint8_t *codes_of(const packed_store *s, long part, long lane, long h, long group) {
    return s->codes + (head_of(s, part, lane, h) * s->N + group) * group_bytes(s);
}
static inline uint8_t *scales_of(const packed_store *s, long part, long lane, long h, long group) {
    return s->scales + (head_of(s, part, lane, h) * s->N + group) * s->D;
}
/* The zero-points of a group, or NULL if it has none. */
static inline int16_t *zero_points_of(const packed_store *s, long part, long lane, long h,
                                      long group) {
    if (part != KEYS || !s->zero_points) return NULL;
    return s->zero_points + ((lane * s->H + h) * s->N + group) * s->D;
}
static inline number *buffer_of(const packed_store *s, long part, long lane, long h) {
    return s->buffer + head_of(s, part, lane, h) * GROUP * s->D;
}
/* The mark of a group, or NULL if none is ever ternary. */
static inline uint8_t *mark_of(const packed_store *s, long lane, long h, long group) {
    if (!s->is_ternary) return NULL;
    return s->is_ternary + (lane * s->marks_per_lane + (s->marks_per_lane > 1 ? h : 0)) * s->N +
           group;
}
static inline long bits_of(const packed_store *s, long lane, long h, long group) {
    const uint8_t *mark = mark_of(s, lane, h, group);
    return mark && *mark ? 2 : s->bits;
}

static inline vec either(ivec mask, vec a, vec b) {
    return (vec)((mask & (ivec)a) | (~mask & (ivec)b));
}
static inline vec magnitude(vec v) { return (vec)((ivec)v & 0x7fffffff); }

/* E4M3 codes without sign of numbers in [0, 448], ties to even. Below 2^-6 codes count steps of
   2^-9. */
static inline ivec to_e4m3(vec v) {
    ivec bits = (ivec)v, normal = ((bits + 0x7ffff + ((bits >> 20) & 1)) >> 20) - (120 << 3);
    ivec small = (ivec)(v * 512.0f + 8388608.0f) - (ivec)((vec){} + 8388608.0f);
    ivec is_small = v < 0.015625f;
    return (is_small & small) | (~is_small & normal);
}

static inline vec from_e4m3(ivec codes) {
    ivec rest = codes & 0x7f;
    vec small = __builtin_convertvector(rest, vec) * 0.001953125f,
        normal = (vec)((rest + (120 << 3)) << 20);
    return (vec)((ivec)either(rest < 8, small, normal) | (codes & 0x80) << 24);
}

/* VEC codes of `bits` each, from `from` on. A lane takes the byte that holds its code, and shifts
   it. */
INLINE ivec load_codes(const uint8_t *from, const long bits) {
    bytes packed = {};
    memcpy(&packed, from, VEC * bits / 8);
    packed = __builtin_shuffle(packed, __builtin_convertvector(LANE * (uint32_t)bits / 8, bytes));
    words word = __builtin_convertvector(packed, words);
    return (ivec)(word >> (LANE * (uint32_t)bits & 7)) & (int32_t)((1 << bits) - 1);
}

/* The reverse: codes are shifted up, and lanes that share a word are merged. */
INLINE void store_codes(uint8_t *to, ivec codes, const long bits) {
    words all = (words)codes << SHIFTS(bits);
    all |= __builtin_shuffle(all, LANE ^ 1);
    all |= __builtin_shuffle(all, LANE ^ 2);
    if (bits < 8) all |= __builtin_shuffle(all, LANE ^ 4);
    if (bits < 4) all |= __builtin_shuffle(all, LANE ^ 8); /* nothing new if lanes are 8 */
    all = __builtin_shuffle(all, LANE * (uint32_t)(32 / bits) & (VEC - 1));
    memcpy(to, &all, VEC * bits / 8);
}

/* The numbers that codes stand for, before their scales. */
INLINE vec numbers_of(ivec codes, const long bits) {
    if (bits == 8) return from_e4m3(codes);
    if (bits == 2) return __builtin_shuffle((vec){0, 1, 0, -1}, codes);
#ifdef __AVX512F__
    return __builtin_shuffle((vec){0, .5f, 1, 1.5f, 2, 3, 4, 6, 0, -.5f, -1, -1.5f, -2, -3, -4, -6},
                             codes);
#else
    return __builtin_shuffle((vec){0, .5f, 1, 1.5f, 2, 3, 4, 6},
                             (vec){0, -.5f, -1, -1.5f, -2, -3, -4, -6}, codes);
#endif
}

/* Codes of numbers under their scales: the nearest magnitude, ties to the even code. Only numbers
   that are not 0 get a sign. */
INLINE ivec codes_of_numbers(vec numbers, vec scales, const long bits) {
    vec steps = magnitude(numbers) / either(scales == 0.0f, (vec){} + 1.0f, scales);
    ivec codes;
    if (bits == 8)
        codes = to_e4m3(either(steps < 448.0f, steps, (vec){} + 448.0f));
    else if (bits == 4)
        codes = -((steps > .25f) + (steps >= .75f) + (steps > 1.25f) + (steps >= 1.75f) +
                  (steps > 2.5f) + (steps >= 3.5f) + (steps > 5.0f));
    else
        codes = -(steps > .5f);
    return codes | ((numbers < 0.0f) & (codes > 0) & (1 << (bits - 1)));
}

/* Rounded to whole numbers, ties to even. Magnitudes must be below 2^22. */
static inline vec rounded(vec v) {
    vec large = (vec){} + 12582912.0f;
    return v + large - large;
}

/* E4M3 codes of the scales that put such extents at `top`. Subnormal scales are rounded up. */
static inline ivec scale_codes(vec extents, float top) {
    vec scales = larger(extents / top, (vec){} + 0.001953125f);
    scales = either(scales < 448.0f, scales, (vec){} + 448.0f);
    vec units = scales * 512.0f, whole = rounded(units);
    whole -= __builtin_convertvector(whole < units, vec); /* a true comparison is -1 */
    scales = either(scales < 0.015625f, whole * 0.001953125f, scales);
    return to_e4m3(scales) & (extents != 0.0f);
}

typedef int16_t shorts __attribute__((vector_size(2 * VEC)));

static inline vec load_shorts(const int16_t *from) {
    shorts some;
    memcpy(&some, from, sizeof some);
    return __builtin_convertvector(some, vec);
}
static inline void store_shorts(int16_t *to, vec v) {
    shorts some = __builtin_convertvector(__builtin_convertvector(v, ivec), shorts);
    memcpy(to, &some, sizeof some);
}

/* VEC scales are those of GROUP places, each of VEC numbers. A place of keys is VEC channels of a
   token, which have a scale each. A place of values is a part of what shares a scale. */
static inline long scale_of(long place) { return place * VEC / GROUP; }
/* Where place `j` begins whose scales are those from `i` on. */
static inline long place(long part, long i, long j, long D) {
    return part == KEYS ? j * D + i : i * GROUP + j * VEC;
}
static inline vec own_scale(vec scales, long part, long j) {
    return part == KEYS ? scales : (vec){} + scales[scale_of(j)];
}

/* A group of keys or values, to `out` [GROUP, D], rounded to the model's own type, as they are for
   all who read them. */
INLINE void unpack_bits(float *out, const uint8_t *codes, const uint8_t *scales, long part, long D,
                        const long bits) {
    for (long i = 0; i < D; i += VEC) {
        vec factors = from_e4m3(load_codes(scales + i, 8));
        for (long j = 0; j < GROUP; j++) {
            long at = place(part, i, j, D);
            vec numbers = numbers_of(load_codes(codes + at * bits / 8, bits), bits);
            store(out + at, as_number(numbers * own_scale(factors, part, j)));
        }
    }
}

/* INT4: whole steps from the group's zero-point, which counts eighths of a step. */
static void unpack_int4_keys(float *out, const uint8_t *codes, const uint8_t *scales,
                             const int16_t *zero_points, long D) {
    for (long i = 0; i < D; i += VEC) {
        vec factors = from_e4m3(load_codes(scales + i, 8)),
            begin = load_shorts(zero_points + i) * 0.125f;
        for (long j = 0; j < GROUP; j++) {
            long at = j * D + i;
            vec steps = __builtin_convertvector(load_codes(codes + at / 2, 4), vec);
            store(out + at, as_number((steps + begin) * factors));
        }
    }
}

static void unpack_group(float *out, const packed_store *s, long part, long lane, long h,
                         long group) {
    const uint8_t *codes = codes_of(s, part, lane, h, group),
                  *scales = scales_of(s, part, lane, h, group);
    const int16_t *zero_points = zero_points_of(s, part, lane, h, group);
    if (zero_points) {
        unpack_int4_keys(out, codes, scales, zero_points, s->D);
        return;
    }
    switch (bits_of(s, lane, h, group)) {
    case 2: unpack_bits(out, codes, scales, part, s->D, 2); break;
    case 4: unpack_bits(out, codes, scales, part, s->D, 4); break;
    default: unpack_bits(out, codes, scales, part, s->D, 8);
    }
}

/* Keys or values [GROUP, D], packed. */
INLINE void pack_bits(uint8_t *codes, uint8_t *scales, const float *numbers, long part, long D,
                      const long bits) {
    for (long i = 0; i < D; i += VEC) {
        vec largest = {};
        for (long j = 0; j < GROUP; j++) {
            vec found = magnitude(load(numbers + place(part, i, j, D)));
            if (part == KEYS) {
                largest = larger(found, largest);
            } else {
                float most = maximum(found), before = largest[scale_of(j)];
                largest[scale_of(j)] = most > before ? most : before;
            }
        }
        ivec chosen = scale_codes(largest, bits == 8 ? 16.0f : bits == 4 ? 6.0f : 1.0f);
        store_codes(scales + i, chosen, 8);
        vec factors = from_e4m3(chosen);
        for (long j = 0; j < GROUP; j++) {
            long at = place(part, i, j, D);
            vec own = own_scale(factors, part, j);
            store_codes(codes + at * bits / 8, codes_of_numbers(load(numbers + at), own, bits),
                        bits);
        }
    }
}

static inline vec within(vec v, float least, float most) {
    v = larger(v, (vec){} + least);
    return either(v < most, v, (vec){} + most);
}

static void pack_int4_keys(uint8_t *codes, uint8_t *scales, int16_t *zero_points,
                           const float *numbers, long D) {
    for (long i = 0; i < D; i += VEC) {
        vec low = load(numbers + i), high = low;
        for (long j = 1; j < GROUP; j++) {
            vec found = load(numbers + j * D + i);
            low = -larger(-found, -low), high = larger(found, high);
        }
        vec largest = larger(magnitude(low), magnitude(high)), least = largest * (15.0f / 2048);
        ivec chosen = scale_codes(larger(high - low, least), 15.0f);
        store_codes(scales + i, chosen, 8);
        vec factors = either(chosen == 0, (vec){} + 1.0f, from_e4m3(chosen));
        vec begin = rounded(within(((low + high) / 2.0f / factors - 7.5f) * 8.0f, -32767, 32767));
        begin = (vec)((ivec)begin & (chosen != 0));
        store_shorts(zero_points + i, begin);
        for (long j = 0; j < GROUP; j++) {
            vec steps = within(load(numbers + j * D + i) / factors - begin * 0.125f, 0, 15);
            store_codes(codes + (j * D + i) / 2, __builtin_convertvector(rounded(steps), ivec), 4);
        }
    }
}

static void pack_group(const packed_store *s, const float *numbers, long part, long lane, long h,
                       long group) {
    uint8_t *codes = codes_of(s, part, lane, h, group),
            *scales = scales_of(s, part, lane, h, group);
    int16_t *zero_points = zero_points_of(s, part, lane, h, group);
    if (zero_points) {
        pack_int4_keys(codes, scales, zero_points, numbers, s->D);
        return;
    }
    switch (bits_of(s, lane, h, group)) {
    case 2:
        memset(codes + GROUP * s->D / 4, 0, group_bytes(s) - GROUP * s->D / 4);
        pack_bits(codes, scales, numbers, part, s->D, 2);
        break;
    case 4: pack_bits(codes, scales, numbers, part, s->D, 4); break;
    default: pack_bits(codes, scales, numbers, part, s->D, 8);
    }
}
