"""Turn groups into ids, and ids into the log-probabilities that an objective sees (`GroupLogps`), by any layout."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeVar

from harness.api.interfaces import Objective
from harness.api.types import Example, Group, GroupLogps, Logps, Mismatched, Prompt, Response, View
from harness.errors import StageError
from harness.models.logps import TokenRow
from harness.models.tokenization import ChatTemplate
from harness.training.layouts.layout import Bundle, Layout, cut, score_bundles
from harness.training.layouts.padded import UniqueRows

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

PLAIN = ""  # the view of a prompt as it is
MISMATCHED = "mismatched"  # the prompt as it is, with another group's responses

UNIQUE = UniqueRows()

AnyGroup = TypeVar("AnyGroup")


@dataclass(frozen=True)
class TokenGroup:
    """One group as ids.

    Attributes:
        prompts: ids of the prompt under each view; `PLAIN` is always there.
        responses: ids of the chosen response, then of each rejected one.
        reference: log-probabilities of the responses under the reference, by view; empty where not needed. Nats.
        mismatched: ids of another group's responses, where the objective needs them.
        id: of the prompt, for people.
        ranked: whether the rejected responses are in order, best first.
    """

    prompts: Mapping[str, tuple[int, ...]]
    responses: tuple[tuple[int, ...], ...]
    reference: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    mismatched: tuple[tuple[int, ...], ...] = ()
    id: str = ""
    ranked: bool = True

    @property
    def pairs(self) -> int:
        return len(self.responses) - 1

    def bundle(self, view: str = PLAIN) -> Bundle:
        """The prompt and responses to score under a view, chosen first."""
        if view == MISMATCHED:
            return Bundle(self.prompts[PLAIN], self.mismatched)
        return Bundle(self.prompts[view], self.responses)

    def rows(self, view: str = PLAIN) -> list[TokenRow]:
        """The same as sequences."""
        return self.bundle(view).rows()

    @property
    def tokens(self) -> int:
        """Tokens of one policy pass with gradient, each response with its own copy of the prompt, whatever the layout."""
        return sum(row.tokens for row in self.rows())


def tokenize(
    groups: Iterable[Group], template: ChatTemplate, objective: Objective | None, *, ranked: bool = True
) -> list[TokenGroup]:
    """Groups as ids, under the plain prompt and every view of the objective; `ranked` if their builder ranks the rejected."""
    tokenized = []
    for group in groups:
        prompts = tokenize_prompt(group.prompt, template, objective)
        responses = tuple(tuple(template.response_ids(group.prompt, response)) for response in (group.chosen, *group.rejected))
        tokenized.append(TokenGroup(prompts, responses, id=group.prompt.id, ranked=ranked))
    if objective is not None and objective.needs_mismatched:
        return [replace(own, mismatched=other.responses) for own, other in zip(tokenized, partners(tokenized), strict=True)]
    return tokenized


def tokenize_prompt(prompt: Prompt, template: ChatTemplate, objective: Objective | None) -> dict[str, tuple[int, ...]]:
    """Return a prompt's ids, plain and under every view of the objective."""
    views = {
        name: tuple(template.prompt_ids(change(prompt))) for name, change in (objective.views() if objective else {}).items()
    }
    return {PLAIN: tuple(template.prompt_ids(prompt)), **views}


def tokenize_target(example: Example, template: ChatTemplate, max_length: int) -> tuple[list[int], list[int]] | str:
    """Return ids of an example's prompt and target for supervised fine-tuning, or the reason why it is dropped."""
    if example.target is None:
        return "no target"
    prompt = template.prompt_ids(example.prompt)
    response = template.response_ids(example.prompt, Response(example.target))
    if len(prompt) + len(response) > max_length:
        return "longer than sft.max_length"
    return prompt, response


def partners(groups: Sequence[AnyGroup]) -> list[AnyGroup]:
    """Return the group whose responses each group's prompt is mismatched with: the one before it, for the first the last.

    Fixed for a data set, not for a batch, so that the reference's log-probabilities of the mismatched pairs can be stored.
    """
    if len(groups) < 2:
        raise StageError("mismatched pairs need two groups or more: raise budget.prompts, or choose another objective")
    return [groups[-1], *groups[:-1]]


