/* Gated recurrent unit (Cho et al. 2014), reset gate after the product, as Keras' default and cuDNN have it.
 *
 *   z, r = sigma(x_z + h_z, x_r + h_r)     n = act(x_n + r m)     h' = z h + (1 - z) n
 *
 * m is the recurrent half of the candidate, with its bias: a slot of its own, for r multiplies it.
 * State h. Slots n z r m; the product with x fills n z r, the one with h adds to z r m. */

ALWAYS_INLINE void FN(gru_gates)(const struct FN(unit) *u, int activation, int recurrent)
{
    (void)activation;
    FN(set_slot)(u, 1, FN(activate)(recurrent, FN(slot)(u, 1)));
    FN(set_slot)(u, 2, FN(activate)(recurrent, FN(slot)(u, 2)));
}

ALWAYS_INLINE void FN(gru_forward)(const struct FN(unit) *u, int activation, int recurrent)
{
    (void)recurrent;
    FN(vec) z = FN(slot)(u, 1), r = FN(slot)(u, 2);
    FN(vec) n = FN(activate)(activation, FN(slot)(u, 0) + r * FN(slot)(u, 3));
    FN(store)(u->after[0], n + z * (FN(load)(u->before[0]) - n));
    FN(set_slot)(u, 0, n);
}

ALWAYS_INLINE void FN(gru_backward)(const struct FN(unit) *u, int activation, int recurrent)
{
    FN(vec) n = FN(slot)(u, 0), z = FN(slot)(u, 1), r = FN(slot)(u, 2), m = FN(slot)(u, 3);
    FN(vec) dh = FN(load)(u->d[0]);
    FN(vec) dn = dh * (1 - z) * FN(activate_slope)(activation, n);
    FN(set_slot)(u, 0, dn);
    FN(set_slot)(u, 1, dh * (FN(load)(u->before[0]) - n) * FN(activate_slope)(recurrent, z));
    FN(set_slot)(u, 2, dn * m * FN(activate_slope)(recurrent, r));
    FN(set_slot)(u, 3, dn * r);
    FN(store)(u->d[0], dh * z);
}

#define CELL gru
#define CELL_HAS_GATES
#include "../step.h"
