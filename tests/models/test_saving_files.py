"""The files themselves: what is in them, where they go, and which are refused."""

from __future__ import annotations

import json
import os
import pickle
import stat
import warnings

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from saving_zoo import ZOO, floats, same, small, trained

from fastrnn import container, models, optimizers, saving
from fastrnn.models import load_model
from fastrnn.saving import SaveError


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


@pytest.fixture(params=ZOO)
def model(request):
    return ZOO[request.param]()


def contents(path):
    with safe_open(path, "numpy") as file:
        return json.loads(file.metadata()["fastrnn"]), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def test_a_file_is_plain_safetensors_with_json(path):
    trained(small(), optimizers.SGD(0.01, momentum=0.9)).save(path)
    document, tensors = contents(path)
    assert set(tensors) == {
        *(
            f"weights/{name}"
            for name in ("lstm/kernel", "lstm/recurrent_kernel", "lstm/bias", "dense/kernel", "dense/bias")
        ),
        *(
            f"optimizer/momentum/{name}"
            for name in ("lstm/kernel", "lstm/recurrent_kernel", "lstm/bias", "dense/kernel", "dense/bias")
        ),
        "optimizer/iterations",
        "optimizer/learning_rate",
    }
    assert (
        document["format"] == 1 and document["model"]["class_name"] == "Sequential" and document["optimizer"] == "SGD"
    )


def test_paths_do_not_depend_on_how_many_models_there_were():
    names = [list(saving.weight_paths(ZOO[name]())) for name in ZOO for _ in range(2)]
    assert names[::2] == names[1::2]
    every = {name: list(saving.weight_paths(make())) for name, make in ZOO.items()}
    assert every["sequential"][-1] == "head/bias"
    assert every["masked"][:3] == [
        "embedding/embeddings",
        "bidirectional/forward/kernel",
        "bidirectional/forward/recurrent_kernel",
    ]
    assert "time_distributed/dense/kernel" in every["masked"] and "gru/bias" in every["masked"]
    assert {"inner/lstm/kernel", "middle/dense/kernel", "dense/kernel"} <= set(every["nested"])
    assert [p for p in every["encoder_decoder"] if p.endswith("recurrent_kernel")] == [
        "lstm/recurrent_kernel",
        "lstm_1/recurrent_kernel",
    ]


def test_every_weight_has_one_path(model):
    assert {id(p) for p in saving.weight_paths(model).values()} == {id(p) for p in model.weights}
    assert len(saving.weight_paths(model)) == len(model.weights)


@pytest.mark.parametrize("name", ["m.keras", "m.h5", "m.weights.h5", "m", "m.safetensors.bak", "m.SAFETENSORS"])
def test_other_suffixes_are_refused_and_ours_is_named(tmp_path, name):
    model = small()
    target = tmp_path / name
    target.write_bytes(b"old")
    for work in (model.save, model.save_weights, model.load_weights, load_model):
        with pytest.raises(SaveError, match=r"writes and reads \.safetensors files; received '.*m"):
            work(str(target))
    assert target.read_bytes() == b"old" and os.listdir(tmp_path) == [name]


@pytest.mark.parametrize("bad", [None, 3, ["a.safetensors"]])
def test_what_is_no_path_is_a_type_error(bad):
    with pytest.raises(TypeError):
        small().save(bad)


def test_missing_files_and_folders_are_named(tmp_path):
    with pytest.raises(SaveError, match=r"nowhere.safetensors cannot be read: No such file"):
        load_model(tmp_path / "nowhere.safetensors")
    with pytest.raises(SaveError, match="there is no folder"):
        small().save(tmp_path / "no" / "m.safetensors")
    (tmp_path / "folder.safetensors").mkdir()
    with pytest.raises(SaveError, match="cannot be read"):
        load_model(tmp_path / "folder.safetensors")
    with pytest.raises(SaveError, match="cannot be written"):
        small().save(tmp_path / "folder.safetensors")
    assert os.listdir(tmp_path) == ["folder.safetensors"]


def test_overwrite_false_keeps_the_old_file(path):
    small().save(path)
    before = path.read_bytes()
    for save in (small().save, small().save_weights):
        with pytest.raises(SaveError, match="exists; pass overwrite=True"):
            save(path, overwrite=False)
    assert path.read_bytes() == before


def test_links_and_permissions_stay(tmp_path):
    target, link = tmp_path / "real.safetensors", tmp_path / "link.safetensors"
    small().save(target)
    target.chmod(0o640)
    link.symlink_to(target.name)
    before = target.read_bytes()
    small().save(link)
    assert link.is_symlink() and target.read_bytes() != before
    assert stat.S_IMODE(target.stat().st_mode) == 0o640


def test_new_files_get_the_usual_permissions(path):
    mask = os.umask(0o027)
    try:
        small().save(path)
    finally:
        os.umask(mask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_paths_may_be_strings(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = small()
    model.save("m.safetensors")
    same(load_model("m.safetensors").get_weights(), model.get_weights())


def test_foreign_files_are_refused(path):
    save_file({"w": floats(2)}, path)
    with pytest.raises(SaveError, match="was not written by fastrnn"):
        load_model(path)
    save_file({"w": floats(2)}, path, {"format": "pt"})
    with pytest.raises(SaveError, match="was not written by fastrnn"):
        small().load_weights(path)
    for junk in (b"", b"x", b"\0" * 8, b"\xff" * 100, b"PK\3\4" + b"0" * 500, pickle.dumps({})):
        path.write_bytes(junk)
        with pytest.raises(SaveError, match=r"is no \.safetensors file, or a damaged one"):
            load_model(path)


def test_a_changed_weight_is_noticed(path):
    small().save(path)
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    with pytest.raises(SaveError, match="is damaged: its checksum is wrong"):
        load_model(path)


def test_arrays_of_any_layout_come_back_as_they_are():
    a = floats(4, 6)
    tensors = {
        "turned": a.T,
        "skipping": a[::2, ::3],
        "one": np.float64(2.5).reshape(()),
        "none": np.zeros((0, 3)),
        "whole": np.arange(3),
    }
    document, found = container.unpack(container.pack({"inside": [a.T, (1, "x")]}, tensors))
    for name, value in tensors.items():
        assert found[name].dtype == value.dtype and found[name].shape == value.shape
        np.testing.assert_array_equal(found[name], value)
    np.testing.assert_array_equal(document["inside"][0], a.T)
    assert document["inside"][1] == [1, "x"]


def test_newer_formats_are_refused_by_name(path, monkeypatch):
    monkeypatch.setattr(saving, "FORMAT", 2)
    small().save(path)
    monkeypatch.undo()
    with pytest.raises(SaveError, match="has format 2; this version of fastrnn reads formats up to 1"):
        load_model(path)


def test_no_warning_on_the_usual_way(path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trained(small()).save(path)
        load_model(path)
        small(optimizer="adam", loss="mse").load_weights(path)
    assert set(load_file(path)) and models.load_model is load_model
