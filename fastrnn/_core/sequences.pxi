# Whole sequences, one or two a call: a forward pass with its tape, a backward pass that uses the tape up. Included by
# kernels.pyx.

cdef class Tape:
    """What `forward` keeps for `backward`; used up by it."""
    cdef fr_tape *memory
    cdef Packed packed
    cdef object arrays
    cdef Py_ssize_t B, T
    cdef bint masked

    def __dealloc__(self):
        self.release()

    cdef void release(self) noexcept:
        if self.memory != NULL:
            fr_tape_free(self.memory)
        self.memory = NULL
        self.arrays = None


cdef int activation_of(name) except -1:
    index = activation_index.get(name)
    if index is None:
        raise ValueError(f"no activation {name!r} inside a cell; there are: {', '.join(activations)}")
    return index


cdef class Forward:
    """A cell that is to run over x [B,T,D], and after `run_forward` what came of it.

    Args:
        initial_state: None or one [B,H] array (or None) per state.
        mask: [B,T] bool, False skips the step: states stay, the output repeats (or is zero, with
            `zero_output_for_mask`, and before the first step that is not masked). x is not read there.
        go_backwards: from the last step to the first; the sequence comes in the order of processing, or, with
            `original_time`, in that of x.
        input_dropout, recurrent_dropout: factors [1 or G, B, D] and [G, B, H], or None.
        record: keep a tape for `Backward`.
        out: the sequence is written there: [B,T,H], which may be columns of a wider array.

    Attributes:
        sequence: [B,T,H] or None.
        last: output of the last step, [B,H].
        final_state: one [B,H] array per state.
        tape: for `Backward`, or None.
    """
    cdef fr_forward_call q
    cdef readonly Packed packed
    cdef object given
    cdef bint ran
    cdef readonly object sequence, last
    cdef readonly tuple final_state
    cdef readonly Tape tape

    def __init__(self, Packed packed not None, x, initial_state=None, mask=None, *, activation="tanh",
                 recurrent_activation="sigmoid", bint go_backwards=False, bint original_time=False,
                 bint zero_output_for_mask=False, bint return_sequences=True, bint record=False, input_dropout=None,
                 recurrent_dropout=None, out=None):
        cdef int typenum = packed.typenum, i
        cdef fr_forward_call *q = &self.q
        cdef Py_ssize_t H = packed.H, D = packed.D, states = packed.cell.states
        cdef Py_ssize_t G = len(packed.cell.gates)
        if real_type(x, "x") != typenum:
            raise TypeError(f"x must have the dtype of the weights; received {x.dtype}")
        cdef Py_ssize_t B, T, depth
        B, T, depth = shape_of(x, 3, "B, T, D", "x")
        if B * T + B > MOST_ROWS:
            raise ValueError(f"x of shape {x.shape} has too many steps: batch * time must stay below 2**31; use smaller batches")
        q.packed, q.B, q.T = packed.memory, B, T
        q.x = data_of(x, typenum, (B, T, D), "x")
        q.activation, q.recurrent_activation = activation_of(activation), activation_of(recurrent_activation)
        q.go_backwards, q.original_time, q.zero_output_for_mask = go_backwards, original_time, zero_output_for_mask
        q.initial_state[0] = q.initial_state[1] = NULL
        if initial_state is not None:
            if len(initial_state) != states:
                raise ValueError(f"initial_state must hold {states} array(s); received {len(initial_state)}")
            for i in range(states):
                q.initial_state[i] = data_of(initial_state[i], typenum, (B, H), f"initial_state[{i}]")
        q.mask = <unsigned char *>data_of(mask, cnp.NPY_BOOL, (B, T), "mask")
        q.input_groups = 1
        if input_dropout is not None:
            q.input_groups = G if shape_of(input_dropout, 3, "1 or G, B, D", "input_dropout")[0] == G else 1
        q.input_dropout = data_of(input_dropout, typenum, (q.input_groups, B, D), "input_dropout")
        q.recurrent_dropout = data_of(recurrent_dropout, typenum, (G, B, H), "recurrent_dropout")
        if out is None:
            out = new_array((B, T, H), typenum) if return_sequences else None
        elif not (<cnp.ndarray>array_of(out, "out")).flags.writeable:
            raise ValueError("out is read-only")
        self.sequence = out
        q.sequence = rows_of(out, typenum, B, T, H, "out", &q.sequence_ld)
        self.last = new_array((B, H), typenum)
        self.final_state = tuple([new_array((B, H), typenum) for i in range(states)])
        q.last_output = cnp.PyArray_DATA(<cnp.ndarray>self.last)
        for i in range(states):
            q.final_state[i] = cnp.PyArray_DATA(<cnp.ndarray>self.final_state[i])
        self.packed, self.given = packed, (x, initial_state, mask, input_dropout, recurrent_dropout)
        q.tape = NULL
        if record:
            self.tape = Tape.__new__(Tape)
            self.tape.packed, self.tape.B, self.tape.T, self.tape.masked = packed, B, T, mask is not None
            self.tape.arrays = (x, mask, input_dropout, recurrent_dropout)
            q.tape = &self.tape.memory

    cdef tuple reads(self):
        x, initial_state, mask, input_dropout, recurrent_dropout = self.given
        return (x, mask, input_dropout, recurrent_dropout, *(initial_state or ()))

    cdef tuple writes(self):
        return (self.sequence, self.last, *self.final_state)

    cdef void let_go(self):
        self.packed, self.q.packed = None, NULL
        if self.tape is not None:
            self.tape.packed = None

    cdef const fr_forward_call *renew(self, PackWork weights):
        """Ready to run once more, with the weights that this work packed last."""
        if weights is not None:
            self.packed = weights.packed
            self.q.packed = self.packed.memory
            if self.tape is not None:
                self.tape.release()
        return &self.q


