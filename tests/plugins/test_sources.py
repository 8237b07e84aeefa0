"""Sources of rows. Rows of UltraFeedback, UltraChat and Nectar are typed by hand in their documented columns: no copy of those
data sets is at hand. HH-RLHF's rows, and MT-Bench's and GSM8K's as column maps, are real where HARNESS_REFERENCE_DATA is set.
"""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from pydantic import ValidationError

from harness import DataError, Message
from harness_plugins.sources.files import Jsonl, Parquet
from harness_plugins.sources.formats import READERS, implicit_prompt
from harness_plugins.sources.hh_rlhf import HHRLHF, kept_text
from harness_plugins.sources.hub import Hub, Nectar, UltraChat, UltraFeedback

U, A = (lambda text: {"role": "user", "content": text}), (lambda text: {"role": "assistant", "content": text})
ASKED = (Message("user", "Is tea hot?"),)
OPENED = "\n\nHuman: Is café {} hot?\n\nAssistant: "
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def write(file: Path, rows: list[Any]) -> str:
    file.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return str(file)


def train_only(folder: Path, rows: list[Any], **fields: Any) -> Any:
    return Jsonl(path=write(folder / "rows.jsonl", rows), heldout_share=0, **fields).load()


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Is tea hot?", "chosen": "Yes.", "rejected": "No."},  # TRL: explicit, plain
        {"chosen": "Is tea hot? Yes.", "rejected": "Is tea hot? No."},  # implicit, plain
        {"prompt": [U("Is tea hot?")], "chosen": [A("Yes.")], "rejected": [A("No.")]},  # explicit, conversational
        {"chosen": [U("Is tea hot?"), A("Yes.")], "rejected": [U("Is tea hot?"), A("No.")]},  # implicit, conversational
        {"prompt": "Is tea hot?", "chosen": [U("Is tea hot?"), A("Yes.")], "rejected": [U("Is tea hot?"), A("No.")]},
        {"prompt": "Is tea hot?", "ranked": ["Yes.", "No."]},
    ],
)
def test_every_preference_layout_of_trl_gives_the_same_example(row: dict[str, Any], tmp_path: Path) -> None:
    (example,) = train_only(tmp_path, [row])["train"]
    assert example.prompt.messages == ASKED
    assert (example.target, example.ranked) == ("Yes.", ("Yes.", "No."))


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Is tea hot?", "target": "Yes."},
        {"prompt": "Is tea hot?", "completion": "Yes."},
        {"prompt": [U("Is tea hot?")], "completion": [A("Yes.")]},
        {"messages": [U("Is tea hot?"), A("Yes.")]},
    ],
)
def test_every_demonstration_layout_gives_a_target(row: dict[str, Any], tmp_path: Path) -> None:
    (example,) = train_only(tmp_path, [row])["train"]
    assert (example.prompt.messages, example.target, example.ranked) == (ASKED, "Yes.", ())


def test_the_implicit_prompt_is_where_trl_finds_it_between_words() -> None:
    from trl.data_utils import extract_prompt

    for chosen, rejected in (
        ("The sky is blue.", "The sky is green."),
        ("Is tea hot? Yes.", "Is tea hot? No."),
        ("a b", "a c"),
    ):
        assert chosen[: implicit_prompt(chosen, rejected)] == extract_prompt({"chosen": chosen, "rejected": rejected})["prompt"]


