"""The shared-prefix layout: every prompt once, its responses beside each other, no padding.

A micro-batch is one row: the prompts back to back, then the responses. Position ids restart after the prompt for each
response, and `attention` lets a response see its own prompt and itself alone. What lies outside attention works token by
token, so that the order within the row is free.

Imports torch and transformers; import it where training begins.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from harness.models.logps import Head, unwrapped
from harness.models.vocabulary import TokenTargets, head_logps, token_logps
from harness.training.layouts.attention import SEGMENTS, Segments
from harness.training.layouts.choose import Attention
from harness.training.layouts.layout import Bundle


class SharedPrefix:
    """Structured attention over one row. Needs `attention.install`, and a model that passes `probe`.

    Args:
        head: how hidden states become log-probabilities.
        attention: how attention is computed.
    """

    name = "shared_prefix"
    warning = ""

    def __init__(self, head: Head = Head(), attention: Attention = "sdpa") -> None:  # noqa: B008
        self.head = head
        self.attention = attention

    def tokens(self, bundles: Sequence[Bundle]) -> int:
        return sum(len(bundle.prompt) + sum(map(len, bundle.responses)) for bundle in bundles)

    def logps(self, model: PreTrainedModel, bundles: Sequence[Bundle]) -> Tensor:
        """See `Layout.logps`.

        Raises:
            NotImplementedError: the model's attention never received the row's structure.
        """
        model, segments = unwrapped(model), Segments.of(bundles, self.attention)
        keep, targets = _targets(bundles)
        keep, targets = keep.to(model.device), targets.to(model.device)
        if self.head.chunks(model, len(keep)):
            hidden = model.base_model(**_inputs(model, bundles, segments)).last_hidden_state[0, keep]
            values = head_logps(model.get_output_embeddings(), hidden, targets)
        else:
            logits = model(**_inputs(model, bundles, segments), logits_to_keep=keep).logits[0]  # [K, V]
            values = token_logps(logits, targets.rows, targets.labels)
        if not segments.calls:
            raise NotImplementedError("the layout never reached its attention")
        return targets.sums(values)


def _inputs(model: PreTrainedModel, bundles: Sequence[Bundle], segments: Segments) -> dict[str, object]:
    """Return the model's arguments: the row, [1, T], its positions and structure.

    A mask of four dimensions is passed through by transformers as it is, so that none of T × T is made, and no segments
    are inferred from the restarting position ids; `shared_prefix_attention` takes no notice of it.
    """
    ids = [token for bundle in bundles for token in bundle.prompt]
    places = [place for bundle in bundles for place in range(len(bundle.prompt))]
    for bundle in bundles:
        for response in bundle.responses:
            ids += response
            places += range(len(bundle.prompt), len(bundle.prompt) + len(response))
    return {
        "input_ids": torch.tensor([ids], device=model.device),
        "position_ids": torch.tensor([places], device=model.device),
        "attention_mask": torch.zeros((1, 1, 1, 1), dtype=model.dtype, device=model.device),
        "use_cache": False,
        SEGMENTS: segments,
    }


def _targets(bundles: Sequence[Bundle]) -> tuple[Tensor, TokenTargets]:
    """Return the places in the row at which logits are needed, [K], and the tokens that they are to predict.

    The places are the last token of each prompt, which predicts the first token of all its responses, and all but the last
    token of each response. They are in order.
    """
    keep, place = [], 0
    targets: list[tuple[int, int, int]] = []  # (row of logits, token, response)
    owner = 0
    for index, bundle in enumerate(bundles):
        place += len(bundle.prompt)
        keep.append(place - 1)
        for response in bundle.responses:
            targets += [(index, token, owner) for token in response[:1]]
            owner += 1
    owner = 0
    for response in (response for bundle in bundles for response in bundle.responses):
        targets += [(len(keep) + step, token, owner) for step, token in enumerate(response[1:])]
        keep += range(place, place + max(0, len(response) - 1))
        place += len(response)
        owner += 1
    rows, labels, owners = torch.tensor(targets, dtype=torch.long).reshape(-1, 3).T.contiguous()
    return torch.tensor(keep), TokenTargets(rows, labels, owners, owner)
