/* fastrnn.h - the kernels' public face: plain C, no Python. Everything is reached through `struct fr_build`,
 * one per instruction set, each with one table of functions for float and one for double.
 *
 * Axes: B batch, T time, D input features, H units, G gates. Arrays are row-major and contiguous; the trailing
 * letters of a comment give the shape. Pointers are `void *` where float and double share the struct: the table they
 * are passed to says which it is. NULL means absent. Functions return an `enum fr_status`. */
#ifndef FASTRNN_H
#define FASTRNN_H
#include <stddef.h>
#include <stdint.h>

enum fr_status { FR_OK, FR_NO_MEMORY, FR_INTERRUPTED };
enum { FR_MAX_STATES = 2, FR_MAX_CALLS = 2, FR_MAX_SLOTS = 3, FR_MAX_COEFFICIENTS = 8 };

/* How many threads to use at most, and how the caller is asked now and then (by thread 0 only, every 50 ms at the
 * earliest) whether to give up: a non-zero answer ends the call with FR_INTERRUPTED. `interrupted` may be NULL. */
struct fr_control {
    int threads;
    int (*interrupted)(void *argument);
    void *argument;
};

/* A cell as a caller sees it. `gates` holds one letter per gate in the order of Keras' weight columns. */
struct fr_cell {
    const char *name, *gates;
    int states, bias_rows;
};

struct fr_packed; /* weights of one cell, re-ordered for one build: immutable, shared by any number of calls */
struct fr_tape;   /* what a forward pass leaves for its backward pass; one backward pass uses it up */

struct fr_pack_call {
    int cell;
    ptrdiff_t D, H;
    const void *kernel;           /* [D, G*H] */
    const void *recurrent_kernel; /* [H, G*H], or NULL: a dense layer, of which only streams know */
    const void *bias;             /* [bias_rows, G*H] or NULL */
    int backward;                 /* also pack the transposes that a backward pass needs */
    struct fr_control control;
};

struct fr_forward_call {
    const struct fr_packed *packed;
    ptrdiff_t B, T;
    const void *x;                           /* [B,T,D]; rows at masked steps are never read */
    const void *initial_state[FR_MAX_STATES];/* [B,H] each, or NULL for zeros */
    const unsigned char *mask;               /* [B,T], 0 = skip the step, or NULL */
    int activation, recurrent_activation;    /* enum fr_activation */
    int go_backwards;                        /* process t = T-1 .. 0 */
    int original_time;                       /* with go_backwards: sequence[b,t] belongs to x[b,t], not to step t */
    int zero_output_for_mask;                /* masked steps give 0 instead of repeating the last output */
    const void *input_dropout;               /* [input_groups,B,D] multiplies x, or NULL */
    int input_groups;                        /* 1: one mask for all gates; G: one a gate */
    const void *recurrent_dropout;           /* [G,B,H] multiplies h before the recurrent product, or NULL */
    void *sequence;                          /* out [B,T,H] or NULL; rows of H lie sequence_ld apart */
    ptrdiff_t sequence_ld;
    void *last_output;                       /* out [B,H] */
    void *final_state[FR_MAX_STATES];        /* out [B,H] each */
    struct fr_tape **tape;                   /* out, to be freed with fr_tape_free; NULL: no backward pass follows */
    struct fr_control control;
};

struct fr_backward_call {
    const struct fr_packed *packed;          /* packed with backward = 1 from the weights of the forward pass */
    struct fr_tape *tape;                    /* its call's arrays (x, mask, dropout masks) must still be alive */
    const void *dsequence;                   /* [B,T,H] or NULL; rows of H lie dsequence_ld apart */
    ptrdiff_t dsequence_ld;
    const void *dlast;                       /* [B,H] or NULL: gradient of last_output */
    const void *dfinal[FR_MAX_STATES];       /* [B,H] each or NULL */
    void *dx;                                /* out [B,T,D] or NULL; zero at masked steps */
    void *dinitial[FR_MAX_STATES];           /* out [B,H] each */
    void *dkernel, *drecurrent_kernel;       /* out [D, G*H], [H, G*H]; both NULL for frozen weights */
    void *dbias;                             /* out [bias_rows, G*H] or NULL */
    int accumulate;                          /* are these three added into, or overwritten? */
    struct fr_control control;
};

