# cython: language_level=3, boundscheck=False, wraparound=False, freethreading_compatible=False
"""The one door between Python and the C kernels: checks arrays, lets go of the GIL, calls. Knows no cell by name.

Axes: B batch, T time, D features, H units, G gates. Arrays are C-contiguous, float32 or float64, one dtype a call.
"""

import os
import threading

import numpy as np

cimport numpy as cnp
from cpython.exc cimport PyErr_CheckSignals
from cpython.pythread cimport PyThread_get_thread_ident
from libc.math cimport isfinite
from libc.stdint cimport int32_t, int64_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

cnp.import_array()

cdef extern from *:
    """
    #if defined(__clang__)
    #define FR_COMPILER "Clang " __clang_version__
    #elif defined(__GNUC__)
    #define FR_COMPILER "GCC " __VERSION__
    #else
    #define FR_COMPILER "unknown"
    #endif
    """
    const char *FR_COMPILER "FR_COMPILER"


# ---- builds, cells, activations ------------------------------------------------------------------------------------

cdef int build_count
cdef const fr_build *const *builds = fr_builds(&build_count)
cdef const fr_build *chosen

compiled = tuple([builds[i].name.decode() for i in reversed(range(build_count))])
available = tuple([builds[i].name.decode() for i in reversed(range(build_count)) if fr_build_runs_here(builds[i])])


cdef const fr_build *build_named(name) except NULL:
    if name is None:
        return chosen
    for i in range(build_count):
        if name in available and builds[i].name.decode() == name:
            return builds[i]
    raise ValueError(f"unknown or unavailable build {name!r}; available here: {', '.join(available)}")


try:
    isa = os.environ.get("FASTRNN_ISA") or available[0]
    chosen = NULL
    chosen = build_named(isa)
except ValueError as error:
    raise ImportError(f"FASTRNN_ISA: {error}") from None

available = available[available.index(isa):]  # naming a build forbids those above it

activations = tuple([chosen.activations[i].decode() for i in range(chosen.activation_count)])
cdef dict activation_index = {name: i for i, name in enumerate(activations)}


class Cell:
    """What Python needs to know of a cell: `gates`, one letter each in the order of Keras' weight columns, the number
    of `states` and of `bias_rows`, and the `activations` it computes."""

    def __init__(self, name, gates, states, bias_rows, index):
        self.name, self.gates, self.states, self.bias_rows, self.index = name, gates, states, bias_rows, index
        self.activations = activations

    def __repr__(self):
        return f"<Cell {self.name} gates={self.gates} states={self.states}>"


cells = {}
for _i in range(fr_cell_count):
    _name = fr_cells[_i].name.decode()
    cells[_name] = Cell(_name, fr_cells[_i].gates.decode(), fr_cells[_i].states, fr_cells[_i].bias_rows, _i)


def config():
    """Facts about the compiled kernels: compiler, builds compiled, available and chosen, OpenMP."""
    return {"compiler": FR_COMPILER.decode(), "compiled": compiled, "available": available, "chosen": isa,
            "openmp": fr_openmp_version() or None}


# ---- checks --------------------------------------------------------------------------------------------------------

cdef inline const fr_functions *functions_of(const fr_build *build, int typenum) noexcept:
    return &build.f32 if typenum == cnp.NPY_FLOAT32 else &build.f64


cdef cnp.ndarray array_of(value, name):
    """`value`, which must be an array in the machine's byte order."""
    if not isinstance(value, np.ndarray):
        raise TypeError(f"{name} must be a NumPy array; received {type(value).__name__}")
    if not cnp.PyArray_ISNOTSWAPPED(<cnp.ndarray>value):
        raise TypeError(f"{name} must have the machine's byte order; received {value.dtype!r}")
    return <cnp.ndarray>value


cdef int real_type(array, name) except -1:
    """float32 or float64, as NumPy's type number."""
    cdef int typenum = cnp.PyArray_TYPE(array_of(array, name))
    if typenum != cnp.NPY_FLOAT32 and typenum != cnp.NPY_FLOAT64:
        raise TypeError(f"{name} must be float32 or float64; received {array.dtype}")
    return typenum


