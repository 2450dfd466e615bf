/* worker.h - what the threads of a call share, what one thread has, and the cells; once for float, once for double.
 * Layouts: pack.h. Visits: visits.h. kept[0] is h, kept[1] the cell's second state or operand: [slot][ld]. */

#ifndef FR_WORKER_SHARED
#define FR_WORKER_SHARED
enum {
    FR_CHUNK_BYTES = 1 << 19, /* forward: gates of one chunk of one thread */
    FR_CHUNK_VISITS = 96,     /* backward: visits whose dx is made at a time */
    FR_NEAR_BYTES = 1 << 20,  /* weights that may be hoped to stay in L2 from step to step */
    FR_FEW_FEATURES = 24,     /* so narrow an x is multiplied in every step and not once a chunk */
    FR_REACH_BYTES = 1 << 17, /* a left factor that stays in L2 while right factors go by */
    FR_FEWEST_ROWS = 4,       /* of what one thread gives another: fewer don't fill the registers */
    FR_FAR_BYTES = 8 << 20,   /* weights that are too many for the share of L3 that one may hope for */
};

/* The tiles of weight gradients that one thread is to make, in pieces, each turn by turn of visits: how many turns of pieces
 * were begun, by it or by others that had done theirs; how many of each were done. See weight_gradient.h. */
enum { FR_PIECES = 23 }; /* 8 jobs may end in one, and 15 more; with `begun` three cache lines */
struct fr_tiles {
    _Atomic int64_t begun, done[FR_PIECES];
};

struct fr_tape {
    struct fr_forward_call call; /* its arrays outlive the tape: the caller's promise */
    const struct fr_build *build;
    struct visits visits;
    void *gates, *kept[FR_MAX_KEPT];
    ptrdiff_t gates_panel, ld;
};
#endif

/* One call: what all its threads share. */
struct FN(sequence) {
    struct fr_forward_call q;
    const struct fr_backward_call *back; /* NULL in a forward pass */
    const struct fr_packed *w;
    struct FN(layout) l;
    const struct FN(step_functions) *cell;
    struct visits visits;
    REAL *gates, *kept[FR_MAX_KEPT];
    ptrdiff_t gates_panel, ld; /* from panel to panel; from slot to slot */
    ptrdiff_t chunk;           /* visits a team takes at a time */
    int record;
    int with_x;                /* does a step's product begin with that of x? */
    int x_is_sparse;           /* backward: is x mostly zeros, as far as a few rows tell? */
    int threads, ways;         /* of this call; of one team */
    int guests;                /* threads of another call that come when they have done theirs; none to teams of several */
    struct fr_watch *watch;
    struct fr_tape *tape;      /* forward: what is to outlive the call */
    struct fr_meeting *meetings; /* [1 + teams]: of all threads, then of each team; none for teams of one */
    struct fr_pool *pool;      /* teams of one thread share out their rows anew */
    struct fr_meeting *dx;     /* backward: its arrivals are the pieces of dx that were begun */
    struct fr_tiles *tiles;    /* [threads] backward */
    char *workspace;           /* [threads + guests] of `workspace_size` */
    size_t workspace_size;
    REAL *d[FR_MAX_KEPT];      /* backward: gradients of the kept arrays, [B][ld] */
    REAL *dweights;            /* backward: gradients of the weights, panel by panel; see weight_gradient.h */
    int32_t *lists;            /* [ways][count]: every thread's visits */
};

/* One thread. The threads of a call stand in teams of `ways`: a team takes some rows of the batch through all of time,
 * its members share out the units and meet after every step. A team of one never meets anyone; its rows may change hands.
 * Numbers from `threads` on are guests', who have only the rows that they are given. */
struct FN(worker) {
    struct FN(sequence) *s;
    int thread, threads;       /* of this call */
    int rank;                  /* in the region, which may hold two calls: 0 is the caller's own thread */
    int team, member, ways;
    int counted;               /* is it among those whom the pool knows as busy? */
    int64_t met;               /* how often the team has met */
    ptrdiff_t row0, row1, count; /* rows and visits of the team */
    ptrdiff_t own0, own1;      /* the rows whose ends are this member's */
    ptrdiff_t panel0, panel1;  /* the panels whose units are this member's */
    int32_t *list;             /* [count] the team's visits in order */
    ptrdiff_t chunk0;          /* first visit of the chunk in work */
    int zigzag;            /* does the present step take panels from the last to the first? */
    struct FN(row) *rows;  /* [B] the rows of the step in work */
    const REAL **a;        /* [chunk] rows of a product's left factor */
    const REAL **x;        /* [B] rows of x that the step in work reads */
    REAL **c;              /* [chunk] rows of its result */
    REAL *gates;           /* the team's: gates of the chunk when they are not kept */
    REAL *masked;          /* [groups][chunk][D or H] dropped-out rows */
    REAL *tile;            /* [chunk][4*VW] a panel of results that may not be written in place; forward what is not zero in x */
};