@pytest.mark.parametrize(
    ("chosen", "rejected", "prompt"),
    [
        ("Is tea hot? Yes.", "Is tea hot? Yet no.", "Is tea hot?"),
        ("Is tea hot?Yes.", "Is tea hot?No.", "Is tea hot?"),
        ("It costs 3.14", "It costs 3.15", "It costs"),
        ("At 3:14", "At 3:15", "At"),
        ("Say don't", "Say don'ts", None),  # the one begins the other
        ("Say don't.", "Say don'ts", "Say"),
        ("User: Sky?\nAssistant: blue", "User: Sky?\nAssistant: black", "User: Sky?\nAssistant:"),
        ("Q: Sky?\nA: It is blue.", "Q: Sky?\nA: It is black.", "Q: Sky?\nA:"),
        ("### Instruction:\nSky?\n\n### Response:\nIt is blue", "### Instruction:\nSky?\n\n### Response:\nIt is low", "…:"),
        ("天空是蓝色的", "天空是绿色的", "天空是"),
        ("cafe\u0301 au lait", "cafe au lait", ""),
    ],
)
def test_the_implicit_prompt_goes_back_to_a_turn_or_a_word(chosen: str, rejected: str, prompt: str | None) -> None:
    cut = implicit_prompt(chosen, rejected)
    if prompt is None:
        assert cut == min(len(chosen), len(rejected))
    elif prompt == "…:":
        assert chosen[:cut].endswith("### Response:")
    else:
        assert chosen[:cut] == prompt
    assert chosen[:cut] == rejected[:cut]


def test_a_dialogue_of_hh_rlhf_names_its_format(tmp_path: Path) -> None:
    shared = "\n\nHuman: Sky?\n\nAssistant: bl"
    pair = {"chosen": f"{shared}ue", "rejected": f"{shared}ack"}
    opened = {"prompt": "\n\nHuman: Sky?\n\nAssistant:", "chosen": " blue", "rejected": " black"}
    for row in (pair, opened):
        with pytest.raises(DataError, match=r"line 1: .*Human:.*`source.format: hh_rlhf`"):
            train_only(tmp_path, [row])
        (example,) = train_only(tmp_path, [row], format="hh_rlhf")["train"]
        assert (example.prompt.messages, example.ranked) == ((Message("user", "Sky?"),), ("blue", "black"))


CODE = "    return 1\n  else:\n    return 2"


@pytest.mark.parametrize(
    ("format", "row"),
    [
        ("standard", {"prompt": "Go on.", "target": f"\n{CODE}\n"}),
        ("standard", {"prompt": "Go on.", "completion": [A(CODE)]}),
        ("standard", {"prompt": "Go on.", "ranked": [CODE, "No."]}),
        ("standard", {"prompt": "Go on.", "chosen": f"\r\n{CODE} ", "rejected": "No."}),
        ("standard", {"prompt": [U("Go on.")], "chosen": [A(CODE)], "rejected": [A("No.")]}),
        ("standard", {"chosen": f"Go on.\n{CODE}", "rejected": "Go on. No."}),
        ("standard", {"messages": [U("Go on."), A(CODE)]}),
        ("ultrafeedback", {"chosen": [U("Go on."), A(CODE)], "rejected": [U("Go on."), A("No.")]}),
        ("ultrachat", {"messages": [U("Go on."), A(CODE)]}),
        (
            "hh_rlhf",
            {name: f"\n\nHuman: Go on.\n\nAssistant: {text}" for name, text in (("chosen", CODE), ("rejected", "No."))},
        ),
        ("nectar", {"prompt": "\n\nHuman: Go on.\n\nAssistant: ", "answers": [{"answer": CODE, "rank": 1}]}),
    ],
)
def test_the_indentation_of_code_stays(format: Any, row: dict[str, Any], tmp_path: Path) -> None:
    (example,) = train_only(tmp_path, [row], format=format)["train"]
    assert ([message.content for message in example.prompt.messages], example.target) == (["Go on."], CODE)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        (" blue", "blue"),  # the separator of prompt-completion formats
        ("  blue", "  blue"),
        ("\tblue", "\tblue"),
        (" - a\n - b", " - a\n - b"),
        (" def f():\n    return 1", "def f():\n    return 1"),
        (" \n\n  blue \n", "  blue"),
        ("\n", ""),
    ],
)
def test_blank_lines_before_and_space_after_a_turn_go(text: str, kept: str) -> None:
    assert kept_text(text) == kept


def test_answers_that_differ_in_indentation_alone_are_no_duplicates(tmp_path: Path) -> None:
    rows = [{"prompt": "Go on.", "target": text} for text in (CODE, CODE.replace("\n  else", "\nelse"), CODE.upper())]
    dataset = train_only(tmp_path, rows)
    assert (len(dataset["train"]), dataset.dropped) == (2, {"duplicate": 1})


