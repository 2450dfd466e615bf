# Streams: one step of a stack of layers a call. Included at the end of kernels.pyx.

cdef uint64_t versions = 1  # 0 is what a stream has seen that is not made yet


def next_version():
    """A number that was never given before. Whoever changes weights takes one: a stream sees by one look at the last
    number whether any weights may have changed since its last step."""
    global versions
    versions += 1
    return versions


cdef class PackedDense:
    """Weights of a dense layer as streams want them. Immutable; may serve several threads at once."""
    cdef fr_packed *memory
    cdef const fr_build *build
    cdef int typenum
    cdef Py_ssize_t D, N

    def __dealloc__(self):
        if self.memory != NULL:
            fr_packed_free(self.memory)

    def __reduce__(self):
        raise TypeError("packed weights are not to be pickled: pack the weights again")


def pack_dense(kernel, bias=None, *, isa=None):
    """Packs kernel [D, N] and bias [N] of a dense layer for streams: the step of an rnn cell without the state."""
    cdef int typenum = real_type(kernel, "kernel")
    cdef PackedDense packed = PackedDense.__new__(PackedDense)
    cdef fr_pack_call q
    packed.D, packed.N = shape_of(kernel, 2, "D, N", "kernel")
    packed.typenum, packed.build = typenum, build_named(isa)
    q.cell, q.D, q.H, q.backward = cells["rnn"].index, packed.D, packed.N, 0
    q.kernel = data_of(kernel, typenum, (packed.D, packed.N), "kernel")
    q.recurrent_kernel = NULL
    q.bias = data_of(bias, typenum, (packed.N,), "bias")
    cdef Call call = Call()
    q.control = call.control(1)
    q.control.interrupted = NULL
    cdef const fr_functions *f = functions_of(packed.build, typenum)
    cdef int status
    with nogil:
        status = f.pack(&q, &packed.memory)
    call.finish(status)
    return packed


cdef dict stream_kinds = {"embed": FR_STREAM_EMBED, "mask": FR_STREAM_MASK, "cell": FR_STREAM_CELL,
                          "dense": FR_STREAM_CELL, "activate": FR_STREAM_ACTIVATE, "softmax": FR_STREAM_SOFTMAX}
cdef dict stream_masking = {None: FR_NEVER_SKIPS, "repeat": FR_SKIPPED_REPEATS, "zero": FR_SKIPPED_IS_ZERO}
cdef double WORTH_RELEASING = 1e6  # flops of a step from which on other Python threads may run beside it


