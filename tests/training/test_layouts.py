"""The layouts give one loss and one gradient, and compute the tokens that they say."""

from __future__ import annotations

import random
import warnings
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from architectures import HONOURING, exact, make

from harness.models.batched import computed
from harness.models.logps import Head, TokenRow, score
from harness.training.batch import PLAIN, TokenGroup, cut_groups, group_logps
from harness.training.layouts.attention import IMPLEMENTATION, Segments, pad, unpad
from harness.training.layouts.choose import LayoutWarning, choose_layout
from harness.training.layouts.layout import Bundle, Layout, cut, score_bundles
from harness.training.layouts.padded import ExpandedPairs, UniqueRows
from harness.training.layouts.scores import SharedScores
from harness.training.layouts.shared_prefix import SharedPrefix
from harness.training.reduction import Totals, reduce_loss
from harness_plugins.baselines.dpo import DPO
from harness_plugins.self_refined.refinement import AUGMENTED
from harness_plugins.self_refined.sr_dpo import SrDPO

OTHERS = (ExpandedPairs(), UniqueRows())
CHUNKED = Head(chunked=True, logits=0)
CHECKPOINTING = {"reentrant": True, "not reentrant": False, "off": None}


def groups(count: int = 3, seed: int = 0) -> list[TokenGroup]:
    """Groups of unequal lengths and numbers of negatives, with a made-up reference."""
    rng = random.Random(seed)

    def ids(low: int, high: int) -> tuple[int, ...]:
        return tuple(rng.choices(range(3, 96), k=rng.randint(low, high)))

    made = []
    for number in range(count):
        prompt, responses = ids(3, 9), tuple(ids(1, 8) for _ in range(2 + number % 3))
        reference = {view: tuple(rng.gauss(-20, 1) for _ in responses) for view in (PLAIN, AUGMENTED)}
        made.append(TokenGroup({PLAIN: prompt, AUGMENTED: (7, 8, 9, *prompt)}, responses, reference))
    return made


def step(model, batch, layout: Layout, objective=DPO(), tokens: int = 10**9) -> tuple[float, torch.Tensor]:  # noqa: B008
    """Loss and gradient of a batch."""
    model.zero_grad()
    value = 0.0
    for micro in cut_groups(batch, tokens, layout):
        logps = group_logps(model, micro, objective, layout=layout)
        loss = reduce_loss(objective.loss(logps), logps, objective, Totals.of(batch))
        loss.backward()
        value += float(loss.detach())
    return value, torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]).double()


def assert_equal(found, expected, tolerance: float) -> None:
    assert abs(found[0] - expected[0]) <= tolerance * abs(expected[0])
    error = float((found[1] - expected[1]).norm() / expected[1].norm())
    assert error <= tolerance, error


def checkpointing(model, reentrant: bool | None) -> None:
    if reentrant is not None:
        enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
        enable({"use_reentrant": reentrant})
        if reentrant:
            model.enable_input_require_grads()


@pytest.mark.parametrize("mode", CHECKPOINTING)
@pytest.mark.parametrize("name", HONOURING)
def test_layouts_agree_in_float64(name: str, mode: str) -> None:
    model = exact(make(HONOURING[name]))
    shared = choose_layout(model, "shared_prefix")
    checkpointing(model, CHECKPOINTING[mode])
    expected = step(model, groups(), OTHERS[0])
    for layout in (OTHERS[1], shared, SharedPrefix(CHUNKED), UniqueRows(head=CHUNKED)):
        assert_equal(step(model, groups(), layout), expected, 1e-9)


