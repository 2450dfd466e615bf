/* stream.h - one step of a stack of layers, for a few rows whose states stay where they are. Weights are packed as for
 * sequences and every output is the same chain of multiply-adds, so the bits are those of a whole sequence.
 *
 * One row is what counts. Each vector of gates is one chain, and the processor can have eight or more under way:
 * several panels are taken at once, through x and through h without leaving the registers. More rows go through the
 * tiles of gemm.h. */

_Static_assert(4 * VW <= 64, "fr_stream_ld covers every panel");

/* Row b of what an operation keeps, half `turn` of it. */
ALWAYS_INLINE REAL *FN(stream_kept)(const struct fr_stream_call *s, const struct fr_stream_op *op, int k, int turn,
                                    ptrdiff_t b)
{
    return (REAL *)op->kept[k] + (turn * s->B + b) * fr_stream_ld(op->N);
}

static inline REAL *FN(stream_y)(const struct fr_stream_op *op, ptrdiff_t b)
{
    return (REAL *)op->y + b * fr_stream_ld(op->N);
}

/* Unit 0 of row b. A dense layer keeps nothing, y is its state after; what a cell has not is never followed. */
static struct FN(unit) FN(stream_unit)(const struct fr_stream_call *s, const struct fr_stream_op *op, int kept,
                                       ptrdiff_t b, REAL *gates, ptrdiff_t slot)
{
    struct FN(unit) u = { .z = gates, .slot = slot };
    for (int k = 0; k < FR_MAX_KEPT; k++) {
        const int has = op->packed->u && k < kept;
        u.before[k] = has ? FN(stream_kept)(s, op, k, s->turn, b) : FN(stream_y)(op, b);
        u.after[k] = has ? FN(stream_kept)(s, op, k, !s->turn, b) : FN(stream_y)(op, b);
    }
    return u;
}

/* ---- one row -------------------------------------------------------------------------------------------------- */

/* The constants of a cell, in vectors. */
struct FN(stream_shape) {
    int slots, gates, x_slot, h_slot, late;
};

/* Panels [p,p+panels) of one stage of one row: gates = bias + x W + h U, or with `second` gates += operand U. */
ALWAYS_INLINE void FN(stream_panels)(const int panels, const struct FN(stream_shape) c, const int second,
                                     const struct fr_packed *w, const struct FN(layout) *l, ptrdiff_t p,
                                     const REAL *x, const REAL *h, REAL *gates)
{
    const int gates_row = c.slots * VW, in_parts = c.gates == 4 && FN(part_vectors) == 2;
    const ptrdiff_t ldb = (in_parts ? 2 : c.gates) * VW, together = FN(part_vectors) * VW;
    const REAL *start = second ? gates : (const REAL *)w->bias;
    FN(vec) acc[4][4];
    UNROLL for (int n = 0; n < panels; n++)
        UNROLL for (int v = 0; v < c.slots; v++) acc[n][v] = FN(load)(start + (p + n) * gates_row + v * VW);
    if (!second) {
        const REAL *b = (const REAL *)w->w + FN(packed_at)(l, l->D, p, 0, 0);
        FN(multiply_panels)(panels, c.gates, c.x_slot, acc, x, l->D, b, ldb, in_parts ? l->D * ldb : together, l->D * l->gates_k, NULL);
    }
    const int from = second ? c.late : 0, to = second ? c.gates : c.late;
    if (h) {
        const REAL *b = (const REAL *)w->u + FN(packed_at)(l, l->H, p, 0, from);
        FN(multiply_panels)(panels, to - from, c.h_slot + from, acc, h, l->H, b, ldb, in_parts ? l->H * ldb : together, l->H * l->gates_k, NULL);
    }
    UNROLL for (int n = 0; n < panels; n++)
        UNROLL for (int v = 0; v < c.slots; v++) FN(store)(gates + (p + n) * gates_row + v * VW, acc[n][v]);
}

