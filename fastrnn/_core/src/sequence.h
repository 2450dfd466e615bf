/* sequence.h - the time loop, forward and backward, for any cell; included once for float and once for double.
 *
 * Each team of threads takes some rows of the batch through all of time without meeting the others. Forward it goes in
 * chunks of visits whose gates fit its L2: first x W + b of the whole chunk, then step by step the recurrent product
 * and, on the panel that was just made, the cell's maths. Backward it goes step by step; when dz of all visits is there
 * dx and the gradients of the weights follow (weight_gradient.h).
 *
 * A team is one thread where the batch has rows enough for all. One that is done before another, whose core is slower or
 * serves other programs too, gets half of the other's rows before the next step; of dx and of the gradients' tiles whoever
 * is free takes the next piece. Rows and tiles know nothing of each other, so it changes no bit who makes them.
 *
 * Else a team's members share out the panels of units: each makes its units' gates and states, reads those of all, and
 * they meet whenever one reads what another wrote, once a step (twice in cells of two stages).
 *
 * Where x is narrow the product with x costs less as the beginning of the recurrent one than by itself, if both make the
 * same gates.
 *
 * With dropout that differs from gate to gate each gate has a left factor of its own, so the products are done gate by
 * gate: a *group* is a run of gates that share their factor. */

static const REAL FN(zeros)[4 * VW] __attribute__((aligned(64))) = { 0 };

/* Row of a dropout mask [groups][B][width], or NULL. */
static inline const REAL *FN(mask_row)(const void *mask, int group, ptrdiff_t B, ptrdiff_t row, ptrdiff_t width)
{
    return mask ? (const REAL *)mask + (group * B + row) * width : NULL;
}

/* Which input dropout mask goes with group g: masks stand in the order of Keras' gates, groups in that of x_gates. The
 * recurrent masks need no such map: h_gates are in Keras' order. */
static inline int FN(input_group)(const struct FN(sequence) *s, int g)
{
    return s->q.input_groups == 1 ? 0 : fr_gate_index(s->l.cell, s->l.cell->x_gates[g]);
}

/* Panel (or block) i of [from,till) in the worker's present direction; -1 past the end. */
static inline ptrdiff_t FN(turn)(const struct FN(worker) *w, ptrdiff_t i, ptrdiff_t from, ptrdiff_t till)
{
    return i >= till ? -1 : w->zigzag ? from + till - 1 - i : i;
}

/* Are the recurrent weights of the worker's panels more than L2 holds, so that fetching them ahead is worth its
 * instructions? With narrow vectors it never is: products are too slow for memory to be late. */
static inline int FN(is_far)(const struct FN(worker) *w)
{
    const struct FN(layout) *l = &w->s->l;
    return VECTOR_BYTES == 64 && (w->panel1 - w->panel0) * l->gates_k * l->H * (ptrdiff_t)sizeof(REAL) > FR_NEAR_BYTES;
}

static void FN(times)(REAL *to, const REAL *a, const REAL *b, ptrdiff_t n)
{
    for (ptrdiff_t i = 0; i < n; i += VW) FN(store_part)(to + i, FN(load_part)(a + i, n - i) * FN(load_part)(b + i, n - i), n - i);
}

/* ---- forward -------------------------------------------------------------------------------------------------- */

