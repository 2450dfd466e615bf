/* weight_gradient.h - x^T dz, h^T dz and 1^T dz over all visits, which dkernel, drecurrent_kernel and dbias become or have
 * added; included once for float and once for double.
 *
 * The sum runs over the visits in their one order, so the work is split over tiles of the *result*: a tile is a few
 * rows of a weight matrix by one panel. The gates buffer is read as it lies. The bias is one more row of the matrix,
 * whose left factor is 1. Where gates have different left factors each has a job of its own. */

#ifndef FR_WEIGHT_GRADIENT_SHARED
#define FR_WEIGHT_GRADIENT_SHARED
enum fr_operand { FROM_X, FROM_BEFORE, FROM_AFTER }; /* x; h before the visit; the late stage's operand, kept after it */
#endif

/* Rows [0,M) of one weight matrix, and its bias, for the gates [first, first+gates) of one product. */
struct FN(job) {
    int first, gates, slot; /* slot: of gate `first` */
    int mr;                 /* rows of a tile */
    int ones;               /* is there a bias row? */
    int weight;             /* of a tile, where tiles are shared out */
    int once;               /* do all visits make one turn? one panel's tiles then have places, and those of a piece one, which stays in L1 */
    enum fr_operand operand;
    ptrdiff_t M, tiles, size;
    const void *mask;       /* dropout mask of the left factor, its group and row width */
    int group;
    REAL *sums;             /* [panels, or 1 if `once`][tiles*mr][gates*unit_step] */
    REAL *to, *bias;        /* where the sums go: [M, G*H], [G*H] */
    ptrdiff_t column[FR_MAX_GATES]; /* of each gate there */
    ptrdiff_t q0, q1;       /* the tiles of one thread, or of one piece of them */
};
enum { FN(max_jobs) = 2 * FR_MAX_GATES };

/* Visits of one turn. The jobs of a turn share its dz, which L2 holds if they are few and narrow. Where it would not, a turn
 * has more of them: the sums are read and written once a turn. */
enum { FN(few_visits) = 128, FN(many_visits) = 384 };

static inline ptrdiff_t FN(visits_of_turn)(const struct FN(layout) *l)
{
    return FN(few_visits) * l->panels * l->gates_row * (ptrdiff_t)sizeof(REAL) > FR_NEAR_BYTES / 2 ? FN(many_visits) : FN(few_visits);
}

/* Is x mostly zeros in some of the visits? It is asked once a call: all threads must deal tiles out alike. */
static int FN(x_seems_sparse)(const struct FN(sequence) *s)
{
    enum { SOME = 8 };
    const REAL *rows[SOME];
    struct FN(nonzero) found[16 * SOME];
    const ptrdiff_t n = s->visits.count < SOME ? s->visits.count : SOME;
    for (ptrdiff_t i = 0; i < n; i++) rows[i] = (const REAL *)s->q.x + s->visits.of[i * s->visits.count / n].x * s->l.D;
    const ptrdiff_t count = FN(find_nonzeros)(rows, n, 0, s->l.D, found, 16 * SOME);
    return count >= 0 && count * FN(sparse_from) <= n * s->l.D;
}

