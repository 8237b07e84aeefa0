"""DPO by LLaMA-Factory as a row of a comparison, through the trainer `command`; the settings are in llamafactory_dpo.yaml.

Written for LLaMA-Factory 0.9.3 by its documentation and source (its example of DPO, `data/README.md` for the data, and
`hparams/parser.py` for `key=value` after a config file). It was not run: LLaMA-Factory was not installed where it was written.
`tests/plugins/test_trainer_llamafactory.py` checks the files and the command line with a program in its place.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

NAME = "harness"  # of the data set, in dataset_info.json
INFO = {
    "file_name": "pairs.json",
    "formatting": "sharegpt",
    "ranking": True,
    "columns": {"messages": "messages", "chosen": "chosen", "rejected": "rejected"},
    "tags": {
        "role_tag": "role",
        "content_tag": "content",
        "user_tag": "user",
        "assistant_tag": "assistant",
        "system_tag": "system",
    },
}


def write_data(data: Path, folder: Path) -> None:
    """Write the harness's pairs as LLaMA-Factory's preference format: `chosen` and `rejected` are one message each."""
    pairs = []
    for line in data.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        pairs.append({"messages": row["prompt"], "chosen": row["chosen"][0], "rejected": row["rejected"][0]})
    (folder / "pairs.json").write_text(json.dumps(pairs, ensure_ascii=False), encoding="utf-8")
    (folder / "dataset_info.json").write_text(json.dumps({NAME: INFO}), encoding="utf-8")


def curve(out: Path) -> None:
    """Write the steps of LLaMA-Factory's own log as the harness reads them."""
    log = out / "trainer_log.jsonl"
    for line in log.read_text(encoding="utf-8").splitlines() if log.exists() else []:
        row = json.loads(line)
        if "loss" in row:
            step = {"step": row["current_steps"], "total": row["total_steps"], "loss": row["loss"]}
            sys.stdout.write(json.dumps(step) + "\n")


parser = argparse.ArgumentParser()
for option in ("--start", "--data", "--out", "--seed"):
    parser.add_argument(option, required=True)
parser.add_argument("--config", default=str(Path(__file__).with_suffix(".yaml")))
given = parser.parse_args()
with tempfile.TemporaryDirectory() as folder:
    write_data(Path(given.data), Path(folder))
    changed = {
        "model_name_or_path": given.start,
        "dataset_dir": folder,
        "dataset": NAME,
        "output_dir": given.out,
        "seed": given.seed,
    }
    done = subprocess.run(["llamafactory-cli", "train", given.config, *(f"{name}={value}" for name, value in changed.items())])
if done.returncode:
    sys.exit(done.returncode)
curve(Path(given.out))