/* Gates of visits [j0,j1) = bias + x W. */
static void FN(project_inputs)(struct FN(worker) *w, ptrdiff_t j0, ptrdiff_t j1)
{
    struct FN(sequence) *s = w->s;
    const struct FN(layout) *l = &s->l;
    const int groups = s->q.input_dropout ? s->q.input_groups : 1, gates = l->cell->G / groups;
    const ptrdiff_t n = j1 - j0;
    for (ptrdiff_t i = 0; i < n; i++) w->c[i] = FN(gates_at)(w, j0 + i);
    for (int g = 0; g < groups; g++) {
        const int first = g * gates;
        const ptrdiff_t to = (l->cell->x_slot + first) * l->unit_step;
        for (ptrdiff_t i = 0; i < n; i++) {
            const struct visit *v = FN(visit_at)(w, j0 + i);
            const REAL *mask = FN(mask_row)(s->q.input_dropout, FN(input_group)(s, g), s->q.B, v->row, l->D);
            w->a[i] = (const REAL *)s->q.x + v->x * l->D;
            if (!mask) continue;
            FN(times)(w->masked + i * l->D, w->a[i], mask, l->D);
            w->a[i] = w->masked + i * l->D;
        }
        struct FN(nonzero) *found = (struct FN(nonzero) *)w->tile;
        const ptrdiff_t place = FN(worker_rows)(s) * 4 * VW * (ptrdiff_t)sizeof(REAL) / (ptrdiff_t)sizeof *found;
        const ptrdiff_t count = FN(find_nonzeros)(w->a, n, 0, l->D, found, place);
        for (ptrdiff_t p = w->panel0; p < w->panel1 && !FN(stopped)(w); p++) {
            const struct FN(factor) f = FN(panel_factor)(l, s->w->w, l->D, p, first);
            const REAL *bias = (const REAL *)s->w->bias + p * l->gates_row + to;
            const int nv = gates * FN(vectors)(l, p);
            if (count >= 0) FN(multiply_nonzeros)(nv, n, found, count, w->c, p * s->gates_panel + to, &f, bias);
            else FN(multiply_rows)(nv, n, w->a, 0, w->c, p * s->gates_panel + to, &f, bias);
        }
    }
    /* slots that x does not reach start with their bias alone */
    for (ptrdiff_t p = w->panel0; p < w->panel1; p++)
        for (int slot = l->cell->x_slot + l->cell->G; slot < l->cell->slots; slot++) {
            const REAL *bias = (const REAL *)s->w->bias + p * l->gates_row + slot * l->unit_step;
            for (ptrdiff_t i = 0; i < n; i++)
                for (ptrdiff_t k = 0; k < l->unit_step; k += VW)
                    FN(store)(w->c[i] + p * s->gates_panel + slot * l->unit_step + k, FN(load)(bias + k));
        }
}

/* A stage of the step in work, of n rows: gates [first, first+gates) += operand U, then the cell's maths `after`. */
static void FN(step_stage)(struct FN(worker) *w, ptrdiff_t n, int stage, FN(rows_function) after)
{
    struct FN(sequence) *s = w->s;
    const struct FN(layout) *l = &s->l;
    const int first = stage ? l->cell->late_gate : 0, last = stage ? l->cell->G : l->cell->late_gate;
    const int groups = s->q.recurrent_dropout ? last - first : 1, gates = (last - first) / groups;
    for (ptrdiff_t i = 0; i < n; i++) {
        const struct FN(row) *row = &w->rows[i];
        w->c[i] = row->u.z;
        w->a[i] = stage ? row->u.after[l->cell->kept - 1] : row->u.before[0];
        w->x[i] = row->x;
        if (s->q.recurrent_dropout)
            for (int g = 0; g < groups; g++)
                FN(times)(w->masked + (g * n + i) * s->ld, w->a[i], FN(mask_row)(s->q.recurrent_dropout, first + g, s->q.B, row->number, l->H), l->H);
    }
    const int far = FN(is_far)(w);
    const ptrdiff_t together = n == 1 && groups == 1 ? FN(together) : 1, runs = (w->panel1 - w->panel0 + together - 1) / together;
    w->zigzag ^= 1; /* the panel that the step before used last is in cache still */
    for (ptrdiff_t r = 0; r < runs; r++) {
        const ptrdiff_t next = FN(turn)(w, r + 1, 0, runs), p0 = w->panel0 + FN(turn)(w, r, 0, runs) * together;
        const ptrdiff_t p1 = p0 + together < w->panel1 ? p0 + together : w->panel1;
        const int whole = together > 1 && p1 - p0 == together;
        for (ptrdiff_t p = p0; p < p1; p += whole ? together : 1)
            for (int g = 0; g < groups; g++) {
                const int gate = first + g * gates;
                const ptrdiff_t to = (l->cell->h_slot + gate) * l->unit_step;
                struct FN(factor) f = FN(panel_factor)(l, s->w->u, l->H, p, gate);
                if (next >= 0 && far) f.next = (const REAL *)s->w->u + (w->panel0 + next * together) * l->H * l->gates_k;
                const REAL *start = NULL;
                if (s->with_x) {
                    const struct FN(factor) first = FN(panel_factor)(l, s->w->w, l->D, p, gate);
                    f.first_a = w->x, f.first_b = first.b, f.first_k = l->D, f.first_part = first.part;
                    start = (const REAL *)s->w->bias + p * l->gates_row + to;
                }
                if (s->q.recurrent_dropout)
                    for (ptrdiff_t i = 0; i < n; i++) w->a[i] = w->masked + (g * n + i) * s->ld;
                if (whole)
                    FN(multiply_row)(gates * l->cell->wide, w->a[0], w->c[0] + p * s->gates_panel + to, s->gates_panel, &f,
                                     l->H * l->gates_k, l->D * l->gates_k, start, l->gates_row);
                else FN(multiply_rows)(gates * FN(vectors)(l, p), n, w->a, 0, w->c, p * s->gates_panel + to, &f, start);
            }
        after(w, p0, p1, n);
    }
    FN(meet)(w);
}