def test_undesirable_completions_never_become_targets(tmp_path: Path) -> None:
    rows = [{"prompt": f"Tea {number}?", "completion": "Yes.", "label": number % 2 == 0} for number in range(4)]
    with pytest.raises(DataError) as caught:
        train_only(tmp_path, rows)
    assert "`source.unpaired: desirable`" in str(caught.value) and "leave" not in str(caught.value)
    dataset = train_only(tmp_path, rows, unpaired="desirable")
    assert [example.prompt.text for example in dataset["train"]] == ["Tea 0?", "Tea 2?"]
    assert dataset.dropped == {"undesirable completion": 2}
    conversation = {"messages": [U("Tea?"), A("Yes.")], "label": False}
    with pytest.raises(DataError, match="unpaired"):
        train_only(tmp_path, [conversation])
    with pytest.raises(DataError, match=r"`label` should be true or false.* and is 'bad'"):
        train_only(tmp_path, [{**rows[0], "label": "bad"}], unpaired="desirable")


# Files


def test_a_json_array_gives_what_json_lines_give(tmp_path: Path) -> None:
    rows = [{"prompt": f"Is tea {number} hot?", "target": "Yes, [so] it is."} for number in range(30)]
    lines = Jsonl(path=write(tmp_path / "rows.jsonl", rows)).load()
    for name, text in (
        ("flat.json", json.dumps(rows)),
        ("pretty.json", json.dumps(rows, indent=2)),
        ("marked.json", "\ufeff" + json.dumps(rows)),
    ):
        (tmp_path / name).write_text(text, encoding="utf-8")
        assert Jsonl(path=str(tmp_path / name)).load() == lines
    packed = tmp_path / "array.gz"
    packed.write_bytes(gzip.compress(json.dumps(rows).encode()))
    assert Jsonl(path=str(packed)).load() == lines


@pytest.mark.parametrize(
    ("content", "place", "problem"),
    [
        ('[\n{"prompt": "a", "target": "b"},\n3\n]', 3, "a int, not an object"),
        ('[\n{"prompt": "a", "target": "b"},\n{"prompt": }\n]', 3, "not JSON"),
        ('[\n{"prompt": "a", "target": "b"}\n{"prompt": "c"}]', 3, "`,` or `]` should follow"),
        ('[{"prompt": "a", "target": "b"}]\n{"prompt": "a", "target": "c"}', 2, "more after the array's end"),
        ('[\n\n{"prompt": "a", "target": "\\ud83d"}]', 3, "half a surrogate pair"),
        ('[{"prompt": "a", "target": "b"},]', 1, "not JSON"),
        ('{\n "prompt": "a"\n}', 1, "not JSON"),
    ],
)
def test_what_is_wrong_with_an_array_names_the_line(content: str, place: int, problem: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DataError) as caught:
        Jsonl(path=str(path)).load()
    assert f"{path}, line {place}: " in str(caught.value) and problem in str(caught.value)


