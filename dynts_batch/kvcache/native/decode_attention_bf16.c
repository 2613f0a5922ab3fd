/* decode_attention.c for bfloat16. */
#define BFLOAT16
#include "decode_attention.c"
