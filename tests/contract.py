"""One battery for every layer: what the protocol promises, checked on small random inputs.

    check_layer(lambda **options: Dense(3, activation="tanh", **options), (4, 5))

The factory takes `name`, `dtype` and whatever else the layer's base class takes, and makes a new layer of the same
configuration each time. Everything is compared bit by bit but for finite differences and float32 against float64.
"""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from fastrnn import graph, registry, threads
from fastrnn.layers.input import Input
from fastrnn.layers.layer import Layer
from fastrnn.states import Context, StateStore

Array = np.ndarray
Factory = Callable[..., Layer]


@dataclass
class Case:
    """What `check_layer` was given, and how inputs are drawn."""

    factory: Factory
    shapes: list[tuple[int, ...]]
    several: bool
    integers: int | None
    masked: bool
    training: bool
    scale: float
    custom_objects: dict[str, Any]

    def inputs(self, seed: int = 0) -> Any:
        """Random inputs in float64 (or integers), kept away from 0, where many derivatives jump."""
        draw = np.random.default_rng(seed)
        if self.integers is not None:
            xs = [draw.integers(0, self.integers, s) for s in self.shapes]
        else:
            xs = [self.scale * draw.choice([-1, 1], s) * draw.uniform(0.1, 1, s) for s in self.shapes]
        return xs if self.several else xs[0]

    def mask(self) -> Any:
        """(batch, time): holes, a first step that is masked, a row of padding, a row that is whole."""
        if not self.masked:
            return [None] * len(self.shapes) if self.several else None
        masks: list[Array | None] = []
        for i, (batch, time, *_) in enumerate(self.shapes if self.several else self.shapes[:1]):
            if i and len(self.shapes[i]) < 3:  # an initial state
                masks.append(None)
                continue
            mask = np.random.default_rng(1).random((batch, time)) < 0.6
            mask[0] = True
            mask[-1, 0] = False
            if batch > 2:
                mask[1] = False
            masks.append(mask)
        return masks if self.several else masks[0]

    def layer(self, dtype: str = "float64") -> Layer:
        """A built layer with random weights, the same ones each time."""
        layer = self.factory(name="layer", dtype=dtype)
        layer.build(self.shapes if self.several else self.shapes[0])
        draw = np.random.default_rng(2)
        layer.set_weights([draw.uniform(-0.8, 0.8, w.shape) for w in layer.weights])
        for inner in flatten(layer):
            inner.random_seed = 7
        return layer


@dataclass
class Result:
    """Outputs and gradients of one forward and backward pass."""

    y: list[Array]
    masks: list[Array | None]
    dx: list[Array | None]
    gradients: list[Array]

    def arrays(self) -> list[Array | None]:
        return [*self.y, *self.dx, *self.gradients]


def flatten(layer: Layer) -> Iterator[Layer]:
    yield layer
    for inner in layer.sublayers:
        yield from flatten(inner)


@contextmanager
def use_threads(count: int) -> Iterator[None]:
    before = threads.get_num_threads()
    threads.set_num_threads(count)
    try:
        yield
    finally:
        threads.set_num_threads(before)


def check_layer(
    factory: Factory,
    shapes: Any,
    *,
    integers: int | None = None,
    masked: bool = False,
    training: bool = False,
    padding: str = "valid",
    smooth: bool = True,
    scale: float = 1.0,
    forward_tolerance: float = 5e-6,
    gradient_tolerance: float = 2e-5,
    custom_objects: dict[str, Any] | None = None,
) -> None:
    """Checks all promises of a layer; raises AssertionError.

    Args:
        factory: makes the layer from `name` and `dtype`.
        shapes: of the input, or a list of them; sizes, batch first.
        integers: draws whole numbers below this instead of floats; they have no gradient.
        masked: gives a mask (batch, time) with each input of three or more axes (two, for integers).
        training: calls with training=True; every call draws the same random numbers.
        padding: with `masked`, what NaN in masked steps may not change: "valid", gradients of the weights and what
            stands at valid steps; "everything", any bit of any output; "nothing" skips the check.
        smooth: whether float32 may be compared with float64 and finite differences are defined.
        scale: size of the inputs.
        forward_tolerance, gradient_tolerance: of float32, relative to the norm of the tensor.
        custom_objects: names the configuration needs.
    """
    several = isinstance(shapes, list)
    case = Case(
        factory, shapes if several else [shapes], several, integers, masked, training, scale, custom_objects or {}
    )
    check_configuration(case)
    check_declared(case)
    check_symbolic_call(case)
    check_copies(case)
    check_reentrance(case)
    check_gradients_add_up(case)
    check_unneeded(case)
    check_threads(case)
    if smooth:
        check_finite_differences(case)
        check_float32(case, forward_tolerance, gradient_tolerance)
    if masked and padding != "nothing" and integers is None:
        check_padding(case, everything=padding == "everything")