cdef void *data_of(array, int typenum, tuple shape, name, bint writeable=False) except? NULL:
    """The address of an array that must have this type and shape; NULL for None."""
    if array is None:
        return NULL
    cdef cnp.ndarray a = array_of(array, name)
    cdef int i
    if cnp.PyArray_TYPE(a) != typenum:
        raise TypeError(f"{name} must have dtype {np.dtype(cnp.PyArray_DescrFromType(typenum))}; received {array.dtype}")
    cdef bint same = a.ndim == len(shape)
    if same:
        for i in range(a.ndim):
            if a.shape[i] != <Py_ssize_t>shape[i]:
                same = False
    if not same:
        raise ValueError(f"{name} must have shape {shape}; received {array.shape}")
    if not cnp.PyArray_IS_C_CONTIGUOUS(a) or not cnp.PyArray_ISALIGNED(a):
        raise ValueError(f"{name} must be C-contiguous and aligned")
    if writeable and not cnp.PyArray_ISWRITEABLE(a):
        raise ValueError(f"{name} is read-only")
    return cnp.PyArray_DATA(a)


cdef void *rows_of(array, int typenum, Py_ssize_t B, Py_ssize_t T, Py_ssize_t H, name, ptrdiff_t *ld) except? NULL:
    """The address of a [B,T,H] array or of a part [B,T,H] of the columns of a wider one, and how far its rows are apart."""
    ld[0] = H
    if array is None:
        return NULL
    cdef cnp.ndarray a = array_of(array, name)
    if a.ndim != 3 or cnp.PyArray_IS_C_CONTIGUOUS(a):
        return data_of(array, typenum, (B, T, H), name)
    if cnp.PyArray_TYPE(a) != typenum or a.shape[0] != B or a.shape[1] != T or a.shape[2] != H:
        return data_of(np.ascontiguousarray(array), typenum, (B, T, H), name)  # says what is wrong
    cdef Py_ssize_t size = a.itemsize
    if a.strides[2] != size or a.strides[1] % size or a.strides[1] < H * size or a.strides[0] != T * a.strides[1] \
            or not cnp.PyArray_ISALIGNED(a):
        raise ValueError(f"{name} must be C-contiguous and aligned, or columns of such an array")
    ld[0] = a.strides[1] // size
    return cnp.PyArray_DATA(a)


cdef tuple shape_of(array, int ndim, letters, name):
    """The shape of an array that must have ndim axes, none of them empty."""
    if array_of(array, name).ndim != ndim or 0 in array.shape:
        raise ValueError(f"{name} must have shape ({letters}), none of them 0; received {array.shape}")
    return array.shape


cdef int threads_of(threads) except -1:
    if threads < 1:
        raise ValueError(f"threads must be at least 1; received {threads}")
    return min(threads, 1024)


cdef Py_ssize_t MOST_ROWS = 2**31 - 1


# ---- results -------------------------------------------------------------------------------------------------------

cdef class Block:
    """Memory of a result, which goes back to the kernels' buffers when the array is gone."""
    cdef void *memory

    def __dealloc__(self):
        fr_give_back(self.memory)


cdef size_t REUSED_FROM = 1 << 18, REUSED_TO = 1 << 26  # bytes; below, malloc reuses by itself; above, memory is better free


cdef cnp.ndarray new_array(tuple shape, int typenum):
    """np.empty, but the memory of middling arrays is used again: fresh pages cost more than what is written into them."""
    cdef cnp.npy_intp extent[64]
    cdef size_t bytes = 4 if typenum == cnp.NPY_FLOAT32 else 8
    cdef int i
    for i in range(len(shape)):
        extent[i] = shape[i]
        bytes *= extent[i]
    if bytes < REUSED_FROM or bytes > REUSED_TO:
        return cnp.PyArray_EMPTY(<int>len(shape), extent, typenum, 0)
    cdef Block block = Block.__new__(Block)
    block.memory = fr_take(bytes)
    if block.memory == NULL:
        raise MemoryError(f"no memory for a result of shape {shape}")
    array = cnp.PyArray_SimpleNewFromData(<int>len(shape), extent, typenum, block.memory)
    cnp.set_array_base(array, block)
    return array


# ---- interruption --------------------------------------------------------------------------------------------------

