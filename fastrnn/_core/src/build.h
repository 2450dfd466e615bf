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

#define FUNCTIONS(T)                                                                                                   \
    {                                                                                                                  \
        .pack = pack_##T, .forward = forward_##T, .backward = backward_##T, .product = product_##T,                    \
        .activate = activate_array_##T, .softmax = softmax_##T, .argmax_rows = argmax_rows_##T, .loss = loss_##T,      \
        .same_argmax_rows = same_argmax_rows_##T,                                                                      \
        .dropout = dropout_##T, .keep = keep_##T, .update = update_##T, .all_finite = all_finite_##T,                  \
        .squared_norm = squared_norm_##T, .gather_rows = gather_rows_##T, .scatter_add_rows = scatter_add_rows_##T,    \
        .stream = stream_##T,                                                                                          \
    }

const struct fr_build BUILD = {
    .name = FR_STRING(ISA),
    .activations = fr_activation_names,
    .activation_count = FR_ACTIVATIONS,
    .losses = fr_loss_names,
    .loss_count = FR_LOSSES,
    .steps = fr_step_shapes,
    .step_count = FR_STEPS,
    .f32 = FUNCTIONS(f32),
    .f64 = FUNCTIONS(f64),
};