ENCODINGS = {"utf-16": "UTF-16", "utf-16-le": "UTF-16", "utf-16-be": "UTF-16", "utf-32": "UTF-32", "latin-1": "not UTF-8"}
GOOD = [{"prompt": f"Is café {number} hot?", "chosen": "Yes.", "rejected": "No."} for number in range(9)]
DIALOGUES = [{name: OPENED.format(number) + text for name, text in (("chosen", "a"), ("rejected", "b"))} for number in range(9)]


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize(("source", "rows"), [(Jsonl, GOOD), (HHRLHF, DIALOGUES), (Hub, GOOD)])
def test_another_encoding_is_one_error_with_the_fix(encoding: str, source: Any, rows: Any, tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_bytes("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode(encoding))
    with pytest.raises(DataError) as caught:
        (source(dataset=str(tmp_path)) if source is Hub else source(path=str(path))).load()
    assert f"{path}, line 1: it is {ENCODINGS[encoding]}" in str(caught.value)
    assert "iconv" in str(caught.value)


@pytest.mark.parametrize(("source", "rows"), [(Jsonl, GOOD), (HHRLHF, DIALOGUES)])
def test_a_byte_order_mark_changes_nothing(source: Any, rows: Any, tmp_path: Path) -> None:
    plain, marked = (tmp_path / name for name in ("plain.jsonl", "marked.jsonl"))
    text = "".join(json.dumps(row) + "\n" for row in rows)
    plain.write_text(text)
    first, rest = text[: len(text) // 2].rpartition("\n")[0] + "\n", text[len(text[: len(text) // 2].rpartition("\n")[0]) + 1 :]
    marked.write_text(f"\ufeff{first}\ufeff{rest}", encoding="utf-8")  # two files joined
    assert source(path=str(marked)).load() == source(path=str(plain)).load()


HALF = "\ud83d"
HALVES: list[tuple[str, dict[str, Any]]] = [
    ("standard", {"prompt": HALF, "target": "a"}),
    ("standard", {"prompt": "a", "target": HALF}),
    ("standard", {"prompt": "a", "ranked": ["b", HALF]}),
    ("standard", {"prompt": "a", "chosen": HALF, "rejected": "b"}),
    ("standard", {"chosen": f"a {HALF}", "rejected": "a b"}),
    ("standard", {"chosen": f"{HALF} a", "rejected": f"{HALF} b"}),
    ("standard", {"messages": [U(HALF), A("a")]}),
    ("standard", {HALF: "a"}),
    ("standard", {"prompt": "a", "target": "b", "more": [{"deep": HALF}]}),
    ("hh_rlhf", {"chosen": f"\n\nHuman: a\n\nAssistant: {HALF}", "rejected": "\n\nHuman: a\n\nAssistant: b"}),
    ("ultrachat", {"messages": [U("a"), A(HALF)]}),
    ("ultrafeedback", {"chosen": [U("a"), A(HALF)], "rejected": [U("a"), A("b")]}),
    ("nectar", {"prompt": f"\n\nHuman: {HALF}\n\nAssistant: ", "answers": [{"answer": "a", "rank": 1}]}),
    ("nectar", {"prompt": "\n\nHuman: a\n\nAssistant: ", "answers": [{"answer": HALF, "rank": 1}]}),
]


@pytest.mark.parametrize(("format", "row"), HALVES)
@pytest.mark.parametrize("source", [Jsonl, Hub])
def test_half_a_surrogate_pair_names_file_and_line(format: Any, row: Any, source: Any, tmp_path: Path) -> None:
    path = write(tmp_path / "train.jsonl", [{"a": "\U0001f600"}, row])
    with pytest.raises(DataError) as caught:
        (Hub(dataset=str(tmp_path), format=format) if source is Hub else Jsonl(path=path, format=format)).load()
    assert f"{path}, line 2: " in str(caught.value) and "half a surrogate pair" in str(caught.value)
    str(caught.value).encode()  # so that it can be printed


def test_dialogues_keep_system_turns_and_history(tmp_path: Path) -> None:
    system = {"role": "system", "content": "Be kind."}
    dialogue = [system, U("Tea?"), A("Gladly."), U("Milk?"), A("A little.")]
    (last,) = train_only(tmp_path, [{"messages": dialogue}])["train"]
    assert [message.role for message in last.prompt.messages] == ["system", "user", "assistant", "user"]
    assert last.target == "A little."
    (first,) = train_only(tmp_path, [{"messages": dialogue}], turn="first")["train"]
    assert ([message.content for message in first.prompt.messages], first.target) == (["Be kind.", "Tea?"], "Gladly.")


def test_columns_are_renamed_and_reached_into(tmp_path: Path) -> None:
    rows = [{"instruction": "Is tea hot?", "output": {"best": "Yes."}, "chosen_by": 3}]
    (example,) = train_only(tmp_path, rows, columns={"prompt": "instruction", "target": "output.best"})["train"]
    assert (example.prompt.messages, example.target) == (ASKED, "Yes.")


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": "Hot?", "chosen": "Yes.", "rejected": "Yes. "}, "identical pair"),
        ({"prompt": "Hot?", "chosen": "Yes.", "rejected": " "}, "empty response"),
        ({"prompt": "Hot?"}, "empty response"),
        ({"prompt": " ", "target": "Yes."}, "empty turn"),
        ({"prompt": [A("Hot?")], "target": "Yes."}, "malformed turn order"),
        ({"messages": [U("Hot?")]}, "no assistant turn"),
        ({"chosen": [U("Hot?"), A("Yes.")], "rejected": [U("Cold?"), A("No.")]}, "prompts differ"),
        ({"prompt": "IS  tea hot?", "target": "yes."}, "duplicate"),
        ({"prompt": "Hot?", "target": "Yes." * 30}, "longer than 100 characters"),
    ],
)
def test_rows_that_cannot_be_used_are_dropped_and_counted(row: Any, reason: str, tmp_path: Path) -> None:
    dataset = train_only(tmp_path, [{"prompt": "Is tea hot?", "target": "Yes."}, row], max_characters=100)
    assert dataset.dropped == {reason: 1}
    assert len(dataset["train"]) == 1


def test_every_broken_row_is_named_in_one_error(tmp_path: Path) -> None:
    bad = [
        "{",
        '"tea"',
        {"text": "tea"},
        {"prompt": 3, "target": "a"},
        {"prompt": "a", "chosen": "b"},
        {"prompt": "a", "label": 1},
    ]
    bad += [
        {"prompt": "a", "ranked": "b"},
        {"messages": [{"role": "bot", "content": "a"}]},
        {"prompt": "a", "target": "\ud83d"},
    ]
    path = write(tmp_path / "rows.jsonl", [{"prompt": "a", "target": "b"}, "", *bad])
    with pytest.raises(DataError) as caught:
        Jsonl(path=path).load()
    head, *lines = str(caught.value).splitlines()
    assert head == "9 rows are not in the layout 'standard':"
    assert [line.partition(": ")[0] for line in lines] == [f"  - {path}, line {number}" for number in range(3, 12)]
    for line, words in zip(
        lines,
        [
            "not JSON",
            "a str, not an object",
            "neither `prompt`, `chosen` and `rejected`, nor `messages`; found: text",
            "`prompt` should be text or a list of messages, and is int",
            "`rejected` is missing; found: chosen, prompt",
            "unpaired preferences",
            "`ranked` should be a list of responses",
            "`messages.0.role` should be system, user or assistant, and is 'bot'",
            "half a surrogate pair",
        ],
        strict=True,
    ):
        assert words in line
    with pytest.raises(DataError, match=r"30 rows are not(.|\n)*… and 10 more$"):
        Jsonl(path=write(tmp_path / "many.jsonl", ["{"] * 30)).load()


def test_a_column_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"line 1: `question.text`, which .* `prompt`, is missing; found: answer"):
        train_only(tmp_path, [{"answer": "a"}], columns={"prompt": "question.text"})