cdef class Call:
    """What a running kernel asks: has Python a signal to handle? Keeps the exception its handler raised."""
    cdef object error

    cdef fr_control control(self, int threads):
        return fr_control(threads, ask, <void *>self)

    cdef int finish(self, int status) except -1:
        if status == FR_INTERRUPTED:
            raise self.error
        if status == FR_NO_MEMORY:
            raise MemoryError("the recurrent kernels found no memory for their buffers")
        return 0


cdef int ask(void *call) noexcept nogil:
    with gil:
        try:
            PyErr_CheckSignals()
        except BaseException as error:
            (<Call>call).error = error
            return 1
    return 0


cdef extern from *:
    """
    #include <signal.h>
    static int fr_held; /* blocks of the main thread, one in another */
    #if defined(SA_SIGINFO)
    static volatile sig_atomic_t fr_pressed;
    static struct sigaction fr_before;
    static void fr_remember(int number) { (void)number; fr_pressed = 1; }

    static int fr_is_ignored(const struct sigaction *a) { return !(a->sa_flags & SA_SIGINFO) && a->sa_handler == SIG_IGN; }

    static void fr_hold(void)
    {
        if (fr_held++) return;
        sigaction(SIGINT, NULL, &fr_before);
        struct sigaction ours = fr_before;
        ours.sa_flags &= ~SA_SIGINFO;
        ours.sa_handler = fr_remember;
        if (!fr_is_ignored(&fr_before)) sigaction(SIGINT, &ours, NULL);
    }

    /* Puts the handler back, unless another one was put in place meanwhile. */
    static void fr_put_back(void)
    {
        struct sigaction now;
        sigaction(SIGINT, NULL, &now);
        if (!(now.sa_flags & SA_SIGINFO) && now.sa_handler == fr_remember) sigaction(SIGINT, &fr_before, NULL);
    }

    static void fr_release(void)
    {
        if (fr_held == 0 || --fr_held) return;
        fr_put_back();
        if (fr_pressed) {
            fr_pressed = 0;
            raise(SIGINT);
        }
    }

    /* In a forked child, which may come from another thread than the one that holds. */
    static void fr_release_child(void)
    {
        if (fr_held) fr_put_back();
        fr_held = fr_pressed = 0;
    }
    #else
    static void fr_hold(void) { fr_held++; }
    static void fr_release(void) { fr_held--; }
    static void fr_release_child(void) { fr_held = 0; }
    #endif
    """
    void fr_hold()
    void fr_release()
    void fr_release_child()


cdef class uninterrupted:
    """Holds Ctrl-C back until a block is done, so that it ends between two updates of weights and never inside one:

        with uninterrupted():
            ...

    For so long a handler of C's is in the place of whatever answers SIGINT. Python asks the main thread alone for its answer,
    so that blocks of others need no holding.
    """
    cdef bint holds

    def __enter__(self):
        self.holds = threading.current_thread() is threading.main_thread()
        if self.holds:
            fr_hold()
            try:
                PyErr_CheckSignals()  # what came before
            except BaseException:
                fr_release()
                raise

    def __exit__(self, *_):
        if self.holds:
            fr_release()
            PyErr_CheckSignals()


include "recordings.pxi"


# ---- weights -------------------------------------------------------------------------------------------------------

cdef class Packed:
    """Weights of one cell, re-ordered for one build of the kernels. Immutable; may serve several threads at once."""
    cdef fr_packed *memory
    cdef const fr_build *build
    cdef int typenum
    cdef Py_ssize_t D, H
    cdef readonly object cell
    cdef readonly bint backward

    def __dealloc__(self):
        if self.memory != NULL:
            fr_packed_free(self.memory)

    def __reduce__(self):
        raise TypeError("packed weights are not to be pickled: pack the weights again")


