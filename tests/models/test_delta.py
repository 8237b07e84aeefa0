"""Models kept as a difference come back bit for bit; with another start, or damaged, they are refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from harness.errors import DataError
from harness.models import delta
from harness.models.checkpoint import base_checkpoint, checkpoint_folder
from harness.models.delta import decode, encode, rebuild, shrink, state_dict
from harness.models.delta_note import NOTE, Base, is_delta
from harness.models.load import load_model, model_eos

BASE = Base(model="checkpoint:abc", place="/start")


@pytest.mark.parametrize("kind", [np.uint32, np.uint16])
def test_any_bits_come_back(kind: type[np.unsignedinteger]) -> None:
    rng, top = np.random.default_rng(0), np.iinfo(kind).max
    odd = np.array([0, 1, top, top // 2, top // 2 + 1, 0x7F80, 0xFF80, 0x7FC0], kind)  # both zeros, infinities, NaN among them
    weights, start = (np.concatenate([odd, np.roll(odd, turn), rng.integers(0, top, 100, kind)]) for turn in (1, 3))
    planes = encode(weights, start)
    assert len(planes) == np.dtype(kind).itemsize
    assert (decode(planes, start) == weights).all()


def test_a_small_step_across_zero_is_a_small_number() -> None:
    start = np.full(2**16, -1e-42, np.float32)
    start[::2] = 1e-42  # the least floats there are, so that a step changes their sign
    stepped = -start
    noise = np.random.default_rng(0).integers(0, 2**32, 2**16, np.uint32)
    sizes = [sum(map(len, encode(weights.view(np.uint32), start.view(np.uint32)))) for weights in (stepped, start, noise)]
    assert sizes[0] < 2000 and sizes[1] < 200 and sizes[2] > 4 * 2**16


def folders(place: Path, checkpoint: Path, scale: float = 1e-4) -> tuple[Path, Path]:
    """Return copies of a checkpoint: the start with weights of bfloat16, and one in float32 a little beside it."""
    start, trained = (Path(shutil.copytree(checkpoint, place / name)) for name in ("start", "trained"))
    weights = {name: weight.bfloat16() for name, weight in load_file(checkpoint / "model.safetensors").items()}
    save_file(weights, start / "model.safetensors", {"format": "pt"})
    generator = torch.Generator().manual_seed(0)
    moved = {n: w.float() + scale * torch.randn(w.shape, generator=generator) for n, w in weights.items()}
    moved["model.norm.weight"] = weights["model.norm.weight"]  # of another type than the others
    embedding = next(name for name in moved if "embed" in name)
    moved[embedding] = torch.cat([moved[embedding], torch.ones(3, moved[embedding].shape[1])])  # tokens were added
    moved["alone"] = torch.randn(5, generator=generator)  # the start has none of this name
    save_file(moved, trained / "model.safetensors", {"format": "pt"})
    return start, trained


def test_a_folder_comes_back_byte_for_byte(tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start, trained = folders(tmp_path, tiny_checkpoint)
    monkeypatch.setattr(delta, "BLOCK", 1000)  # several blocks a tensor, several files
    monkeypatch.setattr(delta, "SHARD", 20_000)
    before = {path.name: path.read_bytes() for path in trained.iterdir()}
    share = shrink(trained, BASE, lambda base: start)
    assert is_delta(trained) and not (trained / "model.safetensors").exists()
    files = [path for path in trained.iterdir() if path.name == NOTE or path.suffix == ".safetensors"]
    assert len(files) > 2 and share == sum(path.stat().st_size for path in files) / len(before["model.safetensors"])
    assert share < 0.9
    whole = rebuild(trained, lambda base: start, tmp_path / "whole")
    assert {path.name: path.read_bytes() for path in whole.iterdir()} == before
    weights, expected = state_dict(trained, lambda base: start), load_file(whole / "model.safetensors")
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[name], value) and weights[name].dtype == value.dtype for name, value in expected.items())


def test_another_start_and_damaged_files_are_refused(tiny_checkpoint: Path, tmp_path: Path) -> None:
    start, trained = folders(tmp_path, tiny_checkpoint)
    shrink(trained, BASE, lambda base: start)
    with pytest.raises(DataError, match=r"not the model the training began with \(checkpoint:abc\)"):
        state_dict(trained, lambda base: tiny_checkpoint)
    planes = load_file(trained / "delta-00001.safetensors")
    del planes["alone/0/0"]
    save_file(planes, trained / "delta-00001.safetensors")
    with pytest.raises(DataError, match="alone/0/0 is absent"):
        rebuild(trained, lambda base: start, tmp_path / "whole")


def test_weights_that_do_not_come_back_stay(tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start, trained = folders(tmp_path, tiny_checkpoint)
    monkeypatch.setattr(delta, "decode", lambda planes, start: start)
    with pytest.raises(DataError):
        shrink(trained, BASE, lambda base: start)
    assert not is_delta(trained) and [path.name for path in trained.glob("*.safetensors")] == ["model.safetensors"]


def test_a_loaded_difference_is_the_model_and_needs_its_start(tiny_checkpoint: Path, tmp_path: Path) -> None:
    trained = Path(shutil.copytree(tiny_checkpoint, tmp_path / "trained"))
    weights = load_file(trained / "model.safetensors")
    save_file({name: weight * 1.001 for name, weight in weights.items()}, trained / "model.safetensors", {"format": "pt"})
    whole = load_model(trained)
    shrink(trained, BASE, lambda base: tiny_checkpoint)
    again = load_model(trained, locate=lambda base: tiny_checkpoint)
    assert model_eos(again) == model_eos(whole) and again.config.to_dict() == whole.config.to_dict()
    assert all(torch.equal(weight, again.state_dict()[name]) for name, weight in whole.state_dict().items())
    with pytest.raises(DataError, match="difference from the model checkpoint:abc"):
        load_model(trained)
    with pytest.raises(DataError, match="write the whole model with `harness export`"):
        checkpoint_folder(str(trained))
    with pytest.raises(DataError, match=r"/start is no folder of this machine: bring the starting model back"):
        base_checkpoint(BASE)
