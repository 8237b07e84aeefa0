"""A board is a function of its evidence: any value of it that is changed alone is noticed, and so are whole forgeries."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from forging import Content, Place, change, changed, copied, edit_evidence, edit_scores, leaves, reseal, save, schema_place
from typer.testing import CliRunner

from harness.api.types import Score
from harness.board import Board
from harness.board import verify as verifying
from harness.board.evidence import Evidence, hash_of, merkle_root, written_parts
from harness.board.files import EVIDENCE, EXAMPLES, SCORES
from harness.board.verify import VerifyOutcome, check
from harness.cli import app
from harness.errors import DataError

ROWS = ("dpo", "simpo", "iterative_dpo", "gold_dpo", "dpo_other_seeds")


@pytest.fixture(scope="module")
def folder(build: Callable[..., Board], few_rows: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A board of five rows and of one that failed."""
    rows, metrics = few_rows(ROWS, ("gold", "length"))
    simpo = next(row for row in rows if row.label == "simpo")
    for listed in simpo.scores["gold"].values():  # an example less, of which the statistics warn
        listed[:] = [score for score in listed if score.example != "p5"]
    place = tmp_path_factory.mktemp("sealed")
    build(rows=rows, metrics=metrics).sealed().write(place)
    return place


@pytest.fixture(scope="module")
def content(folder: Path) -> Content:
    loaded: Content = json.loads((folder / "board.json").read_text())
    return loaded


def one_of_each(content: Content) -> list[Place]:
    """A leaf at random for every place of the schema that the board has."""
    places: dict[Place, list[Place]] = {}
    for place, _ in leaves(content):
        places.setdefault(schema_place(place), []).append(place)
    rng = random.Random(1)
    return [rng.choice(listed) for listed in places.values()]


def unnoticed(content: Content, folder: Path, places: list[Place]) -> list[Place]:
    """The places whose change, in `board.json` alone, `check` does not see."""
    missed = []
    for place in places:
        forged = json.loads(json.dumps(content))
        value = dict(leaves(content))[place]
        change(forged, place, changed(value))
        (folder / "board.json").write_text(json.dumps(forged))
        try:
            if check(folder).outcome() is not VerifyOutcome.differs:
                missed.append(place)
        except DataError:
            pass  # refused as no board at all
    return missed


def is_written(board: Board, place: Place) -> bool:
    """Whether a hash in the evidence covers a place."""
    parts = [tuple(part.split(" ")) for part, _ in written_parts(board)]
    labels = {number: row.method for number, row in enumerate(board.rows)}
    metrics = {number: metric.key for number, metric in enumerate(board.metrics)}
    if place[0] in ("rows", "metrics"):
        names = labels if place[0] == "rows" else metrics
        place = (place[0], names[int(place[1])], *place[2:])
    return any(place[: len(part)] == part for part in parts if len(part) > (2 if place[0] == "rows" else 0))


def test_a_board_with_evidence_holds_and_says_what_it_lacks(folder: Path) -> None:
    checked = check(folder)
    assert checked.outcome() is VerifyOutcome.verified and not checked.differences and len(checked.root) == 64
    assert Board.read(folder).evidence == Evidence.read((folder / EVIDENCE).read_bytes())


