/* packing.c - the transposes of the weights that a backward pass reads, made anew at every training step: by single
 * numbers (pack.h) or by squares of VW x VW transposed in registers?
 *
 *     python -m benchmarks.kernels packing [H ...]          U [H, 4 H] of an LSTM, one thread
 */
#include "lab.h"

struct problem {
    struct FN(layout) l;
    const float *m;
    float *to, *panels;
};

/* As pack_transpose with all panels, H and N multiples of 4 VW. `at_once`: a cache line of the source holds the units
 * of 16/VW panels, and memory likes runs of several lines. `fetch`: the next VW rows are fetched meanwhile. */
ALWAYS_INLINE void by_squares(const struct problem *p, const ptrdiff_t at_once, const int fetch)
{
    const struct FN(layout) *l = &p->l;
    const ptrdiff_t columns = FN(part_vectors) * VW, row = l->cell->G * l->H;
    for (ptrdiff_t q = 0; q < l->H / columns; q++)
        for (ptrdiff_t panel = 0; panel < l->panels; panel += at_once)
            for (int g = 0; g < l->cell->G; g++)
                for (ptrdiff_t i = 0; i < columns; i += VW) { /* VW rows: no more lines than L1 has ways */
                    const ptrdiff_t gate = fr_gate_index(l->cell, l->cell->h_gates[g]) * l->H;
                    const float *from = p->m + (q * columns + i) * row + gate + panel * VW;
                    float *to = p->to + (q * l->depth + panel * l->gates_k + g * VW) * columns + i;
                    for (ptrdiff_t n = panel; n < panel + at_once && n < l->panels; n++) {
                        vec r[VW];
                        UNROLL for (int k = 0; k < VW; k++) r[k] = FN(load)(from + k * row);
                        if (fetch) UNROLL for (int k = 0; k < VW; k++) __builtin_prefetch(from + (VW + k) * row);
                        FN(transpose_square)(r);
                        UNROLL for (int k = 0; k < VW; k++) FN(store)(to + k * columns, r[k]);
                        from += VW;
                        to += l->gates_k * columns;
                    }
                }
}
static void run_squares(const void *problem) { by_squares(problem, 1, 0); }
static void run_squares_16(const void *problem) { by_squares(problem, 16 / VW, 0); }
static void run_squares_64(const void *problem) { by_squares(problem, 64 / VW, 0); }
static void run_squares_128(const void *problem) { by_squares(problem, 128 / VW, 0); }
static void run_squares_64f(const void *problem) { by_squares(problem, 64 / VW, 1); }

static void run_incumbent(const void *problem)
{
    const struct problem *p = problem;
    FN(pack_transpose)(&p->l, p->l.cell->h_gates, p->m, p->l.H, 0, p->l.panels, p->to);
}
static void run_panels(const void *problem)
{
    const struct problem *p = problem;
    FN(pack_panels)(&p->l, p->l.cell->h_gates, p->m, p->l.H, 0, p->l.H, p->panels);
}

/* pack_panels with k outermost: reads rows in their order, one line at a time. */
static void run_panels_by_rows(const void *problem)
{
    const struct problem *p = problem;
    const struct FN(layout) *l = &p->l;
    for (ptrdiff_t k = 0; k < l->H; k++)
        for (int g = 0; g < l->cell->G; g++) {
            const float *gate = p->m + (k * l->cell->G + fr_gate_index(l->cell, l->cell->h_gates[g])) * l->H;
            for (ptrdiff_t panel = 0; panel < l->panels; panel++)
                FN(store)(p->panels + FN(packed_at)(l, l->H, panel, k, g), FN(load)(gate + panel * VW));
        }
}

/* k in blocks of 16: what a panel gets at a time is whole cache lines in a row, what a row gives is read soon again. */
static void run_panels_by_blocks(const void *problem)
{
    const struct problem *p = problem;
    const struct FN(layout) *l = &p->l;
    const float *gate[FR_MAX_GATES];
    for (int g = 0; g < l->cell->G; g++) gate[g] = p->m + fr_gate_index(l->cell, l->cell->h_gates[g]) * l->H;
    for (ptrdiff_t k0 = 0; k0 < l->H; k0 += 16)
        for (ptrdiff_t panel = 0; panel < l->panels; panel++)
            for (ptrdiff_t k = k0; k < k0 + 16; k++)
                for (int g = 0; g < l->cell->G; g++)
                    FN(store)(p->panels + FN(packed_at)(l, l->H, panel, k, g),
                            FN(load)(gate[g] + k * l->cell->G * l->H + panel * VW));
}

static void run_copy(const void *problem)
{
    const struct problem *p = problem;
    memcpy(p->to, p->m, (size_t)(p->l.H * p->l.depth) * sizeof(float));
}

#define RUNNER(function, says) { .name = says, .run = run_##function }
static const struct runner rivals[] = {
    RUNNER(copy, "(memcpy)"),
    RUNNER(incumbent, "transpose: incumbent"),
    RUNNER(squares, "transpose: squares in registers"),
    RUNNER(squares_16, "  16 units of a row at once (1 line)"),
    RUNNER(squares_64, "  64 units"),
    RUNNER(squares_128, "  128 units"),
    RUNNER(squares_64f, "  64 units, next rows fetched"),
    RUNNER(panels, "panels: incumbent"),
    RUNNER(panels_by_rows, "panels: row by row"),
    RUNNER(panels_by_blocks, "panels: 16 k at a time"),
};
enum { RIVALS = sizeof rivals / sizeof *rivals };

static struct problem make(ptrdiff_t H)
{
    struct problem p = { .l = FN(layout)(FR_CELL_lstm, H, H), .m = lab_numbers(4 * H * H) };
    p.to = lab_numbers(p.l.depth * H);
    p.panels = lab_numbers(p.l.depth * H);
    return p;
}

/* Rivals write what the incumbent writes, bit for bit. */
static void check(int incumbent, int first, int last)
{
    const struct problem p = make(8 * VW);
    const size_t bytes = (size_t)(p.l.depth * p.l.H) * sizeof(float);
    float *wanted = malloc(bytes), *to = rivals[incumbent].run == run_panels ? p.panels : p.to;
    rivals[incumbent].run(&p);
    memcpy(wanted, to, bytes);
    for (int i = first; i <= last; i++) {
        memset(to, 0, bytes);
        rivals[i].run(&p);
        if (memcmp(to, wanted, bytes)) {
            fprintf(stderr, "%s is wrong\n", rivals[i].name);
            exit(1);
        }
    }
    free(wanted);
}

int main(int argc, char **argv)
{
    check(1, 2, 6);
    check(7, 8, 9);
    for (int i = 1; i < (argc > 1 ? argc : 2); i++) {
        const struct problem p = make(argc > 1 ? atoi(argv[i]) : 512);
        struct runner r[RIVALS];
        for (int k = 0; k < RIVALS; k++) {
            r[k] = rivals[k];
            r[k].problem = &p;
            r[k].work = 8.0 * (double)(p.l.H * p.l.depth);
        }
        lab_race(r, RIVALS, 2);
        char title[100];
        snprintf(title, sizeof title, "H = %td: %td KB in, as many out; both count", p.l.H,
                p.l.H * p.l.depth * 4 / 1024);
        lab_print(title, "GB/s", r, RIVALS);
    }
    return 0;
}