/* The address of one vector of units of one row. */
struct FN(unit) {
    REAL *z;                                      /* slot 0 */
    ptrdiff_t slot;                               /* from slot to slot */
    const REAL *before[FR_MAX_KEPT];
    REAL *after[FR_MAX_KEPT], *d[FR_MAX_KEPT];    /* d: gradients, backward only */
};

/* One row of the step in work. */
struct FN(row) {
    struct FN(unit) u; /* unit 0 */
    const REAL *x;     /* its input */
    REAL *y;           /* its output, or the gradient of that; NULL: there is none */
    ptrdiff_t repeats; /* masked steps that repeat its output */
    ptrdiff_t number;  /* in the batch */
};

/* A cell's maths over the n rows of a worker's step, panels [p0,p1): see step.h. */
typedef void (*FN(rows_function))(const struct FN(worker) *w, ptrdiff_t p0, ptrdiff_t p1, ptrdiff_t n);
struct FN(step_functions) {
    FN(rows_function) forward, backward, prepare, prepare_backward;
};

typedef void (*FN(units_function))(const struct FN(unit) *u, const struct FN(layout) *l, ptrdiff_t p0, ptrdiff_t p1,
                                   int activation, int recurrent);
struct FN(unit_functions) {
    FN(units_function) forward, prepare;
};

ALWAYS_INLINE FN(vec) FN(slot)(const struct FN(unit) *u, int i) { return FN(load)(u->z + i * u->slot); }
ALWAYS_INLINE void FN(set_slot)(const struct FN(unit) *u, int i, FN(vec) v) { FN(store)(u->z + i * u->slot, v); }

ALWAYS_INLINE const struct visit *FN(visit_at)(const struct FN(worker) *w, ptrdiff_t j) { return &w->s->visits.of[w->list[j]]; }

/* The gates of the worker's j-th visit, panel 0. */
ALWAYS_INLINE REAL *FN(gates_at)(const struct FN(worker) *w, ptrdiff_t j)
{
    const struct FN(sequence) *s = w->s;
    return s->record ? s->gates + w->list[j] * s->l.gates_row : w->gates + (j - w->chunk0) * s->l.gates_row;
}

/* One vector of units of a row whose unit 0 is at u; the gates of panels lie `gates_panel` apart. */
ALWAYS_INLINE struct FN(unit) FN(unit_at)(const struct FN(unit) *u, ptrdiff_t gates_panel, ptrdiff_t unit_step, ptrdiff_t panel, ptrdiff_t lane)
{
    const ptrdiff_t unit = panel * unit_step + lane;
    struct FN(unit) v = { .z = u->z + panel * gates_panel + lane, .slot = unit_step };
    for (int k = 0; k < FR_MAX_KEPT; k++) {
        v.before[k] = u->before[k] + unit;
        v.after[k] = u->after[k] + unit;
        v.d[k] = u->d[k] + unit;
    }
    return v;
}

/* Makes visits [j0,j1), one step, the one in work. */
static void FN(begin_step)(struct FN(worker) *w, ptrdiff_t j0, ptrdiff_t j1)
{
    const struct FN(sequence) *s = w->s;
    REAL *const y = s->back ? (REAL *)s->back->dsequence : s->q.sequence;
    const ptrdiff_t y_ld = s->back ? s->back->dsequence_ld : s->q.sequence_ld;
    for (ptrdiff_t j = j0; j < j1; j++) {
        const struct visit *v = FN(visit_at)(w, j);
        struct FN(row) *row = &w->rows[j - j0];
        row->u.z = FN(gates_at)(w, j);
        for (int k = 0; k < FR_MAX_KEPT; k++) { /* addresses in arrays that the cell has not are never followed */
            row->u.before[k] = s->kept[k] + v->before * s->ld;
            row->u.after[k] = s->kept[k] + v->after * s->ld;
            row->u.d[k] = s->d[k] + v->row * s->ld;
        }
        row->x = (const REAL *)s->q.x + v->x * s->l.D;
        row->y = y ? y + v->y * y_ld : NULL;
        row->repeats = v->repeats;
        row->number = v->row;
    }
}