def pack(cell, kernel, recurrent_kernel, bias=None, *, backward=False, isa=None, threads=1):
    """Packs kernel [D, G*H], recurrent_kernel [H, G*H] and bias [G*H] (or [bias_rows, G*H]) of the cell called `cell`.

    `backward` also packs the transposes that `backward()` needs.
    """
    if cell not in cells:
        raise ValueError(f"unknown cell {cell!r}; known are: {', '.join(cells)}")
    kind = cells[cell]
    cdef int G = len(kind.gates), typenum = real_type(kernel, "kernel")
    cdef PackWork work = PackWork.__new__(PackWork)
    cdef fr_pack_call *q = &work.q
    cdef Py_ssize_t D = shape_of(kernel, 2, f"D, {G}*H", "kernel")[0]
    cdef Py_ssize_t H = shape_of(recurrent_kernel, 2, f"H, {G}*H", "recurrent_kernel")[0]
    width = G * H
    if (D + H) * width > 2**60:
        raise ValueError(f"weights of D={D}, H={H} are too large")
    q.cell, q.D, q.H, q.backward = kind.index, D, H, backward
    q.kernel = data_of(kernel, typenum, (D, width), "kernel")
    q.recurrent_kernel = data_of(recurrent_kernel, typenum, (H, width), "recurrent_kernel")
    q.bias = data_of(bias, typenum, (width,) if kind.bias_rows == 1 else (kind.bias_rows, width), "bias")
    work.cell, work.build, work.typenum, work.threads = kind, build_named(isa), typenum, threads_of(threads)
    work.f = functions_of(work.build, typenum)
    perform(work, (kernel, recurrent_kernel, bias), ())
    return work.packed


cdef class PackWork(Work):
    cdef fr_pack_call q
    cdef object cell
    cdef const fr_build *build
    cdef int typenum, threads
    cdef Packed packed  # of the last run: packed weights that somebody uses are not written over

    cdef int run(self) except -1:
        cdef Packed packed = Packed.__new__(Packed)
        packed.D, packed.H, packed.typenum, packed.build = self.q.D, self.q.H, self.typenum, self.build
        packed.cell, packed.backward = self.cell, self.q.backward
        cdef Call call = Call()
        self.q.control = call.control(self.threads)
        self.q.control.interrupted = NULL
        cdef int status
        with nogil:
            status = self.f.pack(&self.q, &packed.memory)
        call.finish(status)
        self.packed = packed
        return 0

    cdef void release(self):
        self.packed = None


# ---- plain products ------------------------------------------------------------------------------------------------

def product(a, b, *, bint transpose_a=False, bint transpose_b=False, bias=None, sums=None, out=None, bint accumulate=False,
            threads=1, isa=None):
    """op(a) op(b) + bias, [M,N]; with `accumulate` it is added to `out`. The same bits for any number of threads.

    With `transpose_a`, sums [N] += the sums of b's columns.
    """
    cdef int typenum = real_type(a, "a")
    cdef ProductWork work = ProductWork.__new__(ProductWork)
    cdef fr_product_call *q = &work.q
    if transpose_a and transpose_b:
        raise ValueError("at most one of transpose_a, transpose_b")
    shape_of(a, 2, "K, M" if transpose_a else "M, K", "a")
    shape_of(b, 2, "N, K" if transpose_b else "K, N", "b")
    q.M, q.K = (a.shape[1], a.shape[0]) if transpose_a else a.shape
    q.N = b.shape[0] if transpose_b else b.shape[1]
    q.transpose_a, q.transpose_b, q.accumulate = transpose_a, transpose_b, accumulate
    if accumulate and (out is None or bias is not None):
        raise ValueError("accumulate needs out, and takes no bias")
    q.a = data_of(a, typenum, a.shape, "a")
    q.b = data_of(b, typenum, (q.N, q.K) if transpose_b else (q.K, q.N), "b")
    q.bias = data_of(bias, typenum, (q.N,), "bias")
    if bias is not None and transpose_a:
        raise ValueError("bias is for products without transpose_a")
    q.sums = data_of(sums, typenum, (q.N,), "sums", True)
    if sums is not None and not transpose_a:
        raise ValueError("sums are for products with transpose_a")
    if out is None:
        out = new_array((q.M, q.N), typenum)
    q.c = data_of(out, typenum, (q.M, q.N), "out", True)
    work.f, work.threads = functions_of(build_named(isa), typenum), threads_of(threads)
    perform(work, (a, b, bias, sums, out) if accumulate else (a, b, bias, sums), (out, sums))
    return out


cdef class ProductWork(Work):
    cdef fr_product_call q
    cdef int threads

    cdef int run(self) except -1:
        cdef Call call = Call()
        self.q.control = call.control(self.threads)
        cdef int status
        with nogil:
            status = self.f.product(&self.q)
        return call.finish(status)


include "sequences.pxi"
include "elementwise.pxi"
include "streams.pxi"