def run(
    case: Case, layer: Layer, x: Any = None, dy: Any = None, *, record: bool = True, input_gradient: bool = True
) -> Result:
    """Forward, and backward of `dy` (drawn if None). Gradients of the weights start from zero."""
    x, mask = layer.cast(case.inputs() if x is None else x), case.mask()
    for w in layer.weights:
        w.gradient[...] = 0
    context = Context(training=case.training, record=record, input_gradient=input_gradient, store=StateStore())
    y, saved = layer.forward(x, mask, context)
    ys = graph.as_list(y)
    masks = layer.output_mask(x, mask)
    masks = masks if isinstance(masks, list) else [masks] * len(ys)
    dxs: list[Array | None] = []
    if record:
        dy = gradients_for(ys) if dy is None else dy
        dx = layer.backward(saved, dy if isinstance(y, list) else dy[0])
        dxs = dx if isinstance(dx, list) else [dx]
    return Result(ys, masks, dxs, [w.gradient.copy() for w in layer.weights])


def gradients_for(ys: list[Array], seed: int = 3) -> list[Array]:
    draw = np.random.default_rng(seed)
    return [draw.standard_normal(y.shape).astype(y.dtype) for y in ys]


def same_bits(a: Result | list[Any], b: Result | list[Any]) -> bool:
    left, right = (r.arrays() if isinstance(r, Result) else r for r in (a, b))
    bits = [[None if a is None else (a.dtype, a.shape, a.tobytes()) for a in arrays] for arrays in (left, right)]
    return bits[0] == bits[1]


def check_configuration(case: Case) -> None:
    """A layer rebuilt from its configuration, by way of JSON, computes the same bits."""
    layer = case.layer()
    text = json.dumps(registry.serialize(layer))
    twin = registry.deserialize(json.loads(text), case.custom_objects)
    assert type(twin) is type(layer)
    assert json.dumps(registry.serialize(twin)) == text
    assert twin.name == layer.name and twin.dtype == layer.dtype
    x = layer.cast(case.inputs())
    twin.build([v.shape for v in x] if case.several else x.shape)
    assert [w.path for w in twin.weights] == [w.path for w in layer.weights]
    twin.set_weights(layer.get_weights())
    for inner in flatten(twin):
        inner.random_seed = 7
    assert same_bits(run(case, layer), run(case, twin))
    assert twin.count_params() == sum(w.values.size for w in layer.weights)
    assert repr(layer).startswith(type(layer).__name__ + "(")


def check_declared(case: Case) -> None:
    """Shapes, dtypes and masks come out as declared, and what went in is left alone."""
    for dtype in ("float32", "float64"):
        layer = case.layer(dtype)
        x = layer.cast(case.inputs())
        before, mask = copy.deepcopy(x), case.mask()
        result = run(case, layer, x)
        declared = layer.output_shape([v.shape for v in x] if case.several else x.shape)
        assert [y.shape for y in result.y] == (declared if isinstance(declared, list) else [declared])
        expected = layer.output_dtype([v.dtype.name for v in x] if case.several else x.dtype.name)
        assert {y.dtype.name for y in result.y} == {expected}
        for y, m in zip(result.y, result.masks, strict=True):
            assert m is None or (m.dtype == bool and m.ndim >= 2 and m.shape == y.shape[: m.ndim])
        for v, dx in zip(graph.as_list(x), result.dx or [None], strict=False):
            assert dx is None or (dx.shape == v.shape and dx.dtype == v.dtype)
        for gradient, w in zip(result.gradients, layer.weights, strict=True):
            assert gradient.shape == w.shape and w.dtype == dtype
        assert same_bits(graph.as_list(before), graph.as_list(x))
        assert same_bits(graph.as_list(mask), graph.as_list(case.mask()))


