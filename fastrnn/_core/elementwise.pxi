# The rest of the door, included by kernels.pyx: what goes over arrays once, around the cells and the products.
# `threads` never changes a bit of a result.


cdef Py_ssize_t size_of(array):
    return cnp.PyArray_SIZE(<cnp.ndarray>array)


cdef void *needed_data_of(array, int typenum, tuple shape, name, bint writeable=False) except NULL:
    """As `data_of`, for what may not be None."""
    return data_of(array_of(array, name), typenum, shape, name, writeable)


cdef void *flat_data_of(array, int typenum, Py_ssize_t n, name, bint writeable=False) except? NULL:
    """The address of an array of this type and n elements, in whatever shape."""
    if cnp.PyArray_SIZE(array_of(array, name)) != n:
        raise ValueError(f"{name} must have {n} elements; received shape {array.shape}")
    return data_of(array, typenum, array.shape, name, writeable)


# ---- activations ---------------------------------------------------------------------------------------------------

def activate(name, x, isa=None, *, threads=1):
    """The activation called `name`, element by element, as the cells compute it."""
    cdef int typenum = real_type(x, "x"), kind = activation_of(name), most = threads_of(threads)
    x = np.asarray(x, order="C")
    y = np.empty_like(x)
    cdef ActivateWork work = ActivateWork.__new__(ActivateWork)
    work.x, work.y, work.n = cnp.PyArray_DATA(<cnp.ndarray>x), cnp.PyArray_DATA(<cnp.ndarray>y), x.size
    work.kind, work.threads, work.f = kind, most, functions_of(build_named(isa), typenum)
    perform(work, (x,), (y,))
    return y


cdef class ActivateWork(Work):
    cdef void *x
    cdef void *y
    cdef Py_ssize_t n
    cdef int kind, threads

    cdef int run(self) except -1:
        with nogil:
            self.f.activate(self.kind, self.x, self.y, self.n, self.threads)
        return 0


def softmax(x, *, out=None, threads=1, isa=None):
    """exp(x) / sum(exp(x)) along the last axis; `out` may be x."""
    cdef int typenum = real_type(x, "x"), most = threads_of(threads)
    if array_of(x, "x").ndim == 0:
        raise ValueError("x must have an axis to sum along; received a number")
    if out is None:
        out = new_array(x.shape, typenum)
    cdef Py_ssize_t n = x.shape[x.ndim - 1], rows = x.size // n if n else 0
    cdef SoftmaxWork work = SoftmaxWork.__new__(SoftmaxWork)
    work.x, work.y = data_of(x, typenum, x.shape, "x"), data_of(out, typenum, x.shape, "out", True)
    work.rows, work.n, work.threads, work.f = rows, n, most, functions_of(build_named(isa), typenum)
    perform(work, (x,), (out,))
    return out


cdef class SoftmaxWork(Work):
    cdef void *x
    cdef void *y
    cdef Py_ssize_t rows, n
    cdef int threads

    cdef int run(self) except -1:
        with nogil:
            self.f.softmax(self.x, self.y, self.rows, self.n, self.threads)
        return 0


cdef class ArgmaxWork(Work):
    """Of the rows of x [rows, n]: where the largest number stands or, with `other`, whether it stands at the same place."""
    cdef void *x
    cdef void *other
    cdef void *to
    cdef Py_ssize_t rows, n
    cdef int threads

    cdef int run(self) except -1:
        with nogil:
            if self.other == NULL:
                self.f.argmax_rows(self.x, self.rows, self.n, <int64_t *>self.to, self.threads)
            else:
                self.f.same_argmax_rows(self.x, self.other, self.rows, self.n, <unsigned char *>self.to, self.threads)
        return 0


