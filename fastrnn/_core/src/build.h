/* build.h - all kernels for the instruction set that the including file is compiled for: everything static, one
 * exported table, fr_build_<ISA>. The including file defines ISA. */
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include "cells.h"
#include "fastrnn.h"
#include "memory.h"
#include "threads.h"
#include "visits.h"

#define FR_JOIN_(a, b) a##b
#define FR_JOIN(a, b) FR_JOIN_(a, b)
#define FR_STRING_(a) #a
#define FR_STRING(a) FR_STRING_(a)
#define BUILD FR_JOIN(fr_build_, ISA)
#define FN(name) FR_JOIN(name, SUFFIX)

extern const struct fr_build BUILD;

#define REAL float
#define REAL_IS_FLOAT 1
#define SUFFIX _f32
#include "kernels.h"
#undef REAL
#undef REAL_IS_FLOAT
#undef SUFFIX

#define REAL double
#define REAL_IS_FLOAT 0
#define SUFFIX _f64
#include "kernels.h"

const struct fr_build BUILD = {
    .name = FR_STRING(ISA),
    .activations = fr_activation_names,
    .activation_count = FR_ACTIVATIONS,
    .f32 = { pack_f32, forward_f32, backward_f32, product_f32, activate_array_f32, scatter_add_rows_f32, column_sum_f32, softmax_f32, stream_f32 },
    .f64 = { pack_f64, forward_f64, backward_f64, product_f64, activate_array_f64, scatter_add_rows_f64, column_sum_f64, softmax_f64, stream_f64 },
};
