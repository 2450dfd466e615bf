/* The simple recurrent network (Elman 1990): h' = act(z). State h. One slot; backward needs only h'. */

ALWAYS_INLINE void FN(rnn_forward)(const struct FN(unit) *u, int activation, int recurrent)
{
    (void)recurrent;
    FN(store)(u->after[0], FN(activate)(activation, FN(slot)(u, 0)));
}

ALWAYS_INLINE void FN(rnn_backward)(const struct FN(unit) *u, int activation, int recurrent)
{
    (void)recurrent;
    FN(set_slot)(u, 0, FN(load)(u->d[0]) * FN(activate_slope)(activation, FN(load)(u->after[0])));
    FN(store)(u->d[0], FN(splat)(0));
}

#define CELL rnn
#include "../step.h"