/* c [M,N] = op(a) op(b) + bias [N], or c += op(a) op(b). op(a) is [M,K], op(b) is [K,N]; a transposed operand is
 * stored the other way round. Not both may be transposed. With a transposed a, the columns of b may be summed by the way. */
struct fr_product_call {
    ptrdiff_t M, N, K;
    const void *a, *b, *bias;
    void *c, *sums; /* sums [N] += those of b's columns, each a chain in the order of k; NULL for none */
    int transpose_a, transpose_b, accumulate;
    struct fr_control control;
};

/* One step of an optimizer, or another pass over flat arrays (update.h lists them), with what it keeps of each weight.
 * `width` > 0: only rows of so many weights in which the gradient is not all zero take part. */
struct fr_update_call {
    int step;
    ptrdiff_t n;
    void *w, *g;                      /* [n]; NULL where the step does not look at them */
    void *slots[FR_MAX_SLOTS];        /* [n] each */
    double coefficients[FR_MAX_COEFFICIENTS];
    ptrdiff_t width;
    const int64_t *rows;              /* [row_count] different rows: no others have a gradient; or NULL */
    ptrdiff_t row_count;
    int threads;
};

/* A loss (loss.h lists them) and its gradient. */
struct fr_loss_call {
    int loss, softmax;                /* softmax: a fused loss takes it first, in place: `gradient` is `predicted` then */
    ptrdiff_t rows, classes;
    const void *predicted;            /* [rows, classes] */
    const void *wanted;               /* [rows, classes], or int64 class numbers [rows] */
    const unsigned char *kept;        /* [rows], 0: nothing of the row is looked at, its value and gradient are 0; or NULL */
    const double *weights;            /* [rows] or NULL for ones */
    double divisor, smoothing, epsilon, delta;
    void *values;                     /* out [rows], not weighted */
    void *gradient;                   /* out [rows, classes], times weight / divisor; or NULL */
    double total;                     /* out: sum of value * weight / divisor */
    ptrdiff_t wrong;                  /* out: the first row with impossible targets, or -1 */
    int threads;
};

/* Zero at random: place i of draw `draw` of call `call` of stream `seed` is kept if its random number of 32 bits is at
 * least `least`. y = x * factor where kept, else 0. */
struct fr_dropout_call {
    uint64_t seed, call;
    uint32_t draw, least;
    ptrdiff_t n;
    double factor;
    const void *x;                    /* [n], or NULL for ones */
    void *y;                          /* out [n] */
    unsigned char *kept;              /* [n]: out of dropout (may be NULL), into keep */
    int threads;
};

/* A stream takes one step a call, for B rows that go through a list of operations. What an operation needs from step to
 * step is bound to it; nothing is allocated. Rows of its buffers are `fr_stream_ld` numbers apart. */
enum fr_stream_kind { FR_STREAM_EMBED, FR_STREAM_MASK, FR_STREAM_CELL, FR_STREAM_ACTIVATE, FR_STREAM_SOFTMAX };
enum fr_stream_masking { FR_NEVER_SKIPS, FR_SKIPPED_REPEATS, FR_SKIPPED_IS_ZERO };

struct fr_stream_op {
    int kind;                                /* enum fr_stream_kind */
    ptrdiff_t N;                             /* columns that it gives */
    const struct fr_packed *packed;          /* CELL; packed without a recurrent kernel it is a dense layer */
    int activation, recurrent_activation;    /* CELL, ACTIVATE */
    int masking;                             /* CELL: whether rows may be skipped, and the output of such a row */
    void *kept[FR_MAX_STATES];               /* CELL: states [2][B][ld]: a step reads one half and writes the other */
    const void *table;                       /* EMBED: [rows, N] */
    int mask_zero;                           /* EMBED: id 0 skips the row */
    double mask_value;                       /* MASK: a row that holds nothing else is skipped, and zero from here on */
    void *y;                                 /* [B][ld], zeros at first; in cells with states it stays so */
};