/* All panels, from the first to the last or, every other step, the other way: what was used last is in cache still. */
ALWAYS_INLINE void FN(stream_stage)(const struct FN(stream_shape) c, const int second, const struct fr_stream_op *op,
                                    const struct FN(layout) *l, const REAL *x, const REAL *h, const struct FN(unit) *u,
                                    FN(units_function) maths, int backwards)
{
    const struct fr_packed *w = op->packed;
    const ptrdiff_t groups = (l->panels + FN(together) - 1) / FN(together);
    for (ptrdiff_t i = 0; i < groups; i++) {
        ptrdiff_t p = (backwards ? groups - 1 - i : i) * FN(together);
        const ptrdiff_t first = p, end = p + FN(together) < l->panels ? p + FN(together) : l->panels;
        if (end - p == FN(together)) FN(stream_panels)(FN(together), c, second, w, l, p, x, h, u->z), p = end;
        if (FN(together) > 2 && end - p >= 2) FN(stream_panels)(2, c, second, w, l, p, x, h, u->z), p += 2;
        if (end > p) FN(stream_panels)(1, c, second, w, l, p, x, h, u->z);
        maths(u, l, first, end, op->activation, op->recurrent_activation);
    }
}

ALWAYS_INLINE void FN(stream_row)(const struct FN(stream_shape) c, const struct FN(unit_functions) *maths,
                                  const int kept, const struct fr_stream_call *s, const struct fr_stream_op *op,
                                  const struct FN(layout) *l)
{
    const struct FN(unit) u = FN(stream_unit)(s, op, kept, 0, s->gates, l->unit_step);
    const REAL *x = s->rows[0], *h = op->packed->u ? u.before[0] : NULL;
    FN(stream_stage)(c, 0, op, l, x, h, &u, c.late < c.gates ? maths->prepare : maths->forward, s->turn);
    if (c.late < c.gates) FN(stream_stage)(c, 1, op, l, x, u.after[kept - 1], &u, maths->forward, !s->turn);
}

typedef void (*FN(stream_function))(const struct fr_stream_call *s, const struct fr_stream_op *op,
                                    const struct FN(layout) *l);