def check_symbolic_call(case: Case) -> None:
    """A symbolic call with batch and time unknown declares shapes that fit, and builds a layer of the same outputs."""
    layer = case.layer()
    eager = layer(case.inputs(), mask=case.mask(), training=False)
    x = case.inputs()
    inputs = [
        Input((None, *s[2:]) if len(s) > 2 and _time_is_free(case) else s[1:], dtype=v.dtype.name)
        for s, v in zip(case.shapes, x if case.several else [x], strict=True)
    ]
    twin = case.factory(name="layer", dtype="float64")
    outputs = graph.as_list(twin(inputs if case.several else inputs[0]))
    twin.set_weights(layer.get_weights())
    ys, _ = twin.forward(twin.cast(x), case.mask(), Context())
    assert same_bits(graph.as_list(eager), graph.as_list(ys))
    strided = [np.asfortranarray(v) for v in graph.as_list(x)]
    layer.reset_state()
    again = layer(strided if case.several else strided[0], mask=case.mask(), training=False)
    assert same_bits(graph.as_list(eager), graph.as_list(again)), "the order in memory of an input matters"
    for tensor, y in zip(outputs, graph.as_list(ys), strict=True):
        assert tensor.dtype == y.dtype.name and len(tensor.shape) == y.ndim
        assert all(n is None or n == m for n, m in zip(tensor.shape, y.shape, strict=True))
    assert twin.output is outputs[0].node.outputs and twin.input is outputs[0].node.inputs


def _time_is_free(case: Case) -> bool:
    """Whether the layer can be built without knowing the number of steps."""
    shapes = [(None, None, *s[2:]) if len(s) > 2 else s for s in case.shapes]
    try:
        case.factory(name="layer", dtype="float64").check_shape(shapes if case.several else shapes[0])
    except ValueError:
        return False
    return True


def check_copies(case: Case) -> None:
    """Pickled and deep copies compute the same bits and share no weights; they stand in no graph."""
    layer = case.layer()
    for twin in (pickle.loads(pickle.dumps(layer)), copy.deepcopy(layer)):
        assert same_bits(run(case, layer), run(case, twin))
        before = layer.get_weights()
        twin.set_weights([w + 1 for w in twin.get_weights()])
        assert same_bits(before, layer.get_weights())


def check_reentrance(case: Case) -> None:
    """Nothing of a call stays on the layer: a second call before backward changes nothing."""
    layer = case.layer()
    expected = run(case, layer)
    context = Context(training=case.training, record=True)
    x, other = layer.cast(case.inputs()), layer.cast(case.inputs(seed=9))
    for w in layer.weights:
        w.gradient[...] = 0
    y, saved = layer.forward(x, case.mask(), context)
    layer.forward(other, case.mask(), Context(training=case.training, record=True))
    kept = [v.copy() for v in graph.as_list(y)]
    dys = gradients_for(kept)
    given = [dy.copy() for dy in dys]
    dx = layer.backward(saved, dys if isinstance(y, list) else dys[0])
    again = Result(kept, [], dx if isinstance(dx, list) else [dx], [w.gradient.copy() for w in layer.weights])
    assert same_bits(expected, again)
    assert same_bits(dys, given), "backward wrote into dy"
    assert same_bits(graph.as_list(y), kept), "backward wrote into y"


def check_gradients_add_up(case: Case) -> None:
    """backward adds to the gradients that are there; outputs without a gradient (None) count as zeros."""
    layer = case.layer()
    first = run(case, layer)
    context = Context(training=case.training, record=True)
    y, saved = layer.forward(layer.cast(case.inputs()), case.mask(), context)
    dys = gradients_for(graph.as_list(y))
    layer.backward(saved, dys if isinstance(y, list) else dys[0])
    for w, once in zip(layer.weights, first.gradients, strict=True):
        np.testing.assert_allclose(w.gradient, 2 * once, rtol=1e-12, atol=1e-13)
    for left_out in range(len(dys) if isinstance(y, list) else 0):
        some: list[Any] = [None if i == left_out else dy for i, dy in enumerate(dys)]
        zeros = [np.zeros_like(dy) if i == left_out else dy for i, dy in enumerate(dys)]
        if len(dys) > 1:
            a, b = run(case, layer, dy=some), run(case, layer, dy=zeros)
            for u, v in zip(a.arrays(), b.arrays(), strict=True):
                assert u is not None and v is not None
                np.testing.assert_allclose(u, v, rtol=1e-12, atol=1e-13)


