/* pack.h - weights in the order in which the kernels read them; included once for float and once for double.
 * Nothing outside C sees this layout, nor the gates buffer's, which shares its panels:
 *
 *   A panel is `wide` vectors of neighbouring units; panel p holds units [p*wide*VW, (p+1)*wide*VW).
 *   gates buffer   [panel][visit][slot][wide*VW]      pre-activations, then activations, then their gradients
 *   w, u           [panel][k][gate][wide*VW]          k over D or H; gates in the order of x_gates or h_gates
 *   wt, ut         [columns/(4*VW)][k][4*VW]          transposes; k over [panel][gate][wide*VW] as in the buffer
 *   bias           [panel][slot][wide*VW]             what a slot starts with
 * Lanes past H, and columns past D or H, hold zeros. */

#ifndef FR_PACK_SHARED
#define FR_PACK_SHARED
/* Where the weights of a letter stand among Keras' columns. */
static inline int fr_gate_index(const struct fr_cell_shape *cell, char letter)
{
    int g = 0;
    while (cell->gates[g] != letter) g++;
    return g;
}

struct fr_packed {
    int cell, backward;
    ptrdiff_t D, H;
    const struct fr_build *build;
    void *w, *u, *wt, *ut, *bias; /* u: NULL in a dense layer */
};
#endif

struct FN(layout) {
    const struct fr_cell_shape *cell;
    ptrdiff_t D, H;
    ptrdiff_t unit_step;  /* units of a panel, wide*VW: also the distance between slots */
    ptrdiff_t panels;
    ptrdiff_t gates_row;  /* one visit of one panel, slots*unit_step */
    ptrdiff_t gates_k;    /* one k of a packed panel, G*unit_step */
    ptrdiff_t depth;      /* k of a transpose: panels*gates_k */
};

static inline struct FN(layout) FN(layout)(int cell, ptrdiff_t D, ptrdiff_t H)
{
    struct FN(layout) l = { .cell = &fr_cell_shapes[cell], .D = D, .H = H };
    l.unit_step = l.cell->wide * VW;
    l.panels = (H + l.unit_step - 1) / l.unit_step;
    l.gates_row = l.cell->slots * l.unit_step;
    l.gates_k = l.cell->G * l.unit_step;
    l.depth = l.panels * l.gates_k;
    return l;
}

/* Units of panel p that exist, and the vectors they fill. */
static inline ptrdiff_t FN(units)(const struct FN(layout) *l, ptrdiff_t p)
{
    ptrdiff_t left = l->H - p * l->unit_step;
    return left < l->unit_step ? left : l->unit_step;
}
static inline int FN(vectors)(const struct FN(layout) *l, ptrdiff_t p) { return (int)((FN(units)(l, p) + VW - 1) / VW); }

struct FN(pack_run) {
    const struct fr_pack_call *q;
    struct FN(layout) l;
    struct fr_packed *to;
};

/* m [K, G*H] -> panels, rows [k0,k1) of every panel. */
static void FN(pack_panels)(const struct FN(layout) *l, const char *letters, const REAL *m, ptrdiff_t K, ptrdiff_t k0, ptrdiff_t k1, REAL *to)
{
    const int G = l->cell->G;
    for (int g = 0; g < G; g++) {
        const REAL *gate = m + fr_gate_index(l->cell, letters[g]) * l->H;
        for (ptrdiff_t p = 0; p < l->panels; p++)
            for (ptrdiff_t j = 0; j < l->unit_step; j += VW) {
                const ptrdiff_t unit = p * l->unit_step + j, left = l->H - unit;
                for (ptrdiff_t k = k0; k < k1; k++)
                    FN(store)(to + (p * K + k) * l->gates_k + g * l->unit_step + j,
                              left > 0 ? FN(load_part)(gate + k * G * l->H + unit, left) : FN(splat)(0));
            }
    }
}

/* m [N, G*H] -> transpose, panels [p0,p1) of k. Read along the units, one cache line at a time, written scattered. */
static void FN(pack_transpose)(const struct FN(layout) *l, const char *letters, const REAL *m, ptrdiff_t N, ptrdiff_t p0, ptrdiff_t p1, REAL *to)
{
    const int G = l->cell->G;
    const ptrdiff_t columns = 4 * VW;
    for (ptrdiff_t q = 0; q * columns < N; q++) {
        const ptrdiff_t n = N - q * columns < columns ? N - q * columns : columns;
        for (ptrdiff_t p = p0; p < p1; p++)
            for (int g = 0; g < G; g++)
                for (ptrdiff_t j0 = 0; j0 < l->unit_step; j0 += VW) {
                    const ptrdiff_t unit = p * l->unit_step + j0, left = l->H - unit, lanes = left < 0 ? 0 : left < VW ? left : VW;
                    const REAL *from = m + q * columns * G * l->H + fr_gate_index(l->cell, letters[g]) * l->H + unit;
                    REAL *d = to + (q * l->depth + p * l->gates_k + g * l->unit_step + j0) * columns;
                    if (lanes < VW || n < columns) memset(d, 0, (size_t)(VW * columns) * sizeof *d);
                    for (ptrdiff_t i = 0; i < n; i++)
                        for (ptrdiff_t j = 0; j < lanes; j++) d[j * columns + i] = from[i * G * l->H + j];
                }
    }
}

