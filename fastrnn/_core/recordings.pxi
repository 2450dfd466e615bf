# Recordings: calls of the kernels that are done again and again over the same memory. Included by kernels.pyx.

cdef class Taking
cdef class Update


cdef class Work:
    """One call of a kernel, bound to its arrays, which it keeps alive. `run` may be called again: it then reads what the
    arrays hold by that time, and writes over what it wrote before."""
    cdef const fr_functions *f
    cdef tuple arrays

    cdef int run(self) except -1:
        raise NotImplementedError

    cdef bint bind(self, dict packs) except -1:
        """Finds the works among `packs` that make the weights of this one, so that new weights reach it. Says whether
        all were found."""
        return True

    cdef void release(self):
        """Lets packed weights go, which every run finds anew."""


class OutOfRange(ValueError):
    """Numbers of rows or classes that there are not."""


cdef Recording recorder = None  # the one that is being made, if there is one


def _after_fork():
    """In a forked child. The thread that was making a recording is not there, or has done something else in between."""
    global recorder
    fr_release_child()
    if recorder is not None:
        recorder.refuse()
    recorder = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


cdef int perform(Work work, tuple reads, tuple writes) except -1:
    """Runs it and, where a recording is being made in this thread, takes it in. None stands for an array not given."""
    work.run()
    if is_recorded():
        recorder.take(work, reads, writes)
    return 0


cpdef bint is_recorded() except -1:
    """Whether a recording is being made in this thread, in which weights must be packed even if they were already."""
    return recorder is not None and recorder.thread == PyThread_get_thread_ident()


