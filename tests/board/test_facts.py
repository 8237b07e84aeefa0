"""Typed facts: known fields by name, unknown ones kept, and nothing written that was not read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from harness.board.facts import JudgeEntry, Provenance, SharingFacts

KNOWN = {
    "judges": {"gold": {"model": "a-judge", "versions": ["v1"], "of_tomorrow": 1}},
    "models": {"0": "ab"},
    "items": [1, 2.0],
}


def test_facts_are_written_as_they_were_read() -> None:
    facts = Provenance.read(KNOWN)
    assert json.dumps(facts.model_dump(mode="json"), sort_keys=True) == json.dumps(KNOWN, sort_keys=True)
    assert Provenance.read({}).model_dump() == {} and not Provenance.read({})
    assert SharingFacts.read({"seconds_saved": 5}).model_dump_json() == '{"seconds_saved":5}'


def test_facts_are_fields_and_a_mapping() -> None:
    facts = Provenance.read(KNOWN)
    assert facts.judges["gold"].versions == ["v1"] == facts["judges"]["gold"]["versions"]
    assert facts["items"] == [1, 2.0] and {**facts} == KNOWN == facts and facts != {}
    assert "data" not in facts and facts.get("data") is None and facts.data == {}
    with pytest.raises(KeyError):
        facts["data"]


def test_facts_are_read_as_json_holds_them() -> None:
    facts = Provenance.read({"folder": Path("a"), "seen": {2, 1}, "loss": float("nan")})
    assert facts == {"folder": "a", "seen": [1, 2], "loss": "nan"}


def test_a_known_fact_of_another_type_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"judges\.gold\.versions"):
        Provenance.read({"judges": {"gold": {"versions": 3}}})
    with pytest.raises(ValidationError, match="frozen"):
        JudgeEntry().model = "another"  # type: ignore[misc]
