"""The sandbox's word-level tokenizer: one token a word, with a chat template that marks the assistant's words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.sandbox import language as words
from harness.sandbox.tasks import FAMILIES, draw_task

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

UNKNOWN, PADDING, BEGIN, END, USER, ASSISTANT = "<unk>", "<pad>", "<s>", "<end>", "<user>", "<assistant>"
SPECIAL = (UNKNOWN, PADDING, BEGIN, END, USER, ASSISTANT)
WORD_PATTERN = r"<[a-z]+>|\d+\)|[a-z0-9][a-z0-9'-]*|[^\sa-z0-9]"

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}<assistant> {% generation %}{{ message['content'] }} <end>{% endgeneration %}"
    "{% else %}<user> {{ message['content'] }} <end>{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)


def vocabulary() -> list[str]:
    """Every word the sandbox can say, special tokens first, the rest sorted."""
    import random

    texts: list[str] = [
        *(word for group in words.CATEGORIES.values() for word in group),
        *words.CATEGORIES,
        *words.OPPOSITES,
        *(text for texts in (*words.RECIPES.values(), *words.OBJECTS.values()) for text in texts),
        *words.RECIPES,
        *words.OBJECTS,
        *words.NUMBERS,
        *words.MARKERS,
        *words.COUNT_WORDS.values(),
        *words.OPENERS,
        *words.CLOSERS,
        *words.LEADS,
        *words.WAFFLE,
        *words.RUDE,
        *words.REFUSALS,
        *(text for texts in words.FORMATS.values() for text in texts),
        *(text.format(score=1, rating=1) for text in (*words.SCORE_REQUESTS, *words.USEFULNESS_REQUESTS)),
        words.BULLET,
        ", . : ! ?",
    ]
    rng = random.Random(0)
    texts += [draw_task(rng, family).question for family in FAMILIES for _ in range(50)]
    return [*SPECIAL, *sorted({word for text in texts for word in text.split()} - set(SPECIAL))]


def build_tokenizer() -> PreTrainedTokenizerFast:
    """The tokenizer, ready to save. Adds no special tokens of its own: the chat template places `<s>`."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(vocabulary())}, unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(WORD_PATTERN), behavior="removed", invert=True)
    tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=False)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token=UNKNOWN,
        pad_token=PADDING,
        bos_token=BEGIN,
        eos_token=END,
        additional_special_tokens=[USER, ASSISTANT],
        chat_template=CHAT_TEMPLATE,
        model_max_length=512,
        clean_up_tokenization_spaces=False,
    )
