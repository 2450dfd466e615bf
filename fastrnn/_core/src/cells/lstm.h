/* Long short-term memory (Hochreiter & Schmidhuber 1997; forget gate: Gers, Schmidhuber & Cummins 2000).
 *
 *   i, f, o = sigma(z_i, z_f, z_o)     g = act(z_c)
 *   c' = f c + i g                     h' = o act(c')
 *
 * States h, c. Slots i f c o. sigma is `recurrent`, act is `activation`. */

ALWAYS_INLINE void FN(lstm_gates)(const struct FN(unit) *u, int activation, int recurrent)
{
    FN(vec) i = FN(activate)(recurrent, FN(slot)(u, 0));
    FN(vec) f = FN(activate)(recurrent, FN(slot)(u, 1));
    FN(vec) g = FN(activate)(activation, FN(slot)(u, 2));
    FN(vec) o = FN(activate)(recurrent, FN(slot)(u, 3));
    FN(vec) c = f * FN(load)(u->before[1]) + i * g;
    FN(store)(u->after[1], c);
    FN(set_slot)(u, 0, i);
    FN(set_slot)(u, 1, f);
    FN(set_slot)(u, 2, g);
    FN(set_slot)(u, 3, o);
}

ALWAYS_INLINE void FN(lstm_forward)(const struct FN(unit) *u, int activation, int recurrent)
{
    (void)recurrent;
    FN(store)(u->after[0], FN(slot)(u, 3) * FN(activate)(activation, FN(load)(u->after[1])));
}

/* dh, dc of the states after -> dz in the slots, and what reaches the states before past the product. */
ALWAYS_INLINE void FN(lstm_backward)(const struct FN(unit) *u, int activation, int recurrent)
{
    FN(vec) i = FN(slot)(u, 0), f = FN(slot)(u, 1), g = FN(slot)(u, 2), o = FN(slot)(u, 3);
    FN(vec) a = FN(activate)(activation, FN(load)(u->after[1]));
    FN(vec) dh = FN(load)(u->d[0]);
    FN(vec) dc = FN(load)(u->d[1]) + dh * o * FN(activate_slope)(activation, a);
    FN(set_slot)(u, 0, dc * g * FN(activate_slope)(recurrent, i));
    FN(set_slot)(u, 1, dc * FN(load)(u->before[1]) * FN(activate_slope)(recurrent, f));
    FN(set_slot)(u, 2, dc * i * FN(activate_slope)(activation, g));
    FN(set_slot)(u, 3, dh * a * FN(activate_slope)(recurrent, o));
    FN(store)(u->d[0], FN(splat)(0));
    FN(store)(u->d[1], dc * f);
}

#define CELL lstm
#define CELL_HAS_GATES
#include "../step.h"