def check_unneeded(case: Case) -> None:
    """What is not asked for changes nothing: no backward pass, no gradient for the inputs."""
    layer = case.layer()
    full = run(case, layer)
    assert same_bits(full.y, run(case, layer, record=False).y)
    assert same_bits(full.gradients, run(case, layer, input_gradient=False).gradients)


def check_threads(case: Case) -> None:
    """The same bits for any number of threads."""
    for dtype in ("float32", "float64"):
        layer = case.layer(dtype)
        with use_threads(1):
            expected = run(case, layer)
        for count in (2, 3, case.shapes[0][0] + 3):
            with use_threads(count):
                assert same_bits(expected, run(case, layer)), f"{count} threads give other bits than one, {dtype}"


def check_finite_differences(case: Case, step: float = 1e-6) -> None:
    """In float64 every gradient of sum(y * dy), for inputs, states and weights, is that of central differences."""
    layer = case.layer()
    result = run(case, layer)
    x, dys = layer.cast(case.inputs()), gradients_for(result.y)

    def value() -> float:
        ys = run(case, layer, x, record=False).y
        return float(sum((y * dy).sum() for y, dy in zip(ys, dys, strict=True)))

    def difference(array: Array, write: Callable[[Array], None]) -> Array:
        numeric = np.zeros(array.shape)
        for i in np.ndindex(*array.shape):
            moved = array.copy()
            moved[i] = array[i] + step
            write(moved)
            numeric[i] = value()
            moved[i] = array[i] - step
            write(moved)
            numeric[i] = (numeric[i] - value()) / (2 * step)
        write(array)
        return numeric

    for w, analytic in zip(layer.weights, result.gradients, strict=True):
        assert_close(analytic, difference(w.numpy(), w.assign), f"gradient of {w.path}")
    if case.integers is None:
        xs = graph.as_list(x)
        for i, dx in enumerate(result.dx):
            assert dx is not None, f"no gradient for input {i}"
            numeric = difference(xs[i].copy(), partial(np.copyto, xs[i]))
            assert_close(dx, numeric, f"gradient of input {i}")


def assert_close(analytic: Array, numeric: Array, what: str, relative: float = 1e-6, floor: float = 1e-2) -> None:
    """The norm of the error against that of the value, or against `floor` where that is tiny."""
    error = np.linalg.norm(analytic - numeric) / max(np.linalg.norm(numeric), floor)
    assert error < relative, f"{what}: off by {error:.2e} of its norm\n{analytic}\n{numeric}"


def check_float32(case: Case, forward_tolerance: float, gradient_tolerance: float) -> None:
    """float32 stays close to float64 in outputs and gradients, and the two have the same masks."""
    single, double = run(case, case.layer("float32")), run(case, case.layer("float64"))
    for ours, theirs in zip(single.masks, double.masks, strict=True):
        assert same_bits([ours], [theirs])
    for tolerance, left, right in (
        (forward_tolerance, single.y, double.y),
        (gradient_tolerance, [*single.dx, *single.gradients], [*double.dx, *double.gradients]),
    ):
        for u, v in zip(left, right, strict=True):
            if v is not None:
                assert np.linalg.norm(u - v) <= tolerance * max(np.linalg.norm(v), 1e-2), f"float32 differs: {u} {v}"


def check_padding(case: Case, everything: bool) -> None:
    """NaN in masked steps changes no bit that a valid step or a weight sees."""
    layer = case.layer()
    x, masks = layer.cast(case.inputs()), graph.as_list(case.mask()) if case.several else [case.mask()]
    clean = run(case, layer, x)
    dys = gradients_for(clean.y)
    if not everything:
        for dy, m in zip(dys, clean.masks, strict=True):
            if m is not None:
                dy[~m] = 0
        clean = run(case, layer, x, dy=dys)
    for v, m in zip(graph.as_list(x), masks, strict=True):
        if m is not None:
            v[~m] = np.nan
    spoilt = run(case, layer, x, dy=dys)
    assert same_bits(clean.gradients, spoilt.gradients), "NaN in padding reached the gradient of a weight"
    for y, z, m in zip(clean.y, spoilt.y, clean.masks, strict=True):
        keep = slice(None) if m is None or everything else m
        assert same_bits([y[keep]], [z[keep]]), "NaN in padding reached an output"
    for dx, dz, m in zip(clean.dx, spoilt.dx, masks, strict=True):
        if dx is not None:
            keep = slice(None) if m is None or everything else m
            assert same_bits([dx[keep]], [dz[keep]]), "NaN in padding reached a gradient"
