/* calls.h - the calls of a forward and a backward pass: how many threads, in which teams, with which memory; included
 * once for float and once for double. What the threads then do is in sequence.h. */

/* One or two calls that run at once, `each` threads to a call, or one after the other on one thread. A thread whose call is
 * done comes to the other as a guest, unless threads share units there. */
struct FN(region) {
    struct FN(sequence) *calls;
    int n, each;
    void (*body)(struct FN(sequence) *, int rank, int thread, int threads);
};

static void FN(region_body)(void *argument, int thread, int threads)
{
    struct FN(region) *r = argument;
    if (threads == r->n * r->each) {
        const int call = thread / r->each, number = thread % r->each;
        r->body(&r->calls[call], thread, number, r->each);
        if (r->n == 2 && r->calls[1 - call].guests) r->body(&r->calls[1 - call], thread, r->each + number, r->each);
    } else if (thread == 0) /* the machine granted fewer */
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

/* How many of `threads` threads make a team: see the head of sequence.h. The time of a step is guessed in multiplications
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

/* Do the products with x and with h make the same gates, all of them, in one stage? */
static int FN(same_gates)(const struct fr_cell_shape *cell)
{
    return cell->slots == cell->G && cell->late_gate == cell->G && cell->x_slot == cell->h_slot && !strcmp(cell->x_gates, cell->h_gates);
}

/* Sets what follows from the call and the number of visits; no memory yet. */
static void FN(sequence_start)(struct FN(sequence) *s, const struct fr_forward_call *q, const struct fr_packed *w, int record)
{
    *s = (struct FN(sequence)){ .q = *q, .w = w, .l = FN(layout)(w->cell, w->D, w->H), .cell = FN(steps)[w->cell], .record = record };
    s->ld = s->l.panels * s->l.unit_step + 16; /* no multiple of 4 KB */
    s->with_x = w->D <= FR_FEW_FEATURES && FN(same_gates)(s->l.cell) && !q->input_dropout && !q->recurrent_dropout;
}

/* Deals the work out to `threads` threads, and guests who may come. */
static void FN(sequence_deal)(struct FN(sequence) *s, struct fr_watch *watch, int threads, int guests)
{
    const ptrdiff_t row = s->l.panels * s->l.gates_row * (ptrdiff_t)sizeof(REAL);
    s->watch = watch;
    s->threads = threads;
    s->ways = FN(ways)(s, threads);
    s->guests = s->ways == 1 ? guests : 0;
    s->chunk = s->back ? FR_CHUNK_VISITS : s->ways * FR_CHUNK_BYTES / row;
    if (!s->back && s->l.D * s->l.depth * (ptrdiff_t)sizeof(REAL) > FR_FAR_BYTES && s->chunk < s->l.D / 2)
        s->chunk = s->l.D / 2; /* so many rows for every reading of W: what they move is as much again as W is */
    s->chunk = s->chunk < 24 ? 24 : s->chunk > 1024 ? 1024 : s->chunk - s->chunk % 24; /* 24: whole tiles of 6 and 8 rows */
    if (s->chunk > s->q.B * s->q.T) s->chunk = s->q.B * s->q.T;
}

/* Takes `extra` bytes beside what the threads need, and gives their address; NULL: no memory. */
static char *FN(take_workspace)(struct FN(sequence) *s, size_t per_thread, size_t extra)
{
    const size_t meetings = (2 + (size_t)s->threads) * sizeof(struct fr_meeting), tiles = (size_t)s->threads * sizeof(struct fr_tiles);
    const size_t shared = meetings + sizeof(struct fr_pool) + tiles;
    _Static_assert(sizeof(struct fr_pool) % 64 == 0 && sizeof(struct fr_tiles) % 64 == 0, "cache lines of their own");
    const size_t lists = ((size_t)s->ways * (size_t)s->visits.count * sizeof(int32_t) + 63) / 64 * 64;
    const size_t workspace = (size_t)(s->threads + s->guests) * per_thread;
    s->workspace_size = per_thread;
    char *at = fr_take(shared + workspace + lists + extra);
    if (!at) return NULL;
    memset(at, 0, shared);
    s->meetings = (struct fr_meeting *)at;
    s->dx = s->meetings + 1 + s->threads;
    s->pool = (struct fr_pool *)(at + meetings);
    s->tiles = (struct fr_tiles *)(s->pool + 1);
    s->workspace = at + shared;
    atomic_store(&s->pool->busy, s->threads);
    s->lists = (int32_t *)(s->workspace + workspace);
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
        FN(sequence_deal)(&of[i], &watch, each, n == 2 && threads > 1 ? each : 0);
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
    s->x_is_sparse = FN(x_seems_sparse)(s);
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
        FN(sequence_deal)(&of[i], &watch, each, n == 2 && threads > 1 ? each : 0);
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
