/* step.h - included at the end of every cell's file: runs the cell's maths over the rows of one step, one panel of
 * units at a time, with what every cell has in common (the output, its gradient) around it. The usual activations are
 * compiled in; any others are looked up vector by vector.
 *
 * A cell with CELL_HAS_GATES has its forward maths in two parts, each of which goes over all rows. One activation that
 * waits for another is a chain so long that the processor does not see the next row's beginning from it; in two parts
 * the rows overlap. */

#define CELL_FN(name) FN(FR_JOIN(CELL, name))
#define WITH_ACTIVATIONS(call_with)                                                                   \
    if (s->q.activation == FR_TANH && s->q.recurrent_activation == FR_SIGMOID) {                      \
        call_with(FR_TANH, FR_SIGMOID);                                                               \
    } else {                                                                                          \
        const int activation = s->q.activation, recurrent = s->q.recurrent_activation;                \
        call_with(activation, recurrent);                                                             \
    }

#if defined(CELL_HAS_GATES)
#define GATES(each, activation, recurrent) each(CELL_FN(_gates)(&u, activation, recurrent);)
#else
#define GATES(each, activation, recurrent)
#endif

/* Every vector of units of panels [p0,p1) of the step's n rows: u, unit k of panel p of `row`. */
#define EACH_UNIT(...)                                                                                \
    for (ptrdiff_t p = p0; p < p1; p++) {                                                             \
        const ptrdiff_t units = FN(units)(&s->l, p);                                                  \
        for (ptrdiff_t i = 0; i < n; i++) {                                                           \
            const struct FN(row) *row = &w->rows[i];                                                  \
            for (ptrdiff_t k = 0; k < units; k += VW) {                                               \
                const struct FN(unit) u = FN(unit_at)(&row->u, gates_panel, unit_step, p, k);         \
                __VA_ARGS__                                                                           \
            }                                                                                         \
        }                                                                                             \
    }

static void CELL_FN(_forward_rows)(const struct FN(worker) *w, ptrdiff_t p0, ptrdiff_t p1, ptrdiff_t n)
{
    const struct FN(sequence) *s = w->s;
    const ptrdiff_t gates_panel = s->gates_panel, unit_step = s->l.unit_step;
#define ROWS(activation, recurrent)                                                                   \
    GATES(EACH_UNIT, activation, recurrent)                                                           \
    EACH_UNIT(                                                                                        \
        CELL_FN(_forward)(&u, activation, recurrent);                                                 \
        if (row->y) FN(store_part)(row->y + p * unit_step + k, FN(load)(u.after[0]), units - k);      \
    )
    WITH_ACTIVATIONS(ROWS)
#undef ROWS
}

static void CELL_FN(_backward_rows)(const struct FN(worker) *w, ptrdiff_t p0, ptrdiff_t p1, ptrdiff_t n)
{
    const struct FN(sequence) *s = w->s;
    const ptrdiff_t gates_panel = s->gates_panel, unit_step = s->l.unit_step;
    const ptrdiff_t later = s->visits.y_step * s->back->dsequence_ld; /* dy of the next step is far from that of this one */
#define ROWS(activation, recurrent)                                                                   \
    EACH_UNIT(                                                                                        \
        if (row->y) {                                                                                 \
            const ptrdiff_t unit = p * unit_step + k;                                                 \
            __builtin_prefetch(row->y + unit - later, 0, 2);                                          \
            FN(store)(u.d[0], FN(load)(u.d[0]) + FN(output_gradient)(s, row, unit, units - k));       \
        }                                                                                             \
        CELL_FN(_backward)(&u, activation, recurrent);                                                \
    )
    WITH_ACTIVATIONS(ROWS)
#undef ROWS
}

#if defined(CELL_HAS_PREPARE)
#define ROWS_OF(function)                                                                             \
    const struct FN(sequence) *s = w->s;                                                              \
    const ptrdiff_t gates_panel = s->gates_panel, unit_step = s->l.unit_step;                         \
    EACH_UNIT(function(&u, s->q.activation, s->q.recurrent_activation);)
static void CELL_FN(_prepare_rows)(const struct FN(worker) *w, ptrdiff_t p0, ptrdiff_t p1, ptrdiff_t n)
{
    ROWS_OF(CELL_FN(_prepare))
}
static void CELL_FN(_prepare_backward_rows)(const struct FN(worker) *w, ptrdiff_t p0, ptrdiff_t p1, ptrdiff_t n)
{
    ROWS_OF(CELL_FN(_prepare_backward))
}
#undef ROWS_OF
static const struct FN(step_functions) CELL_FN(_step) = {
    CELL_FN(_forward_rows), CELL_FN(_backward_rows), CELL_FN(_prepare_rows), CELL_FN(_prepare_backward_rows)
};
#else
static const struct FN(step_functions) CELL_FN(_step) = { CELL_FN(_forward_rows), CELL_FN(_backward_rows), NULL, NULL };
#endif
#undef EACH_UNIT

/* One row without visits: panels [p0,p1), unit 0 at `unit0`. */
#define EACH_UNIT(...)                                                                                \
    for (ptrdiff_t p = p0; p < p1; p++)                                                               \
        for (ptrdiff_t k = 0, units = FN(units)(l, p); k < units; k += VW) {                          \
            const struct FN(unit) u = FN(unit_at)(unit0, l->gates_row, l->unit_step, p, k);           \
            __VA_ARGS__                                                                               \
        }
static void CELL_FN(_forward_units)(const struct FN(unit) *unit0, const struct FN(layout) *l, ptrdiff_t p0, ptrdiff_t p1,
                                   int activation, int recurrent)
{
    if (activation == FR_TANH && recurrent == FR_SIGMOID) {
        GATES(EACH_UNIT, FR_TANH, FR_SIGMOID)
        EACH_UNIT(CELL_FN(_forward)(&u, FR_TANH, FR_SIGMOID);)
    } else {
        GATES(EACH_UNIT, activation, recurrent)
        EACH_UNIT(CELL_FN(_forward)(&u, activation, recurrent);)
    }
}
#if defined(CELL_HAS_PREPARE)
static void CELL_FN(_prepare_units)(const struct FN(unit) *unit0, const struct FN(layout) *l, ptrdiff_t p0, ptrdiff_t p1,
                                   int activation, int recurrent)
{
    EACH_UNIT(CELL_FN(_prepare)(&u, activation, recurrent);)
}
static const struct FN(unit_functions) CELL_FN(_units) = { CELL_FN(_forward_units), CELL_FN(_prepare_units) };
#else
static const struct FN(unit_functions) CELL_FN(_units) = { CELL_FN(_forward_units), NULL };
#endif

#undef EACH_UNIT
#undef GATES
#undef WITH_ACTIVATIONS
#undef CELL_FN
#undef CELL_HAS_PREPARE
#undef CELL_HAS_GATES
#undef CELL
