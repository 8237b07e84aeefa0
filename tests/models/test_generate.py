"""Generation against transformers' own, and what sampling promises."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from harness.api.types import Message, Prompt, Response, Sampling
from harness.models import cache
from harness.models.generate import _choose, block_sampling, blocks, generate
from harness.models.random_numbers import ByBatch
from harness.models.tokenization import ChatTemplate

PROMPTS = [
    Prompt.of("a", "name two fruits but not apple . answer separated by commas ."),
    Prompt.of("b", "sort these numbers from low to high : 7 , 3 , 9 . answer as a numbered list ."),
    Prompt.of("c", "describe a lemon in two points . answer with a dash before each item ."),
]


def numbers(rows: int) -> Callable[[], torch.Tensor]:
    stream = ByBatch(torch.Generator().manual_seed(0))
    return lambda: stream.draw(0, torch.arange(rows))


DIALOGUE = Prompt(
    "d", (Message("user", "name two fruits ."), Message("assistant", "pear , plum"), Message("user", "name one more ."))
)


def test_greedy_equals_transformers_generate(tiny) -> None:
    model, tokenizer = tiny
    template = ChatTemplate(tokenizer)
    ours = generate(model, tokenizer, PROMPTS, Sampling(temperature=0, max_tokens=12))
    for prompt, (response,) in zip(PROMPTS, ours, strict=True):
        ids = torch.tensor([template.prompt_ids(prompt)])
        out = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=12)[
            0, ids.shape[1] :
        ].tolist()
        finished = template.end_id in out
        words = out[: out.index(template.end_id)] if finished else out
        assert response.text == tokenizer.decode(words, skip_special_tokens=True).strip()
        assert response.finished == finished
        assert response.tokens == len(words) + finished


def test_same_seed_same_words_and_other_seed_others(tiny) -> None:
    model, tokenizer = tiny
    sampling = Sampling(n=3, max_tokens=8, seed=5)
    first, again = (generate(model, tokenizer, PROMPTS, sampling) for _ in range(2))
    assert first == again
    assert generate(model, tokenizer, PROMPTS, replace(sampling, seed=6)) != first
    assert [len(row) for row in first] == [3, 3, 3]
    assert len({response.text for response in first[0]}) > 1


def test_small_batches_keep_the_prompts_order(tiny) -> None:
    model, tokenizer = tiny
    greedy = Sampling(temperature=0, max_tokens=6)
    seen: list[tuple[int, int]] = []
    small = generate(model, tokenizer, PROMPTS, greedy, rows_per_batch=1, report=lambda done, total: seen.append((done, total)))
    assert small == generate(model, tokenizer, PROMPTS, greedy)
    assert seen == [(1, 3), (2, 3), (3, 3)]


class Memory:
    """Chunks of a process that ends after `left` of them."""

    def __init__(self, responses: dict[int, list[Response]], state: bytes, left: int) -> None:
        self.responses, self.state, self.left = responses, state, left

    def add(self, responses: dict[int, list[Response]], state: bytes = b"") -> None:
        assert not self.responses.keys() & responses.keys()
        self.responses, self.state, self.left = self.responses | responses, state, self.left - 1
        if self.left == 0:
            raise KeyboardInterrupt


def test_a_generation_goes_on_after_any_batch(tiny) -> None:
    """With the random numbers of one that was not interrupted; prompts are batched by length, and not in their order."""
    model, tokenizer = tiny
    sampling = Sampling(n=2, max_tokens=8, top_p=0.9, seed=5)
    whole = generate(model, tokenizer, [*PROMPTS, DIALOGUE], sampling, rows_per_batch=2)
    chunks = Memory({}, b"", 1)
    for done in (1, 2, 3, 4):
        with pytest.raises(KeyboardInterrupt):
            generate(model, tokenizer, [*PROMPTS, DIALOGUE], sampling, rows_per_batch=2, chunks=chunks)
        assert chunks.responses == {place: whole[place] for place in chunks.responses} and len(chunks.responses) == done
        chunks = Memory(chunks.responses, chunks.state, 1)
    assert generate(model, tokenizer, [*PROMPTS, DIALOGUE], sampling, rows_per_batch=2, chunks=chunks) == whole


def test_sampling_follows_the_models_distribution() -> None:
    logits = torch.tensor([[0.0, 1.0, 2.0]]).repeat(20_000, 1)
    drawn = _choose(logits, Sampling(), numbers(len(logits)))
    shares = torch.bincount(drawn, minlength=3).double() / len(drawn)
    assert shares.tolist() == pytest.approx(torch.softmax(logits[0].double(), -1).tolist(), abs=0.015)


def test_top_p_keeps_the_smallest_set_that_reaches_p() -> None:
    logits = torch.log(torch.tensor([[0.5, 0.3, 0.15, 0.05]])).repeat(2000, 1)
    drawn = _choose(logits, Sampling(top_p=0.75), numbers(len(logits)))
    assert set(drawn.tolist()) == {0, 1}
    drawn = _choose(logits, Sampling(top_p=0.5), numbers(len(logits)))
    assert set(drawn.tolist()) == {0}


def test_an_unfinished_response_is_said_to_be(tiny) -> None:
    model, tokenizer = tiny
    responses = [r for row in generate(model, tokenizer, PROMPTS, Sampling(n=8, max_tokens=3)) for r in row]
    assert any(not response.finished for response in responses)
    assert all(response.tokens <= 3 for response in responses)


def test_blocks_double_and_share_their_beginning() -> None:
    assert blocks(1) == [(0, 1)]
    assert blocks(16) == [(0, 1), (1, 1), (2, 2), (4, 4), (8, 8)]
    assert blocks(32)[:5] == blocks(16)
    assert sum(size for _, size in blocks(64)) == 64
    seeds = {block_sampling(Sampling(seed=7), start, size).seed for start, size in blocks(64)}
    assert len(seeds) == len(blocks(64))


def test_a_dialogue_is_answered_as_its_template_renders_it(tiny) -> None:
    model, tokenizer = tiny
    greedy = Sampling(temperature=0, max_tokens=6)
    (alone,), (beside, *_) = (
        generate(model, tokenizer, [DIALOGUE], greedy),
        generate(model, tokenizer, [DIALOGUE, *PROMPTS], greedy),
    )
    assert alone == beside
    ids = torch.tensor([ChatTemplate(tokenizer).prompt_ids(DIALOGUE)])
    out = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=6)[
        0, ids.shape[1] :
    ].tolist()
    end = ChatTemplate(tokenizer).end_id
    words = out[: out.index(end)] if end in out else out
    assert alone[0].text == tokenizer.decode(words, skip_special_tokens=True).strip()


def test_a_prompt_is_computed_once_for_all_its_samples(tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokenizer = tiny
    seen: list[tuple[int, int]] = []
    forward = type(model).forward

    def counting(self, input_ids, **more):
        seen.append(tuple(input_ids.shape))
        return forward(self, input_ids=input_ids, **more)

    monkeypatch.setattr(type(model), "forward", counting)
    generate(model, tokenizer, PROMPTS, Sampling(n=5, max_tokens=4))
    prompts, *steps = seen
    assert prompts[0] == len(PROMPTS)
    assert all(shape[1] == 1 and shape[0] <= 5 * len(PROMPTS) for shape in steps) and len(steps) == 3


@pytest.mark.gpu
def test_on_a_gpu_in_bfloat16(tiny) -> None:
    model, tokenizer = tiny
    assert (model.device.type, model.dtype) == ("cuda", torch.bfloat16)
    drawn = Sampling(n=4, max_tokens=8, seed=5)
    first, again = (generate(model, tokenizer, [*PROMPTS, DIALOGUE], drawn) for _ in range(2))
    assert first == again and [len(row) for row in first] == [4] * 4


@pytest.mark.gpu
def test_on_a_gpu_a_generation_goes_on(tiny) -> None:
    model, tokenizer = tiny
    drawn, chunks = Sampling(n=4, max_tokens=8, seed=5), Memory({}, b"", 2)
    whole = generate(model, tokenizer, [*PROMPTS, DIALOGUE], drawn, rows_per_batch=4)
    with pytest.raises(KeyboardInterrupt):
        generate(model, tokenizer, [*PROMPTS, DIALOGUE], drawn, rows_per_batch=4, chunks=chunks)
    again = Memory(chunks.responses, chunks.state, 9)
    assert generate(model, tokenizer, [*PROMPTS, DIALOGUE], drawn, rows_per_batch=4, chunks=again) == whole


@pytest.mark.gpu
def test_on_a_gpu_greedy_answers_are_the_cpus_in_float32(tiny) -> None:
    model, tokenizer = tiny
    greedy = Sampling(temperature=0, max_tokens=8)
    on_gpu = generate(model.float(), tokenizer, [*PROMPTS, DIALOGUE], greedy)
    assert on_gpu == generate(model.cpu(), tokenizer, [*PROMPTS, DIALOGUE], greedy)


def test_a_cache_with_room_holds_what_a_copied_one_does(monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import DynamicCache

    generator = torch.Generator().manual_seed(0)

    def states(tokens: int, rows: int) -> list[torch.Tensor]:
        return [torch.randn(rows, 2, tokens, 4, generator=generator) for _ in range(2)]

    plain, roomy = DynamicCache(), DynamicCache()
    first = states(3, 5)
    for kept in (plain, roomy):
        kept.update(*first, 0)
    monkeypatch.setattr(cache, "ROOM", 2)
    cache.make_room(roomy)
    assert type(roomy.layers[0]) is cache.RoomyLayer
    for tokens, rows in ((1, None), (1, [4, 0, 2]), (1, None), (5, None), (1, [1])):
        if rows is not None:
            for kept in (plain, roomy):
                kept.batch_select_indices(torch.tensor(rows))
        fresh = states(tokens, len(plain.layers[0].keys))
        expected, given = plain.update(*fresh, 0), roomy.update(*fresh, 0)
        assert all(torch.equal(left, right) for left, right in zip(expected, given, strict=True))
        assert roomy.get_seq_length() == plain.get_seq_length()


@pytest.mark.parametrize("temperature", [0.0, 1.0, 0.7])
def test_room_in_the_cache_changes_no_token(temperature: float, tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    for make_room in (cache.make_room, lambda given: None):
        monkeypatch.setattr(cache, "make_room", make_room)
        drawn.append(generate(*tiny, PROMPTS, Sampling(3, temperature, 0.9, 12, 7)))
    assert drawn[0] == drawn[1] and len({response.text for row in drawn[0] for response in row}) > 1
