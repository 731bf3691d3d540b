"""Weights as bytes and in several files: what rounding costs, and what is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import safetensors.torch
import torch
from model_files import save_model

import echostream
from echostream.checkpoints.errors import CheckpointError, UnsafeFileError
from echostream.checkpoints.model_files import load_model, read_model, save_released
from echostream.checkpoints.packing import SMALLEST_PACKED, in_files, pack, shorten, unpack
from echostream.checkpoints.safe_loading import check_tensors
from echostream.streaming import StreamingTranslator


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A checkpoint as training leaves it."""
    translator = StreamingTranslator.random("echostream_tiny", seed=5)
    return save_model(translator, tmp_path_factory.mktemp("trained"), "") / "checkpoint.pt"


def test_a_number_moves_by_half_a_step_of_its_row_at_most():
    weight = torch.randn(64, 8, 16) * torch.logspace(-6, 3, 64)[:, None, None]
    weight[5] = 0
    packed = pack({"w": weight, "b": torch.randn(4096), "small": torch.randn(2, 3)})
    assert {name: value.dtype for name, value in packed.items()} == {
        "w": torch.int8,
        "w.scale": torch.float32,
        "b": torch.float32,
        "small": torch.float32,
    }
    again = unpack(packed)
    assert again.keys() == {"w", "b", "small"} and torch.equal(again["small"], packed["small"])
    error = (again["w"] - weight).flatten(1).abs().amax(1)
    step = weight.flatten(1).abs().amax(1) / 127
    assert bool((error <= step * 0.5001).all()) and float(error.max()) > 0
    assert torch.equal(unpack(pack(again))["w"], again["w"]), "packing what was packed changes nothing"


def test_a_matrix_that_rounding_would_spoil_has_half_precision():
    near_identity = torch.eye(256) + 0.002 * torch.randn(256, 256)  # its small numbers are below half a step
    packed = pack({"join": near_identity, "other": torch.randn(256, 256)})
    assert packed.keys() == {"join", "other", "other.scale"} and packed["join"].dtype is torch.float16
    torch.testing.assert_close(unpack(packed)["join"].float(), near_identity, rtol=2e-3, atol=1e-7)
    assert torch.equal(pack({"huge": 1e6 * near_identity})["huge"], 1e6 * near_identity)


def test_codes_are_shorter_and_lose_nothing():
    packed = pack({"w": torch.randn(64, 8, 64), "b": torch.randn(9), "small": torch.randn(2, 3)})
    packed["flat"] = torch.randint(-128, 128, (4096,)).to(torch.int8)  # all numbers equally frequent: no code helps
    packed["flat.scale"] = torch.ones(4096)
    short = shorten(packed)
    assert short["w"].dtype is torch.uint8 and short["w"].numel() < 0.95 * packed["w"].numel()
    assert short["w.shape"].tolist() == [64, 8, 64] and torch.equal(short["flat"], packed["flat"])
    again = unpack(short)
    assert again.keys() == {"w", "b", "small", "flat"}
    for name, weight in unpack(packed).items():
        assert torch.equal(again[name], weight)


def test_what_is_no_code_for_its_shape_is_refused_before_it_takes_memory():
    short = shorten(pack({"w": torch.randn(64, 128)}))
    code = short["w"]
    for wrong in (
        {"w.shape": torch.tensor([64, 127])},
        {"w.shape": torch.tensor([64, 129])},
        {"w.shape": torch.tensor([-64, -128])},
        {"w.shape": torch.tensor([2**40, 2**40])},
        {"w.shape": torch.tensor([64.0, 128.0])},
        {"w.shape": torch.tensor([[64, 128]])},
        {"w.shape": torch.ones(10**5, dtype=torch.int64)},
        {"w": code[:-9].clone()},
        {"w": code[None]},
        {"w": torch.zeros(0, dtype=torch.uint8)},
        {"w": torch.cat([code, code])},
        {"w": torch.full((4096,), 255, dtype=torch.uint8)},
    ):
        with pytest.raises(UnsafeFileError, match="its weight 'w' is no code for numbers of the shape") as error:
            unpack(short | wrong)
        assert len(str(error.value)) < 200
    with pytest.raises(UnsafeFileError, match="uint8"):
        check_tensors(unpack({name: value for name, value in short.items() if name != "w.shape"}))


