/* What kvcache/select.py does, and kvcache/compaction.py in place. Axes as in
   kvcache/__init__.py. */

#include <float.h>
#include <omp.h>
#include <stdint.h>
#include <string.h>

/* Whole numbers in the order of scores. What is no number is the largest, as torch sorts it. */
static inline int32_t rank_of(float score) {
    int32_t bits;
    if (score < -FLT_MAX) score = -FLT_MAX;
    score += 0.0f; /* -0 becomes 0 */
    memcpy(&bits, &score, sizeof bits);
    return score == score ? bits ^ (bits >> 31 & INT32_MAX) : INT32_MAX;
}

/* The largest rank that at least `count` of `ranks` [length] reach. */
static int32_t threshold(const int32_t *ranks, long length, long count) {
    int64_t low = INT32_MIN, high = INT32_MAX;
    while (low < high) {
        int64_t middle = low + (high - low + 1) / 2;
        int32_t least = middle, found = 0;
        for (long i = 0; i < length; i++) found += ranks[i] >= least;
        if (found >= count) low = middle;
        else high = middle - 1;
    }
    return low;
}

/* stays [R, heads, C] by scores [R, heads, C], as `select` says; counts [R]. `scratch` has C
   numbers for each thread. */
void choose(uint8_t *stays, const float *scores, int32_t *scratch, const int64_t *cache_len,
            const int64_t *num_first, const int64_t *num_last, const int64_t *num_kept, long R,
            long heads, long C, long threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
    for (long row = 0; row < R * heads; row++) {
        long r = row / heads, live = cache_len[r], room = num_kept[r],
             first = num_first[r] < live ? num_first[r] : live,
             length = live - num_last[r] > first ? live - num_last[r] - first : 0;
        int32_t *ranks = scratch + omp_get_thread_num() * C;
        uint8_t *own = stays + row * C;
        for (long i = 0; i < length; i++) ranks[i] = rank_of(scores[row * C + first + i]);
        int32_t least = threshold(ranks, length, room);
        for (long i = 0; i < length; i++) room -= ranks[i] > least;
        memset(own, 1, live);
        memset(own + live, 0, C - live);
        for (long i = 0; i < length; i++)
            own[first + i] = ranks[i] > least || (ranks[i] == least && room-- > 0);
    }
}

/* kept [R, K] from stays [R, C]: the slots that stay, and then the others, up to K. */
void ascending(int64_t *kept, const uint8_t *stays, long R, long C, long K) {
    for (long r = 0; r < R; r++, kept += K, stays += C) {
        long found = 0;
        for (long group = 1; group >= 0; group--)
            for (long slot = 0; slot < C && found < K; slot++)
                if (stays[slot] == group) kept[found++] = slot;
    }
}

/* In stored [parts, lanes, H, C, bytes], slot kept[r, h or 0, j] of lane lanes[r] goes to slot j,
   for the first retained[r] j. The slots ascend, so none is overwritten before it has moved. Slots
   side by side move together, or not at all. */
void compact(char *stored, const int64_t *lanes, const int64_t *kept, const int64_t *retained,
             long R, long kept_heads, long K, long num_parts, long num_lanes, long H, long C,
             long bytes, long threads) {
#pragma omp parallel for collapse(3) num_threads(threads)
    for (long p = 0; p < num_parts; p++)
        for (long r = 0; r < R; r++)
            for (long h = 0; h < H; h++) {
                char *head = stored + ((p * num_lanes + lanes[r]) * H + h) * C * bytes;
                const int64_t *from = kept + (r * kept_heads + h % kept_heads) * K;
                for (long j = 0, end; j < retained[r]; j = end) {
                    for (end = j + 1; end < retained[r] && from[end] == from[end - 1] + 1;) end++;
                    if (from[j] != j)
                        memmove(head + j * bytes, head + from[j] * bytes, (end - j) * bytes);
                }
            }
}
