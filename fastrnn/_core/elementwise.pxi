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
    cdef void *from_ = cnp.PyArray_DATA(<cnp.ndarray>x)
    cdef void *to = cnp.PyArray_DATA(<cnp.ndarray>y)
    cdef Py_ssize_t n = x.size
    cdef const fr_functions *f = functions_of(build_named(isa), typenum)
    with nogil:
        f.activate(kind, from_, to, n, most)
    return y


def softmax(x, *, out=None, threads=1, isa=None):
    """exp(x) / sum(exp(x)) along the last axis; `out` may be x."""
    cdef int typenum = real_type(x, "x"), most = threads_of(threads)
    if array_of(x, "x").ndim == 0:
        raise ValueError("x must have an axis to sum along; received a number")
    if out is None:
        out = np.empty(x.shape, x.dtype)
    cdef Py_ssize_t n = x.shape[x.ndim - 1], rows = x.size // n if n else 0
    cdef void *from_ = data_of(x, typenum, x.shape, "x")
    cdef void *to = data_of(out, typenum, x.shape, "out", True)
    cdef const fr_functions *f = functions_of(build_named(isa), typenum)
    with nogil:
        f.softmax(from_, to, rows, n, most)
    return out


def argmax_rows(x, *, threads=1, isa=None):
    """The place of the largest value along the last axis, as `x.argmax(axis=-1)`: of the first of several, or of a NaN."""
    cdef int typenum = real_type(x, "x"), most = threads_of(threads)
    if array_of(x, "x").ndim == 0 or x.shape[x.ndim - 1] == 0:
        raise ValueError(f"x must have a last axis of at least 1; received shape {x.shape}")
    cdef Py_ssize_t n = x.shape[x.ndim - 1], rows = x.size // n
    cdef void *from_ = data_of(x, typenum, x.shape, "x")
    where = np.empty(x.shape[:x.ndim - 1], np.int64)
    cdef int64_t *to = <int64_t *>cnp.PyArray_DATA(<cnp.ndarray>where)
    cdef const fr_functions *f = functions_of(build_named(isa), typenum)
    with nogil:
        f.argmax_rows(from_, rows, n, to, most)
    return where


# ---- losses --------------------------------------------------------------------------------------------------------

losses = tuple([chosen.losses[i].decode() for i in range(chosen.loss_count)])
cdef dict loss_index = {name: i for i, name in enumerate(losses)}