def test_parquet_gives_what_json_lines_give(tmp_path: Path) -> None:
    rows = [{"prompt": f"Is tea {number} hot?", "chosen": [A("Yes.")], "rejected": [A("No.")]} for number in range(30)]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "rows.parquet", row_group_size=7)
    packed = tmp_path / "rows.jsonl.gz"
    packed.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))
    assert Parquet(path=str(tmp_path / "rows.parquet")).load() == Jsonl(path=str(packed)).load()
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(DataError, match=r"bad.parquet, after row 0: cannot be read as Parquet"):
        Parquet(path=str(tmp_path / "bad.parquet")).load()


def test_shares_own_files_and_counts_decide_the_splits(tmp_path: Path) -> None:
    rows = [{"prompt": f"Is tea {number} hot?", "target": "Yes."} for number in range(200)]
    path = write(tmp_path / "rows.jsonl", rows)
    cut = Jsonl(path=path, heldout_share=0.3, tuning_share=0.2, sft_share=0.2).load()
    sizes = {split: len(cut[split]) for split in cut.splits}
    assert sum(sizes.values()) == 200 and 40 <= sizes["heldout"] <= 80 and 20 <= sizes["tuning"] <= 60
    own = write(tmp_path / "test.jsonl", [{"prompt": "Is milk hot?", "target": "No."}])
    whole = Jsonl(path=path, splits={"heldout": own}, most={"train": 50}).load()
    assert {split: len(whole[split]) for split in whole.splits} == {"sft": 200, "train": 50, "tuning": 0, "heldout": 1}
    again, other = (Jsonl(path=path, splits={"heldout": own}, most={"train": 50}, seed=seed).load() for seed in (0, 1))
    assert again == whole and other["train"] != whole["train"]