cdef object argmax_of(x, other, threads, isa):
    cdef int typenum = real_type(x, "x")
    cdef ArgmaxWork work = ArgmaxWork.__new__(ArgmaxWork)
    if array_of(x, "x").ndim == 0 or x.shape[x.ndim - 1] == 0:
        raise ValueError(f"x must have a last axis of at least 1; received shape {x.shape}")
    work.n = x.shape[x.ndim - 1]
    work.rows, work.x = x.size // work.n, data_of(x, typenum, x.shape, "x")
    work.other = data_of(other, typenum, x.shape, "other")
    found = np.empty(x.shape[:x.ndim - 1], np.int64 if other is None else np.bool_)
    work.to, work.f, work.threads = cnp.PyArray_DATA(<cnp.ndarray>found), functions_of(build_named(isa), typenum), threads_of(threads)
    perform(work, (x, other), (found,))
    return found


def argmax_rows(x, *, threads=1, isa=None):
    """The place of the largest value along the last axis, as `x.argmax(axis=-1)`: of the first of several, or of a NaN."""
    return argmax_of(x, None, threads, isa)


def same_argmax(x, other, *, threads=1, isa=None):
    """argmax_rows(x) == argmax_rows(other), for arrays of one shape."""
    array_of(other, "other")
    return argmax_of(x, other, threads, isa)


# ---- losses --------------------------------------------------------------------------------------------------------

losses = tuple([chosen.losses[i].decode() for i in range(chosen.loss_count)])
cdef dict loss_index = {name: i for i, name in enumerate(losses)}


def loss(name, y_true, y_pred, *, kept=None, weights=None, double divisor=1, bint gradient=True, bint softmax=False,
         double smoothing=0, double epsilon=0, double delta=1, threads=1, isa=None):
    """A loss and its gradient, row by row.

    Args:
        name: one of `losses`.
        y_true: [P,C], or for sparse losses class numbers, int64 [P].
        y_pred: [P,C].
        kept: bool [P], False: nothing of the row is looked at; its value and its gradient are 0. None keeps all.
        weights: float64 [P] or None for ones; they multiply, over `divisor`, gradient and total.
        gradient: whether it is wanted.
        softmax: whether the predictions of a fused loss are the softmax of `y_pred`, in whose place the gradient comes.
        smoothing: of the targets of a crossentropy.
        epsilon: probabilities are clipped to [epsilon, 1 - epsilon].
        delta: of Huber's loss.

    Returns:
        total: the sum of value * weight / divisor in the order of the rows.
        values [P], without weights.
        gradient [P,C] or None.
        wrong: the first row whose targets are impossible (a class number outside [0, C), a target of a crossentropy
            outside [0, 1]), or -1. If there is one, the rest means nothing.
    """
    cdef LossWork work = LossWork.__new__(LossWork)
    cdef fr_loss_call *q = &work.q
    cdef int typenum = real_type(y_pred, "y_pred")
    index = loss_index.get(name)
    if index is None:
        raise ValueError(f"no loss {name!r}; there are: {', '.join(losses)}")
    if array_of(y_pred, "y_pred").ndim != 2:
        raise ValueError(f"y_pred must have shape (P, C); received {y_pred.shape}")
    q.loss, q.rows, q.classes, q.threads = index, y_pred.shape[0], y_pred.shape[1], threads_of(threads)
    q.predicted = data_of(y_pred, typenum, (q.rows, q.classes), "y_pred")
    if name.startswith("sparse"):
        q.wanted = needed_data_of(y_true, cnp.NPY_INT64, (q.rows,), "y_true")
    else:
        q.wanted = needed_data_of(y_true, typenum, (q.rows, q.classes), "y_true")
    q.kept = <unsigned char *>data_of(kept, cnp.NPY_BOOL, (q.rows,), "kept")
    q.weights = <double *>data_of(weights, cnp.NPY_FLOAT64, (q.rows,), "weights")
    q.divisor, q.smoothing, q.epsilon, q.delta, q.softmax = divisor, smoothing, epsilon, delta, softmax
    values = np.empty(q.rows, y_pred.dtype)
    slope = None
    if softmax:
        if not gradient or q.classes == 0 or name not in ("categorical_fused", "sparse_fused"):
            raise ValueError("softmax is for the gradients of categorical_fused and sparse_fused, of at least one class")
        data_of(y_pred, typenum, (q.rows, q.classes), "y_pred", True)
        slope = y_pred
    elif gradient:
        slope = new_array((q.rows, q.classes), typenum)
    q.values = cnp.PyArray_DATA(<cnp.ndarray>values)
    q.gradient = cnp.PyArray_DATA(<cnp.ndarray>slope) if gradient else NULL
    work.f = functions_of(build_named(isa), typenum)
    perform(work, (y_true, y_pred, kept, weights), (values, slope))
    work.again = True
    return q.total, values, slope, q.wrong


