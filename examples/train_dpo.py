"""DPO in plain PyTorch, as a trainer of a row: `trainer: {name: command, command: "python examples/train_dpo.py …"}`.

A config's row gives the places as arguments; this script reads pairs, trains, prints a JSON line per step, and saves the model.
"""

import argparse
import copy
import json
import random
import sys
from pathlib import Path

import torch
from torch.nn.functional import log_softmax, logsigmoid
from transformers import AutoModelForCausalLM, AutoTokenizer

places = argparse.ArgumentParser()
for name, kind in {"start": str, "data": str, "out": str, "seed": int, "lr": float, "batch": int, "beta": float}.items():
    places.add_argument(f"--{name}", type=kind, default={"lr": 2e-4, "batch": 16, "beta": 0.1}.get(name))
given = places.parse_args()
policy, tokenizer = AutoModelForCausalLM.from_pretrained(given.start), AutoTokenizer.from_pretrained(given.start)
reference = copy.deepcopy(policy).eval().requires_grad_(False)
pairs = [json.loads(line) for line in Path(given.data).read_text(encoding="utf-8").splitlines()]
random.Random(given.seed).shuffle(pairs)


def logp(model, prompt, answer):  # summed over the answer's tokens, in nats
    begin = len(tokenizer.apply_chat_template(prompt, add_generation_prompt=True)["input_ids"])
    ids = torch.tensor([tokenizer.apply_chat_template(prompt + answer)["input_ids"]])
    logps = log_softmax(model(ids).logits[:, :-1].float(), -1).gather(-1, ids[:, 1:, None])[..., 0]
    return logps[:, begin - 1 :].sum()


optimizer, steps = torch.optim.AdamW(policy.parameters(), given.lr, weight_decay=0.0), -(-len(pairs) // given.batch)
for step in range(steps):
    batch, total = pairs[step * given.batch :][: given.batch], 0.0
    for pair in batch:
        sides = [logp(policy, pair["prompt"], pair[side]) for side in ("chosen", "rejected")]
        with torch.no_grad():
            before = [logp(reference, pair["prompt"], pair[side]) for side in ("chosen", "rejected")]
        loss = -logsigmoid(given.beta * ((sides[0] - before[0]) - (sides[1] - before[1]))) / len(batch)
        loss.backward()
        total += loss.item()
    torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
    optimizer.step(), optimizer.zero_grad()
    used = {"pairs": step * given.batch + len(batch)}
    sys.stdout.write(json.dumps({"step": step + 1, "total": steps, "loss": total, "used": used}) + "\n")
policy.save_pretrained(given.out)