def loss(name, y_true, y_pred, *, kept=None, weights=None, double divisor=1, bint gradient=True, double smoothing=0,
         double epsilon=0, double delta=1, threads=1, isa=None):
    """A loss and its gradient, row by row.

    Args:
        name: one of `losses`.
        y_true: [P,C], or for sparse losses class numbers, int64 [P].
        y_pred: [P,C].
        kept: bool [P], False: nothing of the row is looked at; its value and its gradient are 0. None keeps all.
        weights: float64 [P] or None for ones; they multiply, over `divisor`, gradient and total.
        gradient: whether it is wanted.
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
    cdef fr_loss_call q
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
    q.divisor, q.smoothing, q.epsilon, q.delta = divisor, smoothing, epsilon, delta
    values = np.empty(q.rows, y_pred.dtype)
    slope = np.empty((q.rows, q.classes), y_pred.dtype) if gradient else None
    q.values = cnp.PyArray_DATA(<cnp.ndarray>values)
    q.gradient = cnp.PyArray_DATA(<cnp.ndarray>slope) if gradient else NULL
    cdef const fr_functions *f = functions_of(build_named(isa), typenum)
    with nogil:
        f.loss(&q)
    return q.total, values, slope, q.wrong


# ---- dropout -------------------------------------------------------------------------------------------------------

cdef int dropout_call(fr_dropout_call *q, seed, call, draw, double rate, threads) except -1:
    if not 0 <= rate < 1:
        raise ValueError(f"rate must lie in [0, 1); received {rate}")
    if not (0 <= seed < 2**64 and 0 <= call < 2**64 and 0 <= draw < 2**32):
        raise ValueError(f"seed and call must lie in [0, 2**64), draw in [0, 2**32); received {seed}, {call}, {draw}")
    if q.n > MOST_NUMBERS:
        raise ValueError(f"one draw gives at most {MOST_NUMBERS} numbers; {q.n} are wanted")
    q.seed, q.call, q.draw, q.threads = seed, call, draw, threads_of(threads)
    q.least = min(round(rate * 4294967296.0), 4294967295)
    q.factor = 1 / (1 - rate)
    return 0


cdef Py_ssize_t MOST_NUMBERS = 2**34


def dropout(x, double rate, *, seed, call, draw=0, threads=1, isa=None):
    """y = x / (1 - rate) with probability 1 - rate, else 0; and which were kept, bool, for `dropout_gradient`."""
    cdef fr_dropout_call q
    cdef int typenum = real_type(x, "x")
    q.n = size_of(x)
    dropout_call(&q, seed, call, draw, rate, threads)
    q.x = data_of(x, typenum, x.shape, "x")
    y, kept = np.empty(x.shape, x.dtype), np.empty(x.shape, np.bool_)
    q.y, q.kept = cnp.PyArray_DATA(<cnp.ndarray>y), <unsigned char *>cnp.PyArray_DATA(<cnp.ndarray>kept)
    cdef const fr_functions *f = functions_of(build_named(isa), typenum)
    with nogil:
        f.dropout(&q)
    return y, kept


def dropout_gradient(dy, kept, double rate, *, threads=1, isa=None):
    """dy / (1 - rate) where kept, else 0."""
    cdef fr_dropout_call q
    cdef int typenum = real_type(dy, "dy")
    q.n = size_of(dy)
    dropout_call(&q, 0, 0, 0, rate, threads)
    q.x = data_of(dy, typenum, dy.shape, "dy")
    q.kept = <unsigned char *>needed_data_of(kept, cnp.NPY_BOOL, dy.shape, "kept")
    dx = np.empty(dy.shape, dy.dtype)
    q.y = cnp.PyArray_DATA(<cnp.ndarray>dx)
    cdef const fr_functions *f = functions_of(build_named(isa), typenum)
    with nogil:
        f.keep(&q)
    return dx


def dropout_factors(shape, dtype, double rate, *, seed, call, draw=0, threads=1, isa=None):
    """What `dropout` multiplies by: an array of 0 and 1 / (1 - rate)."""
    cdef fr_dropout_call q
    y = np.empty(shape, dtype)
    cdef int typenum = real_type(y, "factors")
    q.n = size_of(y)
    dropout_call(&q, seed, call, draw, rate, threads)
    q.x, q.kept, q.y = NULL, NULL, cnp.PyArray_DATA(<cnp.ndarray>y)
    cdef const fr_functions *f = functions_of(build_named(isa), typenum)
    with nogil:
        f.dropout(&q)
    return y


# ---- rows of tables ------------------------------------------------------------------------------------------------

cdef cnp.ndarray checked_ids(ids, Py_ssize_t rows):
    """ids as int64, each in [0, rows)."""
    ids = np.asarray(ids)
    if ids.dtype.kind not in "iu":
        raise TypeError(f"ids must be integers; received {ids.dtype}")
    ids = np.ascontiguousarray(ids, np.int64)
    cdef Py_ssize_t i, n = ids.size
    cdef const int64_t *id = <int64_t *>cnp.PyArray_DATA(<cnp.ndarray>ids)
    cdef int64_t low = 0, high = 0
    with nogil:
        for i in range(n):
            if id[i] < low:
                low = id[i]
            if id[i] > high:
                high = id[i]
    if n and (low < 0 or high >= rows):
        raise ValueError(f"ids must lie in [0, {rows}); received {low if low < 0 else high}")
    return ids


def gather_rows(table, ids, *, threads=1, isa=None):
    """table[ids]: shape ids.shape + (E,)."""
    cdef int typenum = real_type(table, "table"), most = threads_of(threads)
    shape_of(table, 2, "rows, E", "table")
    ids = checked_ids(ids, table.shape[0])
    cdef void *from_ = data_of(table, typenum, table.shape, "table")
    cdef Py_ssize_t width = table.shape[1], n = ids.size
    rows = np.empty(ids.shape + (table.shape[1],), table.dtype)
    cdef void *to = cnp.PyArray_DATA(<cnp.ndarray>rows)
    cdef int64_t *index = <int64_t *>cnp.PyArray_DATA(<cnp.ndarray>ids)
    cdef const fr_functions *f = functions_of(build_named(isa), typenum)
    with nogil:
        f.gather_rows(from_, width, index, to, n, most)
    return rows


def scatter_add_rows(gradient, ids, dy, *, threads=1, isa=None):
    """gradient[ids[i]] += dy[i], in the order of i."""
    cdef int typenum = real_type(gradient, "gradient"), most = threads_of(threads)
    shape_of(gradient, 2, "rows, E", "gradient")
    ids = checked_ids(ids, gradient.shape[0])
    cdef void *table = data_of(gradient, typenum, gradient.shape, "gradient", True)
    cdef void *rows = needed_data_of(dy, typenum, ids.shape + (gradient.shape[1],), "dy")
    cdef int64_t *index = <int64_t *>cnp.PyArray_DATA(<cnp.ndarray>ids)
    cdef Py_ssize_t width = gradient.shape[1], n = ids.size
    cdef const fr_functions *f = functions_of(build_named(isa), typenum)
    with nogil:
        f.scatter_add_rows(table, width, index, rows, n, most)


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
        cdef const int64_t *id = <int64_t *>cnp.PyArray_DATA(<cnp.ndarray>ids)
        cdef int64_t *order = <int64_t *>cnp.PyArray_DATA(<cnp.ndarray>self.order)
        cdef unsigned char *mark = <unsigned char *>cnp.PyArray_DATA(<cnp.ndarray>self.marks)
        cdef Py_ssize_t i, n = ids.size
        for i in range(n):
            if not mark[id[i]]:
                mark[id[i]] = 1
                order[self.count] = id[i]
                self.count += 1

    def clear(self, table=None):
        """Forgets them all; in `table` [rows, E] they become zero before."""
        cdef const int64_t *order = <int64_t *>cnp.PyArray_DATA(<cnp.ndarray>self.order)
        cdef unsigned char *mark = <unsigned char *>cnp.PyArray_DATA(<cnp.ndarray>self.marks)
        cdef Py_ssize_t i, width
        cdef char *to
        if table is not None:
            shape_of(table, 2, "rows, E", "table")
            to = <char *>data_of(table, real_type(table, "table"), (self.rows, table.shape[1]), "table", True)
            width = table.shape[1] * table.itemsize
            with nogil:
                for i in range(self.count):
                    memset(to + order[i] * width, 0, width)
        for i in range(self.count):
            mark[order[i]] = 0
        self.count = 0

    def all_finite(self, table):
        """Whether these rows of `table` [rows, E] hold neither NaN nor infinities."""
        cdef int typenum = real_type(table, "table"), finite = 1
        shape_of(table, 2, "rows, E", "table")
        cdef const char *from_ = <const char *>data_of(table, typenum, (self.rows, table.shape[1]), "table")
        cdef const int64_t *order = <int64_t *>cnp.PyArray_DATA(<cnp.ndarray>self.order)
        cdef Py_ssize_t i, width = table.shape[1], size = table.itemsize
        cdef const fr_functions *f = functions_of(chosen, typenum)
        with nogil:
            for i in range(self.count):
                if not f.all_finite(from_ + order[i] * width * size, width, 1):
                    finite = 0
                    break
        return finite == 1


def column_sum(a, out, *, threads=1, isa=None):
    """out [N] += a [M,N] summed over its rows, in their order."""
    cdef int typenum = real_type(a, "a"), most = threads_of(threads)
    if a.ndim != 2:
        raise ValueError(f"a must have shape (M, N); received {a.shape}")
    cdef Py_ssize_t M = a.shape[0], N = a.shape[1]
    cdef void *from_ = data_of(a, typenum, (M, N), "a")
    cdef void *to = needed_data_of(out, typenum, (N,), "out", True)
    cdef const fr_functions *f = functions_of(build_named(isa), typenum)
    with nogil:
        f.column_sum(from_, M, N, to, most)


# ---- flat vectors of weights ---------------------------------------------------------------------------------------

steps = {}
"""By name: (number of slots, number of coefficients) of what `update` can do."""
cdef dict step_index = {}
for _i in range(chosen.step_count):
    _name = chosen.steps[_i].name.decode()
    steps[_name], step_index[_name] = (chosen.steps[_i].slots, chosen.steps[_i].coefficients), _i


def update(name, values, gradient, slots=(), coefficients=(), *, Py_ssize_t width=0, Rows rows=None, threads=1, isa=None):
    """One pass over weights, gradients and what is kept of them, in place: the step called `name` (src/update.h).

    Args:
        name: one of `steps`.
        values: [N], or None where the step does not look at weights.
        gradient: [N], or None where it does not look at gradients.
        slots: [N] each.
        coefficients: numbers.
        width: if above 0, only rows of so many weights in which the gradient is not all zero take part.
        rows: with `width`, the only rows that may have a gradient.
    """
    cdef fr_update_call q
    found = step_index.get(name)
    if found is None:
        raise ValueError(f"no step {name!r}; there are: {', '.join(steps)}")
    cdef const fr_step_shape *shape = &chosen.steps[<int>found]
    if len(slots) != shape.slots or len(coefficients) != shape.coefficients:
        raise ValueError(f"{name} takes {shape.slots} slot(s) and {shape.coefficients} coefficient(s); "
                         f"received {len(slots)} and {len(coefficients)}")
    first = values if shape.w else gradient
    cdef int typenum = real_type(first, "values" if shape.w else "gradient"), i
    q.step, q.n, q.width, q.threads, q.w, q.g, q.rows, q.row_count = found, size_of(first), width, threads_of(threads), NULL, NULL, NULL, 0
    if shape.w:
        q.w = flat_data_of(values, typenum, q.n, "values", shape.w == 2)
    if shape.g:
        q.g = flat_data_of(gradient, typenum, q.n, "gradient", shape.g == 2)
    for i in range(shape.slots):
        q.slots[i] = flat_data_of(slots[i], typenum, q.n, f"slots[{i}]", True)
    for i in range(shape.coefficients):
        q.coefficients[i] = coefficients[i]
    if width < 0 or (width and (q.n % width or not shape.g)) or (rows is not None and (not width or rows.rows * width != q.n)):
        raise ValueError(f"{name}: {q.n} gradients are not rows of {width}, or not as many rows as `rows` knows")
    if rows is not None:
        q.rows, q.row_count = <int64_t *>cnp.PyArray_DATA(<cnp.ndarray>rows.order), rows.count
    cdef const fr_functions *f = functions_of(build_named(isa), typenum)
    with nogil:
        f.update(&q)


def all_finite(a, *, threads=1, isa=None):
    """Whether there is neither NaN nor an infinity in the array."""
    cdef int typenum = real_type(a, "a"), most = threads_of(threads), finite
    cdef void *from_ = data_of(a, typenum, a.shape, "a")
    cdef Py_ssize_t n = size_of(a)
    cdef const fr_functions *f = functions_of(build_named(isa), typenum)
    with nogil:
        finite = f.all_finite(from_, n, most)
    return finite == 1


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
