/* memory.h - aligned buffers that are kept for the next call, so that a training step neither maps nor clears pages.
 * Safe from any thread and after fork: a few slots, each changed by one atomic exchange; no lock. */
#ifndef FR_MEMORY_H
#define FR_MEMORY_H
#include <stddef.h>
void *fr_take(size_t bytes);      /* 64-byte aligned, contents undefined; NULL when there is no memory */
void fr_give_back(void *memory);  /* NULL is allowed */
#endif