def test_the_fingerprint_is_of_the_content(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", [{"prompt": "a", "target": "b"}])
    before = Jsonl(path=path).fingerprint()
    assert Jsonl(path=write(tmp_path / "copy.jsonl", [{"prompt": "a", "target": "b"}])).fingerprint() == before
    write(tmp_path / "rows.jsonl", [{"prompt": "a", "target": "c"}])
    assert Jsonl(path=path).fingerprint() != before


def test_missing_files_and_impossible_shares_are_problems(tmp_path: Path) -> None:
    assert Jsonl().problems() == [("path", "it is not set: name the training file with `--set source.path=FILE`")]
    missing = Jsonl(path=str(tmp_path), splits={"heldout": str(tmp_path / "no")}).problems()
    assert missing == [("splits", f"{tmp_path / 'no'}: no such file"), ("path", f"{tmp_path}: a folder")]
    with pytest.raises(ValidationError, match="nothing is left to train on"):
        Jsonl(heldout_share=0.5, tuning_share=0.5)
    with pytest.raises(DataError, match=r"no row is left to train on \(1 empty response\)"):
        train_only(tmp_path, [{"prompt": "a"}])


# Data sets by their documented columns


def test_ultrafeedback_binarized() -> None:
    asked = "How hot is tea?"
    row = {
        "prompt": asked,
        "prompt_id": "5f1e",
        "chosen": [U(asked), A("About 60 °C.")],
        "rejected": [U(asked), A("Cold.")],
        "messages": [U(asked), A("About 60 °C.")],
        "score_chosen": 8.5,
        "score_rejected": 8.5,
    }
    record = READERS["ultrafeedback"](row, "last")
    assert record.messages == (Message("user", asked),)
    assert (record.target, record.ranked) == ("About 60 °C.", ("About 60 °C.", "Cold."))


def test_ultrachat_200k() -> None:
    row = {"prompt": "Tea?", "prompt_id": "a1", "messages": [U("Tea?"), A("Gladly."), U("Milk?"), A("A little.")]}
    record = READERS["ultrachat"](row, "last")
    assert ([message.content for message in record.messages], record.target) == (["Tea?", "Gladly.", "Milk?"], "A little.")
    assert record.ranked == ()


def test_nectar_is_ranked_from_best_to_worst() -> None:
    answers = [
        {"answer": " Cold. ", "model": "alpaca-7b", "rank": 7.0},
        {"answer": "About 60 °C.", "model": "gpt-4", "rank": 1.0},
        {"answer": "Hot.", "model": "llama-2-7b-chat", "rank": 4.0},
    ]
    prompt = "\n\nHuman: Tea?\n\nAssistant: Gladly.\n\nHuman: How hot?\n\nAssistant: "
    row = {"prompt": prompt, "answers": answers, "turns": 2, "num_responses": 3, "source": ["x"], "good_natured": True}
    record = READERS["nectar"](row, "last")
    assert [message.content for message in record.messages] == ["Tea?", "Gladly.", "How hot?"]
    assert (record.target, record.ranked) == ("About 60 °C.", ("About 60 °C.", "Hot.", "Cold."))
    with pytest.raises(ValueError, match=r"a list of \{answer, rank"):
        READERS["nectar"]({**row, "answers": [{"answer": "a"}]}, "last")


# The hub


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hub cache that holds one data set, laid out as huggingface_hub does, and no network."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    repository = tmp_path / "cache" / "datasets--someone--tea"
    snapshot = repository / "snapshots" / COMMIT
    (snapshot / "data").mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    for split, count in (("train_prefs", 6), ("test_prefs", 2)):
        rows = [{"chosen": [U(f"{split} {n}?"), A("Yes.")], "rejected": [U(f"{split} {n}?"), A("No.")]} for n in range(count)]
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), snapshot / "data" / f"{split}-00000-of-00001.parquet")
    return snapshot


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_cached_data_set_is_read_offline_and_pinned(cached: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "datasets"))
    source = UltraFeedback(dataset="someone/tea")
    assert source.problems() == ()
    assert source.fingerprint() == COMMIT
    pinned = source.pinned()
    assert pinned.revision == COMMIT
    dataset = pinned.load()
    assert {split: len(dataset[split]) for split in dataset.splits} == {"sft": 6, "train": 6, "tuning": 0, "heldout": 2}
    assert UltraFeedback(dataset=str(cached)).load() == dataset
    with pytest.raises(DataError, match="data set someone/tea, split 'nothing': it cannot be read"):
        Hub(dataset="someone/tea", split="nothing").load()