@pytest.mark.parametrize("mode", CHECKPOINTING)
def test_checkpointing_really_recomputes(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make(HONOURING["llama"])
    shared = choose_layout(model, "shared_prefix")
    checkpointing(model, CHECKPOINTING[mode])
    made: list[Segments] = []
    of = Segments.of
    monkeypatch.setattr(Segments, "of", lambda *arguments: made.append(of(*arguments)) or made[-1])
    step(model, groups(), shared)
    assert [segments.calls for segments in made] == [2 if mode == "off" else 4]  # of two layers


@pytest.mark.parametrize("name", HONOURING)
def test_layouts_agree_in_float32(name: str) -> None:
    model = make(HONOURING[name])
    shared = choose_layout(model, "shared_prefix")
    expected = step(model, groups(), OTHERS[0])
    for layout in (OTHERS[1], shared):
        assert_equal(step(model, groups(), layout), expected, 1e-5)


@pytest.mark.parametrize("name", ["llama", "mistral sliding", "gemma3"])
def test_views_agree(name: str) -> None:
    """Sr-DPO's augmented prompt, without gradient, by the same layout."""
    model = exact(make(HONOURING[name]))
    shared = choose_layout(model, "shared_prefix")
    assert_equal(step(model, groups(), shared, SrDPO()), step(model, groups(), OTHERS[1], SrDPO()), 1e-9)


@pytest.mark.parametrize("name", ["llama", "mistral sliding", "opt"])
def test_micro_batches_do_not_change_the_gradient(name: str) -> None:
    model = exact(make(HONOURING[name]))
    shared, batch = choose_layout(model, "shared_prefix"), groups(8)
    assert len(list(cut_groups(batch, 60, shared))) > 2
    assert_equal(step(model, batch, shared, tokens=60), step(model, batch, shared), 1e-9)


@pytest.mark.parametrize("number", range(3), ids=["expanded", "unique", "shared_prefix"])
def test_m_equal_negatives_are_one(number: int) -> None:
    model = exact(make(HONOURING["llama"]))
    layout = (*OTHERS, choose_layout(model, "shared_prefix"))[number]
    (group,) = groups(1)
    reference = {view: (*values, values[1], values[1]) for view, values in group.reference.items()}
    triple = replace(group, responses=(*group.responses, group.responses[1], group.responses[1]), reference=reference)
    assert_equal(step(model, [triple], layout), step(model, [group], layout), 1e-9)


def test_the_implementation_is_not_saved_and_other_passes_go_through(tmp_path) -> None:
    model = make(HONOURING["mistral sliding"]).eval()
    rows = [TokenRow((7, 8, 9), (10, 11, 12, 13, 14, 15)), TokenRow((5,), (6,))]
    bundles = [Bundle(row.prompt, (row.response,)) for row in rows]
    before = UniqueRows().logps(model, bundles)
    continued = model.generate(torch.tensor([[5, 6, 7, 8, 9, 10]]), max_new_tokens=4, do_sample=False)
    choose_layout(model, "shared_prefix")
    assert model.config._attn_implementation == IMPLEMENTATION
    assert torch.equal(UniqueRows().logps(model, bundles), before)
    again = model.generate(torch.tensor([[5, 6, 7, 8, 9, 10]]), max_new_tokens=4, do_sample=False)
    assert torch.equal(again, continued)
    model.save_pretrained(tmp_path)
    assert IMPLEMENTATION not in (tmp_path / "config.json").read_text()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert type(model).from_pretrained(tmp_path).config._attn_implementation == "sdpa"


def test_an_empty_response_has_probability_one() -> None:
    model = make(HONOURING["llama"])
    shared = choose_layout(model, "shared_prefix")
    bundles = [Bundle((7, 8), ((), (9, 10))), Bundle((5, 6, 7), ((),))]
    with torch.no_grad():
        assert shared.logps(model, bundles)[[0, 2]].tolist() == [0.0, 0.0]
        assert shared.logps(model, bundles[1:]).tolist() == [0.0]


def test_scores_keep_order_and_compute_equal_responses_once() -> None:
    model = make(HONOURING["llama"])
    shared = choose_layout(model, "shared_prefix")
    bundles = [replace(b, responses=(*b.responses, b.responses[0])) for b in (group.bundle() for group in groups(6))]
    asked: list[int] = []

    class Counting(SharedPrefix):
        def logps(self, model, bundles):
            asked.extend(len(bundle.responses) for bundle in bundles)
            return super().logps(model, bundles)

    scores = score_bundles(model, bundles, Counting(), 60)
    assert sum(asked) == sum(len(bundle.responses) - 1 for bundle in bundles)
    with torch.no_grad():
        alone = [shared.logps(model, [bundle]).tolist() for bundle in bundles]
    for values, expected in zip(scores, alone, strict=True):
        assert values == pytest.approx(expected, rel=1e-5)


def test_tokens_are_those_that_a_pass_computes() -> None:
    bundles = [Bundle((1,) * 4, ((2,) * 3, (2,) * 5, (2,) * 1)), Bundle((1,) * 6, ((2,) * 2, (2,) * 2))]
    assert SharedPrefix().tokens(bundles) == 4 + 3 + 5 + 1 + 6 + 2 + 2
    assert UniqueRows().tokens(bundles) == 5 * (6 + 5)
    assert ExpandedPairs().tokens(bundles) == 6 * (6 + 5)


def test_cut_respects_the_budget_and_loses_nothing() -> None:
    bundles = [group.bundle() for group in groups(20)]
    for layout in (*OTHERS, SharedPrefix()):
        parts = list(cut(layout, bundles, 80))
        assert sorted(index for part in parts for index in part) == list(range(20))
        assert all(len(part) == 1 or layout.tokens([bundles[i] for i in part]) <= 80 for part in parts)
        longest = [max(bundles[i].longest for i in part) for part in parts]
        assert all(first >= second for first, second in pairwise(longest))


@pytest.mark.parametrize("lengths", [[3, 1, 4], [2, 2], [0, 3]])
def test_unpad_undoes_pad(lengths: list[int]) -> None:
    states = torch.randn(sum(lengths), 2, 3)
    padded = pad(states, lengths)
    assert padded.shape == (len(lengths), max(lengths), 2, 3)
    assert torch.equal(unpad(padded, lengths), states)


def test_masks_go_by_position_and_keep_every_row_alive() -> None:
    segments = Segments(prompts=[3, 1], responses=[2, 1, 2], owners=[0, 0, 1])
    among, across = segments.mask(None, torch.device("cpu"))
    assert among is None
    assert across[0, 0].int().tolist() == [[1, 1, 1, 1, 0], [1, 1, 1, 1, 1]]
    assert across[2, 0].int().tolist() == [[1, 0, 0, 1, 0], [1, 0, 0, 1, 1]]
    among, across = segments.mask(2, torch.device("cpu"))
    assert among[0, 0].int().tolist() == [[1, 0, 0], [1, 1, 0], [0, 1, 1]]
    assert across[0, 0].int().tolist() == [[0, 0, 1, 1, 0], [0, 0, 0, 1, 1]]
    assert across.any(-1).all()


@pytest.mark.parametrize("tokens", [10**6, 12])
@pytest.mark.parametrize("honours", [True, False])
def test_scores_are_those_of_padded_rows_and_leave_the_model_as_it_was(
    honours: bool, tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prompts without responses too, and a prompt whose responses are more than a batch."""
    model = make(HONOURING["gpt2"])
    expecting = warnings.catch_warnings() if honours else pytest.warns(LayoutWarning, match="scoring with padded rows")
    if not honours:
        monkeypatch.setattr("harness.training.layouts.probe.refusals", lambda model: ["it is asked not to"])
    passes: list[int] = []
    model.register_forward_pre_hook(lambda *_: passes.append(1))
    bundles = [*(group.bundle() for group in groups(4)), Bundle((5, 6), ())]
    with expecting:
        scores = SharedScores(model, bundles, tokens)
    values = computed(scores, sum(len(bundle.responses) for bundle in bundles)).tolist()
    assert model.config._attn_implementation == "sdpa"
    assert len(passes) == 1 if tokens > 12 else len(passes) > len(bundles)
    expected = score(model, [row for bundle in bundles for row in bundle.rows()])
    assert values == pytest.approx(expected, rel=1e-5)
