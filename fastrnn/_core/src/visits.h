/* visits.h - which steps of which rows take place. A *visit* is one unmasked step of one row; masked steps are simply
 * not there, so that no kernel below knows of masks, directions or padding. Visits are ordered by processing step, then
 * by row. Shared by float and double. */
#ifndef FR_VISITS_H
#define FR_VISITS_H
#include <stdint.h>
#include <string.h>
#include "fastrnn.h"
#include "memory.h"

struct visit {
    int32_t row;
    int32_t x;       /* row of x [B*T, D] that it reads */
    int32_t y;       /* row of the sequence [B*T, H] that it writes */
    int32_t before;  /* slot of the states it starts from */
    int32_t after;   /* slot of the states it leaves */
    int32_t repeats; /* masked steps after it that repeat its output: their dy is its dy too */
};

/* The visits of one call. Slots of states: when a backward pass follows every state is kept, the initial ones in slots
 * 0..B-1 and those after visit i in slot B+i; otherwise each row has two slots in turn. */
struct visits {
    struct visit *of;     /* [count] */
    ptrdiff_t count, slots;
    int32_t *last;        /* [B] slot of each row's final state */
    ptrdiff_t *through;   /* [B+1] visits of the rows before b: shares rows out among threads */
    int y_step;           /* rows of y from one processing step to the next */
};

static inline ptrdiff_t fr_time(const struct fr_forward_call *q, ptrdiff_t step) { return q->go_backwards ? q->T - 1 - step : step; }
static inline int fr_is_visited(const struct fr_forward_call *q, ptrdiff_t row, ptrdiff_t step)
{
    return !q->mask || q->mask[row * q->T + fr_time(q, step)];
}

/* The row of the sequence that holds the output of processing step `step`. */
static inline ptrdiff_t fr_output_row(const struct fr_forward_call *q, ptrdiff_t row, ptrdiff_t step)
{
    return row * q->T + (q->original_time ? fr_time(q, step) : step);
}

static inline ptrdiff_t fr_count_visits(const struct fr_forward_call *q)
{
    if (!q->mask) return q->B * q->T;
    ptrdiff_t n = 0;
    for (ptrdiff_t i = 0; i < q->B * q->T; i++) n += q->mask[i] != 0;
    return n;
}

static inline size_t fr_visits_bytes(const struct fr_forward_call *q, ptrdiff_t count)
{
    return (size_t)(q->B + 1) * sizeof(ptrdiff_t) + (size_t)count * sizeof(struct visit) + (size_t)q->B * 2 * sizeof(int32_t) + 64;
}

/* Fills v in `memory` of fr_visits_bytes. */
static inline void fr_list_visits(const struct fr_forward_call *q, int keep_states, ptrdiff_t count, struct visits *v, void *memory)
{
    const ptrdiff_t B = q->B;
    v->through = memory;
    v->of = (struct visit *)(v->through + B + 1);
    v->last = (int32_t *)(v->of + count);
    int32_t *latest = v->last + B; /* [B] each row's latest visit, or -1 */
    v->count = count;
    v->slots = keep_states ? B + count : 2 * B;
    v->y_step = q->go_backwards && q->original_time ? -1 : 1;
    for (ptrdiff_t b = 0; b < B; b++) {
        v->last[b] = (int32_t)(keep_states ? b : 2 * b);
        latest[b] = -1;
    }
    int32_t i = 0;
    for (ptrdiff_t step = 0; step < q->T; step++) {
        const ptrdiff_t t = fr_time(q, step);
        for (ptrdiff_t b = 0; b < B; b++) {
            if (!fr_is_visited(q, b, step)) {
                if (latest[b] >= 0 && !q->zero_output_for_mask) v->of[latest[b]].repeats++;
                continue;
            }
            const int32_t before = v->last[b], after = keep_states ? (int32_t)B + i : before ^ 1;
            v->of[i] = (struct visit){ .row = (int32_t)b, .x = (int32_t)(b * q->T + t), .y = (int32_t)fr_output_row(q, b, step),
                                       .before = before, .after = after };
            v->last[b] = after;
            latest[b] = i++;
        }
    }
    memset(v->through, 0, (size_t)(B + 1) * sizeof *v->through);
    for (ptrdiff_t k = 0; k < count; k++) v->through[v->of[k].row + 1]++;
    for (ptrdiff_t b = 0; b < B; b++) v->through[b + 1] += v->through[b];
}

/* First row of a thread's share: rows are dealt out so that visits are even. */
static inline ptrdiff_t fr_first_row(const struct visits *v, ptrdiff_t B, int thread, int threads)
{
    if (thread == threads) return B;
    const ptrdiff_t target = fr_share(v->count, thread, threads);
    ptrdiff_t b = 0;
    while (b < B && v->through[b] + (v->through[b + 1] - v->through[b]) / 2 < target) b++;
    return b;
}
#endif