@pytest.mark.parametrize("limit", [1, 5_000, 20_000, 10**9])
@pytest.mark.parametrize("code", [dict, shorten])
def test_files_hold_everything_once_and_in_order(limit, code):
    weights = code(pack({f"w{i}": torch.randn(64, 64) for i in range(9)} | {"bias": torch.randn(7)}))
    files = in_files(weights, limit)
    assert [name for file in files for name in file] == list(weights)
    sizes = [sum(value.numel() * value.element_size() for value in file.values()) for file in files]
    assert limit == 1 or max(sizes) <= limit
    assert len(files) == {1: 10, 5_000: 9, 20_000: 3, 10**9: 1}[limit]
    for file in files:
        assert all(name + ".scale" in file for name, value in file.items() if value.dtype is torch.int8)
        assert all(name + ".shape" in file for name, value in file.items() if value.dtype is torch.uint8)


@pytest.mark.parametrize("limit", [10**9, 400_000])
def test_a_packed_model_loads_as_the_rounded_one(trained, tmp_path, limit):
    content = read_model(trained)
    *files, description = save_released(content, tmp_path, echostream.__version__, packed=True, max_file_bytes=limit)
    assert (len(files) == 1) == (limit == 10**9)
    written = json.loads(description.read_text(encoding="utf-8"))
    assert written["format_version"] == 3 and written.get("weights", ["model.safetensors"]) == [f.name for f in files]
    size = sum(weight.numel() for weight in content.weights.values())
    assert sum(file.stat().st_size for file in files) < 1.5 * size < trained.stat().st_size
    loaded = load_model(tmp_path / "model.safetensors").model
    rounded = unpack(pack(content.weights))
    for name, weight in loaded.state_dict().items():
        torch.testing.assert_close(weight, rounded[name].to(weight.dtype), rtol=0, atol=0)
    assert any(weight.numel() >= SMALLEST_PACKED and weight.dim() > 1 for weight in rounded.values())


def test_one_file_of_floats_stays_readable_for_older_versions(trained, tmp_path):
    *_, description = save_released(read_model(trained), tmp_path, echostream.__version__)
    written = json.loads(description.read_text(encoding="utf-8"))
    assert written["format_version"] == 1 and "weights" not in written


def refused(folder: Path) -> str:
    with pytest.raises(CheckpointError) as error:
        load_model(folder / "model.safetensors")
    assert "\n" not in str(error.value)
    return str(error.value)


def test_wrong_scales_are_refused_in_one_line(trained, tmp_path):
    save_released(read_model(trained), tmp_path, echostream.__version__, packed=True)
    path = tmp_path / "model.safetensors"
    whole = safetensors.torch.load_file(path)
    name = next(name.removesuffix(".shape") for name in whole if name.endswith(".shape"))
    scale = whole[name + ".scale"]
    for wrong, message in (
        ({name + ".scale": scale[:-1].clone()}, "its scales don't fit them"),
        ({name + ".scale": scale.half()}, "its scales don't fit them: float16"),
        ({name + ".scale": scale * torch.nan}, "hold NaN or infinity"),
        ({name + ".scale": scale * 1e30}, "no trained weight is so large"),
        ({name + ".scale": None}, "is int8 strided on cpu"),
        ({name: whole[name][:-1].clone()}, "is no code for numbers of the shape"),
    ):
        changed = {key: value for key, value in (whole | wrong).items() if value is not None}
        safetensors.torch.save_file(changed, path)
        assert message in refused(tmp_path)


def test_bytes_without_numbers_are_refused():
    with pytest.raises(UnsafeFileError, match="don't fit them"):
        unpack({"w": torch.zeros(0, 4, dtype=torch.int8), "w.scale": torch.zeros(0)})


def test_missing_doubled_and_foreign_files_are_refused_in_one_line(trained, tmp_path):
    *files, description = save_released(
        read_model(trained), tmp_path, echostream.__version__, packed=True, max_file_bytes=400_000
    )
    written = json.loads(description.read_text(encoding="utf-8"))
    for names, message in (
        (["model.safetensors", "../model_2.safetensors"], "names of different files beside it"),
        (["model.safetensors"] * 2, "names of different files beside it"),
        ([], "names of different files beside it"),
        ("model.safetensors", "names of different files beside it"),
        ([1], "names of different files beside it"),
        (["model.safetensors", ""], "names of different files beside it"),
        (["model.safetensors", ".."], "names of different files beside it"),
        (["model_2.safetensors", "model.safetensors"], "is of the weights in model_2.safetensors"),
        (["model.safetensors", "model_99.safetensors"], "names model_99.safetensors, which is not beside it"),
        (["model.safetensors"], "there are none for encoder_layers|tensors differ"),
    ):
        description.write_text(json.dumps(written | {"weights": names}), encoding="utf-8")
        assert re.search(message, refused(tmp_path))
    description.write_text(json.dumps(written), encoding="utf-8")
    files[1].write_bytes(files[0].read_bytes())
    assert "which another file of the model has as well" in refused(tmp_path)
    files[1].write_bytes(b"damaged")
    assert str(files[1]) in refused(tmp_path)
