/* sequence.h - the time loop, forward and backward, for any cell; included once for float and once for double.
 *
 * Each team of threads takes some rows of the batch through all of time without meeting the others. Forward it goes in
 * chunks of visits whose gates fit its L2: first x W + b of the whole chunk, then step by step the recurrent product
 * and, on the panel that was just made, the cell's maths. Backward it goes step by step, then makes dx; the gradients of
 * the weights follow when all threads are there (weight_gradient.h).
 *
 * A team is one thread where the batch has rows enough for all. Else its members share out the panels of units: each
 * makes its units' gates and states, reads those of all, and they meet whenever one reads what another wrote, once a
 * step (twice in cells of two stages).
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
        for (ptrdiff_t p = w->panel0; p < w->panel1 && !FN(stopped)(w); p++) {
            const struct FN(factor) f = FN(panel_factor)(l, s->w->w, l->D, p, first);
            const REAL *bias = (const REAL *)s->w->bias + p * l->gates_row + to;
            FN(multiply_rows)(gates * FN(vectors)(l, p), n, w->a, 0, w->c, p * s->gates_panel + to, &f, bias);
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
    w->zigzag ^= 1; /* the panel that the step before used last is in cache still */
    for (ptrdiff_t i = w->panel0; i < w->panel1; i++) {
        const ptrdiff_t p = FN(turn)(w, i, w->panel0, w->panel1), next = FN(turn)(w, i + 1, w->panel0, w->panel1);
        for (int g = 0; g < groups; g++) {
            const int gate = first + g * gates;
            struct FN(factor) f = FN(panel_factor)(l, s->w->u, l->H, p, gate);
            if (next >= 0 && far) f.next = (const REAL *)s->w->u + next * l->H * l->gates_k;
            const REAL *start = NULL;
            if (s->with_x) {
                const struct FN(factor) first = FN(panel_factor)(l, s->w->w, l->D, p, gate);
                f.first_a = w->x, f.first_b = first.b, f.first_k = l->D, f.first_part = first.part;
                start = (const REAL *)s->w->bias + p * l->gates_row;
            }
            if (s->q.recurrent_dropout)
                for (ptrdiff_t i = 0; i < n; i++) w->a[i] = w->masked + (g * n + i) * s->ld;
            FN(multiply_rows)(gates * FN(vectors)(l, p), n, w->a, 0, w->c, p * s->gates_panel + (l->cell->h_slot + gate) * l->unit_step, &f, start);
        }
        after(w, p, p + 1, n);
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
    for (ptrdiff_t j = 0; j < w.count && !FN(stopped)(&w);) {
        ptrdiff_t chunk_end = FN(step_end)(&w, j);
        for (ptrdiff_t next; chunk_end < w.count && (next = FN(step_end)(&w, chunk_end)) - j <= s->chunk;) chunk_end = next;
        w.chunk0 = j;
        if (!s->with_x) FN(project_inputs)(&w, j, chunk_end);
        while (j < chunk_end) {
            const ptrdiff_t end = FN(step_end)(&w, j);
            if (FN(stopped)(&w)) break;
            FN(begin_step)(&w, j, end);
            if (s->cell->prepare) FN(step_stage)(&w, end - j, 0, s->cell->prepare);
            FN(step_stage)(&w, end - j, s->cell->prepare != NULL, s->cell->forward);
            j = end;
        }
    }
    FN(forward_ends)(&w);
    fr_flush_denormals_restore(saved);
}

/* ---- backward ------------------------------------------------------------------------------------------------- */

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
        w->zigzag ^= 1;
        for (ptrdiff_t k = block0; k < block1; k++) {
            const ptrdiff_t block = FN(turn)(w, k, block0, block1), next = FN(turn)(w, k + 1, block0, block1);
            const ptrdiff_t unit = block * columns, left = l->H - unit;
            const int nv = left < columns ? (int)((left + VW - 1) / VW) : 4;
            struct FN(factor) f = FN(transposed_factor)(l, s->w->ut, block, gate, gates, s->gates_panel);
            if (next >= 0 && far) f.next = (const REAL *)s->w->ut + next * l->depth * columns;
            FN(multiply_rows)(nv, n, w->a, (l->cell->h_slot + gate) * l->unit_step, w->c, s->q.recurrent_dropout ? 0 : unit, &f,
                              s->q.recurrent_dropout ? FN(zeros) : NULL);
            if (!s->q.recurrent_dropout) continue;
            for (ptrdiff_t i = 0; i < n; i++) {
                const REAL *mask = FN(mask_row)(s->q.recurrent_dropout, first + g, s->q.B, w->rows[i].number, l->H) + unit;
                REAL *to = w->rows[i].u.d[operand] + unit;
                for (ptrdiff_t k = 0; k < nv * VW; k += VW)
                    FN(store)(to + k, FN(load)(to + k) + FN(load)(w->c[i] + k) * FN(load_part)(mask + k, left - k));
            }
        }
    }
}