static int FN(gradient_jobs)(const struct FN(sequence) *s, struct FN(job) *jobs)
{
    const struct FN(layout) *l = &s->l;
    const struct fr_cell_shape *c = l->cell;
    REAL *bias = s->back->dbias, *sums = s->dweights;
    int n = 0;
    for (int stage = -1; stage < 2; stage++) { /* -1: the product with x; then those with the recurrent operands */
        const int from = stage == 1 ? c->late_gate : 0, till = stage == 0 ? c->late_gate : c->G;
        const int groups = stage < 0 ? (s->q.input_dropout ? s->q.input_groups : 1) : s->q.recurrent_dropout ? till - from : 1;
        const void *mask = stage < 0 ? s->q.input_dropout : s->q.recurrent_dropout;
        for (int g = 0; g < groups && from < till; g++) {
            struct FN(job) *job = &jobs[n++];
            *job = (struct FN(job)){ .gates = (till - from) / groups, .mask = mask };
            job->group = stage < 0 ? FN(input_group)(s, g) : from + g;
            job->first = from + g * job->gates;
            job->slot = (stage < 0 ? c->x_slot : c->h_slot) + job->first;
            const char *letters = (stage < 0 ? c->x_gates : c->h_gates) + job->first;
            for (int i = 0; i < job->gates; i++) job->column[i] = fr_gate_index(c, letters[i]) * l->H;
            job->operand = stage < 0 ? FROM_X : stage ? FROM_AFTER : FROM_BEFORE;
            job->M = stage < 0 ? l->D : l->H;
            job->to = stage < 0 ? s->back->dkernel : s->back->drecurrent_kernel;
            if (bias && stage < 0) job->bias = bias;
            if (bias && stage >= 0 && c->bias_rows == 2) job->bias = bias + c->G * l->H;
            job->ones = job->bias != NULL;
            job->weight = job->gates * (job->operand == FROM_X && !mask && s->x_is_sparse ? 1 : FN(sparse_from));
            job->mr = FN(outer_tile_rows)[job->gates * c->wide];
            job->tiles = (job->M + job->ones + job->mr - 1) / job->mr;
            job->once = s->visits.count <= FN(visits_of_turn)(l);
            job->size = (job->once ? 1 : l->panels) * job->tiles * job->mr * job->gates * l->unit_step;
            job->sums = sums;
            sums += job->size;
        }
    }
    return n;
}

static ptrdiff_t FN(weight_gradient_size)(const struct FN(sequence) *s)
{
    struct FN(job) jobs[FN(max_jobs)];
    ptrdiff_t size = 0;
    for (int i = FN(gradient_jobs)(s, jobs); i-- > 0;) size += jobs[i].size;
    return size;
}

/* From tile to tile of a packed left factor; no power of two. */
static inline ptrdiff_t FN(packed_tile)(const struct FN(sequence) *s, int mr) { return FN(visits_of_turn)(&s->l) * mr + 16; }

static size_t FN(weight_gradient_bytes)(const struct FN(sequence) *s)
{
    struct FN(job) jobs[FN(max_jobs)];
    ptrdiff_t most = 0;
    if (!s->back->dkernel) return 0;
    for (int i = FN(gradient_jobs)(s, jobs); i-- > 0;) {
        const ptrdiff_t reals = jobs[i].tiles * FN(packed_tile)(s, jobs[i].mr);
        most = reals > most ? reals : most;
    }
    return (size_t)most * sizeof(REAL);
}

/* The sums of tile q of panel p into the caller's arrays. */
static void FN(hand_over)(const struct FN(sequence) *s, const struct FN(job) *job, ptrdiff_t p, ptrdiff_t q, const REAL *sums)
{
    const struct FN(layout) *l = &s->l;
    const ptrdiff_t units = FN(units)(l, p), rows = job->M + job->ones;
    for (ptrdiff_t m = q * job->mr; m < (q + 1) * job->mr && m < rows; m++) {
        REAL *to = (m < job->M ? job->to + m * l->cell->G * l->H : job->bias) + p * l->unit_step;
        for (int g = 0; g < job->gates; g++, sums += l->unit_step)
            for (ptrdiff_t k = 0; k < units; k += VW) {
                REAL *d = to + job->column[g] + k;
                const FN(vec) before = s->back->accumulate ? FN(load_part)(d, units - k) : FN(splat)(0);
                FN(store_part)(d, before + FN(load)(sums + k), units - k);
            }
    }
}

/* As sum_visits below, if what the visits' rows of x hold is mostly zeros; else 0. The list of the rest needs less than half of
 * the place that packed tiles would. */
