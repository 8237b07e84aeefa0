"""lm-eval's engine around a policy in memory: without its own loading, progress bars, log and downloads."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Literal

from harness import HarnessError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

MOST_AT_A_TIME = 64  # where the search for a batch size begins, as in lm-eval
LOGITS_BYTES = 2**31  # of one batch on a CPU, where too much memory ends the process and not the batch


def language_model(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, batch_size: int | Literal["auto"]
) -> tuple[Any, int]:
    """lm-eval's wrapper of the model, which refuses two beginning-of-sequence tokens, and the requests it takes at a time."""
    from lm_eval.models.huggingface import HFLM

    class PolicyModel(HFLM):
        def loglikelihood(self, requests: list[Any], disable_tqdm: bool = True) -> Any:
            check_beginning(self.tok_encode(requests[0].args[0]), self.tokenizer)
            return super().loglikelihood(requests, disable_tqdm=True)

        def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = True) -> Any:
            return super().loglikelihood_rolling(requests, disable_tqdm=True)

        def generate_until(self, requests: list[Any], disable_tqdm: bool = True) -> Any:
            check_beginning(self.tok_batch_encode([requests[0].args[0]])[0][0].tolist(), self.tokenizer)
            return super().generate_until(requests, disable_tqdm=True)

    wrapped = PolicyModel(pretrained=model, tokenizer=tokenizer, batch_size=1, max_batch_size=MOST_AT_A_TIME)
    wrapped.batch_size_per_gpu = _fitting(wrapped) if batch_size == "auto" else batch_size
    return wrapped, wrapped.batch_size_per_gpu


def _fitting(wrapped: Any) -> int:
    """Requests at a time: by lm-eval's search, which halves until the longest fit; on a CPU by the size of their logits."""
    if wrapped.device.type != "cpu":
        return int(wrapped._detect_batch_size())
    each = wrapped.max_length * wrapped.model.config.get_text_config().vocab_size * 4 * 2  # logits and their softmax, float32
    return int(max(1, min(MOST_AT_A_TIME, LOGITS_BYTES // each)))


def check_beginning(ids: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> None:
    """A prompt that begins with two beginning-of-sequence tokens would quietly cost every policy some accuracy."""
    begin = tokenizer.bos_token_id
    if begin is not None and list(ids[:2]) == [begin, begin]:
        token = tokenizer.bos_token
        raise HarnessError(f"prompts begin with {token} twice: the tokenizer and its chat template both add it; drop one")


@contextmanager
def attributes(owner: Any, **values: Any) -> Iterator[None]:
    """Module attributes changed for a while."""
    before = {name: getattr(owner, name) for name in values}
    try:
        for name, value in values.items():
            setattr(owner, name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(owner, name, value)


@contextmanager
def quiet_and_offline() -> Iterator[None]:
    """Without lm-eval's log, prints and progress bars, which have no switch of their own, and without any download."""
    import datasets
    import huggingface_hub.constants
    import lm_eval.api.task

    logger, bars = logging.getLogger("lm_eval"), datasets.are_progress_bars_disabled()
    level = logger.level
    with ExitStack() as stack:
        stack.enter_context(attributes(datasets.config, HF_HUB_OFFLINE=True, HF_DATASETS_OFFLINE=True))
        stack.enter_context(attributes(huggingface_hub.constants, HF_HUB_OFFLINE=True))
        stack.enter_context(attributes(lm_eval.api.task, tqdm=lambda documents, **_: documents))
        stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
        stack.callback(logger.setLevel, level)
        logger.setLevel(logging.ERROR)
        if not bars:
            datasets.disable_progress_bars()
            stack.callback(datasets.enable_progress_bars)
        yield
