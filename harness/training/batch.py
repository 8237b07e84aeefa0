"""Groups -> token rows -> `GroupLogps`: the *unique* layout, m + 1 sequences for one chosen and m rejected responses."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from harness.interfaces import Objective
from harness.models.logps import Row, response_logps
from harness.models.prompts import ChatTemplate
from harness.types import Group, GroupLogps, Logps, View

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

PLAIN = ""  # the view of a prompt as it is


@dataclass(frozen=True)
class TokenGroup:
    """One group as ids.

    Attributes:
        prompts: ids of the prompt under each view; `PLAIN` is always there.
        responses: ids of the chosen response, then of each rejected one.
        reference: log-probabilities of the responses under the reference, by view; empty where not needed. Nats.
    """

    prompts: Mapping[str, tuple[int, ...]]
    responses: tuple[tuple[int, ...], ...]
    reference: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    @property
    def pairs(self) -> int:
        return len(self.responses) - 1

    def rows(self, view: str = PLAIN) -> list[Row]:
        """The sequences to score under a view, chosen first."""
        return [Row(self.prompts[view], response) for response in self.responses]

    @property
    def tokens(self) -> int:
        """Tokens of one policy pass with gradient."""
        return sum(row.tokens for row in self.rows())


def tokenize(groups: Iterable[Group], template: ChatTemplate, objective: Objective) -> list[TokenGroup]:
    """Groups as ids, under the plain prompt and every view of the objective."""
    views = objective.views()
    tokenized = []
    for group in groups:
        prompts = {PLAIN: tuple(template.prompt_ids(group.prompt))}
        prompts |= {name: tuple(template.prompt_ids(change(group.prompt))) for name, change in views.items()}
        responses = tuple(tuple(template.response_ids(response)) for response in (group.chosen, *group.rejected))
        tokenized.append(TokenGroup(prompts, responses))
    return tokenized


def cut_groups(groups: Sequence[TokenGroup], tokens: int) -> Iterator[list[TokenGroup]]:
    """Groups in micro-batches of at most `tokens` padded tokens, at least one group each, longest first."""
    batch: list[TokenGroup] = []
    for group in sorted(groups, key=lambda group: -max(row.tokens for row in group.rows())):
        rows = [row for other in (*batch, group) for row in other.rows()]
        width = max(len(row.prompt) for row in rows) + max(len(row.response) for row in rows)
        if batch and len(rows) * width > tokens:
            yield batch
            batch = []
        batch.append(group)
    if batch:
        yield batch


def policy_logps(model: PreTrainedModel, groups: Sequence[TokenGroup], view: str = PLAIN) -> Logps:
    """The groups' log-probabilities under `model`; with gradient unless the caller forbids it."""
    values = response_logps(model, [row for group in groups for row in group.rows(view)])
    return _shape(values, groups)


def group_logps(model: PreTrainedModel, groups: Sequence[TokenGroup], objective: Objective) -> GroupLogps:
    """All an objective sees: policy with gradient, views without, reference as stored."""
    import torch

    views = {}
    for name in objective.views():
        with torch.no_grad():
            views[name] = View(policy_logps(model, groups, name), _stored(model, groups, name))
    reference = _stored(model, groups, PLAIN) if objective.needs_reference else None
    return GroupLogps(policy_logps(model, groups), reference, views)


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
