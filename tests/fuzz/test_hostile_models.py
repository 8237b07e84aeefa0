"""Models of other people: folders that lie, do not end, or hold what is no model are refused before anything runs."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from test_compare import tiny_config

from harness.api.registry import Registry
from harness.config import resolve
from harness.errors import HarnessError


def put(name: str, content: str | bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())


def change(name: str, **values: object) -> Callable[[Path], None]:
    def changed(folder: Path) -> None:
        path = folder / name
        path.write_text(json.dumps({**json.loads(path.read_text()), **values}))

    return changed


def template(text: str) -> Callable[[Path], None]:
    return put("chat_template.jinja", text)


def fifo(name: str) -> Callable[[Path], None]:
    def made(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        os.mkfifo(folder / name)

    return made


def without(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


LOOP = "{% for a in range(99999) %}" * 4 + "{% endfor %}" * 4
HOSTILE = {
    "deep config": put("config.json", "[" * 100_000),
    "a config that is a list": put("config.json", "[]"),
    "no config": without("config.json"),
    "an unknown architecture": change("config.json", model_type="nothing", architectures=["Nothing"]),
    "code of its own": change("config.json", model_type="mine", auto_map={"AutoModelForCausalLM": "evil.Model"}),
    "a template that loops": template(LOOP),
    "a template of two gigabytes": template("{{ 'x' * 2000000000 }}"),
    "a template that leaves turns out": template("{{ messages[0].content }}"),
    "a template of no sense": template("{% for %}"),
    "a template that reaches for python": template("{{ messages.__class__.__mro__ }}"),
    "a deep template": template("{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}"),
    "no template": lambda folder: [path.unlink() for path in folder.glob("chat_template*")],  # type: ignore[dict-item]
    "a deep index": put("model.safetensors.index.json", "[" * 100_000),
    "an index of elsewhere": put("model.safetensors.index.json", '{"weight_map": {"a": "../../elsewhere.safetensors"}}'),
    "weights that are a pickle": lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"),  # type: ignore[dict-item]
    "weights that are a FIFO": fifo("model.safetensors"),
    "a deep generation config": put("generation_config.json", "[" * 100_000),
    "a generation config of no ids": put("generation_config.json", '{"eos_token_id": {"a": 1}}'),
    "a tokenizer of no sense": put("tokenizer.json", '{"version": "1.0"}'),
    "a deep tokenizer": put("tokenizer.json", "[" * 100_000),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_model_is_refused_with_one_error(
    name: str, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.models.rendering.SECONDS", 1.0)
    folder = tmp_path / "model"
    folder.mkdir()
    for path in tiny_checkpoint.iterdir():
        if path.is_file():
            (folder / path.name).write_bytes(path.read_bytes())
    HOSTILE[name](folder)
    with pytest.raises(HarnessError) as refused:
        resolve(tiny_config(folder), Registry.load())
    assert "Traceback" not in str(refused.value) and len(str(refused.value)) < 3000
