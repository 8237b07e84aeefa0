"""Nothing from outside is unpickled or evaluated: by what the code says, and by what it does with such files."""

from __future__ import annotations

import ast
import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest

import harness
import harness_plugins
from harness import DataError
from harness.models.checkpoint import locate
from harness_plugins.sources import Hub, Jsonl, Parquet

FILES = [file for package in (harness, harness_plugins) for file in sorted(Path(package.__path__[0]).rglob("*.py"))]
MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "jsonpickle"}
CALLS = {"eval", "exec", "compile", "os.system", "os.popen", "yaml.unsafe_load", "yaml.full_load", "yaml.load", "yaml.load_all"}
CALLS |= {"pandas.read_pickle", "pd.read_pickle"}
UNPICKLERS = {"torch.load": "weights_only", "np.load": "allow_pickle", "numpy.load": "allow_pickle"}


def forbidden(tree: ast.AST) -> Iterator[str]:
    """Imports of picklers, calls that evaluate, and readers that are not told to unpickle nothing."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            yield from (name for name in names if name.split(".")[0] in MODULES)
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            given = {word.arg: ast.unparse(word.value) for word in node.keywords}
            if name in CALLS or given.get("shell") == "True":
                yield ast.unparse(node)[:80]
            if (option := UNPICKLERS.get(name)) and given.get(option) != str(option == "weights_only"):
                yield ast.unparse(node)[:80]


def test_the_search_finds_what_it_looks_for() -> None:
    code = "import pickle\nfrom joblib.x import y\neval(x)\ntorch.load(p)\ntorch.load(p, weights_only=False)"
    code += "\nnp.load(p)\nyaml.load(t)"
    assert len(list(forbidden(ast.parse(code)))) == 7
    assert list(forbidden(ast.parse("torch.load(p, weights_only=True)\nnp.load(p, allow_pickle=False)\nmodel.eval()"))) == []


def test_no_module_unpickles_or_evaluates() -> None:
    assert len(FILES) > 150
    found = [f"{file.name}: {what}" for file in FILES for what in forbidden(ast.parse(file.read_text(encoding="utf-8")))]
    assert found == []


class Mine:
    """What runs when it is unpickled: it writes a file."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple[type[Path], tuple[str]] | tuple[object, tuple[Path]]:
        return Path.touch, (self.place,)


@pytest.fixture
def pickled(tmp_path: Path) -> bytes:
    content = pickle.dumps(Mine(tmp_path / "ran"))
    pickle.loads(content)
    assert (tmp_path / "ran").exists()  # it works
    (tmp_path / "ran").unlink()
    return content


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.pth", "consolidated.00.pth", "tf_model.h5"])
def test_a_pickled_checkpoint_is_refused(name: str, pickled: bytes, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "llama"}')
    (folder / name).write_bytes(pickled)
    with pytest.raises(DataError, match=r"model\.path = .*safetensors") as caught:
        locate(str(folder))
    assert name in str(caught.value) or Path(name).suffix in str(caught.value)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["train.pkl", "train.pickle", "train.jsonl", "train.parquet", "train.bin"])
def test_pickled_data_is_refused(name: str, pickled: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / name).write_bytes(pickled)
    for source in (Jsonl(path=str(tmp_path / "data" / name)), Parquet(path=str(tmp_path / "data" / name))):
        with pytest.raises(DataError, match=r"not JSON|not UTF-8|cannot be read as Parquet"):
            source.load()
    with pytest.raises(DataError, match=r"cannot be read|not JSON|not UTF-8|nested deeper"):
        Hub(dataset=str(tmp_path / "data")).load()
    assert not (tmp_path / "ran").exists()
