#include "memory.h"
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#if defined(__linux__)
#include <sys/mman.h>
#endif

/* A block starts with its header, padded to one cache line; the caller's memory follows. */
struct block {
    size_t bytes;
};
enum { HEADER = 64, SLOTS = 16, HUGE_PAGE = 1 << 21 };
static _Atomic(struct block *) kept[SLOTS];

static void *user_part(struct block *b) { return (char *)b + HEADER; }

/* A block from the slots that is large enough and not more than twice too large, or NULL. A slot is emptied before
 * its block is looked at: nobody else can free it meanwhile. */
static struct block *reuse(size_t bytes)
{
    for (int i = 0; i < SLOTS; i++) {
        if (!atomic_load_explicit(&kept[i], memory_order_relaxed)) continue;
        struct block *b = atomic_exchange(&kept[i], NULL);
        if (!b) continue;
        if (b->bytes >= bytes && b->bytes / 2 <= bytes) return b;
        struct block *none = NULL;
        if (!atomic_compare_exchange_strong(&kept[i], &none, b)) free(b);
    }
    return NULL;
}

void *fr_take(size_t bytes)
{
    if (bytes > PTRDIFF_MAX - 2 * HUGE_PAGE) return NULL;
    struct block *b = reuse(bytes);
    if (b) return user_part(b);
    size_t align = bytes >= 2 * HUGE_PAGE ? HUGE_PAGE : HEADER;
    size_t total = (bytes + HEADER + align - 1) / align * align;
    b = aligned_alloc(align, total);
    if (!b) return NULL;
#if defined(MADV_HUGEPAGE)
    if (align == HUGE_PAGE) madvise(b, total, MADV_HUGEPAGE);
#endif
    b->bytes = total - HEADER;
    return user_part(b);
}

/* Into an empty slot; if there is none, instead of a smaller block. */
void fr_give_back(void *memory)
{
    if (!memory) return;
    struct block *b = (struct block *)((char *)memory - HEADER);
    for (int i = 0; i < SLOTS; i++) {
        struct block *none = NULL;
        if (atomic_compare_exchange_strong(&kept[i], &none, b)) return;
    }
    static atomic_uint turn;
    free(atomic_exchange(&kept[atomic_fetch_add(&turn, 1) % SLOTS], b));
}