static int FN(sum_nonzeros)(struct FN(worker) *w, const struct FN(job) *job, ptrdiff_t v0, ptrdiff_t K, const REAL *const *row, REAL *place)
{
    const struct FN(sequence) *s = w->s;
    const struct FN(layout) *l = &s->l;
    const ptrdiff_t m0 = job->q0 * job->mr, m1 = job->q1 * job->mr, end = m1 < job->M ? m1 : job->M;
    const ptrdiff_t width = job->gates * l->unit_step, column = job->slot * l->unit_step;
    struct FN(nonzero) *found = (struct FN(nonzero) *)place;
    const ptrdiff_t count = m0 < end ? FN(find_nonzeros)(row, K, m0, end, found, FN(most_nonzeros)(K, end - m0)) : -1;
    if (count < 0) return 0;
    for (ptrdiff_t p = 0; p < l->panels; p++) {
        const REAL *dz = s->gates + p * s->gates_panel + v0 * l->gates_row + column;
        REAL *sums = job->sums + ((job->once ? 0 : p * job->tiles * job->mr) + m0) * width;
        const int nv = job->gates * FN(vectors)(l, p);
        if (v0 == 0) memset(sums, 0, (size_t)((m1 - m0) * width) * sizeof *sums);
        FN(add_nonzeros)(nv, found, count, dz, l->gates_row, sums - m0 * width, width);
        if (m1 > job->M && job->ones) FN(add_rows)(nv, dz, l->gates_row, K, sums + (job->M - m0) * width);
        if (v0 + K < s->visits.count) continue;
        for (ptrdiff_t q = job->q0; q < job->q1; q++) FN(hand_over)(s, job, p, q, sums + (q - job->q0) * job->mr * width);
    }
    return 1;
}

/* The sums of a job's tiles (+)= visits [v0, v0 + K), which are handed over after the last ones. */
static void FN(sum_visits)(struct FN(worker) *w, const struct FN(job) *job, ptrdiff_t v0, ptrdiff_t K, REAL *packed)
{
    struct FN(sequence) *s = w->s;
    const struct FN(layout) *l = &s->l;
    const ptrdiff_t width = job->gates * l->unit_step, column = job->slot * l->unit_step, tile = FN(packed_tile)(s, job->mr);
    const REAL *row[FN(many_visits)], *factor[FN(many_visits)];
    for (ptrdiff_t k = 0; k < K; k++) {
        const struct visit *v = &s->visits.of[v0 + k];
        row[k] = job->operand == FROM_X      ? (const REAL *)s->q.x + v->x * l->D
               : job->operand == FROM_BEFORE ? s->kept[0] + v->before * s->ld
                                             : s->kept[l->cell->kept - 1] + v->after * s->ld;
        factor[k] = FN(mask_row)(job->mask, job->group, s->q.B, v->row, job->M);
    }
    if (job->operand == FROM_X && !job->mask && FN(sum_nonzeros)(w, job, v0, K, row, packed)) return;
    FN(pack_columns)(job->mr, packed, tile, job->q0, job->q1, row, job->mask ? factor : NULL, K, job->M, job->ones);
    const int last = v0 + K == s->visits.count;
    for (ptrdiff_t p = 0; p < l->panels; p++) {
        const REAL *dz = s->gates + p * s->gates_panel + v0 * l->gates_row + column;
        for (ptrdiff_t q = job->q0; q < job->q1; q++) {
            REAL *sums = job->sums + (job->once ? job->q0 : p * job->tiles + q) * job->mr * width;
            FN(multiply_outer)(job->mr, job->gates * FN(vectors)(l, p), packed + (q - job->q0) * tile, dz, l->gates_row, K, sums, width, v0 == 0);
            if (last) FN(hand_over)(s, job, p, q, sums);
        }
    }
}

