/* Gated recurrent unit with the reset gate before the product (Cho et al. 2014, as in the paper; reset_after=False).
 *
 *   z, r = sigma(x + h U)     q = r h     n = act(x_n + q U_n)     h' = z h + (1 - z) n
 *
 * Two stages: z and r multiply h, then n multiplies q, which the first stage makes and keeps. State h, kept h, q.
 * Slots z r n. */

ALWAYS_INLINE void FN(gru_reset_before_prepare)(const struct FN(unit) *u, int activation, int recurrent)
{
    (void)activation;
    FN(vec) r = FN(activate)(recurrent, FN(slot)(u, 1));
    FN(set_slot)(u, 0, FN(activate)(recurrent, FN(slot)(u, 0)));
    FN(set_slot)(u, 1, r);
    FN(store)(u->after[1], r * FN(load)(u->before[0]));
}

ALWAYS_INLINE void FN(gru_reset_before_forward)(const struct FN(unit) *u, int activation, int recurrent)
{
    (void)recurrent;
    FN(vec) z = FN(slot)(u, 0), n = FN(activate)(activation, FN(slot)(u, 2));
    FN(store)(u->after[0], n + z * (FN(load)(u->before[0]) - n));
    FN(set_slot)(u, 2, n);
}

ALWAYS_INLINE void FN(gru_reset_before_backward)(const struct FN(unit) *u, int activation, int recurrent)
{
    FN(vec) z = FN(slot)(u, 0), n = FN(slot)(u, 2), dh = FN(load)(u->d[0]);
    FN(set_slot)(u, 0, dh * (FN(load)(u->before[0]) - n) * FN(activate_slope)(recurrent, z));
    FN(set_slot)(u, 2, dh * (1 - z) * FN(activate_slope)(activation, n));
    FN(store)(u->d[0], dh * z);
    FN(store)(u->d[1], FN(splat)(0)); /* dq = dn U_n^T is added here before prepare_backward */
}

ALWAYS_INLINE void FN(gru_reset_before_prepare_backward)(const struct FN(unit) *u, int activation, int recurrent)
{
    (void)activation;
    FN(vec) r = FN(slot)(u, 1), dq = FN(load)(u->d[1]);
    FN(set_slot)(u, 1, dq * FN(load)(u->before[0]) * FN(activate_slope)(recurrent, r));
    FN(store)(u->d[0], FN(load)(u->d[0]) + dq * r);
}

#define CELL gru_reset_before
#define CELL_HAS_PREPARE
#include "../step.h"