/* States at the ends, and outputs that no visit writes, for the worker's own rows. */
static void FN(forward_ends)(struct FN(worker) *w)
{
    struct FN(sequence) *s = w->s;
    const struct fr_forward_call *q = &s->q;
    const ptrdiff_t H = s->l.H;
    const size_t bytes = (size_t)H * sizeof(REAL);
    for (ptrdiff_t b = w->own0; b < w->own1; b++) {
        for (int k = 0; k < s->l.cell->states; k++)
            memcpy((REAL *)q->final_state[k] + b * H, s->kept[k] + s->visits.last[b] * s->ld, bytes);
        const int silent = s->visits.through[b] == s->visits.through[b + 1] || (q->zero_output_for_mask && !fr_is_visited(q, b, q->T - 1));
        if (silent) memset((REAL *)q->last_output + b * H, 0, bytes);
        else memcpy((REAL *)q->last_output + b * H, s->kept[0] + s->visits.last[b] * s->ld, bytes);
        if (!q->sequence || !q->mask) continue;
        const REAL *repeated = NULL;
        for (ptrdiff_t step = 0; step < q->T; step++) {
            REAL *y = (REAL *)q->sequence + fr_output_row(q, b, step) * q->sequence_ld;
            if (fr_is_visited(q, b, step)) repeated = q->zero_output_for_mask ? NULL : y;
            else if (repeated) memcpy(y, repeated, bytes);
            else memset(y, 0, bytes);
        }
    }
}

/* The visits of the worker's list, chunk by chunk. */
static void FN(forward_rows)(struct FN(worker) *w)
{
    struct FN(sequence) *s = w->s;
    for (ptrdiff_t j = 0; j < w->count && !FN(stopped)(w);) {
        if (FN(give_rows)(w, j, w->count)) {
            j = 0;
            continue;
        }
        ptrdiff_t chunk_end = FN(step_end)(w, j);
        for (ptrdiff_t next; chunk_end < w->count && (next = FN(step_end)(w, chunk_end)) - j <= s->chunk;) chunk_end = next;
        w->chunk0 = j;
        if (!s->with_x) FN(project_inputs)(w, j, chunk_end);
        while (j < chunk_end) {
            const ptrdiff_t end = FN(step_end)(w, j);
            if (FN(stopped)(w)) break;
            if (FN(give_rows)(w, j, w->count)) { /* the rest is begun anew, with a chunk of its own */
                j = 0;
                break;
            }
            FN(begin_step)(w, j, end);
            if (s->cell->prepare) FN(step_stage)(w, end - j, 0, s->cell->prepare);
            FN(step_stage)(w, end - j, s->cell->prepare != NULL, s->cell->forward);
            j = end;
        }
    }
}