/* Sets which of all jobs' tiles are a thread's: by weight. */
static void FN(deal_tiles)(struct FN(job) *jobs, int n, int thread, int threads)
{
    ptrdiff_t weight = 0;
    for (int i = 0; i < n; i++) weight += jobs[i].tiles * jobs[i].weight;
    const ptrdiff_t from = fr_share(weight, thread, threads), till = fr_share(weight, thread + 1, threads);
    for (ptrdiff_t i = 0, at = 0; i < n; i++) {
        const ptrdiff_t each = jobs[i].weight, tiles = jobs[i].tiles;
        ptrdiff_t q0 = (from - at + each - 1) / each, q1 = (till - at + each - 1) / each;
        q0 = from <= at ? 0 : q0 < tiles ? q0 : tiles;
        q1 = till <= at ? 0 : q1 < tiles ? q1 : tiles;
        jobs[i].q0 = q0, jobs[i].q1 = q1;
        at += tiles * each;
    }
}

/* Cuts a thread's tiles into pieces of one job each, big enough that it is worth while to take one from another thread. */
static int FN(cut_tiles)(const struct FN(sequence) *s, const struct FN(job) *jobs, int n, ptrdiff_t visits, struct FN(job) *pieces)
{
    enum { MOST = FR_PIECES - FN(max_jobs) };
    ptrdiff_t weight = 0, mr = 1;
    for (int i = 0; i < n; i++) {
        weight += (jobs[i].q1 - jobs[i].q0) * jobs[i].weight;
        mr = jobs[i].mr > mr ? jobs[i].mr : mr;
    }
    const double flops = 2.0 * (double)(weight * mr * visits) / FN(sparse_from) * (double)(s->l.panels * s->l.unit_step);
    const double worth = flops / (2 * FR_WORTH_THREADS);
    const ptrdiff_t wanted = s->threads + s->guests == 1 || worth < 1 ? 1 : worth < MOST ? (ptrdiff_t)worth : MOST;
    const ptrdiff_t size = weight / wanted + 1;
    int count = 0;
    for (int i = 0; i < n; i++) {
        const ptrdiff_t own = jobs[i].q1 - jobs[i].q0, fair = (own * jobs[i].weight + size - 1) / size;
        const ptrdiff_t parts = fair < own ? fair : own;
        for (ptrdiff_t part = 0; part < parts; part++) {
            pieces[count] = jobs[i];
            pieces[count].q0 = jobs[i].q0 + own * part / parts;
            pieces[count++].q1 = jobs[i].q0 + own * (part + 1) / parts;
        }
    }
    return count;
}

/* Block by block of visits: the jobs share their dz. First the thread's own tiles, then those that others have not begun
 * yet; the visits of a tile go on where they ended. */
static void FN(weight_gradient)(struct FN(worker) *w)
{
    struct FN(job) jobs[FN(max_jobs)], pieces[FR_PIECES];
    const struct FN(sequence) *s = w->s;
    const int n = FN(gradient_jobs)(s, jobs);
    REAL *packed = (REAL *)(s->workspace + (size_t)(w->thread + 1) * s->workspace_size - FN(weight_gradient_bytes)(s));
    const ptrdiff_t visits = s->visits.count, most = FN(visits_of_turn)(&s->l), turns = visits ? (visits + most - 1) / most : 1;
    if (visits == 0 && s->back->accumulate) return; /* else zeros are handed over */
    for (int k = 0; k < w->threads; k++) {
        const int thread = (w->thread + k) % w->threads;
        struct fr_tiles *tiles = &s->tiles[thread];
        FN(deal_tiles)(jobs, n, thread, w->threads);
        const int count = FN(cut_tiles)(s, jobs, n, visits < most ? visits : most, pieces);
        for (int64_t i; (i = atomic_fetch_add(&tiles->begun, 1)) < count * turns && !FN(stopped)(w);) {
            const int64_t turn = i / count, v0 = turn * most;
            _Atomic int64_t *done = &tiles->done[i % count];
            fr_wait_for(s->watch, done, w->rank, turn);
            FN(sum_visits)(w, &pieces[i % count], v0, visits - v0 < most ? visits - v0 : most, packed);
            atomic_store(done, turn + 1);
        }
    }
}
