"""Checkpoints of four architectures: found, refused, loaded with options, merged with adapters."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from checkpoints import ARCHITECTURES, make_checkpoint, make_model, make_tokenizer

from harness.api.types import Prompt, Response
from harness.errors import DataError
from harness.models.checkpoint import Checkpoint, adapter_folder, checkpoint_folder, checkpoint_hash, locate
from harness.models.load import load, load_model
from harness.models.options import KEPT, LoadOptions
from harness.models.tokenization import ChatTemplate

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # PEFT's own call
IDS = torch.arange(7, 19)[None]


def make_adapter(base: Path, folder: Path, safe: bool = True) -> Path:
    """A LoRA adapter that changes something."""
    from peft import LoraConfig, get_peft_model

    with torch.random.fork_rng():
        torch.manual_seed(1)
        config = LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False, task_type="CAUSAL_LM")
        get_peft_model(load_model(base), config).save_pretrained(folder, safe_serialization=safe)
    return folder


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_any_architecture_is_found_and_answers_with_its_own_template(architecture: str, tmp_path: Path) -> None:
    make_checkpoint(tmp_path, architecture, template=ARCHITECTURES[architecture][1] or ARCHITECTURES["qwen2"][1])
    model, tokenizer = load(locate(str(tmp_path)).files())
    template = ChatTemplate(tokenizer)
    asked = Prompt.of("p", "is tea hot ?")
    prompt, answer = template.prompt_ids(asked), template.response_ids(asked, Response("yes ."))
    assert prompt.count(tokenizer.bos_token_id) <= 1
    assert answer[-1] == template.end_id
    assert model(torch.tensor([prompt + answer])).logits.shape == (1, len(prompt) + len(answer), len(tokenizer))


def test_default_options_leave_the_key_as_it_was(tmp_path: Path) -> None:
    make_checkpoint(tmp_path)
    assert locate(str(tmp_path)).digest == checkpoint_hash(tmp_path)


@pytest.mark.parametrize(
    "options",
    [
        LoadOptions(dtype="bfloat16"),
        LoadOptions(attn_implementation="eager"),
        LoadOptions(quantization="4bit"),
        LoadOptions(trust_remote_code=True),
        LoadOptions(chat_template="x"),
        LoadOptions(adapter="/somewhere", adapter_hash="a"),
    ],
    ids=lambda options: ",".join(options.changed()),
)
def test_every_option_is_in_the_key(options: LoadOptions, tmp_path: Path) -> None:
    make_checkpoint(tmp_path)
    plain = Checkpoint(str(tmp_path))
    assert Checkpoint(str(tmp_path), options=options).digest != plain.digest
    assert Checkpoint.of(json.loads(json.dumps(Checkpoint(str(tmp_path), options=options).as_dict()))).options == options


def test_code_counts_only_where_it_may_run(tmp_path: Path) -> None:
    make_checkpoint(tmp_path)
    trusting = Checkpoint(str(tmp_path), options=LoadOptions(trust_remote_code=True))
    before = trusting.digest, Checkpoint(str(tmp_path)).digest
    (tmp_path / "modeling_own.py").write_text("x = 1\n")
    assert Checkpoint(str(tmp_path)).digest == before[1]
    # Each object reads its files once, so the digest after the change is that of a new one.
    assert replace(trusting).digest != before[0]


def test_dtype_and_attention_hold_for_what_is_trained_from_it(tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "base")
    model = load_model(tmp_path / "base", LoadOptions(dtype="bfloat16", attn_implementation="eager"))
    assert model.dtype == torch.bfloat16
    model.save_pretrained(tmp_path / "trained")
    again = load_model(tmp_path / "trained")
    assert again.dtype == torch.bfloat16
    assert again.config._attn_implementation == "eager"
    assert load_model(tmp_path / "base").dtype == torch.float32


def test_a_checkpoint_cannot_ask_to_run_its_code(tmp_path: Path) -> None:
    asked = {KEPT: {"trust_remote_code": True, "dtype": "float16"}}
    assert LoadOptions.of_config(asked) == LoadOptions(dtype="float16")


def test_a_run_with_defaults_writes_nothing_of_ours_into_the_configuration(tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "base")
    load_model(tmp_path / "base").save_pretrained(tmp_path / "trained")
    assert KEPT not in json.loads((tmp_path / "trained" / "config.json").read_text())


def test_attention_that_is_not_installed_is_one_line(tmp_path: Path) -> None:
    make_checkpoint(tmp_path)
    with pytest.raises(DataError, match="cannot be loaded: ") as caught:
        load_model(tmp_path, LoadOptions(attn_implementation="flash_attention_2"))
    assert "\n" not in str(caught.value)


def test_sharded_weights_are_read_whole_and_a_missing_shard_is_named(tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "one")
    make_checkpoint(tmp_path / "many", max_shard_size="20KB")
    shards = sorted((tmp_path / "many").glob("model-*.safetensors"))
    assert len(shards) > 1
    whole, sharded = (load_model(checkpoint_folder(str(tmp_path / name))) for name in ("one", "many"))
    assert torch.equal(whole(IDS).logits, sharded(IDS).logits)
    shards[1].unlink()
    with pytest.raises(DataError, match=f"names {shards[1].name}, which is not there; is the download complete"):
        checkpoint_folder(str(tmp_path / "many"))


def test_weights_that_may_run_code_are_refused(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path)
    torch.save(load_model(folder).state_dict(), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(DataError, match=r"no \*\.safetensors .*; pytorch_model.bin is not read, because it may run code"):
        checkpoint_folder(str(folder))


def test_an_adapter_is_merged_and_changes_what_is_computed(tmp_path: Path) -> None:
    from peft import PeftModel

    base = make_checkpoint(tmp_path / "base")
    adapter = adapter_folder(str(make_adapter(base, tmp_path / "adapter")))
    merged = load_model(base, LoadOptions(adapter=str(adapter), adapter_hash=checkpoint_hash(adapter)))
    assert type(merged).__name__ == "LlamaForCausalLM"
    with torch.no_grad():
        expected = PeftModel.from_pretrained(load_model(base), adapter).eval()(IDS).logits
        assert torch.allclose(merged(IDS).logits, expected, atol=1e-5)
        assert not torch.allclose(merged(IDS).logits, load_model(base)(IDS).logits, atol=1e-3)


def test_an_adapter_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    base = make_checkpoint(tmp_path / "base")
    with pytest.raises(DataError, match=r"no adapter_config.json in it"):
        adapter_folder(str(tmp_path / "nowhere"))
    adapter = make_adapter(base, tmp_path / "adapter")
    with pytest.raises(DataError, match="it is a PEFT adapter; name its base here"):
        checkpoint_folder(str(adapter))
    other = make_checkpoint(tmp_path / "other", "gpt_neox", template=None)
    with pytest.raises(DataError, match=r"model.adapter = .*: it does not fit the model"):
        load_model(other, LoadOptions(adapter=str(adapter), adapter_hash="a"))
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
    with pytest.raises(DataError, match=r"no adapter_model.safetensors; adapter_model.bin is not read"):
        adapter_folder(str(adapter))


@pytest.mark.parametrize("content", ["{", "[]", None])
def test_a_checkpoint_without_configuration_is_one_line(content: str | None, tmp_path: Path) -> None:
    tokenizer = make_tokenizer(None)
    make_model("llama", tokenizer).save_pretrained(tmp_path)
    (tmp_path / "config.json").unlink() if content is None else (tmp_path / "config.json").write_text(content)
    with pytest.raises(DataError, match=r"config.json"):
        load_model(tmp_path)


@pytest.mark.gpu
def test_four_bit_weights_compute_nearly_the_same(tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    folder = make_checkpoint(tmp_path)
    ids = IDS.cuda()
    with torch.no_grad():
        exact = load_model(folder, LoadOptions(dtype="bfloat16"))(ids).logits
        rounded = load_model(folder, LoadOptions(dtype="bfloat16", quantization="4bit"))(ids).logits
    assert torch.cosine_similarity(exact.float(), rounded.float(), dim=-1).min() > 0.9
