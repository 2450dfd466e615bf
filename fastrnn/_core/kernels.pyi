"""Types of the compiled door; what each function does is said in kernels.pyx and _core/README.md."""

from collections.abc import Sequence
from typing import Any

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
    threads: int = 1,
) -> tuple[Array | None, tuple[Array, ...], Array, Tape | None]: ...
def backward(
    packed: Packed,
    tape: Tape,
    dsequence: Array | None = None,
    dlast: Array | None = None,
    dfinal: Sequence[Array | None] | None = None,
    *,
    dkernel: Array | None = None,
    drecurrent_kernel: Array | None = None,
    dbias: Array | None = None,
    input_gradient: bool = True,
    threads: int = 1,
) -> tuple[Array | None, tuple[Array, ...]]: ...
def product(
    a: Array,
    b: Array,
    *,
    transpose_a: bool = False,
    transpose_b: bool = False,
    bias: Array | None = None,
    out: Array | None = None,
    accumulate: bool = False,
    threads: int = 1,
    isa: str | None = None,
) -> Array: ...
def gather_rows(table: Array, ids: Array) -> Array: ...
def scatter_add_rows(gradient: Array, ids: Array, dy: Array) -> None: ...
def column_sum(a: Array, out: Array) -> None: ...
def activate(name: str, x: Array, isa: str | None = None) -> Array: ...
def softmax(x: Array, isa: str | None = None) -> Array: ...
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
