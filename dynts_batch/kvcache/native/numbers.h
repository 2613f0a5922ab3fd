#ifndef NUMBERS_H
#define NUMBERS_H

/* The type of the model's own numbers: float32, or bfloat16 with BFLOAT16. Bfloat16 is widened
   where it is read, and rounded where it is written, so all arithmetic is float32. */

#include "vectors.h"

#ifdef BFLOAT16
#include <alloca.h>
typedef uint16_t number;
/* Room for `count` floats, until the function returns. */
#define ROOM(count) alloca((count) * sizeof(float))
/* `count` numbers as floats. Those of another type are widened into the room. */
static const float *floats(float *room, const number *from, long count) {
    for (long i = 0; i < count; i += VEC) store(room + i, widen(from + i));
    return room;
}
/* Rounded to a number. */
static inline vec as_number(vec v) {
    number some[VEC];
    narrow(some, v);
    return widen(some);
}
static void finish(number *to, const float *from, long count) {
    for (long i = 0; i < count; i += VEC) narrow(to + i, load(from + i));
}
#else
typedef float number;
#define ROOM(count) NULL
static const float *floats(float *room, const number *from, long count) { return from; }
static inline vec as_number(vec v) { return v; }
static void finish(number *to, const float *from, long count) {
    memcpy(to, from, count * sizeof *to);
}
#endif

#endif