/* dy of a row: its own, and those of the masked steps that repeat its output. */
ALWAYS_INLINE FN(vec) FN(output_gradient)(const struct FN(sequence) *s, const struct FN(row) *row, ptrdiff_t unit, ptrdiff_t lanes)
{
    const REAL *dy = row->y + unit;
    FN(vec) sum = FN(load_part)(dy, lanes);
    for (ptrdiff_t k = 1; k <= row->repeats; k++) sum += FN(load_part)(dy + k * s->visits.y_step * s->back->dsequence_ld, lanes);
    return sum;
}

#include "cells/rnn.h"
#include "cells/gru.h"
#include "cells/gru_reset_before.h"
#include "cells/lstm.h"

static const struct FN(step_functions) *const FN(steps)[FR_CELLS] = {
#define X(name, ...) &FN(name##_step),
    FR_FOR_EACH_CELL(X)
#undef X
};

/* ---- a worker ------------------------------------------------------------------------------------------------- */

/* Most rows of a product or chunk; the largest set of masked rows. */
static inline ptrdiff_t FN(worker_rows)(const struct FN(sequence) *s) { return s->chunk > s->q.B ? s->chunk : s->q.B; }

static size_t FN(worker_bytes)(const struct FN(sequence) *s)
{
    const ptrdiff_t rows = FN(worker_rows)(s), G = s->l.cell->G;
    ptrdiff_t masked = 0;
    if (s->q.input_dropout) masked = s->q.input_groups * rows * s->l.D;
    if (s->q.recurrent_dropout && masked < G * rows * s->ld) masked = G * rows * s->ld;
    size_t reals = (size_t)masked + (size_t)rows * 4 * VW;
    if (!s->record) reals += (size_t)(s->l.panels * (rows * s->l.gates_row + 16));
    return (reals * sizeof(REAL) + 3 * (size_t)rows * sizeof(void *) + (size_t)s->q.B * sizeof(struct FN(row)) + 319) / 64 * 64;
}

/* In a backward pass members' units begin at a block of columns of the transposes, which are four vectors wide. */
static inline ptrdiff_t FN(first_panel)(const struct FN(sequence) *s, int member, int ways)
{
    const ptrdiff_t panels = s->l.panels, block = s->back ? 4 / s->l.cell->wide : 1;
    const ptrdiff_t panel = fr_share((panels + block - 1) / block, member, ways) * block;
    return panel < panels ? panel : panels;
}

/* Takes the rows of a piece, and those of their visits that are in it. */
static void FN(take_rows)(struct FN(worker) *w, struct fr_piece piece)
{
    const struct FN(sequence) *s = w->s;
    w->counted = 1;
    w->row0 = piece.row0, w->row1 = piece.row1;
    w->own0 = w->row0 + fr_share(w->row1 - w->row0, w->member, w->ways);
    w->own1 = w->row0 + fr_share(w->row1 - w->row0, w->member + 1, w->ways);
    w->list = s->lists + w->member * s->visits.count + s->visits.through[w->row0];
    w->count = 0;
    for (ptrdiff_t i = piece.from; i < piece.till; i++)
        if (s->visits.of[i].row >= w->row0 && s->visits.of[i].row < w->row1) w->list[w->count++] = (int32_t)i;
}

/* Gives half of the worker's rows to a thread that waits for work, of the visits [j,end) that are left to do. 1: the list
 * is a new one, of what the worker keeps. */
static int FN(give_rows)(struct FN(worker) *w, ptrdiff_t j, ptrdiff_t end)
{
    const struct FN(layout) *l = &w->s->l;
    const ptrdiff_t rows = w->row1 - w->row0, middle = w->row0 + (rows + 1) / 2;
    const double left = 2.0 * (double)(end - j) * (double)l->depth * (double)(l->D + l->H);
    if (w->ways > 1 || rows < 2 * FR_FEWEST_ROWS || left < FR_WORTH_THREADS || !fr_may_give(w->s->pool)) return 0;
    const ptrdiff_t from = w->list[j], till = w->list[end - 1] + 1;
    const struct fr_piece given = { middle, w->row1, from, till };
    FN(take_rows)(w, (struct fr_piece){ w->row0, middle, from, till }); /* first: the other's list takes the rest of its place */
    fr_give(w->s->pool, given);
    return 1;
}

