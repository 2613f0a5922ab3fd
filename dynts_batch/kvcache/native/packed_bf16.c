/* packed.c for bfloat16. */
#define BFLOAT16
#include "packed.c"