cdef aligned_zeros(shape, dtype):
    """Zeros that start on a cache line; they do not own their memory, so nobody can resize them."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    block = np.zeros(size + 64, np.uint8)
    start = -<Py_ssize_t>cnp.PyArray_DATA(<cnp.ndarray>block) % 64
    return block[start:start + size].view(dtype).reshape(shape)


cdef class Stream:
    """Operations that rows go through one step at a time, bound to their weights, states and buffers.

    Args:
        dtype: of everything.
        batch_size: B, rows of a step.
        columns: D of the rows that come in; None if they are ids, for an embedding.
        operations: what the rows go through. Each has a `kind`, the number of `columns` that it gives, and

            "embed"     `weights()`, the table [rows, columns]; `mask_zero`: id 0 skips the row
            "mask"      `mask_value`: a row of nothing else is skipped, and zero from there on
            "cell"      `weights()`, from `pack`; `activation`, `recurrent_activation`; `skipped`: what a skipped row
                        gives: None if no rows are skipped, "repeat", its last output, or "zero"
            "dense"     `weights()`, from `pack_dense`; `activation`
            "activate"  `activation`
            "softmax"
            "call"      `function`, from an array [B, columns] to another; may allocate, and takes Python's time

            `weights` is asked again when weights may have changed; `name` says in errors what the operation is.
        isa: the build; the best by default.
    """
    cdef const fr_build *build
    cdef const fr_functions *functions
    cdef int typenum, parts
    cdef fr_stream_call *calls      # [parts], with a Python function between any two
    cdef fr_stream_op *ops
    cdef readonly Py_ssize_t batch_size
    cdef Py_ssize_t D, N, itemsize, ids_end
    cdef bint takes_ids, releases
    cdef int turn
    cdef bint busy
    cdef uint64_t seen
    cdef const void **rows
    cdef int64_t *ids
    cdef cnp.ndarray x, y           # own buffers, [B,D] and [B,N]
    cdef object y_row               # [N]
    cdef list operations, between, joints, kept, holders, weights
    cdef object dtype
    cdef tuple shape                # of x

    def __cinit__(self, *args, **kwargs):
        self.calls, self.ops = NULL, NULL

    def __init__(self, dtype, batch_size, columns, operations, isa=None):
        if self.calls != NULL:
            raise RuntimeError("a stream is made once")
        self.dtype = np.dtype(dtype)
        self.build = build_named(isa)
        self.typenum, self.itemsize = self.dtype.num, self.dtype.itemsize
        if self.typenum != cnp.NPY_FLOAT32 and self.typenum != cnp.NPY_FLOAT64:
            raise TypeError(f"a stream is of float32 or float64; received {self.dtype}")
        if isinstance(batch_size, bool) or not hasattr(batch_size, "__index__") or not 1 <= batch_size <= 2**20:
            raise ValueError(f"batch_size must be a positive integer; received {batch_size!r}")
        self.functions = functions_of(self.build, self.typenum)
        self.batch_size, self.operations = batch_size, list(operations)
        self.takes_ids, self.ids_end = columns is None, 0
        before = columns
        for o in self.operations:
            keeps = o.kind in ("mask", "activate", "softmax")
            if (o.kind == "embed") != (before is None) or (keeps and o.columns != before):
                raise ValueError(f"{o.name}: {o.kind!r} with {o.columns} columns does not fit on {before}")
            before = o.columns
        if not self.operations:
            raise ValueError("a stream needs operations")
        self.D = 1 if columns is None else columns
        self.shape = (self.batch_size, self.D)[:1 if columns is None else 2]
        self.N = self.operations[len(self.operations) - 1].columns
        self.between = [o.function for o in self.operations if o.kind == "call"]
        self.parts = len(self.between) + 1
        self.calls = <fr_stream_call *>calloc(self.parts, sizeof(fr_stream_call))
        self.ops = <fr_stream_op *>calloc(len(self.operations) + 1, sizeof(fr_stream_op))
        if self.calls == NULL or self.ops == NULL:
            raise MemoryError("a stream found no memory")
        self.holders, self.joints, self.kept, self.weights = [], [], [], []
        self.allocate()
        self.bind()

    def __dealloc__(self):
        free(self.calls)
        free(self.ops)

    def __reduce__(self):
        raise TypeError("a stepper is bound to memory and does not pickle or copy: keep its `state` and make another")

    cdef void *hold(self, shape, dtype):
        held = aligned_zeros(shape, dtype)
        self.holders.append(held)
        return cnp.PyArray_DATA(<cnp.ndarray>held)

    cdef allocate(self):
        """Fills in what lasts: kinds, sizes, buffers."""
        cdef Py_ssize_t B = self.batch_size, columns = self.D, widest = 1, ld
        cdef fr_stream_op *op = self.ops
        cdef fr_stream_call *call = self.calls
        cdef void *gates
        cdef void *skipped
        cdef int i
        self.x = aligned_zeros((B, self.D), self.dtype)
        self.rows = <const void **>self.hold((3 * B,), np.uintp)
        self.ids = <int64_t *>self.hold((B,), np.int64)
        call.ops = op
        for o in self.operations:
            if o.kind == "call":
                before, after = aligned_zeros((B, columns), self.dtype), aligned_zeros((B, o.columns), self.dtype)
                self.joints.append((before, after))
                call.out, call.N = cnp.PyArray_DATA(<cnp.ndarray>before), columns
                call += 1
                call.ops = op
            else:
                op.kind, op.N, ld = stream_kinds[o.kind], o.columns, fr_stream_ld(o.columns)
                if op.kind == FR_STREAM_CELL or op.kind == FR_STREAM_ACTIVATE:
                    op.activation = op.recurrent_activation = activation_of(o.activation)
                    op.recurrent_activation = activation_of("sigmoid")
                op.y = self.hold((B, ld), self.dtype)
                if o.kind == "embed":
                    op.mask_zero = o.mask_zero
                elif o.kind == "mask":
                    op.mask_value = o.mask_value
                elif o.kind == "cell":
                    op.recurrent_activation = activation_of(o.recurrent_activation)
                    op.masking = stream_masking[o.skipped]
                    states = [aligned_zeros((2, B, ld), self.dtype) for _ in range(FR_MAX_STATES)]
                    for i in range(FR_MAX_STATES):
                        op.kept[i] = cnp.PyArray_DATA(<cnp.ndarray>states[i])
                    self.kept.append(states)
                widest = max(widest, ld)
                call.count += 1
                op += 1
            columns = o.columns
        gates, skipped = self.hold((B, 4 * widest), self.dtype), self.hold((B,), np.uint8)
        for i in range(self.parts):
            self.calls[i].B, self.calls[i].rows, self.calls[i].ids = B, self.rows, self.ids
            self.calls[i].gates, self.calls[i].skipped = gates, <unsigned char *>skipped
        self.y = aligned_zeros((B, self.N), self.dtype)
        self.y_row = self.y[0]
        call.out, call.N = cnp.PyArray_DATA(self.y), self.N

    cdef bind(self):
        """Takes the present weights."""
        cdef fr_stream_op *op = self.ops
        cdef Py_ssize_t columns = self.D
        cdef uint64_t seen = versions
        cdef double flops = 0
        cdef Packed cell
        cdef PackedDense dense
        held = []
        for o in self.operations:
            if o.kind == "call":
                columns = o.columns
                continue
            found = None
            if o.kind == "embed":
                found = o.weights()
                op.table = data_of(found, self.typenum, (found.shape[0], o.columns), o.name)
                self.ids_end = found.shape[0]
            elif o.kind == "cell":
                found = cell = <Packed?>o.weights()
                self.check(o, cell.build, cell.typenum, cell.D == columns and cell.H == o.columns)
                op.packed = cell.memory
                flops += 2.0 * (columns + o.columns) * o.columns * len(cell.cell.gates)
            elif o.kind == "dense":
                found = dense = <PackedDense?>o.weights()
                self.check(o, dense.build, dense.typenum, dense.D == columns and dense.N == o.columns)
                op.packed = dense.memory
                flops += 2.0 * columns * o.columns
            held.append(found)
            columns = o.columns
            op += 1
        self.weights, self.seen = held, seen
        self.releases = self.batch_size * flops > WORTH_RELEASING

    cdef int check(self, o, const fr_build *build, int typenum, bint fits) except -1:
        if build != self.build or typenum != self.typenum or not fits:
            raise ValueError(f"{o.name}: weights of another build, dtype or shape than the stream's")
        return 0

    # steps

    cdef inline int idle(self) except -1:
        if self.busy:
            raise RuntimeError("stepper: a step is under way in another thread; threads make a stepper each")
        return 0

    cdef int convert(self, x) except -1:
        """Whatever holds numbers, into `ids`, or into the stream's own buffer and `rows` at that."""
        try:
            a = np.asarray(x)
        except ValueError:
            raise ValueError(
                f"stepper: x must have shape {self.expected()}; received nested lists of unequal lengths") from None
        cdef bint row = a.ndim < len(self.shape)
        if a.dtype.kind not in "fiub":
            raise TypeError(f"stepper: x must hold numbers; received {a.dtype}")
        if a.shape != self.shape and (self.batch_size != 1 or a.shape != self.shape[1:]):
            raise ValueError(f"stepper: x must have shape {self.expected()}; received {a.shape}")
        if not self.takes_ids:
            np.copyto(self.x, a, casting="same_kind")
            self.point(self.x)
            return row
        if a.dtype.kind == "f" and not (a == np.trunc(a)).all():
            raise ValueError(f"stepper: ids must be whole numbers; received {a}")
        for i, n in enumerate(np.atleast_1d(a)):
            self.ids[i] = self.checked_id(n)
        return row

    cdef expected(self):
        return f"{self.shape} or {self.shape[1:]}" if self.batch_size == 1 else f"{self.shape}"

    cdef int64_t checked_id(self, n) except -1:
        if not 0 <= n < self.ids_end:
            raise ValueError(f"{self.operations[0].name} expects ids in [0, {self.ids_end}); received {n}")
        return int(n)

    cdef int take(self, x) except -1:
        """Points `rows`, or fills `ids`. Says whether x has no batch axis. What is no array of this shape goes the long
        way, through `convert`."""
        cdef cnp.ndarray a
        cdef Py_ssize_t b, stride, to_next, B = self.batch_size
        cdef int typenum
        cdef bint row
        cdef char *data
        if self.takes_ids and B == 1 and (type(x) is int or isinstance(x, np.integer)):
            self.ids[0] = self.checked_id(x)
            return 1
        if not cnp.PyArray_CheckExact(x) or not cnp.PyArray_ISBEHAVED_RO(<cnp.ndarray>x):
            return self.convert(x)
        a = <cnp.ndarray>x
        typenum, data = cnp.PyArray_TYPE(a), <char *>cnp.PyArray_DATA(a)
        if self.takes_ids:
            if cnp.PyArray_NDIM(a) != 1 or cnp.PyArray_DIM(a, 0) != B:
                return self.convert(x)
            if typenum != cnp.NPY_INT64 and typenum != cnp.NPY_INT32:
                return self.convert(x)
            for b in range(B):
                data = <char *>cnp.PyArray_GETPTR1(a, b)
                self.ids[b] = (<int64_t *>data)[0] if typenum == cnp.NPY_INT64 else (<int32_t *>data)[0]
                if not 0 <= self.ids[b] < self.ids_end:
                    self.checked_id(self.ids[b])
            return 0
        row = cnp.PyArray_NDIM(a) == 1
        if row:
            if B != 1 or cnp.PyArray_DIM(a, 0) != self.D:
                return self.convert(x)
            stride, to_next = 0, cnp.PyArray_STRIDE(a, 0)
        else:
            if cnp.PyArray_NDIM(a) != 2 or cnp.PyArray_DIM(a, 0) != B or cnp.PyArray_DIM(a, 1) != self.D:
                return self.convert(x)
            stride, to_next = cnp.PyArray_STRIDE(a, 0), cnp.PyArray_STRIDE(a, 1)
        if typenum == self.typenum and to_next == self.itemsize:
            for b in range(B):
                self.rows[b] = data + b * stride
        elif typenum == cnp.NPY_FLOAT32 or typenum == cnp.NPY_FLOAT64:
            self.copy(data, stride, to_next, typenum)
            self.point(self.x)
        else:
            return self.convert(x)
        return row

    cdef void copy(self, const char *data, Py_ssize_t stride, Py_ssize_t to_next, int typenum) noexcept:
        """Floats of either size and anywhere into the stream's own buffer."""
        cdef Py_ssize_t b, d, i
        cdef double value
        cdef void *to = cnp.PyArray_DATA(self.x)
        for b in range(self.batch_size):
            for d in range(self.D):
                i = b * stride + d * to_next
                if typenum == cnp.NPY_FLOAT32:
                    value = (<const float *>(data + i))[0]
                else:
                    value = (<const double *>(data + i))[0]
                if self.typenum == cnp.NPY_FLOAT32:
                    (<float *>to)[b * self.D + d] = <float>value
                else:
                    (<double *>to)[b * self.D + d] = value

    cdef void point(self, cnp.ndarray a) noexcept:
        cdef Py_ssize_t b
        for b in range(self.batch_size):
            self.rows[b] = <char *>cnp.PyArray_DATA(a) + b * cnp.PyArray_STRIDE(a, 0)

    cdef int run_parts(self, fr_stream_call *last) except -1:
        """The same as one call of C, with Python functions between, or with the GIL released."""
        cdef const fr_functions *f = self.functions
        cdef fr_stream_call *call
        cdef int i
        for i in range(self.parts):
            if i > 0:
                x, y = self.joints[i - 1]
                found = self.between[i - 1](x)
                if found.shape != y.shape:
                    raise ValueError(f"stepper: a layer gave shape {found.shape} for one step; expected {y.shape}")
                np.copyto(y, found, casting="same_kind")
                self.point(y)
            call = &self.calls[i] if i + 1 < self.parts else last
            call.turn = self.turn
            if self.releases:
                with nogil:
                    f.stream(call)
            else:
                f.stream(call)
        return 0

    def step(self, x, out=None):
        """Takes the next step of every row and returns what the model gives there.

        Args:
            x: (batch_size, features); for a model that begins with an Embedding whole numbers, (batch_size,). With
                batch_size = 1 the batch axis may be left out, of the result too. An array of the model's dtype whose
                rows are contiguous is used as it is, other numbers are converted.
            out: where the result goes: an array of its shape and the model's dtype, C-contiguous.

        Returns:
            (batch_size, columns), or (columns,): `out`, or else the stepper's own buffer, which the next step
            overwrites: copy what is to be kept.

        Raises:
            ValueError: if x or out has another shape, or an id lies outside the Embedding.
            TypeError: if x holds no numbers, or out is no array of the dtype.
            RuntimeError: if another thread is in the middle of a step of this stepper.
        """
        cdef fr_stream_call call
        cdef fr_stream_call *last
        cdef int row
        self.idle()
        self.busy = True
        try:
            if self.seen != versions:
                self.bind()
            row = self.take(x)
            last = &self.calls[self.parts - 1]
            if out is not None:
                call = last[0]
                call.out = self.checked_out(out, row)
                last = &call
            if self.parts == 1 and not self.releases:
                last.turn = self.turn
                self.functions.stream(last)
            else:
                self.run_parts(last)
            self.turn ^= 1
        finally:
            self.busy = False
        if out is not None:
            return out
        return self.y_row if row else self.y

    cdef void *checked_out(self, out, bint row) except NULL:
        shape = self.y_row.shape if row else (<object>self.y).shape
        return data_of(out, self.typenum, shape, "stepper: out", True)

    # states

    cdef list views(self):
        """One tuple of (batch_size, units) views a recurrent layer."""
        cells = [o for o in self.operations if o.kind == "cell"]
        return [tuple([a[self.turn, :, :o.columns] for a in arrays[:o.states]]) for o, arrays in zip(cells, self.kept)]

    def reset(self, rows=None):
        """Sets the states to zero: all of them, or those of some rows.

        Args:
            rows: a row's number, several of them, or a mask of batch_size bools.

        Raises:
            ValueError: for rows that are not there.
        """
        self.idle()
        if rows is not None:
            chosen = np.atleast_1d(np.asarray(rows))
            if chosen.size == 0 and chosen.dtype.kind == "f":
                return  # []
            if chosen.dtype.kind == "b":
                good = chosen.shape == (self.batch_size,)
            else:
                good = chosen.dtype.kind in "iu" and chosen.ndim == 1
                good = good and bool(((0 <= chosen) & (chosen < self.batch_size)).all())
            if not good:
                raise ValueError(
                    f"stepper: rows are numbers in [0, {self.batch_size}), or a mask of {self.batch_size} bools; "
                    f"received {rows!r}")
            rows = chosen
        for states in self.views():
            for view in states:
                view[slice(None) if rows is None else rows] = 0

    @property
    def state(self):
        """The states after the last step, copied: a list with a tuple of (batch_size, units) arrays, (h,) or (h, c),
        for every recurrent layer in order. Setting it takes the same, as arrays or lists: all or nothing."""
        self.idle()
        return [tuple([view.copy() for view in states]) for states in self.views()]

    @state.setter
    def state(self, value):
        self.idle()
        views = self.views()
        cells = [o for o in self.operations if o.kind == "cell"]
        if not isinstance(value, (list, tuple)) or len(value) != len(views):
            raise ValueError(
                f"stepper: state must be a list with a tuple for each of {len(views)} recurrent layers; "
                f"received {_described(value)}")
        found = []
        for o, states, given in zip(cells, views, value):
            if not isinstance(given, (list, tuple)) or len(given) != len(states):
                raise ValueError(
                    f"stepper: the state of {o.name} must be a tuple of {len(states)} arrays; "
                    f"received {_described(given)}")
            for view, array in zip(states, given):
                a = np.asarray(array)
                if a.dtype.kind not in "fiub" or a.shape != view.shape:
                    raise ValueError(
                        f"stepper: every state of {o.name} must hold numbers of shape {view.shape}; "
                        f"received {a.dtype} of shape {a.shape}")
                found.append((view, a.astype(self.dtype)))
        for view, a in found:
            view[...] = a


def _described(value):
    return f"{len(value)} entries" if isinstance(value, (list, tuple)) else type(value).__name__