#define X(name, gates, x_gates, x_slot, h_gates, h_slot, slots, late, states, kept, bias_rows, wide)            \
    static void FN(name##_stream_row)(const struct fr_stream_call *s, const struct fr_stream_op *op,            \
                                      const struct FN(layout) *l)                                               \
    {                                                                                                           \
        const int G = sizeof gates - 1;                                                                         \
        const struct FN(stream_shape) c = { slots * wide, G * wide, x_slot * wide, h_slot * wide, late * wide };\
        FN(stream_row)(c, &FN(name##_units), kept, s, op, l);                                                   \
    }
FR_FOR_EACH_CELL(X)
#undef X

static const struct FN(stream_cell) {
    FN(stream_function) row;
    const struct FN(unit_functions) *maths;
} FN(stream_cells)[FR_CELLS] = {
#define X(name, ...) { FN(name##_stream_row), &FN(name##_units) },
    FR_FOR_EACH_CELL(X)
#undef X
};

/* ---- several rows --------------------------------------------------------------------------------------------- */

/* A stage: gates += operand U, then the maths; the first one starts with bias + x W. */
static void FN(stream_rows_stage)(const struct fr_stream_call *s, const struct fr_stream_op *op,
                                  const struct FN(layout) *l, int second, const REAL **a, REAL **c,
                                  FN(units_function) maths)
{
    const struct fr_packed *w = op->packed;
    const struct fr_cell_shape *cell = l->cell;
    const int first = second ? cell->late_gate : 0, gates = (second ? cell->G : cell->late_gate) - first;
    for (ptrdiff_t p = 0; p < l->panels; p++) {
        const ptrdiff_t at = p * l->gates_row, x_to = at + cell->x_slot * l->unit_step;
        const ptrdiff_t to = at + (cell->h_slot + first) * l->unit_step;
        const int vectors = FN(vectors)(l, p);
        if (!second) {
            const REAL *bias = (const REAL *)w->bias + at;
            for (ptrdiff_t b = 0; b < s->B; b++) memcpy(c[b] + at, bias, (size_t)l->gates_row * sizeof(REAL));
            const struct FN(factor) f = FN(panel_factor)(l, w->w, l->D, p, 0);
            FN(multiply_rows)(cell->G * vectors, s->B, (const REAL *const *)s->rows, 0, c, x_to, &f, NULL);
        }
        if (w->u) {
            const struct FN(factor) f = FN(panel_factor)(l, w->u, l->H, p, first);
            FN(multiply_rows)(gates * vectors, s->B, a, 0, c, to, &f, NULL);
        }
        for (ptrdiff_t b = 0; b < s->B; b++) {
            const struct FN(unit) u = FN(stream_unit)(s, op, cell->kept, b, c[b], l->unit_step);
            maths(&u, l, p, p + 1, op->activation, op->recurrent_activation);
        }
    }
}

static void FN(stream_rows)(const struct fr_stream_call *s, const struct fr_stream_op *op, const struct FN(layout) *l)
{
    const struct FN(unit_functions) *maths = FN(stream_cells)[op->packed->cell].maths;
    const REAL **a = (const REAL **)s->rows + s->B;
    REAL **c = (REAL **)s->rows + 2 * s->B;
    for (ptrdiff_t b = 0; b < s->B; b++) {
        c[b] = (REAL *)s->gates + b * 4 * fr_stream_ld(op->N);
        a[b] = op->packed->u ? FN(stream_kept)(s, op, 0, s->turn, b) : NULL;
    }
    FN(stream_rows_stage)(s, op, l, 0, a, c, maths->prepare ? maths->prepare : maths->forward);
    if (!maths->prepare) return;
    for (ptrdiff_t b = 0; b < s->B; b++) a[b] = FN(stream_kept)(s, op, l->cell->kept - 1, !s->turn, b);
    FN(stream_rows_stage)(s, op, l, 1, a, c, maths->forward);
}

/* ---- operations ----------------------------------------------------------------------------------------------- */

static void FN(stream_cell)(const struct fr_stream_call *s, const struct fr_stream_op *op)
{
    const struct fr_packed *w = op->packed;
    const struct FN(layout) l = FN(layout)(w->cell, w->D, w->H);
    (s->B == 1 ? FN(stream_cells)[w->cell].row : FN(stream_rows))(s, op, &l);
    for (ptrdiff_t b = 0; b < s->B; b++) {
        REAL *y = w->u ? FN(stream_kept)(s, op, 0, !s->turn, b) : FN(stream_y)(op, b);
        if (op->masking != FR_NEVER_SKIPS && s->skipped[b]) { /* states stay, and the output with them */
            for (int k = 0; k < l.cell->states; k++)
                memcpy(FN(stream_kept)(s, op, k, !s->turn, b), FN(stream_kept)(s, op, k, s->turn, b),
                       (size_t)op->N * sizeof(REAL));
            if (op->masking == FR_SKIPPED_IS_ZERO) y = FN(stream_y)(op, b);
        }
        s->rows[b] = y;
    }
}

static void FN(stream_mask)(const struct fr_stream_call *s, const struct fr_stream_op *op)
{
    for (ptrdiff_t b = 0; b < s->B; b++) {
        const REAL *x = s->rows[b];
        REAL *y = FN(stream_y)(op, b);
        int kept = 0;
        for (ptrdiff_t j = 0; j < op->N; j++) kept |= x[j] != (REAL)op->mask_value;
        s->skipped[b] = !kept;
        if (kept) continue;
        memset(y, 0, (size_t)op->N * sizeof(REAL));
        s->rows[b] = y;
    }
}

static void FN(stream)(const struct fr_stream_call *s)
{
    const unsigned saved = fr_flush_denormals_on();
    for (const struct fr_stream_op *op = s->ops, *end = op + s->count; op < end; op++) {
        if (op->kind == FR_STREAM_CELL) {
            FN(stream_cell)(s, op);
            continue;
        }
        if (op->kind == FR_STREAM_MASK) {
            FN(stream_mask)(s, op);
            continue;
        }
        for (ptrdiff_t b = 0; b < s->B; b++) {
            REAL *y = FN(stream_y)(op, b);
            if (op->kind == FR_STREAM_EMBED) {
                y = (REAL *)op->table + s->ids[b] * op->N; /* only read */
                s->skipped[b] = op->mask_zero && s->ids[b] == 0;
            } else if (op->kind == FR_STREAM_SOFTMAX) {
                FN(softmax)(s->rows[b], y, 1, op->N, 1);
            } else {
                FN(activate_array)(op->activation, s->rows[b], y, op->N, 1);
            }
            s->rows[b] = y;
        }
    }
    for (ptrdiff_t b = 0; b < s->B; b++)
        memmove((REAL *)s->out + b * s->N, s->rows[b], (size_t)s->N * sizeof(REAL));
    fr_flush_denormals_restore(saved);
}