cdef class LossWork(Work):
    cdef fr_loss_call q
    cdef bint again  # nobody is there to look at `wrong`

    cdef int run(self) except -1:
        with nogil:
            self.f.loss(&self.q)
        if self.again and self.q.wrong >= 0:
            raise OutOfRange("impossible targets")
        return 0


# ---- dropout -------------------------------------------------------------------------------------------------------

cdef class Counter:
    """Counts the calls of something random, also those that are replayed: `call` of `dropout` and `dropout_factors`."""
    cdef public uint64_t value

    def __init__(self, uint64_t value=0):
        self.value = value

    def __reduce__(self):
        return Counter, (self.value,)

    def count(self):
        """Goes on to the next call, and gives itself."""
        cdef CountWork work = CountWork.__new__(CountWork)
        work.counter = self
        perform(work, (), ())
        return self


cdef class CountWork(Work):
    cdef Counter counter

    cdef int run(self) except -1:
        self.counter.value += 1
        return 0


cdef class DropoutWork(Work):
    """`counter`, where there is one, knows the number of the call."""
    cdef fr_dropout_call q
    cdef Counter counter

    cdef int prepare(self, seed, call, draw, double rate, threads) except -1:
        if isinstance(call, Counter):
            self.counter = call
            call = self.counter.value
        if not 0 <= rate < 1:
            raise ValueError(f"rate must lie in [0, 1); received {rate}")
        if not (0 <= seed < 2**64 and 0 <= call < 2**64 and 0 <= draw < 2**32):
            raise ValueError(f"seed and call must lie in [0, 2**64), draw in [0, 2**32); received {seed}, {call}, {draw}")
        if self.q.n > MOST_NUMBERS:
            raise ValueError(f"one draw gives at most {MOST_NUMBERS} numbers; {self.q.n} are wanted")
        self.q.seed, self.q.call, self.q.draw, self.q.threads = seed, call, draw, threads_of(threads)
        self.q.least = min(round(rate * 4294967296.0), 4294967295)
        self.q.factor = 1 / (1 - rate)
        return 0

    cdef int run(self) except -1:
        if self.counter is not None:
            self.q.call = self.counter.value
        with nogil:
            self.f.dropout(&self.q)
        return 0


cdef class KeepWork(DropoutWork):
    cdef int run(self) except -1:
        with nogil:
            self.f.keep(&self.q)
        return 0


cdef Py_ssize_t MOST_NUMBERS = 2**34


def dropout(x, double rate, *, seed, call, draw=0, threads=1, isa=None):
    """y = x / (1 - rate) with probability 1 - rate, else 0; and which were kept, bool, for `dropout_gradient`. `call` is
    a number or a `Counter`."""
    cdef int typenum = real_type(x, "x")
    cdef DropoutWork work = DropoutWork.__new__(DropoutWork)
    work.q.n = size_of(x)
    work.prepare(seed, call, draw, rate, threads)
    work.q.x = data_of(x, typenum, x.shape, "x")
    y, kept = np.empty(x.shape, x.dtype), np.empty(x.shape, np.bool_)
    work.q.y, work.q.kept = cnp.PyArray_DATA(<cnp.ndarray>y), <unsigned char *>cnp.PyArray_DATA(<cnp.ndarray>kept)
    work.f = functions_of(build_named(isa), typenum)
    perform(work, (x,), (y, kept))
    return y, kept


