"""Published tables: what can be typed, and that the typed ones add up as the papers say."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from harness.api.registry import Registry
from harness.board.published import Table, mean_of, published_board, read_table
from harness.board.views.markdown import to_markdown
from harness.config import resolve
from harness.config.file import load_raw
from harness.errors import DataError

PAPERS = sorted((Path(__file__).resolve().parents[2] / "leaderboards" / "papers").glob("*.yaml"))
ODD = {("sr-dpo-mt-bench", "Sr-IPO", "ipo"): 90.0, ("sr-dpo-vicuna-bench", "Sr-DPO", "ipo"): 104.0}
MEASURED = {
    "only-prompting-mistral": "only_prompting",
    "only-prompting-mistral-instruct": "only_prompting_instruct",
    "only-prompting-arithmetic-control": "only_prompting",
    "only-prompting-inference": "only_prompting",
    "self-contrast-ultrachat": "self_contrast",
    "self-contrast-nectar": "self_contrast_nectar",
    "self-contrast-hh-rlhf": "self_contrast_hh_rlhf",
    "sr-dpo-mt-bench": "self_refined",
    "sr-dpo-vicuna-bench": "self_refined",
    "sr-dpo-variants": "self_refined",
    "sr-dpo-open-llm": "self_refined_zephyr",
}


def tables() -> dict[str, Table]:
    return {path.stem: read_table(path) for path in PAPERS}


def test_every_table_of_the_three_papers_is_there() -> None:
    found = tables()
    assert {name for name, table in found.items() if table.name != name} == set()
    held = {(table.source.arxiv, table.source.table.partition(",")[0]) for table in found.values()}
    assert held == {
        *(("2404.00604", f"Table {number}") for number in (1, 2)),
        *(("2409.17534", f"Table {number}") for number in (1, 2, 3)),
        *(("2405.21040", f"Table {number}") for number in (2, 3, 4)),
    }
    assert sum(value is not None for table in found.values() for row in table.rows for value in row.values) == 317


def test_win_tie_and_lose_rates_add_up_but_for_two_that_are_noted() -> None:
    checked = 0
    for name, table in tables().items():
        opponents = [column.metric.partition("_against_")[2].partition("/")[0] for column in table.columns]
        for row in table.rows:
            for opponent in dict.fromkeys(filter(None, opponents)):
                rates = [value for value, met in zip(row.values, opponents, strict=True) if met == opponent]
                total = sum(mean_of(value or "") for value in rates)
                assert len(rates) == 3 and total == pytest.approx(ODD.get((name, row.method, opponent), 100.0), abs=0.02)
                noted = any(f"{row.method} vs {opponent.upper()}" in note and "add up" in note for note in table.notes)
                assert noted == ((name, row.method, opponent) in ODD)
                checked += 1
    assert checked == 11


def test_averages_are_those_of_their_tasks() -> None:
    for table in tables().values():
        if table.columns[-1].metric == "lm_eval/average":
            tasks = [i for i, column in enumerate(table.columns[:-1]) if column.metric.startswith("lm_eval/")]
            assert len(tasks) == 6
            for row in table.rows:
                mean = sum(mean_of(row.values[i] or "") for i in tasks) / 6
                assert mean_of(row.values[-1] or "") == pytest.approx(mean, abs=0.1)


def test_a_table_is_a_board_of_published_rows() -> None:
    board = published_board(next(path for path in PAPERS if path.stem == "sr-dpo-open-llm"))
    assert {row.kind for row in board.rows} == {"published"}
    best = board.rows[0]
    assert (best.method, best.scores["lm_eval/average"].mean) == ("Sr-DPO", 0.644)
    assert best.provenance["printed"]["Average"] == "64.40±0.08*"
    assert best.provenance["deviation"]["as_printed"]["lm_eval/average"] == 0.08
    assert all(score.delta is None and score.low is None for row in board.rows for score in row.scores.values())
    assert "not measured here" in to_markdown(board)


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("baseline", "DPQ", "baseline = 'DPQ' is no row"),
        ("rows", [{"method": "DPO", "values": ["1.0"]}, {"method": "DPO", "values": ["1.0"]}], "two rows are called 'DPO'"),
        ("rows", [{"method": "DPO", "values": ["1.0", "2.0"]}], "DPO has 2 values for 1 columns"),
        ("rows", [{"method": "DPO", "values": ["about 3"]}], "DPO: 'about 3' is no printed number"),
        ("columns", [{"metric": "noslash", "printed": "a", "description": "b"}], "columns.0.metric"),
    ],
)
def test_a_mistake_in_a_table_is_named(field: str, value: object, said: str, tmp_path: Path) -> None:
    raw = {
        "name": "t",
        "source": {"title": "T", "arxiv": "2404.00604", "table": "Table 1"},
        "setting": "s",
        "baseline": "DPO",
        "columns": [{"metric": "a/b", "printed": "B", "description": "b"}],
        "rows": [{"method": "DPO", "values": ["1.0"]}],
    }
    path = tmp_path / "t.yaml"
    path.write_text(yaml.safe_dump(raw))
    assert published_board(path).baseline == "DPO"
    path.write_text(yaml.safe_dump(raw | {field: value}))
    with pytest.raises(DataError) as error:
        published_board(path)
    assert said in str(error.value)


def test_published_and_measured_rows_have_the_same_keys() -> None:
    """Each column of a published table is a metric of the config that measures it, so that both line up in `merge`."""
    registry, configs = Registry.load(), Path(__file__).resolve().parents[2] / "configs" / "papers"
    for stem, config in MEASURED.items():
        table = read_table(PAPERS[0].parent / f"{stem}.yaml")
        comparison = resolve(load_raw(configs / f"{config}.yaml"), registry, offline=True)
        keys = {
            f"{label}/{metric.name}" for label, evaluator in comparison.evaluators.items() for metric in evaluator.metrics()
        }
        assert {column.metric for column in table.columns} <= keys, stem