def test_without_cache_and_network_there_is_one_clear_problem(cached: Path) -> None:
    for source in (UltraChat(), Nectar()):
        assert source.problems() == ()  # a plan goes on without it
        with pytest.raises(
            DataError, match=r"needs network: the hub cannot be reached, and the local hub cache does not hold it"
        ):
            source.pinned()
    assert Hub().problems()[0][1].startswith("it is not set")
    assert Hub(dataset="tea").problems() == [("dataset", "it is neither a folder nor owner/name")]


# Real rows


def reference(*parts: str) -> Path:
    folder = os.environ.get("HARNESS_REFERENCE_DATA")
    if not folder:
        pytest.skip(f"HARNESS_REFERENCE_DATA is not set: the folder that holds {'/'.join(parts)}")
    return Path(folder, *parts)


def test_real_hh_rlhf_rows_are_read_as_the_source_of_that_name_reads_them() -> None:
    file = reference("hh_rlhf", "harmless-base-test.jsonl.gz")
    ours = Jsonl(path=str(file), format="hh_rlhf", heldout_share=0.2, tuning_share=0.05).load()
    theirs = HHRLHF(path=str(file), heldout_share=0.2, tuning_share=0.05, max_characters=10**6).load()
    for split in ("train", "tuning", "heldout"):
        pairs = [[(row.prompt.messages, row.ranked) for row in dataset[split]] for dataset in (ours, theirs)]
        assert pairs[0] == pairs[1]
    assert sum(len(ours[split]) for split in ("train", "tuning", "heldout")) == 2299


def test_real_questions_are_read_by_a_column_map() -> None:
    file = reference("gsm8k", "train.jsonl")
    dataset = Jsonl(path=str(file), columns={"prompt": "question", "target": "answer"}).load()
    assert len(dataset["train"]) + len(dataset["heldout"]) == 2000
    assert dataset.dropped == {}
    assert len(dataset["train"]) > 1500
    assert all("####" in (example.target or "") for example in dataset["train"])


def test_turns_keep_dialogues_of_few_turns_in_their_split_alone(tmp_path: Path) -> None:
    """Self-Contrast evaluates on HH-RLHF's single-turn test dialogues and trains on all."""
    one = [{"prompt": [U(f"Is tea {n} hot?")], "ranked": ["Yes.", "No."]} for n in range(6)]
    two = [{"prompt": [U(f"Hi {n}"), A("Hello"), U(f"Is tea {n} hot?")], "ranked": ["Yes.", "No."]} for n in range(4)]
    path = write(tmp_path / "rows.jsonl", [*one, *two])
    own = write(tmp_path / "own.jsonl", [{**row, "ranked": ["Sure.", "No."]} for row in (*one, *two)])
    dataset = Jsonl(path=path, splits={"heldout": own}, turns={"heldout": 1}, most={"heldout": 5}).load()
    assert len(dataset["train"]) == 10
    assert [len(example.prompt.messages) for example in dataset["heldout"]] == [1] * 5
    assert dataset.dropped == {"more than 1 user turns (heldout)": 4}
    with pytest.raises(DataError, match=r"no row of `train` has at most 1 user turns: raise source\.turns"):
        Jsonl(path=write(tmp_path / "two.jsonl", two), turns={"train": 1}).load()
    with pytest.raises(ValidationError, match="`turns` should be at least 1"):
        Jsonl(path=path, turns={"heldout": 0})
