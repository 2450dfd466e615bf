/* dispatch.c - which builds there are, and which of them run here. */
#include "cells.h"
#include "fastrnn.h"
#include "memory.h"

extern const struct fr_build fr_build_baseline, fr_build_avx2, fr_build_avx512;

const struct fr_cell fr_cells[] = {
#define X(name, gates, x_gates, x_slot, h_gates, h_slot, slots, late, states, kept, bias_rows, wide) { #name, gates, states, bias_rows },
    FR_FOR_EACH_CELL(X)
#undef X
};
const int fr_cell_count = FR_CELLS;

const struct fr_cell_shape fr_cell_shapes[FR_CELLS] = {
#define X(name, gates, x_gates, x_slot, h_gates, h_slot, slots, late, states, kept, bias_rows, wide) \
    { gates, x_gates, h_gates, sizeof gates - 1, x_slot, h_slot, slots, late, states, kept, bias_rows, wide },
    FR_FOR_EACH_CELL(X)
#undef X
};

const struct fr_build *const *fr_builds(int *count)
{
    static const struct fr_build *const builds[] = {
        &fr_build_baseline,
#if defined(FASTRNN_X86)
        &fr_build_avx2, &fr_build_avx512,
#endif
    };
    *count = sizeof builds / sizeof *builds;
    return builds;
}

/* __builtin_cpu_supports asks the CPU, and XGETBV for what the operating system saves. */
int fr_build_runs_here(const struct fr_build *build)
{
#if defined(FASTRNN_X86)
    __builtin_cpu_init();
    const int avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    if (build == &fr_build_avx2) return avx2;
#if defined(FASTRNN_EMULATED_AVX512)
    if (build == &fr_build_avx512) return avx2;
#endif
    if (build == &fr_build_avx512)
        return avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq")
            && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
#endif
    return build == &fr_build_baseline;
}

void fr_packed_free(struct fr_packed *packed) { fr_give_back(packed); }
void fr_tape_free(struct fr_tape *tape) { fr_give_back(tape); }
