"""Types of the compiled door; what each function does is said in kernels.pyx, its .pxi files and _core/README.md."""

from collections.abc import Callable, Sequence
from typing import Any, Self

from numpy.typing import NDArray

Array = NDArray[Any]

isa: str
compiled: tuple[str, ...]
available: tuple[str, ...]
activations: tuple[str, ...]

class Cell:
    name: str
    gates: str
    states: int
    bias_rows: int
    activations: tuple[str, ...]

cells: dict[str, Cell]

class Packed:
    cell: Cell
    backward: bool

class Tape: ...

class Forward:
    packed: Packed
    sequence: Array | None
    last: Array
    final_state: tuple[Array, ...]
    tape: Tape | None
    def __init__(
        self,
        packed: Packed,
        x: Array,
        initial_state: Sequence[Array | None] | None = None,
        mask: Array | None = None,
        *,
        activation: str = "tanh",
        recurrent_activation: str = "sigmoid",
        go_backwards: bool = False,
        original_time: bool = False,
        zero_output_for_mask: bool = False,
        return_sequences: bool = True,
        record: bool = False,
        input_dropout: Array | None = None,
        recurrent_dropout: Array | None = None,
        out: Array | None = None,
    ) -> None: ...

class Backward:
    dx: Array | None
    dinitial: tuple[Array, ...]
    def __init__(
        self,
        packed: Packed,
        tape: Tape,
        dsequence: Array | None = None,
        dlast: Array | None = None,
        dfinal: Sequence[Array | None] | None = None,
        *,
        dkernel: Array | None = None,
        drecurrent_kernel: Array | None = None,
        dbias: Array | None = None,
        accumulate: bool = True,
        input_gradient: bool = True,
    ) -> None: ...

def run_forward(first: Forward, second: Forward | None = None, *, threads: int = 1) -> None: ...
def run_backward(first: Backward, second: Backward | None = None, *, threads: int = 1) -> None: ...
def config() -> dict[str, Any]: ...
def pack(
    cell: str,
    kernel: Array,
    recurrent_kernel: Array,
    bias: Array | None = None,
    *,
    backward: bool = False,
    isa: str | None = None,
    threads: int = 1,
) -> Packed: ...
def forward(
    *args: Any, threads: int = 1, **options: Any
) -> tuple[Array | None, tuple[Array, ...], Array, Tape | None]: ...
def backward(*args: Any, threads: int = 1, **options: Any) -> tuple[Array | None, tuple[Array, ...]]: ...
def product(
    a: Array,
    b: Array,
    *,
    transpose_a: bool = False,
    transpose_b: bool = False,
    bias: Array | None = None,
    sums: Array | None = None,
    out: Array | None = None,
    accumulate: bool = False,
    threads: int = 1,
    isa: str | None = None,
) -> Array: ...

# recordings.pxi

class OutOfRange(ValueError): ...

class uninterrupted:
    def __enter__(self) -> None: ...
    def __exit__(self, *_: object) -> None: ...

class Recording:
    complete: bool
    totals: list[float]
    finite: bool
    bytes: int
    updates: int
    def __init__(self, arrays: Sequence[Array], most_bytes: int) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, *_: object) -> None: ...
    def holds(self, array: Array | None) -> bool: ...
    def replay(self) -> bool: ...
    def train(
        self,
        taking: Taking,
        ids: Array,
        passes: Sequence[Update],
        coefficients: Sequence[Sequence[Sequence[float]]],
        sums: Sequence[Array],
        *,
        threads: int = 1,
    ) -> list[tuple[float, list[float], list[float]]]: ...

def is_recorded() -> bool: ...
def clear(array: Array) -> None: ...
def in_numpy(function: Callable[..., Any], *given: Any, out: Array, **options: Any) -> Array: ...

# elementwise.pxi

losses: tuple[str, ...]
steps: dict[str, tuple[int, int]]

def activate(name: str, x: Array, isa: str | None = None, *, threads: int = 1) -> Array: ...
def softmax(x: Array, *, out: Array | None = None, threads: int = 1, isa: str | None = None) -> Array: ...
def argmax_rows(x: Array, *, threads: int = 1, isa: str | None = None) -> Array: ...
def same_argmax(x: Array, other: Array, *, threads: int = 1, isa: str | None = None) -> Array: ...
def loss(
    name: str,
    y_true: Array,
    y_pred: Array,
    *,
    kept: Array | None = None,
    weights: Array | None = None,
    divisor: float = 1,
    gradient: bool = True,
    softmax: bool = False,
    smoothing: float = 0,
    epsilon: float = 0,
    delta: float = 1,
    threads: int = 1,
    isa: str | None = None,
) -> tuple[float, Array, Any, int]: ...

class Counter:
    value: int
    def __init__(self, value: int = 0) -> None: ...
    def count(self) -> Counter: ...

def dropout(
    x: Array, rate: float, *, seed: int, call: int | Counter, draw: int = 0, threads: int = 1, isa: str | None = None
) -> tuple[Array, Array]: ...
def dropout_gradient(dy: Array, kept: Array, rate: float, *, threads: int = 1, isa: str | None = None) -> Array: ...
def dropout_factors(
    shape: tuple[int, ...],
    dtype: Any,
    rate: float,
    *,
    seed: int,
    call: int | Counter,
    draw: int = 0,
    threads: int = 1,
    isa: str | None = None,
) -> Array: ...
def gather_rows(table: Array, ids: Array, *, threads: int = 1, isa: str | None = None) -> Array: ...
def scatter_add_rows(gradient: Array, ids: Array, dy: Array, *, threads: int = 1, isa: str | None = None) -> None: ...

class Taking:
    def __init__(self, tables: Sequence[Array], out: Sequence[Array]) -> None: ...
    def run(self, ids: Array, *, threads: int = 1) -> None: ...

class Rows:
    rows: int
    def __init__(self, rows: int) -> None: ...
    def __len__(self) -> int: ...
    @property
    def ids(self) -> Array: ...
    def add(self, ids: Array) -> None: ...
    def clear(self, table: Array | None = None) -> None: ...
    def all_finite(self, table: Array) -> bool: ...

class Update:
    def __init__(
        self,
        name: str,
        values: Array | None,
        gradient: Array | None,
        slots: Sequence[Array] = (),
        *,
        width: int = 0,
        rows: Rows | None = None,
        isa: str | None = None,
    ) -> None: ...
    def run(self, coefficients: Sequence[float] = (), *, threads: int = 1) -> None: ...

def update(
    name: str,
    values: Array | None,
    gradient: Array | None,
    slots: Sequence[Array] = (),
    coefficients: Sequence[float] = (),
    *,
    width: int = 0,
    rows: Rows | None = None,
    threads: int = 1,
    isa: str | None = None,
) -> None: ...
def all_finite(a: Array, *, threads: int = 1, isa: str | None = None) -> bool: ...
def squared_norm(a: Array, *, threads: int = 1, isa: str | None = None) -> float: ...

# streams.pxi

def next_version() -> int: ...

class PackedDense: ...

def pack_dense(kernel: Array, bias: Array | None = None, *, isa: str | None = None) -> PackedDense: ...

class Stream:
    batch_size: int
    state: list[tuple[Array, ...]]
    def __init__(
        self,
        dtype: str,
        batch_size: int,
        columns: int | None,
        operations: Sequence[Any],
        isa: str | None = None,
    ) -> None: ...
    def step(self, x: Any, out: Array | None = None) -> Array: ...
    def reset(self, rows: Any = None) -> None: ...