/* What every slot starts with: the input bias where the product with x fills it, plus the recurrent bias (the second
 * row, if the cell has one) where the recurrent product adds to it. */
static void FN(pack_bias)(const struct FN(layout) *l, const REAL *bias, REAL *to)
{
    const struct fr_cell_shape *c = l->cell;
    const ptrdiff_t GH = c->G * l->H;
    memset(to, 0, (size_t)(l->panels * l->gates_row) * sizeof *to);
    if (!bias) return;
    for (ptrdiff_t unit = 0; unit < l->H; unit++) {
        REAL *slots = to + unit / l->unit_step * l->gates_row + unit % l->unit_step;
        for (int g = 0; g < c->G; g++) {
            slots[(c->x_slot + g) * l->unit_step] += bias[fr_gate_index(c, c->x_gates[g]) * l->H + unit];
            if (c->bias_rows == 2) slots[(c->h_slot + g) * l->unit_step] += bias[GH + fr_gate_index(c, c->h_gates[g]) * l->H + unit];
        }
    }
}

static void FN(pack_body)(void *argument, int thread, int threads)
{
    struct FN(pack_run) *run = argument;
    const struct fr_pack_call *q = run->q;
    const struct FN(layout) *l = &run->l;
    const struct fr_cell_shape *c = l->cell;
    FN(pack_panels)(l, c->x_gates, q->kernel, l->D, fr_share(l->D, thread, threads), fr_share(l->D, thread + 1, threads), run->to->w);
    if (q->recurrent_kernel)
        FN(pack_panels)(l, c->h_gates, q->recurrent_kernel, l->H, fr_share(l->H, thread, threads), fr_share(l->H, thread + 1, threads), run->to->u);
    if (thread == 0) FN(pack_bias)(l, q->bias, run->to->bias);
    if (!q->backward) return;
    const ptrdiff_t p0 = fr_share(l->panels, thread, threads), p1 = fr_share(l->panels, thread + 1, threads);
    FN(pack_transpose)(l, c->x_gates, q->kernel, l->D, p0, p1, run->to->wt);
    FN(pack_transpose)(l, c->h_gates, q->recurrent_kernel, l->H, p0, p1, run->to->ut);
}

static int FN(pack)(const struct fr_pack_call *q, struct fr_packed **packed)
{
    struct FN(pack_run) run = { .q = q, .l = FN(layout)(q->cell, q->D, q->H) };
    const struct FN(layout) *l = &run.l;
    enum { HEADER = 128 }; /* keeps the arrays on cache lines */
    _Static_assert(sizeof(struct fr_packed) <= HEADER, "the header has its own cache lines");
    const ptrdiff_t columns = 4 * VW;
    const ptrdiff_t w = l->D * l->depth, u = q->recurrent_kernel ? l->H * l->depth : 0, bias = l->panels * l->gates_row;
    const ptrdiff_t wt = q->backward ? (q->D + columns - 1) / columns * columns * l->depth : 0;
    const ptrdiff_t ut = q->backward ? (q->H + columns - 1) / columns * columns * l->depth : 0;
    struct fr_packed *to = fr_take(HEADER + (size_t)(w + u + bias + wt + ut) * sizeof(REAL));
    if (!to) return FR_NO_MEMORY;
    REAL *at = (REAL *)((char *)to + HEADER);
    *to = (struct fr_packed){ .cell = q->cell, .backward = q->backward, .D = q->D, .H = q->H, .build = &BUILD };
    to->w = at, at += w;
    to->u = q->recurrent_kernel ? at : NULL, at += u;
    to->bias = at, at += bias;
    to->wt = at, at += wt;
    to->ut = at;
    run.to = to;
    fr_parallel((double)(w + u + wt + ut) < FR_WORTH_THREADS / 16 ? 1 : q->control.threads, FN(pack_body), &run);
    *packed = to;
    return FR_OK;
}