/* dx of visits [j0,j1) = dz W^T, times the dropout masks. */
static void FN(project_gradients)(struct FN(worker) *w, ptrdiff_t j0, ptrdiff_t j1)
{
    struct FN(sequence) *s = w->s;
    const struct FN(layout) *l = &s->l;
    const int groups = s->q.input_dropout ? s->q.input_groups : 1, gates = l->cell->G / groups;
    const ptrdiff_t n = j1 - j0, columns = 4 * VW;
    for (ptrdiff_t i = 0; i < n; i++) w->a[i] = FN(gates_at)(w, j0 + i);
    for (ptrdiff_t column = 0; column < l->D; column += columns) {
        const ptrdiff_t left = l->D - column < columns ? l->D - column : columns;
        const int nv = (int)((left + VW - 1) / VW), aside = left % VW != 0 || s->q.input_dropout;
        for (ptrdiff_t i = 0; i < n; i++)
            w->c[i] = aside ? w->tile + i * columns : (REAL *)s->back->dx + FN(visit_at)(w, j0 + i)->x * l->D + column;
        for (int g = 0; g < groups; g++) {
            const struct FN(factor) f = FN(transposed_factor)(l, s->w->wt, column / columns, g * gates, gates, s->gates_panel);
            FN(multiply_rows)(nv, n, w->a, (l->cell->x_slot + g * gates) * l->unit_step, w->c, 0, &f, FN(zeros));
            if (!aside) continue;
            for (ptrdiff_t i = 0; i < n; i++) {
                const struct visit *v = FN(visit_at)(w, j0 + i);
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

#include "weight_gradient.h"

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
    for (ptrdiff_t end = w.count; end > 0 && !FN(stopped)(&w);) {
        const ptrdiff_t j = FN(step_begin)(&w, end);
        FN(begin_step)(&w, j, end);
        s->cell->backward(&w, w.panel0, w.panel1, end - j);
        FN(meet)(&w); /* the products below read the gates of all units */
        if (s->cell->prepare) {
            FN(step_stage_backward)(&w, end - j, 1);
            s->cell->prepare_backward(&w, w.panel0, w.panel1, end - j);
            FN(meet)(&w);
        }
        FN(step_stage_backward)(&w, end - j, 0);
        end = j;
    }
    if (q->dx) {
        const ptrdiff_t till = fr_share(w.count, w.member + 1, w.ways);
        for (ptrdiff_t j = fr_share(w.count, w.member, w.ways); j < till && !FN(stopped)(&w); j += s->chunk)
            FN(project_gradients)(&w, j, till - j < s->chunk ? till : j + s->chunk);
    }
    for (ptrdiff_t b = w.row0; b < w.row1 && unit0 < unit1; b++)
        for (int k = 0; k < s->l.cell->states; k++)
            memcpy((REAL *)q->dinitial[k] + b * H + unit0, s->d[k] + b * s->ld + unit0, (size_t)(unit1 - unit0) * sizeof(REAL));
    if (q->dkernel) {
        fr_meet(s->watch, &s->meetings[0], rank, threads, 1);
        FN(weight_gradient)(&w);
    }
    fr_flush_denormals_restore(saved);
}

/* ---- calls ---------------------------------------------------------------------------------------------------- */

/* One or two calls that run at once, `each` threads to a call, or one after the other on one thread. */
struct FN(region) {
    struct FN(sequence) *calls;
    int n, each;
    void (*body)(struct FN(sequence) *, int rank, int thread, int threads);
};

static void FN(region_body)(void *argument, int thread, int threads)
{
    struct FN(region) *r = argument;
    if (threads == r->n * r->each) r->body(&r->calls[thread / r->each], thread, thread % r->each, r->each);
    else if (thread == 0) /* the machine granted fewer */
        for (int i = 0; i < r->n; i++) r->body(&r->calls[i], 0, 0, 1);
}

static double FN(flops)(const struct FN(sequence) *s)
{
    return 2.0 * (double)s->visits.count * (double)s->l.depth * (double)(s->l.D + s->l.H);
}

/* Threads of a region of n calls, of which `most` may run: as many for each call, or one for all of them if more are not
 * worth while. */
static int FN(region_threads)(const struct FN(sequence) *calls, int n, int most)
{
    double flops = 0;
    for (int i = 0; i < n; i++) flops += FN(flops)(&calls[i]);
    return flops < FR_WORTH_THREADS || most < n ? 1 : most / n * n;
}

/* How many of `threads` threads make a team: see the head of this file. The time of a step is guessed in multiplications
 * at full speed: a product of few rows runs slower, so does one whose weights come from beyond L2, and members who meet
 * lose time. The guess decides who computes what, never what comes out. */
static int FN(ways)(const struct FN(sequence) *s, int threads)
{
    static const double slower[] = { 2.6, 1.5, 1.2, 1.1, 1.05 }; /* products of 1, 2, ... rows */
    const double meeting = 3e4 * (s->cell->prepare ? 2 : 1), beyond = 1.04;
    int best = 1;
    double least = 0;
    for (int ways = 1; ways <= threads && ways <= s->l.panels; ways++) {
        if (threads % ways) continue;
        const ptrdiff_t rows = (s->q.B + threads / ways - 1) / (threads / ways);
        ptrdiff_t panels = 0;
        for (int member = 0; member < ways; member++) {
            const ptrdiff_t own = FN(first_panel)(s, member + 1, ways) - FN(first_panel)(s, member, ways);
            panels = own > panels ? own : panels;
        }
        const ptrdiff_t weights = panels * s->l.gates_k * s->l.H;
        double cost = (double)rows * (double)weights * (rows > 5 ? 1 : slower[rows - 1]);
        if (weights * (ptrdiff_t)sizeof(REAL) > FR_NEAR_BYTES) cost *= beyond;
        if (weights * (ptrdiff_t)sizeof(REAL) > FR_FAR_BYTES) cost *= beyond;
        if (ways > 1) cost += meeting;
        if (ways == 1 || cost < least) best = ways, least = cost;
    }
    return best;
}

/* Sets what follows from the call and the number of visits; no memory yet. */
static void FN(sequence_start)(struct FN(sequence) *s, const struct fr_forward_call *q, const struct fr_packed *w, int record)
{
    *s = (struct FN(sequence)){ .q = *q, .w = w, .l = FN(layout)(w->cell, w->D, w->H), .cell = FN(steps)[w->cell], .record = record };
    s->ld = s->l.panels * s->l.unit_step + 16; /* no multiple of 4 KB */
    s->with_x = w->D <= FR_FEW_FEATURES && s->l.cell->slots == s->l.cell->G && !s->cell->prepare && !q->input_dropout && !q->recurrent_dropout;
}

/* Deals the work out to `threads` threads. */
static void FN(sequence_deal)(struct FN(sequence) *s, struct fr_watch *watch, int threads)
{
    const ptrdiff_t row = s->l.panels * s->l.gates_row * (ptrdiff_t)sizeof(REAL);
    s->watch = watch;
    s->threads = threads;
    s->ways = FN(ways)(s, threads);
    s->chunk = (s->back ? 1 : s->ways) * FR_CHUNK_BYTES / row;
    if (s->l.D * s->l.depth * (ptrdiff_t)sizeof(REAL) > FR_FAR_BYTES && s->chunk < s->l.D / 2)
        s->chunk = s->l.D / 2; /* so many rows for every reading of W: what they move is as much again as W is */
    s->chunk = s->chunk < 24 ? 24 : s->chunk > 1024 ? 1024 : s->chunk - s->chunk % 24; /* 24: whole tiles of 6 and 8 rows */
    if (s->chunk > s->q.B * s->q.T) s->chunk = s->q.B * s->q.T;
}

/* Takes `extra` bytes beside what the threads need, and gives their address; NULL: no memory. */
static char *FN(take_workspace)(struct FN(sequence) *s, size_t per_thread, size_t extra)
{
    const size_t meetings = (1 + (size_t)s->threads) * sizeof(struct fr_meeting);
    const size_t lists = ((size_t)s->ways * (size_t)s->visits.count * sizeof(int32_t) + 63) / 64 * 64;
    s->workspace_size = per_thread;
    char *at = fr_take(meetings + (size_t)s->threads * per_thread + lists + extra);
    if (!at) return NULL;
    s->meetings = (struct fr_meeting *)at;
    memset(s->meetings, 0, meetings);
    s->workspace = at + meetings;
    s->lists = (int32_t *)(s->workspace + (size_t)s->threads * per_thread);
    return (char *)s->lists + lists;
}

static int FN(forward_start)(struct FN(sequence) *s)
{
    const struct fr_forward_call *q = &s->q;
    const ptrdiff_t count = s->visits.count, slots = s->record ? q->B + count : 2 * q->B, kept = s->l.cell->kept;
    s->gates_panel = (s->record ? count : FN(worker_rows)(s)) * s->l.gates_row + 64 / (ptrdiff_t)sizeof(REAL);
    /* What outlives the call lies together: the tape, visits, states and, with a backward pass to come, gates. */
    const size_t header = 1024, listed = (fr_visits_bytes(q, count) + 63) / 64 * 64;
    _Static_assert(sizeof(struct fr_tape) <= 1024, "the tape's header");
    const size_t reals = (size_t)(kept * slots * s->ld) + (s->record ? (size_t)(s->l.panels * s->gates_panel) : 0);
    s->tape = fr_take(header + listed + reals * sizeof(REAL));
    if (!s->tape || !FN(take_workspace)(s, FN(worker_bytes)(s), 0)) return FR_NO_MEMORY;
    fr_list_visits(q, s->record, count, &s->visits, (char *)s->tape + header);
    REAL *at = (REAL *)((char *)s->tape + header + listed);
    for (int k = 0; k < kept; k++) s->kept[k] = at, at += slots * s->ld;
    s->gates = s->record ? at : NULL;
    return FR_OK;
}

static int FN(forward)(const struct fr_forward_call *const *calls, int n)
{
    struct FN(sequence) of[FR_MAX_CALLS] = { 0 };
    struct fr_watch watch;
    for (int i = 0; i < n; i++) {
        FN(sequence_start)(&of[i], calls[i], calls[i]->packed, calls[i]->tape != NULL);
        of[i].visits.count = fr_count_visits(calls[i]);
    }
    const int threads = FN(region_threads)(of, n, calls[0]->control.threads), each = threads == 1 ? 1 : threads / n;
    int status = FR_OK;
    for (int i = 0; i < n && status == FR_OK; i++) {
        FN(sequence_deal)(&of[i], &watch, each);
        status = FN(forward_start)(&of[i]);
    }
    if (status == FR_OK) {
        struct FN(region) region = { .calls = of, .n = n, .each = each, .body = FN(forward_body) };
        fr_watch_start(&watch, &calls[0]->control);
        fr_parallel(&watch, threads, FN(region_body), &region);
        if (atomic_load(&watch.stop)) status = FR_INTERRUPTED;
    }
    for (int i = 0; i < n; i++) {
        const struct FN(sequence) *s = &of[i];
        fr_give_back(s->meetings);
        if (s->record && status == FR_OK) {
            *s->tape = (struct fr_tape){ .call = s->q, .build = &BUILD, .visits = s->visits, .gates = s->gates,
                                         .kept = { s->kept[0], s->kept[1] }, .gates_panel = s->gates_panel, .ld = s->ld };
            *s->q.tape = s->tape;
        } else {
            fr_give_back(s->tape);
        }
    }
    return status;
}

static int FN(backward_start)(struct FN(sequence) *s, const struct fr_tape *tape)
{
    s->visits = tape->visits;
    s->gates = tape->gates;
    s->gates_panel = tape->gates_panel;
    s->ld = tape->ld;
    for (int k = 0; k < FR_MAX_KEPT; k++) s->kept[k] = tape->kept[k];
    const size_t d = (size_t)(s->l.cell->kept * s->q.B * s->ld);
    const size_t gradients = s->back->dkernel ? (size_t)FN(weight_gradient_size)(s) : 0;
    REAL *at = (REAL *)FN(take_workspace)(s, FN(worker_bytes)(s) + FN(weight_gradient_bytes)(s), (d + gradients) * sizeof(REAL));
    if (!at) return FR_NO_MEMORY;
    for (int k = 0; k < s->l.cell->kept; k++) s->d[k] = at, at += s->q.B * s->ld;
    s->dweights = at;
    return FR_OK;
}

static int FN(backward)(const struct fr_backward_call *const *calls, int n)
{
    struct FN(sequence) of[FR_MAX_CALLS] = { 0 };
    struct fr_watch watch;
    for (int i = 0; i < n; i++) {
        FN(sequence_start)(&of[i], &calls[i]->tape->call, calls[i]->packed, 1);
        of[i].back = calls[i];
        of[i].q.sequence = NULL;
        of[i].visits.count = calls[i]->tape->visits.count;
    }
    const int threads = FN(region_threads)(of, n, calls[0]->control.threads), each = threads == 1 ? 1 : threads / n;
    int status = FR_OK;
    for (int i = 0; i < n && status == FR_OK; i++) {
        FN(sequence_deal)(&of[i], &watch, each);
        status = FN(backward_start)(&of[i], calls[i]->tape);
    }
    if (status == FR_OK) {
        struct FN(region) region = { .calls = of, .n = n, .each = each, .body = FN(backward_body) };
        fr_watch_start(&watch, &calls[0]->control);
        fr_parallel(&watch, threads, FN(region_body), &region);
        if (atomic_load(&watch.stop)) status = FR_INTERRUPTED;
    }
    for (int i = 0; i < n; i++) fr_give_back(of[i].meetings);
    return status;
}
