"""Damaged and hostile files: whatever is in them, loading gives a model or a SaveError, soon and in little memory."""

from __future__ import annotations

import contextlib
import json
import random
import time
import tracemalloc
import warnings

import numpy as np
import pytest
from saving_zoo import ZOO, floats, inputs_of, targets_of

from fastrnn import Input, Sequential, container, layers, registry, saving
from fastrnn.models import load_model
from fastrnn.saving import SaveError

JUNK = [
    *(None, True, False, -1, 0, 3, 10**6, 10**12, 10**400, 1.5, float("nan"), float("inf")),
    *("", "x", "relu", "lstm", "\ud800", "a/b", [], {}, [[]], [None, 10**9, 10**9], [0, 0], {"x": 1}),
    *({"__array__": 0}, {"__array__": 10**9}, {"__numbers__": []}),
    {"kind": "layer", "class_name": "LSTM", "config": {}},
    {"kind": "layer", "class_name": "Dense", "config": {"units": 10**12}},
    {"kind": "layer", "class_name": "Dense", "shared": 1},
    {"kind": "model", "class_name": "Sequential", "config": {}},
    {"kind": "function", "class_name": "eval", "config": None},
    {"kind": "os", "class_name": "system", "config": {}},
    {"kind": "callback", "class_name": "CSVLogger", "config": {"filename": "written-by-a-model-file"}},
]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Nothing that a file says may leave a trace here."""
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    assert [p.name for p in tmp_path.iterdir()] in ([], ["m.safetensors"])


def example(name="sequential"):
    model = ZOO[name]()
    model.compile("adam", "mse", metrics=["mae"] if len(model.outputs) == 1 else None)
    model.train_on_batch(inputs_of(model), targets_of(model))
    return model


def attempt(work):
    """Runs `work`, which may raise SaveError and nothing else; gives what it returns or None."""
    started = time.perf_counter()
    with contextlib.suppress(SaveError):
        return work()
    assert time.perf_counter() - started < 5
    return None


def test_flipped_bits_are_noticed(tmp_path):
    path = tmp_path / "m.safetensors"
    example().save(path)
    good, rng = path.read_bytes(), random.Random(1)
    header = 8 + int.from_bytes(good[:8], "little")
    for i in range(400):
        bad = bytearray(good)
        for _ in range(rng.choice([1, 1, 3])):
            where = rng.randrange(8) if i % 8 == 0 else rng.randrange(header if i % 2 else len(bad))
            bad[where] ^= 1 << rng.randrange(8)
        path.write_bytes(bad)
        loaded = attempt(lambda: load_model(path))
        assert loaded is None or loaded.get_config()


def test_truncated_and_lengthened_files_are_noticed(tmp_path):
    path = tmp_path / "m.safetensors"
    example().save(path)
    good = path.read_bytes()
    for length in [*range(0, 40), *range(40, len(good), len(good) // 60)]:
        path.write_bytes(good[:length])
        with pytest.raises(SaveError, match=r"m.safetensors"):
            load_model(path)
    path.write_bytes(good + b"\0")
    with pytest.raises(SaveError, match=r"m.safetensors"):
        load_model(path)


def places(value, prefix=()):
    """The place of every value in a nest of dicts and lists."""
    yield prefix
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in pairs:
        yield from places(inner, (*prefix, key))


def changed(document, place, rng):
    """A copy of `document` in which the value at `place` is lost, doubled, or replaced by junk."""
    copy = json.loads(json.dumps(document))
    if not place:
        return copy
    parent = copy
    for key in place[:-1]:
        parent = parent[key]
    kind = rng.randrange(4)
    if kind == 0:
        del parent[place[-1]]
    elif kind == 1 and isinstance(parent, list):
        parent.append(parent[place[-1]])
    else:
        parent[place[-1]] = rng.choice(JUNK)
    return copy


@pytest.mark.parametrize("name", ["sequential", "masked", "shared", "nested", "several_outputs", "stateful"])
def test_documents_of_any_contents_give_a_model_or_a_save_error(name):
    document, tensors = saving._whole(example(name), {"epoch": 1})
    rng = random.Random(2)
    arrays: list[np.ndarray] = []
    plain = json.loads(json.dumps(container._without_arrays(document, arrays)))
    spots = list(places(plain))
    every = tensors | {f"arrays/{i}": a for i, a in enumerate(arrays)}
    loaded = 0
    for _ in range(400):
        bad = changed(plain, rng.choice(spots), rng)
        with contextlib.suppress(UnicodeError):
            data = container.pack(bad, every)
            loaded += attempt(lambda data=data: saving.unpack(data)) is not None
    assert loaded > 5


@pytest.mark.parametrize("name", ["sequential", "stateful"])
def test_tensors_of_any_shape_give_a_model_or_a_save_error(name, tmp_path):
    model = example(name)
    document, tensors = saving._whole(model, None)
    rng = random.Random(3)
    junk = [np.zeros(0), np.zeros((2, 3)), np.array(-(2**62)), np.array(np.nan), np.zeros(7, np.int8), np.array(True)]
    for _ in range(200):
        bad = dict(tensors)
        name = rng.choice(sorted(bad))
        value = bad.pop(name)
        if rng.randrange(3):
            bad[rng.choice([name, "weights/x", "optimizer/x/y", "optimizer", "weights/", "arrays/0x"])] = rng.choice(
                [value, *junk]
            )
        data = container.pack(document, bad)
        attempt(lambda data=data: saving.unpack(data))
        (tmp_path / "m.safetensors").write_bytes(data)
        before = model.get_weights(), model.optimizer.state()
        for work in (saving.restore, saving.load_weights):
            try:
                work(model, "m.safetensors")
            except SaveError:
                np.testing.assert_equal((model.get_weights(), model.optimizer.state()), before)


def document_of(config):
    return {"format": 1, "model": config, "compile": None, "optimizer": None, "training": None, "extra": None}


def layer(class_name, **config):
    return {"kind": "layer", "class_name": class_name, "config": config}


def stack(*configs):
    return {
        "kind": "model",
        "class_name": "Sequential",
        "config": {"name": "m", "trainable": True, "layers": list(configs)},
    }


HUGE = {
    "units": stack(layer("InputLayer", shape=[None, 3]), layer("Dense", units=10**10)),
    "recurrent": stack(layer("InputLayer", shape=[None, 3]), layer("LSTM", units=10**6)),
    "features": stack(layer("InputLayer", shape=[None, 10**11]), layer("GRU", units=2)),
    "table": stack(
        layer("InputLayer", shape=[None], dtype="int32"), layer("Embedding", input_dim=10**11, output_dim=10)
    ),
    "number": stack(layer("InputLayer", shape=[None, 3]), layer("Dense", units=10**300)),
}


@pytest.mark.parametrize("name", HUGE)
def test_sizes_that_the_file_does_not_hold_are_refused_before_memory_is_taken(name):
    data = container.pack(document_of(HUGE[name]), {"weights/x": floats(4)})
    tracemalloc.start()
    try:
        started = time.perf_counter()
        with pytest.raises(SaveError):
            saving.unpack(data)
        assert time.perf_counter() - started < 2
        assert tracemalloc.get_traced_memory()[1] < 20e6
    finally:
        tracemalloc.stop()


def test_deep_documents_are_refused():
    for opening, closing in (("[", "]"), ('{"a":', "}")):
        text = json.dumps(document_of(None)).replace(
            '"model": null', f'"model": {opening * 200_000}0{closing * 200_000}'
        )
        metadata = {"fastrnn": text, "crc32": container._checksum(text, {})}
        with pytest.raises(SaveError):
            saving.unpack(container.to_bytes({}, metadata))
    config = layer("Dense", units=2)
    for _ in range(80):
        config = layer("TimeDistributed", layer=config)
    for _ in range(80):
        config = stack(layer("InputLayer", shape=[None, 3]), config)
    with pytest.raises(SaveError):
        saving.unpack(container.pack(document_of(config), {}))


def test_a_document_that_is_no_object_is_refused():
    for text in ("[]", "null", "1", '"x"', "", "{", "{}", "NaN"):
        metadata = {"fastrnn": text, "crc32": container._checksum(text, {})}
        with pytest.raises(SaveError):
            saving.unpack(container.to_bytes({}, metadata))


def test_a_file_runs_no_functions_but_constructors(tmp_path):
    """Names of modules, builtins and classes of other kinds lead nowhere."""
    for kind, name in [
        ("function", "exec"),
        ("function", "os.system"),
        ("layer", "__import__"),
        ("builtins", "eval"),
        ("loss", "LSTM"),
    ]:
        config = stack({"kind": kind, "class_name": name, "config": {}})
        with pytest.raises(SaveError):
            saving.unpack(container.pack(document_of(config), {}))
    with pytest.raises(SaveError, match="that of History, which is no model"):
        saving.unpack(container.pack(document_of({"kind": "callback", "class_name": "History", "config": {}}), {}))


def test_a_small_file_may_not_ask_for_a_large_graph():
    """Models that call models that call models: 10 calls on each of 9 floors."""
    model = Sequential([Input((3,)), layers.Activation("tanh")])
    config = registry.serialize(model)
    for floor in range(9):
        nodes = [{"layer": 0, "inputs": [], "mask": None, "training": None}]
        nodes += [{"layer": 1, "inputs": [i, 0], "mask": None, "training": None} for i in range(10)]
        inside = {
            "name": f"floor{floor}",
            "trainable": True,
            "layers": [layer("InputLayer", shape=[3]), config],
            "nodes": nodes,
            "inputs": [0, 0],
            "outputs": [10, 0],
        }
        config = {"kind": "model", "class_name": "Model", "config": inside}
    started = time.perf_counter()
    with pytest.raises(SaveError, match="at most 100000 tensors"):
        saving.unpack(container.pack(document_of(config), {}))
    assert time.perf_counter() - started < 20