struct fr_stream_call {
    const struct fr_stream_op *ops;
    int count;
    int turn;                                /* which half of the states is read, 0 or 1 */
    ptrdiff_t B;
    const int64_t *ids;                      /* [B], what EMBED reads: each in [0, rows) */
    const void **rows;                       /* [3*B]: B rows of x, used up; scratch behind */
    unsigned char *skipped;                  /* [B] what EMBED and MASK found */
    void *gates;                             /* scratch, [B][4*ld] for the widest operation */
    void *out;                               /* out [B, N of the last operation] */
    ptrdiff_t N;
};

/* A multiple of any build's panels, in numbers. */
static inline ptrdiff_t fr_stream_ld(ptrdiff_t columns) { return (columns + 63) / 64 * 64; }

struct fr_functions {
    int (*pack)(const struct fr_pack_call *, struct fr_packed **);
    /* n calls, 1 or 2, that know nothing of each other, at once: the first one's `control` is that of all. */
    int (*forward)(const struct fr_forward_call *const *calls, int n);
    int (*backward)(const struct fr_backward_call *const *calls, int n);
    int (*product)(const struct fr_product_call *);
    void (*activate)(int activation, const void *x, void *y, ptrdiff_t n, int threads);
    void (*softmax)(const void *x, void *y, ptrdiff_t rows, ptrdiff_t columns, int threads); /* of rows; y may be x */
    void (*argmax_rows)(const void *x, ptrdiff_t rows, ptrdiff_t columns, int64_t *where, int threads);
    void (*same_argmax_rows)(const void *x, const void *other, ptrdiff_t rows, ptrdiff_t columns, unsigned char *same, int threads);
    void (*loss)(struct fr_loss_call *);
    void (*dropout)(const struct fr_dropout_call *);
    void (*keep)(const struct fr_dropout_call *); /* the same once more, for those that `kept` says */
    void (*stream)(const struct fr_stream_call *);
    void (*update)(const struct fr_update_call *);
    int (*all_finite)(const void *x, ptrdiff_t n, int threads);
    int (*squared_norm)(const void *x, ptrdiff_t n, int threads, double *result);
    void (*gather_rows)(const void *table, ptrdiff_t width, const int64_t *ids, void *rows, ptrdiff_t n, int threads);
    void (*scatter_add_rows)(void *table, ptrdiff_t width, const int64_t *ids, const void *rows, ptrdiff_t n, int threads);
};

/* What a step of `fr_update_call` takes: how many slots, how many coefficients, whether weights and gradients. */
struct fr_step_shape {
    const char *name;
    int slots, coefficients, w, g;
};

struct fr_build {
    const char *name;
    const char *const *activations; /* [activation_count], in the order of enum fr_activation */
    int activation_count;
    const char *const *losses;      /* [loss_count], in the order of enum fr_loss */
    int loss_count;
    const struct fr_step_shape *steps; /* [step_count], in the order of enum fr_step */
    int step_count;
    struct fr_functions f32, f64;
};

void fr_packed_free(struct fr_packed *);
void fr_tape_free(struct fr_tape *);

extern const struct fr_cell fr_cells[];
extern const int fr_cell_count;

/* dispatch.c: builds in order baseline < avx2 < avx512; a build the compiler could not make is absent. */
const struct fr_build *const *fr_builds(int *count);
int fr_build_runs_here(const struct fr_build *); /* the CPU has it and the operating system saves its registers */

/* threads.c */
int fr_openmp_version(void); /* 0 without OpenMP */

#endif
