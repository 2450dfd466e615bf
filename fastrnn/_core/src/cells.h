/* cells.h - the cells there are. A new cell is one row here and one file cells/<name>.h.
 *
 * A *slot* holds one pre-activation of every unit; later the same place holds the activation, then its gradient.
 * The product with x fills the slots from `x_slot` on, in the order of the letters `x_gates`; the product with the
 * recurrent operand adds to the slots from `h_slot` on, in the order `h_gates`. They differ where a gate's two halves
 * must stay apart: GRU with reset_after keeps the recurrent half of its candidate in a slot of its own (letter h,
 * slot 3).
 * A second stage exists where some gates multiply an operand that the first stage's gates made (r * h of GRU with
 * reset_before): its gates are those from `late_gate` on.
 * `kept` counts the arrays [slots, H] that a step hands to the next, or to the backward pass: the states, then the
 * operand of the second stage.
 * `wide` is the number of vectors of neighbouring units side by side in a panel: products want four vectors. */
#ifndef FR_CELLS_H
#define FR_CELLS_H

/*    name              gates   x_gates x_slot h_gates h_slot slots late states kept bias_rows wide */
#define FR_FOR_EACH_CELL(X)                                                      \
    X(lstm,             "ifco", "ifco", 0,     "ifco", 0,     4,    4,   2,     2,   1,        1) \
    X(gru,              "zrh",  "hzr",  0,     "zrh",  1,     4,    3,   1,     1,   2,        1) \
    X(gru_reset_before, "zrh",  "zrh",  0,     "zrh",  0,     3,    2,   1,     2,   1,        1) \
    X(rnn,              "h",    "h",    0,     "h",    0,     1,    1,   1,     1,   1,        4)

enum fr_cell_index {
#define X(name, ...) FR_CELL_##name,
    FR_FOR_EACH_CELL(X)
#undef X
    FR_CELLS
};

/* One row of the table above, for code that knows no cell by name. */
struct fr_cell_shape {
    const char *gates, *x_gates, *h_gates;
    int G, x_slot, h_slot, slots, late_gate, states, kept, bias_rows, wide;
};

extern const struct fr_cell_shape fr_cell_shapes[FR_CELLS];
enum { FR_MAX_GATES = 4, FR_MAX_KEPT = 2 };

#endif