static void FN(forward_body)(struct FN(sequence) *s, int rank, int thread, int threads)
{
    struct FN(worker) w;
    FN(worker_start)(&w, s, rank, thread, threads);
    const unsigned saved = fr_flush_denormals_on();
    for (ptrdiff_t b = w.own0; b < w.own1; b++)
        for (int k = 0; k < s->l.cell->states; k++) {
            const REAL *from = s->q.initial_state[k];
            REAL *to = s->kept[k] + (s->record ? b : 2 * b) * s->ld;
            for (ptrdiff_t j = 0; j < s->l.H; j += VW)
                FN(store)(to + j, from ? FN(load_part)(from + b * s->l.H + j, s->l.H - j) : FN(splat)(0));
        }
    FN(meet)(&w);
    do {
        FN(forward_rows)(&w);
        FN(forward_ends)(&w);
    } while (FN(receive_rows)(&w));
    fr_flush_denormals_restore(saved);
}

/* ---- backward ------------------------------------------------------------------------------------------------- */

/* Panels of dz of n rows that L2 holds while block after block of columns is made of them: dz lies in short runs, and no
 * processor sees the next one coming. */
static inline ptrdiff_t FN(panels_in_reach)(const struct FN(layout) *l, ptrdiff_t n)
{
    const ptrdiff_t panels = FR_REACH_BYTES / (n * l->gates_row * (ptrdiff_t)sizeof(REAL));
    return l->panels <= 2 * panels ? l->panels : panels < 4 ? 4 : panels;
}

/* d of the stage's operand, a block of columns from `unit` on, += what the worker's tile holds, times the dropout mask of
 * a gate. */
static void FN(add_kept)(struct FN(worker) *w, ptrdiff_t n, int gate, ptrdiff_t unit, int operand)
{
    const struct FN(sequence) *s = w->s;
    const ptrdiff_t left = s->l.H - unit < 4 * VW ? s->l.H - unit : 4 * VW;
    for (ptrdiff_t i = 0; i < n; i++) {
        const REAL *mask = FN(mask_row)(s->q.recurrent_dropout, gate, s->q.B, w->rows[i].number, s->l.H) + unit;
        REAL *to = w->rows[i].u.d[operand] + unit;
        for (ptrdiff_t k = 0; k < left; k += VW)
            FN(store)(to + k, FN(load)(to + k) + FN(load)(w->c[i] + k) * FN(load_part)(mask + k, left - k));
    }
}

/* d of the stage's operand += dz U^T; the mirror of step_stage's product. */
static void FN(step_stage_backward)(struct FN(worker) *w, ptrdiff_t n, int stage)
{
    struct FN(sequence) *s = w->s;
    const struct FN(layout) *l = &s->l;
    const int first = stage ? l->cell->late_gate : 0, last = stage ? l->cell->G : l->cell->late_gate;
    const int groups = s->q.recurrent_dropout ? last - first : 1, gates = (last - first) / groups;
    const ptrdiff_t columns = 4 * VW;
    const int far = FN(is_far)(w);
    const int operand = stage ? l->cell->kept - 1 : 0;
    for (ptrdiff_t i = 0; i < n; i++) w->a[i] = w->rows[i].u.z;
    for (int g = 0; g < groups; g++) {
        const int gate = first + g * gates;
        for (ptrdiff_t i = 0; i < n; i++)
            w->c[i] = s->q.recurrent_dropout ? w->tile + i * columns : w->rows[i].u.d[operand];
        const ptrdiff_t block0 = w->panel0 * l->cell->wide / 4, block1 = (w->panel1 * l->cell->wide + 3) / 4;
        const ptrdiff_t together = n == 1 && !s->q.recurrent_dropout ? FN(together) : 1, runs = (block1 - block0 + together - 1) / together;
        const ptrdiff_t at_once = s->q.recurrent_dropout ? l->panels : FN(panels_in_reach)(l, n);
        w->zigzag ^= 1;
        for (ptrdiff_t p0 = 0; p0 < l->panels; p0 += at_once)
            for (ptrdiff_t r = 0; r < runs; r++) {
                const ptrdiff_t p1 = p0 + at_once < l->panels ? p0 + at_once : l->panels;
                const ptrdiff_t next = FN(turn)(w, r + 1, 0, runs), b0 = block0 + FN(turn)(w, r, 0, runs) * together;
                const ptrdiff_t b1 = b0 + together < block1 ? b0 + together : block1;
                const int whole = together > 1 && b1 - b0 == together && b1 * columns <= l->H + VW - 1;
                for (ptrdiff_t block = b0; block < b1; block += whole ? together : 1) {
                    const ptrdiff_t unit = block * columns, left = l->H - unit;
                    const int nv = left < columns ? (int)((left + VW - 1) / VW) : 4;
                    struct FN(factor) f = FN(transposed_factor)(l, s->w->ut, block, gate, gates, s->gates_panel, p0, p1);
                    const ptrdiff_t from = p0 * s->gates_panel + (l->cell->h_slot + gate) * l->unit_step;
                    if (next >= 0 && far)
                        f.next = FN(transposed_factor)(l, s->w->ut, block0 + next * together, gate, gates, s->gates_panel, p0, p1).b;
                    if (whole) FN(multiply_row)(4, w->a[0] + from, w->c[0] + unit, columns, &f, l->depth * columns, 0, NULL, 0);
                    else if (!s->q.recurrent_dropout) FN(multiply_rows)(nv, n, w->a, from, w->c, unit, &f, NULL);
                    else {
                        FN(multiply_rows)(nv, n, w->a, from, w->c, 0, &f, FN(zeros));
                        FN(add_kept)(w, n, first + g, unit, operand);
                    }
                }
            }
    }
}

