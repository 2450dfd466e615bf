/* random.h - numbers that depend on a seed, a call, a draw and a place, on nothing else: dropout. Included once for
 * float, once for double.
 *
 * Philox 4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"): the key is the seed, the counter
 * is (number of the block of four, draw, call). A place i of an array lies in a group of 64 places: sixteen blocks of
 * four words. Word 2h + b of block l of the group is for place 32 h + 2 l + b, which is how two vectors of words
 * interleave; the width of a vector does not matter. */
#ifndef FASTRNN_RANDOM_SHARED
#define FASTRNN_RANDOM_SHARED

enum { FR_GROUP = 64 };
enum { FR_LANES = VECTOR_BYTES / sizeof(uint64_t) }; /* words in a vector: one in the low half of each lane */

/* What a group's numbers depend on besides its place. */
struct fr_stream {
    fr_words first, draw, call[2]; /* numbers of the first blocks; the rest of the counter */
    fr_words keys[20];             /* two for each of the ten rounds */
};

static void fr_open_stream(struct fr_stream *s, const struct fr_dropout_call *q)
{
    const fr_words none = { 0 };
    for (int l = 0; l < FR_LANES; l++) s->first[l] = (uint64_t)l;
    s->draw = none + q->draw;
    s->call[0] = none + (q->call & 0xffffffff);
    s->call[1] = none + (q->call >> 32);
    for (uint32_t round = 0; round < 10; round++) {
        s->keys[2 * round] = none + (uint64_t)((uint32_t)q->seed + round * 0x9E3779B9u);
        s->keys[2 * round + 1] = none + (uint64_t)((uint32_t)(q->seed >> 32) + round * 0xBB67AE85u);
    }
}

/* Group number `group` of a stream: 64 numbers of 32 bits. */
static void fr_random_group(const struct fr_stream *s, uint64_t group, uint32_t *to)
{
    UNROLL for (int l = 0; l < 16; l += FR_LANES) {
        fr_words c0 = s->first + (group * 16 + (uint64_t)l), c1 = s->draw, c2 = s->call[0], c3 = s->call[1];
        UNROLL for (int round = 0; round < 10; round++) { /* only the low halves count */
            const fr_words p0 = fr_multiply_words(c0, 0xD2511F53u), p1 = fr_multiply_words(c2, 0xCD9E8D57u);
            c0 = (p1 >> 32) ^ c1 ^ s->keys[2 * round];
            c2 = (p0 >> 32) ^ c3 ^ s->keys[2 * round + 1];
            c1 = p1;
            c3 = p0;
        }
        const fr_words low = (c0 & 0xffffffff) | c1 << 32, high = (c2 & 0xffffffff) | c3 << 32;
        memcpy(to + 2 * l, &low, sizeof low);
        memcpy(to + 32 + 2 * l, &high, sizeof high);
    }
}

#endif

struct FN(dropout_run) {
    const struct fr_dropout_call *q;
    const REAL *x;
    REAL *y;
};

/* One group or a part of one: n <= FR_GROUP numbers, and what they do to x. Plain loops of a fixed length, so that the
 * compiler makes vectors of them. */
ALWAYS_INLINE void FN(drop)(const uint32_t *number, uint32_t least, REAL factor, const REAL *restrict x, REAL *restrict y,
                            unsigned char *restrict kept, ptrdiff_t n)
{
    if (kept)
        for (ptrdiff_t i = 0; i < n; i++) kept[i] = number[i] >= least;
    if (x)
        for (ptrdiff_t i = 0; i < n; i++) {
            const REAL scaled = x[i] * factor;
            y[i] = number[i] >= least ? scaled : 0;
        }
    else
        for (ptrdiff_t i = 0; i < n; i++) y[i] = number[i] >= least ? factor : 0;
}

static void FN(dropout_body)(void *argument, int thread, int threads)
{
    const struct FN(dropout_run) *run = argument;
    const struct fr_dropout_call *q = run->q;
    struct fr_stream stream;
    fr_open_stream(&stream, q);
    const ptrdiff_t groups = (q->n + FR_GROUP - 1) / FR_GROUP;
    unsigned saved = fr_flush_denormals_on();
    for (ptrdiff_t g = fr_share(groups, thread, threads); g < fr_share(groups, thread + 1, threads); g++) {
        uint32_t number[FR_GROUP];
        fr_random_group(&stream, (uint64_t)g, number);
        const ptrdiff_t start = g * FR_GROUP, n = q->n - start;
        const REAL *x = run->x ? run->x + start : NULL;
        unsigned char *kept = q->kept ? q->kept + start : NULL;
        if (n >= FR_GROUP) FN(drop)(number, q->least, (REAL)q->factor, x, run->y + start, kept, FR_GROUP);
        else FN(drop)(number, q->least, (REAL)q->factor, x, run->y + start, kept, n);
    }
    fr_flush_denormals_restore(saved);
}

static void FN(dropout)(const struct fr_dropout_call *q)
{
    struct FN(dropout_run) run = { q, q->x, q->y };
    fr_parallel(NULL, q->n < FR_WORTH_A_THREAD ? 1 : q->threads, FN(dropout_body), &run);
}

/* y = kept ? x * factor : 0 */
static void FN(keep_body)(void *argument, int thread, int threads)
{
    const struct FN(dropout_run) *run = argument;
    const ptrdiff_t groups = (run->q->n + FR_GROUP - 1) / FR_GROUP, last = fr_share(groups, thread + 1, threads) * FR_GROUP;
    const ptrdiff_t start = fr_share(groups, thread, threads) * FR_GROUP, n = (last < run->q->n ? last : run->q->n) - start;
    const REAL factor = (REAL)run->q->factor, *restrict x = run->x + start;
    const unsigned char *restrict kept = run->q->kept + start;
    REAL *restrict y = run->y + start;
    for (ptrdiff_t i = 0; i < n; i++) {
        const REAL scaled = x[i] * factor;
        y[i] = kept[i] ? scaled : 0;
    }
}

static void FN(keep)(const struct fr_dropout_call *q)
{
    struct FN(dropout_run) run = { q, q->x, q->y };
    fr_parallel(NULL, q->n < 4 * FR_WORTH_A_THREAD ? 1 : q->threads, FN(keep_body), &run);
}