cdef class Recording:
    """What the kernels do in a `with` block, to be done again by `replay` without the Python in between.

        with Recording([x, y, weights, gradients], most_bytes=1 << 24) as recording:
            ...                         # calls of kernels and nothing else that touches numbers
        if recording.complete:
            x[...], y[...] = ...
            recording.replay()          # every call once more, in order, into the same arrays

    It is complete if whatever a kernel read is one of the `arrays` or came out of a kernel before, so that nothing that
    NumPy made in between is missing. Who writes with NumPy into arrays of the kernels is not found out: only code that
    does not may be recorded. While one recording is made, in whichever thread, another comes out not complete.

    Args:
        arrays: what is there before: inputs, weights, gradients.
        most_bytes: if the results take more memory than this, which `replay` holds on to, it is not complete.

    Attributes:
        complete: whether it can be replayed.
        totals: of the losses, in their order, after the last run.
        finite: whether what was checked to be finite was so in the last run.
        bytes: that the results take.
        updates: made in the last `train`.
    """
    cdef readonly bint complete
    cdef readonly Py_ssize_t updates
    cdef unsigned long thread
    cdef list works, bounds, losses, checks
    cdef dict packs
    cdef readonly size_t bytes
    cdef size_t most_bytes

    def __init__(self, arrays, size_t most_bytes):
        self.works, self.bounds, self.packs, self.most_bytes = [], [], {}, most_bytes
        self.losses, self.checks = [], []
        for array in arrays:
            self.learn(array)

    def __enter__(self):
        global recorder
        self.complete = recorder is None and not self.works
        if self.complete:
            self.thread, recorder = PyThread_get_thread_ident(), self
        return self

    def __exit__(self, *_):
        global recorder
        if recorder is self:
            recorder = None
        if _[0] is not None:
            self.refuse()
        self.packs = {}
        self.release()

    cdef void release(self):
        cdef Work work
        for work in self.works:
            work.release()

    def __reduce__(self):
        raise TypeError("a recording is bound to memory and does not pickle or copy")

    cdef int learn(self, array) except -1:
        """Takes note that this memory holds what a replay will find there."""
        cdef cnp.ndarray a = <cnp.ndarray?>array
        cdef size_t start = <size_t>cnp.PyArray_DATA(a)
        self.bounds.append((start, start + cnp.PyArray_NBYTES(a), a))
        return 0

    cdef bint knows(self, array) except -1:
        if array is None:
            return True
        cdef size_t start = <size_t>cnp.PyArray_DATA(<cnp.ndarray>array)
        for first, stop, _ in self.bounds:
            if first <= start < stop:
                return True
        return False

    def holds(self, array):
        """Whether a replay finds or makes what this array holds."""
        return self.complete and self.knows(array)

    cdef int take(self, Work work, tuple reads, tuple writes) except -1:
        if not self.complete:
            return 0
        for array in reads:
            if not self.knows(array):
                self.refuse()
                return 0
        if not work.bind(self.packs):
            self.refuse()
            return 0
        for array in writes:
            if array is not None and not self.knows(array):
                self.bytes += array.nbytes
                if self.bytes > self.most_bytes:
                    self.refuse()
                    return 0
                self.learn(array)
        if isinstance(work, PackWork):
            self.packs[(<PackWork>work).packed] = work
        elif isinstance(work, LossWork):
            self.losses.append(work)
        elif isinstance(work, FiniteWork):
            self.checks.append(work)
        work.arrays = (reads, writes)
        self.works.append(work)
        return 0

    cdef void refuse(self):
        self.complete = False
        self.works, self.bounds, self.packs, self.losses, self.checks = [], [], {}, [], []

    def replay(self):
        """Does it all again. Says whether every label was a class and every id a row; if not, the arrays hold nothing of
        use, and nothing random was drawn."""
        return self.again()

    def train(self, Taking taking not None, ids, passes, coefficients, sums, *, threads=1):
        """Several steps of training: takes rows, does it all again, updates, takes the next rows. It ends early before a batch
        that `replay` would refuse, and with one whose losses, or what was checked, are not finite, which makes no update.

        Args:
            taking: puts rows where the recording reads them.
            ids: int64 [steps * rows of a step].
            passes: the `Update`s of a step.
            coefficients: of each step, those of each pass.
            sums: float64 arrays of one number each that the recording makes.

        Returns:
            Of each step the sum of the losses, each loss, and the sums.
        """
        cdef Update update
        cdef Py_ssize_t step, n = taking.n, count = len(coefficients)
        cdef double total, part
        cdef int most = threads_of(threads)
        found, self.updates = [], 0
        needed_data_of(ids, cnp.NPY_INT64, (count * n,), "ids")
        for numbers in coefficients:
            if None in passes or len(numbers) != len(passes):
                raise ValueError(f"every step needs coefficients for each of {len(passes)} passes; received {numbers}")
        for step in range(count):
            taking.run(ids[step * n:(step + 1) * n], threads=most)
            if not self.again():
                break
            parts, total = self.totals, 0
            for part in parts:
                total += part
            found.append((total, parts, [a.item() for a in sums]))
            if not isfinite(total) or not self.finite:
                break
            for update, numbers in zip(passes, coefficients[step]):
                update.once(numbers, most)
            self.updates += 1
        return found

    cdef bint again(self) except -1:
        cdef Work work
        cdef Py_ssize_t done = 0
        if not self.complete:
            raise RuntimeError("this recording is not complete and cannot be replayed")
        try:
            for work in self.works:
                work.run()
                done += 1
        except OutOfRange:
            for work in self.works[:done]:
                if isinstance(work, CountWork):
                    (<CountWork>work).counter.value -= 1
            return False
        except BaseException:
            self.refuse()
            raise
        self.release()
        return True

    @property
    def totals(self):
        cdef LossWork work
        return [work.q.total for work in self.losses]

    @property
    def finite(self):
        cdef FiniteWork work
        for work in self.checks:
            if not work.finite:
                return False
        return True


cdef class ClearWork(Work):
    cdef void *to
    cdef size_t bytes

    cdef int run(self) except -1:
        memset(self.to, 0, self.bytes)
        return 0


def clear(array):
    """Makes all numbers of `array` zero."""
    cdef ClearWork work = ClearWork.__new__(ClearWork)
    work.to = needed_data_of(array, real_type(array, "array"), array.shape, "array", True)
    work.bytes = array.nbytes
    perform(work, (), (array,))


cdef class NumpyWork(Work):
    cdef object function, out
    cdef tuple given
    cdef dict options

    cdef int run(self) except -1:
        self.function(*self.given, out=self.out, **self.options)
        return 0


def in_numpy(function, *given, out, **options):
    """function(*given, out=out, **options), of NumPy, as a call that is recorded. Returns `out`."""
    cdef NumpyWork work = NumpyWork.__new__(NumpyWork)
    work.function, work.given, work.out, work.options = function, given, out, options
    perform(work, tuple([a for a in given if isinstance(a, np.ndarray)]), (out,))
    return out