def test_a_change_of_any_value_is_noticed(
    folder: Path, content: Content, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of each kind. What is computed is computed once here, and again for every change in the slow test."""
    copied(folder, tmp_path)
    board = Board.read(folder)
    again = verifying._rebuilt(board, read(folder), {}, board.evidence)  # type: ignore[arg-type]
    monkeypatch.setattr(verifying, "_rebuilt", lambda *_: again)
    places = one_of_each(content)
    assert len(places) > 110
    assert unnoticed(content, tmp_path, places) == []


@pytest.mark.slow
def test_a_change_of_any_computed_value_is_noticed_by_computing_it(folder: Path, content: Content, tmp_path: Path) -> None:
    copied(folder, tmp_path)
    board = Board.read(folder)
    places = [place for place in one_of_each(content) if not is_written(board, place)]
    assert len(places) > 60
    assert unnoticed(content, tmp_path, places) == []


def read(folder: Path) -> Any:
    from harness.board.files import read_scores

    return read_scores(folder / SCORES)


def row(content: Content, label: str) -> Any:
    return next(row for row in content["rows"] if row["method"] == label)


def drop_row(label: str) -> Callable[[Content, Path], None]:
    def forge(content: Content, folder: Path) -> None:
        content["rows"] = [row for row in content["rows"] if row["method"] != label]
        edit_scores(folder, lambda scores: scores.pop(label))

    return forge


def typed_99(content: Content, folder: Path) -> None:
    """A metric without scores, whose mean somebody typed."""

    def remove(scores: Any) -> None:
        for runs in scores.values():
            for seed, listed in runs["gold"].items():
                runs["gold"][seed] = [score for score in listed if score.metric != "win_rate"]

    edit_scores(folder, remove)
    row(content, "simpo")["scores"]["gold/win_rate"]["mean"] = 99.0


def better_scores(content: Content, folder: Path) -> None:
    def improve(scores: Any) -> None:
        scores["simpo"]["gold"][1] = [Score(s.example, s.metric, 1.0, s.sample) for s in scores["simpo"]["gold"][1]]

    edit_scores(folder, improve)


def all_published(content: Content, folder: Path) -> None:
    for entry in content["rows"]:
        entry["kind"] = "published"


def without_evidence(forge: Callable[[Content, Path], None]) -> Callable[[Content, Path], None]:
    def forged(content: Content, folder: Path) -> None:
        forge(content, folder)
        (folder / EVIDENCE).unlink()
        del content["files"][EVIDENCE]

    return forged


def other_answers(content: Content, folder: Path) -> None:
    lines = (folder / EXAMPLES).read_text().replace('"target": "', '"target": "not ', 1)
    (folder / EXAMPLES).write_text(lines)


def at(*place: str | int, value: Any) -> Callable[[Content, Path], None]:
    return lambda content, _: change(content, place, value)


def of_row(label: str, *place: str | int, value: Any) -> Callable[[Content, Path], None]:
    return lambda content, _: change(row(content, label), place, value)


FORGERIES: dict[str, Callable[[Content, Path], None]] = {
    # the table of the trials
    "rows in another order": lambda content, _: content["rows"].reverse(),
    "a metric's scores removed, its mean typed": typed_99,
    "all rows published": all_published,
    "all rows published, no evidence": without_evidence(all_published),
    "the null row dropped": drop_row("dpo_other_seeds"),
    "warnings emptied": at("warnings", value=[]),
    "config changed": at("config", "training", "beta", value=0.5),
    "cost changed": of_row("simpo", "cost", "seconds", value=1.0),
    "judge named": of_row("simpo", "provenance", "judges", value={"gold": {"model": "gpt-4"}}),
    "model hash changed": of_row("simpo", "provenance", "model", value={"hash": "0" * 32}),
    "date changed": at("created", value="2030-01-01T00:00:00+00:00"),
    "versions changed": at("sharing", "versions", value={"torch": "9.0"}),
    "curve flattened": lambda content, _: row(content, "simpo")["curves"]["1"].clear(),
    "examples changed": other_answers,
    # further ones
    "rows in another order, no evidence": without_evidence(lambda content, _: content["rows"].reverse()),
    "warning added": lambda content, _: content["warnings"].append("All is well."),
    "a statistic's warning dropped, no evidence": without_evidence(lambda content, _: content["warnings"].clear()),
    "another baseline": at("baseline", value="simpo"),
    "renamed": at("name", value="official"),
    "described": at("description", value="The reference."),
    "version of the harness": at("harness", "version", value="9.9"),
    "a metric turned": at("metrics", 1, "higher_is_better", value=False),
    "another primary metric": lambda content, _: [m.update(primary=not m["primary"]) for m in content["metrics"][:2]],
    "bounds of a metric": at("metrics", 0, "bounds", value=[0, 1]),
    "mean changed": of_row("simpo", "scores", "gold/win_rate", "mean", value=0.99),
    "interval narrowed": of_row("simpo", "scores", "gold/win_rate", "low", value=0.4),
    "p-value": of_row("simpo", "scores", "gold/win_rate", "delta", "p_adjusted", value=1e-6),
    "one seed hidden": of_row("simpo", "seeds", value=[1]),
    "per-seed means": of_row("simpo", "scores", "gold/win_rate", "per_seed", value=[0.5, 0.5]),
    "a control made a method": of_row("gold_dpo", "kind", value="measured"),
    "objective renamed": of_row("simpo", "objective", value="mine"),
    "budget": of_row("simpo", "budget", "tokens", value=1.0),
    "a failure hidden": lambda content, _: next(r for r in content["rows"] if r.get("failed")).pop("failed"),
    "a failed row dropped": lambda content, _: content.update(rows=[r for r in content["rows"] if not r.get("failed")]),
    "first place": lambda content, _: next(iter(content["analysis"]["first_place"].values())).update(p=1e-9),
    "noise floor": lambda content, _: content["analysis"]["noise"].clear(),
    "families of tests": at("statistics", "families", value=[]),
    "correction in words": at("statistics", "correction", value="none was needed"),
    "earlier statistics": lambda content, _: content["statistics"].pop("methods"),
    "better scores": better_scores,
    "scores of a row that is not there": lambda _, folder: edit_scores(folder, lambda s: s.update(new=s["simpo"])),
    "savings": at("sharing", "seconds_saved", value=1e6),
    "time of a step": of_row("simpo", "provenance", "precision", value={"training": "float64"}),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_forgeries_are_named(name: str, folder: Path, tmp_path: Path) -> None:
    """Each with the hashes of the files as they are after it: whoever changes a file can hash it."""
    forged = copied(folder, tmp_path)
    FORGERIES[name](forged, tmp_path)
    save(forged, tmp_path)
    try:
        checked = check(tmp_path)
    except DataError:
        return  # no board at all
    assert checked.outcome() is VerifyOutcome.differs and all(checked.differences), name


def test_a_forger_who_hashes_again_is_caught_by_what_is_computed(folder: Path, tmp_path: Path) -> None:
    forged = copied(folder, tmp_path)
    forged["rows"].reverse()
    row(forged, "simpo")["scores"]["gold/win_rate"]["mean"] = 0.99
    save(forged, tmp_path)
    reseal(tmp_path)
    problems = check(tmp_path).differences
    assert any(problem.startswith("rows: their order is") for problem in problems)
    assert any("simpo scores gold/win_rate mean is 0.99, the scores give" in problem for problem in problems)


def test_without_evidence_a_board_is_not_verified_and_says_what_is_as_written(folder: Path, tmp_path: Path) -> None:
    forged = copied(folder, tmp_path)
    without_evidence(of_row("simpo", "cost", "seconds", value=1.0))(forged, tmp_path)
    save(forged, tmp_path)
    checked = check(tmp_path)
    assert checked.outcome() is VerifyOutcome.partial and "costs" in checked.missing[0]
    run = CliRunner().invoke(app, ["verify", str(tmp_path)])
    assert run.exit_code == 1 and "as far as there is evidence" in run.stdout and "costs" in run.stdout


def test_imported_and_published_rows_are_listed_and_never_verified(folder: Path, tmp_path: Path) -> None:
    from harness.board.published import published_board

    table = sorted((Path(__file__).parents[2] / "leaderboards" / "papers").glob("*.yaml"))[0]
    published_board(table).with_examples(()).write(tmp_path)
    checked = check(tmp_path)
    rows = [row.method for row in Board.read(tmp_path).rows]
    assert [label for label, _ in checked.outside] == rows and checked.outcome() is VerifyOutcome.partial
    assert checked.outcome(accept_outside=True) is VerifyOutcome.verified
    for options, code in (([], 1), (["--accept-outside"], 0)):
        run = CliRunner().invoke(app, ["verify", str(tmp_path), *options])
        assert run.exit_code == code and rows[0] in run.stdout and "Not verified" in run.stdout


def test_the_root_stands_for_every_part(folder: Path, tmp_path: Path) -> None:
    forged = copied(folder, tmp_path)

    def edit(evidence: Content) -> None:
        evidence["written"]["name"] = hash_of("official")

    forged["name"] = "official"
    edit_evidence(tmp_path, edit)
    save(forged, tmp_path)
    assert check(tmp_path).differences == (f"{EVIDENCE}: its root is not that of its parts and stages",)
    # RFC 6962: a leaf is hashed after a 0, two nodes after a 1
    assert merkle_root(["a"]) == hash_with(b"\0a") and merkle_root([]) == ""
    assert merkle_root(["a", "b", "c"]) == hash_with(
        b"\1" + bytes.fromhex(merkle_root(["a", "b"])) + bytes.fromhex(merkle_root(["c"]))
    )


def hash_with(content: bytes) -> str:
    import hashlib

    return hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize(
    "file",
    [
        b"no gzip",
        gzip.compress(b"{"),
        gzip.compress(b"[" * 5000),
        gzip.compress(b'{"builds": {}, "written": 3}'),
        gzip.compress(json.dumps({"builds": {}, "written": {"name": "\ud800"}}).encode()),
        gzip.compress(b"{}")[:-4],
    ],
    ids=["no gzip", "half an object", "too deep", "another version", "no text", "cut off"],
)
def test_evidence_that_is_none_is_a_difference(file: bytes, folder: Path, tmp_path: Path) -> None:
    forged = copied(folder, tmp_path)
    (tmp_path / EVIDENCE).write_bytes(file)
    save(forged, tmp_path)
    run = CliRunner().invoke(app, ["verify", str(tmp_path)])
    assert run.exit_code == 4 and f"{EVIDENCE} cannot be read as evidence" in run.stdout


def test_evidence_that_unpacks_to_far_more_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from harness.board import evidence

    monkeypatch.setattr(evidence, "LARGEST_EVIDENCE", 1000)
    with pytest.raises(DataError, match="unpacks to more than 1,000 bytes"):
        Evidence.read(gzip.compress(b" " * 5000))
