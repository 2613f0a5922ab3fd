/* What kvcache/compaction.py does, in place. Axes as in kvcache/__init__.py. */

#include <stdint.h>
#include <string.h>

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