/* dx of visits [v0,v1) = dz W^T, times the dropout masks. A block of columns that can't be written in place is made of all
 * panels at once. */
static void FN(project_gradients)(struct FN(worker) *w, ptrdiff_t v0, ptrdiff_t v1)
{
    struct FN(sequence) *s = w->s;
    const struct FN(layout) *l = &s->l;
    const int groups = s->q.input_dropout ? s->q.input_groups : 1, gates = l->cell->G / groups;
    const struct visit *visits = s->visits.of + v0;
    const ptrdiff_t n = v1 - v0, columns = 4 * VW, at_once = FN(panels_in_reach)(l, n);
    for (ptrdiff_t i = 0; i < n; i++) w->a[i] = s->gates + (v0 + i) * l->gates_row;
    for (ptrdiff_t p0 = 0; p0 < l->panels; p0 += at_once)
        for (ptrdiff_t column = 0; column < l->D; column += columns) {
            const ptrdiff_t left = l->D - column < columns ? l->D - column : columns;
            const int nv = (int)((left + VW - 1) / VW), aside = left % VW != 0 || s->q.input_dropout;
            const ptrdiff_t p1 = aside || l->panels - p0 < at_once ? l->panels : p0 + at_once;
            if (aside && p0) continue;
            for (ptrdiff_t i = 0; i < n; i++)
                w->c[i] = aside ? w->tile + i * columns : (REAL *)s->back->dx + visits[i].x * l->D + column;
            for (int g = 0; g < groups; g++) {
                struct FN(factor) f = FN(transposed_factor)(l, s->w->wt, column / columns, g * gates, gates, s->gates_panel, p0, p1);
                f.c_is_far = !aside;
                FN(multiply_rows)(nv, n, w->a, p0 * s->gates_panel + (l->cell->x_slot + g * gates) * l->unit_step, w->c, 0, &f, p0 ? NULL : FN(zeros));
                if (!aside) continue;
                for (ptrdiff_t i = 0; i < n; i++) {
                    const struct visit *v = &visits[i];
                    const REAL *mask = FN(mask_row)(s->q.input_dropout, FN(input_group)(s, g), s->q.B, v->row, l->D);
                    REAL *to = (REAL *)s->back->dx + v->x * l->D + column;
                    for (ptrdiff_t k = 0; k < left; k += VW) {
                        FN(vec) value = FN(load)(w->c[i] + k);
                        if (mask) value *= FN(load_part)(mask + column + k, left - k);
                        if (g) value += FN(load_part)(to + k, left - k);
                        FN(store_part)(to + k, value, left - k);
                    }
                }
            }
        }
}