def cut_groups(groups: Sequence[TokenGroup], tokens: int, layout: Layout = UNIQUE) -> Iterator[list[TokenGroup]]:
    """Groups in micro-batches of at most `tokens` of the layout's tokens, at least one group each, longest first."""
    for batch in cut(layout, [group.bundle() for group in groups], tokens):
        yield [groups[index] for index in batch]


def policy_logps(model: PreTrainedModel, groups: Sequence[TokenGroup], view: str = PLAIN, layout: Layout = UNIQUE) -> Logps:
    """The groups' log-probabilities under `model`; with gradient unless the caller forbids it."""
    return _shape(layout.logps(model, [group.bundle(view) for group in groups]), groups)


def mismatched_logps(
    model: PreTrainedModel,
    groups: Sequence[TokenGroup],
    tokens: int,
    layout: Layout = UNIQUE,
    scores: Sequence[Sequence[float]] | None = None,
) -> Mismatched:
    """A whole batch's mismatched pairs: policy without gradient, `tokens` at a time; reference as stored.

    A chosen response with m rejected ones is there m times, as in the m pairs that they stand for: so means are those of the
    pairs.

    Args:
        scores: what `mismatched_scores` gave for the groups, where several processes have made them.
    """
    import torch

    scores = mismatched_scores(model, groups, tokens, layout) if scores is None else scores
    policy = [value for values in scores for value in _of_pairs(values)]
    reference = [value for group in groups for value in _of_pairs(group.reference[MISMATCHED])]
    return Mismatched(*(torch.tensor(values, dtype=torch.float64, device=model.device) for values in (policy, reference)))


def _of_pairs(values: Sequence[float]) -> list[float]:
    """One number of each response, chosen first -> of each pair's two; a lone response stands for itself."""
    return [*[values[0]] * max(1, len(values) - 1), *values[1:]]


def mismatched_scores(
    model: PreTrainedModel, groups: Sequence[TokenGroup], tokens: int, layout: Layout = UNIQUE
) -> list[list[float]]:
    """The policy's log-probabilities of each group's mismatched pairs, without gradient. Nats."""
    return score_bundles(model, [group.bundle(MISMATCHED) for group in groups], layout, tokens)


def group_logps(
    model: PreTrainedModel,
    groups: Sequence[TokenGroup],
    objective: Objective,
    mismatched: Mismatched | None = None,
    layout: Layout = UNIQUE,
) -> GroupLogps:
    """All an objective sees: policy with gradient, views without, reference as stored, the batch's mismatched pairs."""
    import torch

    views = {}
    for name in objective.views():
        with torch.no_grad():
            views[name] = View(policy_logps(model, groups, name, layout), _stored(model, groups, name))
    reference = _stored(model, groups, PLAIN) if objective.needs_reference else None
    ranked = all(group.ranked for group in groups)
    return GroupLogps(policy_logps(model, groups, layout=layout), reference, views, mismatched, ranked)


def _stored(model: PreTrainedModel, groups: Sequence[TokenGroup], view: str) -> Logps:
    import torch

    values = torch.tensor([value for group in groups for value in group.reference[view]], dtype=torch.float64)
    return _shape(values.to(model.device), groups)


def _shape(values: Tensor, groups: Sequence[TokenGroup]) -> Logps:
    """Flat values, chosen first within each group -> [G] and [G, M]."""
    import torch

    most = max(group.pairs for group in groups)
    owner = torch.tensor([index for index, group in enumerate(groups) for _ in group.responses])
    place = torch.tensor([slot for group in groups for slot in range(len(group.responses))])
    counts = torch.tensor([len(response) for group in groups for response in group.responses])
    table = values.new_zeros((len(groups), most + 1)).index_put((owner, place), values)
    tokens = torch.ones((len(groups), most + 1), dtype=torch.long).index_put((owner, place), counts).to(values.device)
    mask = torch.zeros((len(groups), most + 1), dtype=torch.bool)
    mask[owner, place] = True
    return Logps(table[:, 0], table[:, 1:], tokens[:, 0], tokens[:, 1:], mask[:, 1:].to(values.device))