def dropout_gradient(dy, kept, double rate, *, threads=1, isa=None):
    """dy / (1 - rate) where kept, else 0."""
    cdef int typenum = real_type(dy, "dy")
    cdef KeepWork work = KeepWork.__new__(KeepWork)
    work.q.n = size_of(dy)
    work.prepare(0, 0, 0, rate, threads)
    work.q.x = data_of(dy, typenum, dy.shape, "dy")
    work.q.kept = <unsigned char *>needed_data_of(kept, cnp.NPY_BOOL, dy.shape, "kept")
    dx = np.empty(dy.shape, dy.dtype)
    work.q.y = cnp.PyArray_DATA(<cnp.ndarray>dx)
    work.f = functions_of(build_named(isa), typenum)
    perform(work, (dy, kept), (dx,))
    return dx


def dropout_factors(shape, dtype, double rate, *, seed, call, draw=0, threads=1, isa=None):
    """What `dropout` multiplies by: an array of 0 and 1 / (1 - rate)."""
    y = np.empty(shape, dtype)
    cdef int typenum = real_type(y, "factors")
    cdef DropoutWork work = DropoutWork.__new__(DropoutWork)
    work.q.n = size_of(y)
    work.prepare(seed, call, draw, rate, threads)
    work.q.x, work.q.kept, work.q.y = NULL, NULL, cnp.PyArray_DATA(<cnp.ndarray>y)
    work.f = functions_of(build_named(isa), typenum)
    perform(work, (), (y,))
    return y


# ---- rows of tables ------------------------------------------------------------------------------------------------

cdef cnp.ndarray checked_ids(ids, Py_ssize_t rows):
    """ids as int64, each in [0, rows)."""
    ids = np.asarray(ids)
    if ids.dtype.kind not in "iu":
        raise TypeError(f"ids must be integers; received {ids.dtype}")
    ids = np.ascontiguousarray(ids, np.int64)
    check_range(<int64_t *>cnp.PyArray_DATA(<cnp.ndarray>ids), ids.size, rows)
    return ids


cdef int check_range(const int64_t *id, Py_ssize_t n, Py_ssize_t rows) except -1:
    """Raises OutOfRange unless all of n ids lie in [0, rows)."""
    cdef int64_t low = 0, high = 0
    cdef Py_ssize_t i
    with nogil:
        for i in range(n):
            if id[i] < low:
                low = id[i]
            if id[i] > high:
                high = id[i]
    if n and (low < 0 or high >= rows):
        raise OutOfRange(f"ids must lie in [0, {rows}); received {low if low < 0 else high}")
    return 0


def gather_rows(table, ids, *, threads=1, isa=None):
    """table[ids]: shape ids.shape + (E,)."""
    cdef int typenum = real_type(table, "table")
    cdef GatherWork work = GatherWork.__new__(GatherWork)
    shape_of(table, 2, "rows, E", "table")
    ids = checked_ids(ids, table.shape[0])
    work.table, work.count, work.width = data_of(table, typenum, table.shape, "table"), table.shape[0], table.shape[1]
    rows = new_array(ids.shape + (table.shape[1],), typenum)
    work.rows = cnp.PyArray_DATA(<cnp.ndarray>rows)
    work.ids, work.n = <int64_t *>cnp.PyArray_DATA(<cnp.ndarray>ids), ids.size
    work.f, work.threads = functions_of(build_named(isa), typenum), threads_of(threads)
    perform(work, (table, ids), (rows,))
    return rows