/* Is there more to do for a worker that has done its rows? Then it has taken them. It waits for as long as another may need
 * for a step; one that needs longer has lost its core, and may get this one. */
static int FN(receive_rows)(struct FN(worker) *w)
{
    const struct FN(layout) *l = &w->s->l;
    const double slow = 2e10, step = 2.0 * (double)(w->s->q.B / w->threads + 1) * (double)l->depth * (double)(l->D + l->H) / slow;
    const int in_vain = w->s->q.B < 2 * FR_FEWEST_ROWS && w->thread < w->threads; /* a guest waits for tiles too */
    const double patience = in_vain ? 0 : 5e-4 + step;
    struct fr_piece piece;
    if (w->ways > 1 || !fr_receive(w->s->watch, w->s->pool, w->rank, w->counted, patience, &piece)) return 0;
    FN(take_rows)(w, piece);
    return 1;
}

static void FN(worker_start)(struct FN(worker) *w, struct FN(sequence) *s, int rank, int thread, int threads)
{
    const ptrdiff_t rows = FN(worker_rows)(s), B = s->q.B;
    *w = (struct FN(worker)){ .s = s, .rank = rank, .thread = thread, .threads = threads };
    if (threads != s->threads) { /* the machine granted fewer: this one does it alone */
        s->ways = 1;
        atomic_store(&s->pool->busy, 1);
    }
    w->ways = s->ways;
    w->team = thread / w->ways, w->member = thread % w->ways;
    const int teams = threads / w->ways;
    w->panel0 = FN(first_panel)(s, w->member, w->ways);
    w->panel1 = FN(first_panel)(s, w->member + 1, w->ways);
    const size_t tile = (size_t)rows * 4 * VW * sizeof(REAL), pointers = ((size_t)rows * 3 * sizeof(void *) + 63) / 64 * 64;
    char *at = s->workspace + (size_t)thread * s->workspace_size;
    const size_t step = ((size_t)B * sizeof(struct FN(row)) + 63) / 64 * 64;
    w->a = (const REAL **)at, w->c = (REAL **)at + rows, w->x = (const REAL **)at + 2 * rows, at += pointers;
    w->rows = (struct FN(row) *)at, at += step;
    w->tile = (REAL *)at, at += tile;
    if (!s->record) {
        w->gates = (REAL *)(s->workspace + (size_t)(thread - w->member) * s->workspace_size + pointers + step + tile);
        at += (size_t)(s->l.panels * (rows * s->l.gates_row + 16)) * sizeof(REAL);
    }
    w->masked = (REAL *)at;
    if (thread >= threads) return; /* a guest */
    const ptrdiff_t row0 = fr_first_row(&s->visits, B, w->team, teams), row1 = fr_first_row(&s->visits, B, w->team + 1, teams);
    FN(take_rows)(w, (struct fr_piece){ row0, row1, 0, s->visits.count });
}

/* The members of a team wait for each other. */
static inline void FN(meet)(struct FN(worker) *w)
{
    if (w->ways > 1) fr_meet(w->s->watch, &w->s->meetings[1 + w->team], w->rank, w->ways, ++w->met);
}
static inline int FN(stopped)(const struct FN(worker) *w) { return fr_stopped(w->s->watch, w->rank); }

/* Visits [j, end) of one step, or of steps that share no row: their rows rise, so none follows from another. */
static inline ptrdiff_t FN(step_end)(const struct FN(worker) *w, ptrdiff_t j)
{
    ptrdiff_t end = j + 1;
    while (end < w->count && FN(visit_at)(w, end)->row > FN(visit_at)(w, end - 1)->row) end++;
    return end;
}
static inline ptrdiff_t FN(step_begin)(const struct FN(worker) *w, ptrdiff_t end)
{
    ptrdiff_t j = end - 1;
    while (j > 0 && FN(visit_at)(w, j - 1)->row < FN(visit_at)(w, j)->row) j--;
    return j;
}
