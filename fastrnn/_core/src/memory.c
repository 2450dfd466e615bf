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
static const size_t most_held = (size_t)1 << 29; /* what is kept in all: a process does not hold on to more than it may use again */
static _Atomic(struct block *) kept[SLOTS];
static atomic_size_t held; /* bytes in the slots, or a little off while they change hands */

static void *user_part(struct block *b) { return (char *)b + HEADER; }

/* Into an empty slot, if there is one. */
static int put(struct block *b)
{
    for (int i = 0; i < SLOTS; i++) {
        struct block *none = NULL;
        if (!atomic_load_explicit(&kept[i], memory_order_relaxed) && atomic_compare_exchange_strong(&kept[i], &none, b)) {
            atomic_fetch_add(&held, b->bytes);
            return 1;
        }
    }
    return 0;
}

/* What is in a slot, or NULL; afterwards nobody else can reach it. */
static struct block *take_out(int slot)
{
    if (!atomic_load_explicit(&kept[slot], memory_order_relaxed)) return NULL;
    struct block *b = atomic_exchange(&kept[slot], NULL);
    if (b) atomic_fetch_sub(&held, b->bytes);
    return b;
}

/* A block from the slots that is large enough and not more than twice too large, or NULL. */
static struct block *reuse(size_t bytes)
{
    for (int i = 0; i < SLOTS; i++) {
        struct block *b = take_out(i);
        if (!b) continue;
        if (b->bytes >= bytes && b->bytes / 2 <= bytes) return b;
        if (!put(b)) free(b);
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

/* Into a slot. Where there is no place or too much is held, blocks that lie there go, one after the other. */
void fr_give_back(void *memory)
{
    if (!memory) return;
    struct block *b = (struct block *)((char *)memory - HEADER);
    static atomic_uint turn;
    for (int tries = 0; b->bytes <= most_held && tries <= SLOTS; tries++) {
        if (atomic_load(&held) <= most_held - b->bytes && put(b)) return;
        free(take_out((int)(atomic_fetch_add(&turn, 1) % SLOTS)));
    }
    free(b);
}