cdef class Taking:
    """Rows of some tables, taken by their numbers into the same arrays again and again.

    Args:
        tables: [rows, ...] each. Kernels take those of float32 or float64, NumPy takes others.
        out: [n, ...] each, like its table but for the first axis, of any type.
    """
    cdef list works, others
    cdef Py_ssize_t n

    def __init__(self, tables, out):
        cdef GatherWork work
        cdef int typenum
        self.works, self.others, self.n = [], [], len(out[0])
        for table, to in zip(tables, out, strict=True):
            if table.ndim < 1 or len(table) == 0:
                raise ValueError(f"a table must have rows; received shape {table.shape}")
            if to.shape != (self.n,) + table.shape[1:]:
                raise ValueError(f"out must have shape {(self.n,) + table.shape[1:]}; received {to.shape}")
            if table.dtype != to.dtype or table.dtype not in (np.float32, np.float64) or table.size == 0 or not (
                    table.flags.c_contiguous and table.flags.aligned):
                self.others.append((table, to))
                continue
            work = GatherWork.__new__(GatherWork)
            typenum = real_type(table, "table")
            work.table, work.count = data_of(table, typenum, table.shape, "table"), table.shape[0]
            work.width, work.n = table.size // table.shape[0], self.n
            work.rows = needed_data_of(to, typenum, to.shape, "out", True)
            work.f, work.arrays = functions_of(chosen, typenum), (table, to)
            self.works.append(work)

    def __reduce__(self):
        raise TypeError("what takes rows is bound to memory and does not pickle or copy")

    def run(self, ids, *, threads=1):
        """Takes the rows `ids`, int64 [n]."""
        cdef GatherWork work
        cdef int most = threads_of(threads)
        cdef void *numbers = needed_data_of(ids, cnp.NPY_INT64, (self.n,), "ids")
        for work in self.works:
            work.ids, work.threads = <int64_t *>numbers, most
            work.run()
            work.ids = NULL
        for table, to in self.others:
            check_range(<int64_t *>numbers, self.n, len(table))
            to[...] = table.take(ids, 0)


cdef class TableWork(Work):
    """What takes rows out of a table, or adds rows to it."""
    cdef void *table            # [count, width]
    cdef void *rows             # [n, width]
    cdef const int64_t *ids     # [n]
    cdef Py_ssize_t count, width, n
    cdef int threads


cdef class GatherWork(TableWork):
    cdef int run(self) except -1:
        check_range(self.ids, self.n, self.count)
        with nogil:
            self.f.gather_rows(self.table, self.width, self.ids, self.rows, self.n, self.threads)
        return 0


cdef class ScatterWork(TableWork):
    cdef int run(self) except -1:
        check_range(self.ids, self.n, self.count)
        with nogil:
            self.f.scatter_add_rows(self.table, self.width, self.ids, self.rows, self.n, self.threads)
        return 0


def scatter_add_rows(gradient, ids, dy, *, threads=1, isa=None):
    """gradient[ids[i]] += dy[i], in the order of i."""
    cdef int typenum = real_type(gradient, "gradient")
    cdef ScatterWork work = ScatterWork.__new__(ScatterWork)
    shape_of(gradient, 2, "rows, E", "gradient")
    ids = checked_ids(ids, gradient.shape[0])
    work.table = data_of(gradient, typenum, gradient.shape, "gradient", True)
    work.count, work.width = gradient.shape
    work.rows = needed_data_of(dy, typenum, ids.shape + (gradient.shape[1],), "dy")
    work.ids, work.n = <int64_t *>cnp.PyArray_DATA(<cnp.ndarray>ids), ids.size
    work.f, work.threads = functions_of(build_named(isa), typenum), threads_of(threads)
    perform(work, (gradient, ids, dy), (gradient,))


