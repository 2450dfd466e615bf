/* pack.h - weights in the order in which the kernels read them; included once for float and once for double.
 * Nothing outside C sees this layout, nor the gates buffer's, which shares its panels:
 *
 *   A panel is `wide` vectors of neighbouring units; panel p holds units [p*wide*VW, (p+1)*wide*VW).
 *   gates buffer   [panel][visit][slot][wide*VW]      pre-activations, then activations, then their gradients
 *   w, u           [panel][part][k][vectors of a part] k over D or H; vectors over [gate][wide], gates in the order of
 *                                                     x_gates or h_gates; a part is the whole panel, but two vectors where
 *                                                     the tiles are so narrow (see gemm.h) and the panel has four
 *   wt, ut         [columns/block][k][block]          transposes; k over [panel][gate][wide*VW] as in the buffer, a block
 *                                                     is part_vectors*VW columns
 *   bias           [panel][slot][wide*VW]             what a slot starts with
 * Lanes past H hold zeros, and so do columns past D or H in the last vector of a transpose; its vectors past that are
 * never read. */

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
    int part_vectors;     /* vectors of one part of a packed panel */
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
    l.part_vectors = l.cell->G * l.cell->wide == 4 ? (int)FN(part_vectors) : l.cell->G * l.cell->wide;
    return l;
}

/* Units of panel p that exist, and the vectors they fill. */
static inline ptrdiff_t FN(units)(const struct FN(layout) *l, ptrdiff_t p)
{
    ptrdiff_t left = l->H - p * l->unit_step;
    return left < l->unit_step ? left : l->unit_step;
}
static inline int FN(vectors)(const struct FN(layout) *l, ptrdiff_t p) { return (int)((FN(units)(l, p) + VW - 1) / VW); }

/* Where vector `vector` of row k of panel p stands in w or u, which is K rows deep. */
static inline ptrdiff_t FN(packed_at)(const struct FN(layout) *l, ptrdiff_t K, ptrdiff_t p, ptrdiff_t k, ptrdiff_t vector)
{
    const ptrdiff_t part = vector / l->part_vectors, within = vector % l->part_vectors;
    return p * K * l->gates_k + ((part * K + k) * l->part_vectors + within) * VW;
}

/* The right factor that begins with `gate` of panel p of w or u: either that gate alone or all that a part begins with. */
static inline struct FN(factor) FN(panel_factor)(const struct FN(layout) *l, const void *packed, ptrdiff_t K, ptrdiff_t p, int gate)
{
    const ptrdiff_t ldb = l->part_vectors * VW, in_parts = l->part_vectors < l->cell->G * l->cell->wide;
    return FN(dense_factor)((const REAL *)packed + FN(packed_at)(l, K, p, 0, gate * l->cell->wide), ldb,
                            in_parts ? K * ldb : FN(part_vectors) * VW, K);
}

/* The right factor of columns [4*VW*block, ...) of wt or ut, for the gates from `gate` on; its k runs over `gates` gates of
 * panels [p0,p1), as they stand in the gates buffer. */
static inline struct FN(factor) FN(transposed_factor)(const struct FN(layout) *l, const void *packed, ptrdiff_t block, int gate, int gates,
                                                      ptrdiff_t gates_panel, ptrdiff_t p0, ptrdiff_t p1)
{
    const ptrdiff_t ldb = FN(part_vectors) * VW;
    return (struct FN(factor)){ .b = (const REAL *)packed + block * l->depth * 4 * VW + (p0 * l->gates_k + gate * l->unit_step) * ldb,
                                .ldb = ldb, .part = l->depth * ldb, .segments = (int)(p1 - p0), .length = gates * l->unit_step,
                                .last = gates * FN(vectors)(l, p1 - 1) * VW, .a_step = gates_panel, .b_step = l->gates_k * ldb };
}

struct FN(pack_run) {
    const struct fr_pack_call *q;
    struct FN(layout) l;
    struct fr_packed *to;
};

/* m [K, G*H] -> panels, rows [k0,k1) of every panel. A few rows at a time: a panel then gets whole cache lines in a run, and
 * what a line of m holds for the next panel is used soon. */
static void FN(pack_panels)(const struct FN(layout) *l, const char *letters, const REAL *m, ptrdiff_t K, ptrdiff_t k0, ptrdiff_t k1, REAL *to)
{
    const int G = l->cell->G, wide = l->cell->wide;
    const ptrdiff_t row = G * l->H, few = 16;
    for (ptrdiff_t k = k0; k < k1; k += few)
        for (ptrdiff_t p = 0; p < l->panels; p++)
            for (int vector = 0; vector < G * wide; vector++) {
                const ptrdiff_t unit = p * l->unit_step + vector % wide * VW, left = l->H - unit;
                const REAL *from = m + fr_gate_index(l->cell, letters[vector / wide]) * l->H + unit;
                REAL *d = to + FN(packed_at)(l, K, p, 0, vector);
                for (ptrdiff_t i = k; i < k + few && i < k1; i++)
                    FN(store)(d + i * l->part_vectors * VW, left > 0 ? FN(load_part)(from + i * row, left) : FN(splat)(0));
            }
}

/* m [N, G*H] -> transpose, panels [p0,p1) of k, in squares of VW numbers of VW rows. 64 units of a row at once: memory likes
 * runs of several lines. */
static void FN(pack_transpose)(const struct FN(layout) *l, const char *letters, const REAL *m, ptrdiff_t N, ptrdiff_t p0, ptrdiff_t p1, REAL *to)
{
    const int G = l->cell->G;
    const ptrdiff_t block = FN(part_vectors) * VW, row = G * l->H, at_once = (64 + l->unit_step - 1) / l->unit_step;
    for (ptrdiff_t n = 0; n < N; n += VW)
        for (ptrdiff_t p = p0; p < p1; p += at_once)
            for (int g = 0; g < G; g++)
                for (ptrdiff_t j = p * l->unit_step; j < (p + at_once) * l->unit_step && j < p1 * l->unit_step; j += VW) {
                    const REAL *from = m + n * row + fr_gate_index(l->cell, letters[g]) * l->H + j;
                    REAL *d = to + (n / block * l->depth + j / l->unit_step * l->gates_k + g * l->unit_step + j % l->unit_step) * block + n % block;
                    FN(vec) r[VW];
                    UNROLL for (int i = 0; i < VW; i++) r[i] = n + i < N && j < l->H ? FN(load_part)(from + i * row, l->H - j) : FN(splat)(0);
                    FN(transpose_square)(r);
                    UNROLL for (int i = 0; i < VW; i++) FN(store)(d + i * block, r[i]);
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
    struct fr_watch watch;
    fr_watch_start(&watch, &q->control);
    fr_parallel(&watch, (double)(w + u + wt + ut) < FR_WORTH_THREADS / 16 ? 1 : q->control.threads, FN(pack_body), &run);
    *packed = to;
    return FR_OK;
}