cdef class Backward:
    """The gradients of a `Forward`'s arguments from those of its results, to be made by `run_backward`, which uses the
    tape up.

    Adds into `dkernel`, `drecurrent_kernel` and `dbias` (all None for frozen weights), or overwrites them without
    `accumulate`. `dsequence` may be columns of a wider array.

    Attributes:
        dx: [B,T,D], zero at masked steps; None without `input_gradient`.
        dinitial: one [B,H] array per state.
    """
    cdef fr_backward_call q
    cdef Packed packed
    cdef Tape tape
    cdef object given
    cdef readonly object dx
    cdef readonly tuple dinitial

    def __init__(self, Packed packed not None, Tape tape not None, dsequence=None, dlast=None, dfinal=None, *, dkernel=None,
                 drecurrent_kernel=None, dbias=None, bint accumulate=True, bint input_gradient=True):
        check_unused(tape)
        if not packed.backward or packed.build != tape.packed.build or packed.typenum != tape.packed.typenum \
                or packed.cell is not tape.packed.cell or packed.D != tape.packed.D or packed.H != tape.packed.H:
            raise ValueError("backward needs weights packed like those of the forward pass, with backward=True")
        cdef int typenum = packed.typenum, i
        cdef Py_ssize_t B = tape.B, T = tape.T, D = packed.D, H = packed.H, states = packed.cell.states
        cdef Py_ssize_t width = len(packed.cell.gates) * H
        cdef fr_backward_call *q = &self.q
        q.packed = packed.memory
        q.dsequence = rows_of(dsequence, typenum, B, T, H, "dsequence", &q.dsequence_ld)
        q.dlast = data_of(dlast, typenum, (B, H), "dlast")
        q.dfinal[0] = q.dfinal[1] = NULL
        if dfinal is not None:
            if len(dfinal) != states:
                raise ValueError(f"dfinal must hold {states} array(s); received {len(dfinal)}")
            for i in range(states):
                q.dfinal[i] = data_of(dfinal[i], typenum, (B, H), f"dfinal[{i}]")
        if (dkernel is None) != (drecurrent_kernel is None) or (dkernel is None and dbias is not None):
            raise ValueError("give both dkernel and drecurrent_kernel, or no weight gradient at all")
        q.dkernel = data_of(dkernel, typenum, (D, width), "dkernel", True)
        q.drecurrent_kernel = data_of(drecurrent_kernel, typenum, (H, width), "drecurrent_kernel", True)
        q.dbias = data_of(dbias, typenum, (width,) if packed.cell.bias_rows == 1 else (packed.cell.bias_rows, width), "dbias", True)
        q.accumulate = accumulate
        if input_gradient:
            self.dx = new_array((B, T, D), typenum)
            if tape.masked:
                self.dx.fill(0)
        q.dx = data_of(self.dx, typenum, (B, T, D), "dx")
        self.dinitial = tuple([new_array((B, H), typenum) for i in range(states)])
        for i in range(states):
            q.dinitial[i] = cnp.PyArray_DATA(<cnp.ndarray>self.dinitial[i])
        self.packed, self.tape = packed, tape
        self.given = dsequence, dlast, dfinal, dkernel, drecurrent_kernel, dbias

    cdef tuple reads(self):
        dsequence, dlast, dfinal, *dweights = self.given
        return (dsequence, dlast, *(dfinal or ()), *(dweights if self.q.accumulate else ()))

    cdef tuple writes(self):
        return (self.dx, *self.dinitial, *self.given[3:])

    cdef void let_go(self):
        self.packed, self.q.packed = None, NULL

    cdef const fr_backward_call *renew(self, PackWork weights, fr_tape **tape):
        """Ready to run, with the weights that this work packed last. The tape's memory is the caller's from now on."""
        if weights is not None:
            self.packed = weights.packed
            self.q.packed = self.packed.memory
        tape[0], self.tape.memory = self.tape.memory, NULL
        self.q.tape = tape[0]
        return &self.q