cdef class Rows:
    """Numbers of rows of a table, each once, in the order in which they came."""
    cdef readonly Py_ssize_t rows
    cdef Py_ssize_t count
    cdef object order, marks

    def __init__(self, Py_ssize_t rows):
        self.rows, self.count = rows, 0
        self.order, self.marks = np.empty(rows, np.int64), np.zeros(rows, np.uint8)

    def __len__(self):
        return self.count

    def __reduce__(self):  # a copy starts empty, as the gradients of a copied model start at zero
        return Rows, (self.rows,)

    @property
    def ids(self):
        """int64 [len(self)]; a view that lasts until `add` or `clear`."""
        return self.order[:self.count]

    def add(self, ids):
        """Takes in those that are new."""
        ids = checked_ids(ids, self.rows)
        cdef AddWork work = AddWork.__new__(AddWork)
        work.to, work.ids, work.n = self, <int64_t *>cnp.PyArray_DATA(<cnp.ndarray>ids), ids.size
        perform(work, (ids,), ())

    def clear(self, table=None):
        """Forgets them all; in `table` [rows, E] they become zero before."""
        cdef ForgetWork work = ForgetWork.__new__(ForgetWork)
        work.of, work.table = self, NULL
        if table is not None:
            shape_of(table, 2, "rows, E", "table")
            work.table = <char *>data_of(table, real_type(table, "table"), (self.rows, table.shape[1]), "table", True)
            work.width = table.shape[1] * table.itemsize
        perform(work, (table,), ())

    def all_finite(self, table):
        """Whether these rows of `table` [rows, E] hold neither NaN nor infinities."""
        cdef int typenum = real_type(table, "table")
        shape_of(table, 2, "rows, E", "table")
        cdef FiniteRowsWork work = FiniteRowsWork.__new__(FiniteRowsWork)
        work.of, work.a, work.n = self, data_of(table, typenum, (self.rows, table.shape[1]), "table"), table.shape[1]
        work.size, work.f = table.itemsize, functions_of(chosen, typenum)
        perform(work, (table,), ())
        return work.finite

    cdef const int64_t *numbers(self):
        return <int64_t *>cnp.PyArray_DATA(<cnp.ndarray>self.order)

    cdef unsigned char *noted(self):
        return <unsigned char *>cnp.PyArray_DATA(<cnp.ndarray>self.marks)


cdef class AddWork(Work):
    cdef Rows to
    cdef const int64_t *ids
    cdef Py_ssize_t n

    cdef int run(self) except -1:
        cdef int64_t *order = <int64_t *>self.to.numbers()
        cdef unsigned char *mark = self.to.noted()
        cdef Py_ssize_t i
        check_range(self.ids, self.n, self.to.rows)
        for i in range(self.n):
            if not mark[self.ids[i]]:
                mark[self.ids[i]] = 1
                order[self.to.count] = self.ids[i]
                self.to.count += 1
        return 0


cdef class ForgetWork(Work):
    cdef Rows of
    cdef char *table
    cdef Py_ssize_t width

    cdef int run(self) except -1:
        cdef const int64_t *order = self.of.numbers()
        cdef unsigned char *mark = self.of.noted()
        cdef Py_ssize_t i, count = self.of.count
        with nogil:
            for i in range(count):
                if self.table != NULL:
                    memset(self.table + order[i] * self.width, 0, self.width)
                mark[order[i]] = 0
        self.of.count = 0
        return 0


cdef class FiniteRowsWork(FiniteWork):
    cdef Rows of
    cdef Py_ssize_t size

    cdef int run(self) except -1:
        cdef const int64_t *order = self.of.numbers()
        cdef const char *table = <const char *>self.a
        cdef Py_ssize_t i, count = self.of.count
        cdef int found = 1
        with nogil:
            for i in range(count):
                if not self.f.all_finite(table + order[i] * self.n * self.size, self.n, 1):
                    found = 0
                    break
        self.finite = found == 1
        return 0


# ---- flat vectors of weights ---------------------------------------------------------------------------------------

steps = {}
"""By name: (number of slots, number of coefficients) of what `update` can do."""
cdef dict step_index = {}
for _i in range(chosen.step_count):
    _name = chosen.steps[_i].name.decode()
    steps[_name], step_index[_name] = (chosen.steps[_i].slots, chosen.steps[_i].coefficients), _i