/* dx, piece by piece to whoever is free. */
static void FN(make_dx)(struct FN(worker) *w)
{
    const struct FN(sequence) *s = w->s;
    const ptrdiff_t visits = s->visits.count, pieces = ((visits + s->chunk - 1) / s->chunk + w->threads - 1) / w->threads * w->threads;
    for (int64_t i; (i = atomic_fetch_add(&s->dx->arrivals, 1)) < pieces && !FN(stopped)(w);) {
        const ptrdiff_t v0 = visits * i / pieces, v1 = visits * (i + 1) / pieces;
        if (v0 < v1) FN(project_gradients)(w, v0, v1);
    }
}

#include "weight_gradient.h"

/* dz of the visits of the worker's list, from the last to the first, and d of the states that its rows start from. */
static void FN(backward_rows)(struct FN(worker) *w, ptrdiff_t unit0, ptrdiff_t unit1)
{
    struct FN(sequence) *s = w->s;
    for (ptrdiff_t end = w->count; end > 0 && !FN(stopped)(w);) {
        if (FN(give_rows)(w, 0, end)) {
            end = w->count;
            continue;
        }
        const ptrdiff_t j = FN(step_begin)(w, end);
        FN(begin_step)(w, j, end);
        s->cell->backward(w, w->panel0, w->panel1, end - j);
        FN(meet)(w); /* the products below read the gates of all units */
        if (s->cell->prepare) {
            FN(step_stage_backward)(w, end - j, 1);
            s->cell->prepare_backward(w, w->panel0, w->panel1, end - j);
            FN(meet)(w);
        }
        FN(step_stage_backward)(w, end - j, 0);
        end = j;
    }
    for (ptrdiff_t b = w->row0; b < w->row1 && unit0 < unit1; b++)
        for (int k = 0; k < s->l.cell->states; k++)
            memcpy((REAL *)s->back->dinitial[k] + b * s->l.H + unit0, s->d[k] + b * s->ld + unit0, (size_t)(unit1 - unit0) * sizeof(REAL));
}

static void FN(backward_body)(struct FN(sequence) *s, int rank, int thread, int threads)
{
    const struct fr_backward_call *q = s->back;
    const ptrdiff_t H = s->l.H;
    struct FN(worker) w;
    FN(worker_start)(&w, s, rank, thread, threads);
    const ptrdiff_t unit0 = w.panel0 * s->l.unit_step, unit1 = w.panel1 * s->l.unit_step < H ? w.panel1 * s->l.unit_step : H;
    const unsigned saved = fr_flush_denormals_on();
    for (ptrdiff_t b = w.row0; b < w.row1; b++)
        for (int k = 0; k < s->l.cell->kept; k++) {
            const REAL *from = k < s->l.cell->states ? q->dfinal[k] : NULL, *last = k == 0 ? q->dlast : NULL;
            const int silent = s->visits.through[b] == s->visits.through[b + 1] || (s->q.zero_output_for_mask && !fr_is_visited(&s->q, b, s->q.T - 1));
            for (ptrdiff_t j = unit0; j < unit1; j += VW) {
                FN(vec) d = from ? FN(load_part)(from + b * H + j, H - j) : FN(splat)(0);
                if (last && !silent) d += FN(load_part)(last + b * H + j, H - j);
                FN(store)(s->d[k] + b * s->ld + j, d);
            }
        }
    do FN(backward_rows)(&w, unit0, unit1);
    while (FN(receive_rows)(&w));
    /* then dz of all visits is there; a guest does not wait for it: who needs long may need the guest's core */
    if (w.ways > 1) fr_meet(s->watch, &s->meetings[0], rank, threads, 1);
    else if (thread < threads) fr_wait_for_all(s->watch, s->pool, rank);
    if (thread < threads || fr_all_done(s->pool)) {
        if (q->dx) FN(make_dx)(&w);
        if (q->dkernel) FN(weight_gradient)(&w);
    }
    fr_flush_denormals_restore(saved);
}