cdef int check_unused(Tape tape) except -1:
    if tape.memory == NULL:
        raise RuntimeError("this tape was used by a backward pass already: run forward again")
    return 0


cdef int check_new(Forward call) except -1:
    if call.ran:
        raise RuntimeError("this Forward has run already: make a new one")
    call.ran = True
    return 0


cdef int check_pair(Packed first, Packed second) except -1:
    if first.build != second.build or first.typenum != second.typenum:
        raise ValueError("two cells that run at once must have one dtype and one build")
    return 0


def run_forward(Forward first not None, Forward second=None, *, threads=1):
    """Runs one cell, or two at once that know nothing of each other."""
    if second is not None and threads > 1 and threads % 2:  # one after the other keeps all of them busy
        run_forward(first, threads=threads)
        return run_forward(second, threads=threads)
    cdef ForwardWork work = ForwardWork.__new__(ForwardWork)
    check_new(first)
    if second is not None:
        check_pair(first.packed, second.packed)
        check_new(second)
    work.first, work.second, work.threads = first, second, threads_of(threads)
    work.f = functions_of(first.packed.build, first.packed.typenum)
    work.run()
    if is_recorded():
        recorder.take(work, first.reads() + (second.reads() if second is not None else ()),
                      first.writes() + (second.writes() if second is not None else ()))


cdef class ForwardWork(Work):
    cdef Forward first, second
    cdef PackWork of_first, of_second
    cdef int threads

    cdef bint bind(self, dict packs) except -1:
        self.of_first = packs.get(self.first.packed)
        self.of_second = None if self.second is None else packs.get(self.second.packed)
        return self.of_first is not None and (self.second is None or self.of_second is not None)

    cdef void release(self):
        self.first.let_go()
        if self.second is not None:
            self.second.let_go()

    cdef int run(self) except -1:
        cdef const fr_forward_call *calls[2]
        cdef int n = 1, status
        calls[0] = self.first.renew(self.of_first)
        if self.second is not None:
            calls[1], n = self.second.renew(self.of_second), 2
        cdef Call call = Call()
        self.first.q.control = call.control(self.threads)
        with nogil:
            status = self.f.forward(calls, n)
        return call.finish(status)


def run_backward(Backward first not None, Backward second=None, *, threads=1):
    """Makes the gradients of one cell, or of two at once."""
    if second is not None and threads > 1 and threads % 2:  # one after the other keeps all of them busy
        run_backward(first, threads=threads)
        return run_backward(second, threads=threads)
    cdef BackwardWork work = BackwardWork.__new__(BackwardWork)
    if second is not None:
        check_pair(first.packed, second.packed)
        if second.tape is first.tape:
            raise ValueError("two cells that run at once must have a tape each")
    work.first, work.second, work.threads = first, second, threads_of(threads)
    work.f = functions_of(first.packed.build, first.packed.typenum)
    work.run()
    if is_recorded():
        recorder.take(work, first.reads() + (second.reads() if second is not None else ()),
                      first.writes() + (second.writes() if second is not None else ()))


cdef class BackwardWork(Work):
    cdef Backward first, second
    cdef PackWork of_first, of_second
    cdef int threads

    cdef bint bind(self, dict packs) except -1:
        self.of_first = packs.get(self.first.packed)
        self.of_second = None if self.second is None else packs.get(self.second.packed)
        return self.of_first is not None and (self.second is None or self.of_second is not None)

    cdef void release(self):
        self.first.let_go()
        if self.second is not None:
            self.second.let_go()

    cdef int run(self) except -1:
        cdef const fr_backward_call *calls[2]
        cdef fr_tape *tapes[2]
        cdef int n = 1, status, i
        check_unused(self.first.tape)
        if self.second is not None:
            check_unused(self.second.tape)
            n = 2
        # Taken off the tapes first: another thread that comes with the same tape finds it used.
        calls[0] = self.first.renew(self.of_first, &tapes[0])
        if self.second is not None:
            calls[1] = self.second.renew(self.of_second, &tapes[1])
        cdef Call call = Call()
        self.first.q.control = call.control(self.threads)
        with nogil:
            status = self.f.backward(calls, n)
            for i in range(n):
                fr_tape_free(tapes[i])
        self.first.tape.release()
        if self.second is not None:
            self.second.tape.release()
        return call.finish(status)


def forward(*args, threads=1, **options):
    """`Forward` and `run_forward` in one: sequence, final states, last output, tape."""
    cdef Forward call = Forward(*args, **options)
    run_forward(call, threads=threads)
    return call.sequence, call.final_state, call.last, call.tape


def backward(*args, threads=1, **options):
    """`Backward` and `run_backward` in one: dx, gradients of the initial states."""
    cdef Backward call = Backward(*args, **options)
    run_backward(call, threads=threads)
    return call.dx, call.dinitial