cdef class Update:
    """One pass over weights, gradients and what is kept of them, in place, bound to them once to be run often.

    Args:
        name: the step (src/update.h), one of `steps`.
        values: [N], or None where the step does not look at weights.
        gradient: [N], or None where it does not look at gradients.
        slots: [N] each.
        width: if above 0, only rows of so many weights in which the gradient is not all zero take part.
        rows: with `width`, the only rows that may have a gradient.
    """
    cdef fr_update_call q
    cdef const fr_step_shape *shape
    cdef const fr_functions *f
    cdef Rows rows
    cdef tuple arrays

    def __init__(self, name, values, gradient, slots=(), *, Py_ssize_t width=0, Rows rows=None, isa=None):
        cdef fr_update_call *q = &self.q
        cdef int typenum, i
        found = step_index.get(name)
        if found is None:
            raise ValueError(f"no step {name!r}; there are: {', '.join(steps)}")
        self.shape = &chosen.steps[<int>found]
        if len(slots) != self.shape.slots:
            raise ValueError(f"{name} takes {self.shape.slots} slot(s); received {len(slots)}")
        first = values if self.shape.w else gradient
        typenum = real_type(first, "values" if self.shape.w else "gradient")
        q.step, q.n, q.width = found, size_of(first), width
        if self.shape.w:
            q.w = flat_data_of(values, typenum, q.n, "values", self.shape.w == 2)
        if self.shape.g:
            q.g = flat_data_of(gradient, typenum, q.n, "gradient", self.shape.g == 2)
        for i in range(self.shape.slots):
            q.slots[i] = flat_data_of(slots[i], typenum, q.n, f"slots[{i}]", True)
        if width < 0 or (width and (q.n % width or not self.shape.g)) or (rows is not None and (not width or rows.rows * width != q.n)):
            raise ValueError(f"{name}: {q.n} gradients are not rows of {width}, or not as many rows as `rows` knows")
        self.rows, self.arrays, self.f = rows, (values, gradient, *slots), functions_of(build_named(isa), typenum)

    def __reduce__(self):
        raise TypeError("an update is bound to memory and does not pickle or copy")

    def run(self, coefficients=(), *, threads=1):
        """The pass with these numbers."""
        self.once(coefficients, threads_of(threads))

    cdef int once(self, coefficients, int threads) except -1:
        cdef int i
        cdef fr_update_call q = self.q  # another thread may be at it
        if len(coefficients) != self.shape.coefficients:
            raise ValueError(f"{self.shape.name.decode()} takes {self.shape.coefficients} coefficient(s); received {len(coefficients)}")
        for i in range(self.shape.coefficients):
            q.coefficients[i] = coefficients[i]
        q.threads = threads
        if self.rows is not None:
            q.rows, q.row_count = <int64_t *>cnp.PyArray_DATA(<cnp.ndarray>self.rows.order), self.rows.count
        with nogil:
            self.f.update(&q)
        return 0


def update(name, values, gradient, slots=(), coefficients=(), *, width=0, rows=None, threads=1, isa=None):
    """An `Update` that is run once."""
    Update(name, values, gradient, slots, width=width, rows=rows, isa=isa).run(coefficients, threads=threads)


def all_finite(a, *, threads=1, isa=None):
    """Whether there is neither NaN nor an infinity in the array."""
    cdef int typenum = real_type(a, "a")
    cdef FiniteWork work = FiniteWork.__new__(FiniteWork)
    work.a, work.n, work.threads = data_of(a, typenum, a.shape, "a"), size_of(a), threads_of(threads)
    work.f = functions_of(build_named(isa), typenum)
    perform(work, (a,), ())
    return work.finite


cdef class FiniteWork(Work):
    cdef void *a
    cdef Py_ssize_t n
    cdef int threads
    cdef bint finite

    cdef int run(self) except -1:
        cdef int found
        with nogil:
            found = self.f.all_finite(self.a, self.n, self.threads)
        self.finite = found == 1
        return 0


def squared_norm(a, *, threads=1, isa=None):
    """The sum of the squares, in double, in an order that depends on the size alone."""
    cdef int typenum = real_type(a, "a"), most = threads_of(threads), status
    cdef void *from_ = data_of(a, typenum, a.shape, "a")
    cdef Py_ssize_t n = size_of(a)
    cdef double result
    cdef const fr_functions *f = functions_of(build_named(isa), typenum)
    with nogil:
        status = f.squared_norm(from_, n, most, &result)
    if status == FR_NO_MEMORY:
        raise MemoryError("no memory for the sums of a norm")
    return result
