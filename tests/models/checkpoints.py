"""Tiny checkpoints as they are found in the world: four architectures, chat templates of real shape, each written here."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

TEXT = "name two fruits . pear , fig . is tea hot ? yes , it is . user assistant system be kind instruction response\n" * 3
SIZES = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}

# As Qwen2 and many others write it.
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# As Llama 2 and Mistral's instruct models do: the user's turn ends with what opens the answer.
INSTRUCT = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}"
    "{{ '[INST] ' + message['content'] + ' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}{{ ' ' + message['content'] + eos_token }}"
    "{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}"
)
# As Gemma does: no system turn, `model` for the assistant.
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for message in messages %}{% set role = 'model' if message['role'] == 'assistant' else 'user' %}"
    "{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
# A slip often seen: the generation prompt is forgotten.
FORGETFUL = CHATML.partition("{% if add_generation_prompt")[0]

ARCHITECTURES = {
    "llama": (lambda ids: LlamaForCausalLM(LlamaConfig(**ids, **SIZES)), INSTRUCT),
    "qwen2": (lambda ids: Qwen2ForCausalLM(Qwen2Config(**ids, **SIZES, num_key_value_heads=1)), CHATML),
    "gpt_neox": (lambda ids: GPTNeoXForCausalLM(GPTNeoXConfig(**ids, **SIZES)), None),  # Pythia has no template
    "gemma3": (
        lambda ids: Gemma3ForCausalLM(Gemma3TextConfig(**ids, **SIZES, num_key_value_heads=1, head_dim=8, sliding_window=64)),
        GEMMA,
    ),
}


def make_tokenizer(template: str | None, *, adds_bos: bool = True) -> PreTrainedTokenizerFast:
    """Byte-level BPE with Llama's, Qwen's and Gemma's special tokens; puts BOS before plain text as Llama's does."""
    special = ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>", "<start_of_turn>", "<end_of_turn>"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in special],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator([TEXT], trainer)
    if adds_bos:
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<unk>",
        chat_template=template,
        clean_up_tokenization_spaces=False,
    )


def make_model(architecture: str, tokenizer: PreTrainedTokenizerFast, seed: int = 0) -> PreTrainedModel:
    ids = {"vocab_size": len(tokenizer), "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return ARCHITECTURES[architecture][0](ids).eval()


def make_checkpoint(folder: Path, architecture: str = "llama", template: str | None = "", **saving: object) -> Path:
    """A checkpoint folder; `template` is the architecture's usual one unless given."""
    tokenizer = make_tokenizer(ARCHITECTURES[architecture][1] if template == "" else template)
    make_model(architecture, tokenizer).save_pretrained(folder, **saving)
    tokenizer.save_pretrained(folder)
    return folder
