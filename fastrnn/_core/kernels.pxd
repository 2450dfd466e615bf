"""src/fastrnn.h as Cython sees it; what each field means is said there."""

from libc.stddef cimport ptrdiff_t
from libc.stdint cimport int64_t, uint32_t, uint64_t

cdef extern from "src/fastrnn.h" nogil:
    enum: FR_OK, FR_NO_MEMORY, FR_INTERRUPTED, FR_MAX_STATES, FR_MAX_SLOTS, FR_MAX_COEFFICIENTS
    struct fr_control:
        int threads
        int (*interrupted)(void *) noexcept nogil
        void *argument
    struct fr_cell:
        const char *name
        const char *gates
        int states, bias_rows
    struct fr_packed:
        pass
    struct fr_tape:
        pass
    struct fr_pack_call:
        int cell
        ptrdiff_t D, H
        const void *kernel
        const void *recurrent_kernel
        const void *bias
        int backward
        fr_control control
    struct fr_forward_call:
        const fr_packed *packed
        ptrdiff_t B, T
        const void *x
        const void *initial_state[2]
        const unsigned char *mask
        int activation, recurrent_activation, go_backwards, original_time, zero_output_for_mask
        const void *input_dropout
        int input_groups
        const void *recurrent_dropout
        void *sequence
        ptrdiff_t sequence_ld
        void *last_output
        void *final_state[2]
        fr_tape **tape
        fr_control control
    struct fr_backward_call:
        const fr_packed *packed
        fr_tape *tape
        const void *dsequence
        ptrdiff_t dsequence_ld
        const void *dlast
        const void *dfinal[2]
        void *dx
        void *dinitial[2]
        void *dkernel
        void *drecurrent_kernel
        void *dbias
        int accumulate
        fr_control control
    struct fr_product_call:
        ptrdiff_t M, N, K
        const void *a
        const void *b
        const void *bias
        void *c
        void *sums
        int transpose_a, transpose_b, accumulate
        fr_control control
    struct fr_update_call:
        int step
        ptrdiff_t n
        void *w
        void *g
        void *slots[3]
        double coefficients[8]
        ptrdiff_t width
        const int64_t *rows
        ptrdiff_t row_count
        int threads
    struct fr_loss_call:
        int loss, softmax
        ptrdiff_t rows, classes
        const void *predicted
        const void *wanted
        const unsigned char *kept
        const double *weights
        double divisor, smoothing, epsilon, delta
        void *values
        void *gradient
        double total
        ptrdiff_t wrong
        int threads
    struct fr_dropout_call:
        uint64_t seed, call
        uint32_t draw, least
        ptrdiff_t n
        double factor
        const void *x
        void *y
        unsigned char *kept
        int threads
    enum: FR_STREAM_EMBED, FR_STREAM_MASK, FR_STREAM_CELL, FR_STREAM_ACTIVATE, FR_STREAM_SOFTMAX
    enum: FR_NEVER_SKIPS, FR_SKIPPED_REPEATS, FR_SKIPPED_IS_ZERO
    struct fr_stream_op:
        int kind
        ptrdiff_t N
        const fr_packed *packed
        int activation, recurrent_activation, masking
        void *kept[2]
        const void *table
        int mask_zero
        double mask_value
        void *y
    struct fr_stream_call:
        const fr_stream_op *ops
        int count, turn
        ptrdiff_t B
        const int64_t *ids
        const void **rows
        unsigned char *skipped
        void *gates
        void *out
        ptrdiff_t N
    ptrdiff_t fr_stream_ld(ptrdiff_t)
    struct fr_functions:
        int (*pack)(const fr_pack_call *, fr_packed **) noexcept nogil
        int (*forward)(const fr_forward_call *const *, int) noexcept nogil
        int (*backward)(const fr_backward_call *const *, int) noexcept nogil
        int (*product)(const fr_product_call *) noexcept nogil
        void (*activate)(int, const void *, void *, ptrdiff_t, int) noexcept nogil
        void (*softmax)(const void *, void *, ptrdiff_t, ptrdiff_t, int) noexcept nogil
        void (*argmax_rows)(const void *, ptrdiff_t, ptrdiff_t, int64_t *, int) noexcept nogil
        void (*same_argmax_rows)(const void *, const void *, ptrdiff_t, ptrdiff_t, unsigned char *, int) noexcept nogil
        void (*loss)(fr_loss_call *) noexcept nogil
        void (*dropout)(const fr_dropout_call *) noexcept nogil
        void (*keep)(const fr_dropout_call *) noexcept nogil
        void (*update)(const fr_update_call *) noexcept nogil
        int (*all_finite)(const void *, ptrdiff_t, int) noexcept nogil
        int (*squared_norm)(const void *, ptrdiff_t, int, double *) noexcept nogil
        void (*gather_rows)(const void *, ptrdiff_t, const int64_t *, void *, ptrdiff_t, int) noexcept nogil
        void (*scatter_add_rows)(void *, ptrdiff_t, const int64_t *, const void *, ptrdiff_t, int) noexcept nogil
        void (*stream)(const fr_stream_call *) noexcept nogil
    struct fr_step_shape:
        const char *name
        int slots, coefficients, w, g
    struct fr_build:
        const char *name
        const char *const *activations
        int activation_count
        const char *const *losses
        int loss_count
        const fr_step_shape *steps
        int step_count
        fr_functions f32, f64
    void fr_packed_free(fr_packed *)
    void fr_tape_free(fr_tape *)
    const fr_cell fr_cells[]
    const int fr_cell_count
    const fr_build *const *fr_builds(int *)
    int fr_build_runs_here(const fr_build *)
    int fr_openmp_version()

cdef extern from "src/memory.h" nogil:
    void *fr_take(size_t)
    void fr_give_back(void *)
