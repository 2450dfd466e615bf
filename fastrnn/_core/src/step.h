/* step.h - included at the end of every cell's file: runs the cell's maths over the rows of one step, one panel of
 * units at a time, with what every cell has in common (the output, its gradient) around it. The usual activations are
 * compiled in; any others are looked up vector by vector. */

#define CELL_FN(name) FN(FR_JOIN(CELL, name))
#define WITH_ACTIVATIONS(call_with)                                                                   \
    if (s->q.activation == FR_TANH && s->q.recurrent_activation == FR_SIGMOID) {                      \
        call_with(FR_TANH, FR_SIGMOID);                                                               \
    } else {                                                                                          \
        const int activation = s->q.activation, recurrent = s->q.recurrent_activation;                \
        call_with(activation, recurrent);                                                             \
    }

/* Rows [j0,j1) of the worker's list. */
static void CELL_FN(_forward_rows)(const struct FN(worker) *w, ptrdiff_t panel, ptrdiff_t j0, ptrdiff_t j1)
{
    const struct FN(sequence) *s = w->s;
    const ptrdiff_t lanes = FN(units)(&s->l, panel), unit = panel * s->l.unit_step;
    REAL *sequence = s->q.sequence;
#define ROWS(activation, recurrent)                                                                   \
    for (ptrdiff_t j = j0; j < j1; j++) {                                                             \
        const struct visit *v = FN(visit_at)(w, j);                                                   \
        for (ptrdiff_t k = 0; k < lanes; k += VW) {                                                   \
            struct FN(unit) u = FN(unit_at)(w, j, v, panel, k);                                       \
            CELL_FN(_forward)(&u, activation, recurrent);                                             \
            if (sequence) FN(store_part)(sequence + v->y * s->q.sequence_ld + unit + k, FN(load)(u.after[0]), lanes - k); \
        }                                                                                             \
    }
    WITH_ACTIVATIONS(ROWS)
#undef ROWS
}

static void CELL_FN(_backward_rows)(const struct FN(worker) *w, ptrdiff_t panel, ptrdiff_t j0, ptrdiff_t j1)
{
    const struct FN(sequence) *s = w->s;
    const ptrdiff_t lanes = FN(units)(&s->l, panel), unit = panel * s->l.unit_step;
#define ROWS(activation, recurrent)                                                                   \
    for (ptrdiff_t j = j0; j < j1; j++) {                                                             \
        const struct visit *v = FN(visit_at)(w, j);                                                   \
        for (ptrdiff_t k = 0; k < lanes; k += VW) {                                                   \
            struct FN(unit) u = FN(unit_at)(w, j, v, panel, k);                                       \
            FN(store)(u.d[0], FN(load)(u.d[0]) + FN(output_gradient)(s, v, unit + k, lanes - k));     \
            CELL_FN(_backward)(&u, activation, recurrent);                                            \
        }                                                                                             \
    }
    WITH_ACTIVATIONS(ROWS)
#undef ROWS
}

#if defined(CELL_HAS_PREPARE)
#define ROWS_OF(function)                                                                             \
    const struct FN(sequence) *s = w->s;                                                              \
    const ptrdiff_t lanes = FN(units)(&s->l, panel);                                                  \
    for (ptrdiff_t j = j0; j < j1; j++)                                                               \
        for (ptrdiff_t k = 0; k < lanes; k += VW) {                                                   \
            struct FN(unit) u = FN(unit_at)(w, j, FN(visit_at)(w, j), panel, k);                      \
            function(&u, s->q.activation, s->q.recurrent_activation);                                 \
        }
static void CELL_FN(_prepare_rows)(const struct FN(worker) *w, ptrdiff_t panel, ptrdiff_t j0, ptrdiff_t j1)
{
    ROWS_OF(CELL_FN(_prepare))
}
static void CELL_FN(_prepare_backward_rows)(const struct FN(worker) *w, ptrdiff_t panel, ptrdiff_t j0, ptrdiff_t j1)
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

/* One row without visits: panels [p0,p1), `u` the address of unit 0. */
#define UNITS_OF(function, activation, recurrent)                                                     \
    for (ptrdiff_t p = p0; p < p1; p++)                                                               \
        for (ptrdiff_t k = 0, lanes = FN(units)(l, p); k < lanes; k += VW) {                          \
            struct FN(unit) v = FN(unit_of_row)(u, l, p, k);                                          \
            function(&v, activation, recurrent);                                                      \
        }
static void CELL_FN(_forward_units)(const struct FN(unit) *u, const struct FN(layout) *l, ptrdiff_t p0, ptrdiff_t p1,
                                   int activation, int recurrent)
{
    if (activation == FR_TANH && recurrent == FR_SIGMOID) {
        UNITS_OF(CELL_FN(_forward), FR_TANH, FR_SIGMOID)
    } else {
        UNITS_OF(CELL_FN(_forward), activation, recurrent)
    }
}
#if defined(CELL_HAS_PREPARE)
static void CELL_FN(_prepare_units)(const struct FN(unit) *u, const struct FN(layout) *l, ptrdiff_t p0, ptrdiff_t p1,
                                   int activation, int recurrent)
{
    UNITS_OF(CELL_FN(_prepare), activation, recurrent)
}
static const struct FN(unit_functions) CELL_FN(_units) = { CELL_FN(_forward_units), CELL_FN(_prepare_units) };
#else
static const struct FN(unit_functions) CELL_FN(_units) = { CELL_FN(_forward_units), NULL };
#endif

#undef UNITS_OF
#undef WITH_ACTIVATIONS
#undef CELL_FN
#undef CELL_HAS_PREPARE
#undef CELL
