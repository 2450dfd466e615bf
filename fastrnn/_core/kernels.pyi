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
    out: Array | None = None,
    accumulate: bool = False,
    threads: int = 1,
    isa: str | None = None,
) -> Array: ...
def gather_rows(table: Array, ids: Array) -> Array: ...
def scatter_add_rows(gradient: Array, ids: Array, dy: Array) -> None: ...
def column_sum(a: Array, out: Array) -> None: ...
def activate(name: str, x: Array, isa: str | None = None) -> Array: ...
