"""One search against its trials as separate comparisons, each from an empty store: time, tokens generated and trained.

    python benchmarks/tuning.py                    # four methods, eight trials each, of configs/sandbox-tuned.yaml
    python benchmarks/tuning.py --trials 2 --quick  # small numbers, to see that it works

A separate trial is a comparison of one row on the tuning split, its baseline itself: it pays for its data, its starting
model, its training and its scores and for nothing else. Wall and processor time include the start of the workers; tokens are
counted from the stores.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import Any

from sharing import FACTS, QUICK, RESULTS, ROOT, processor_seconds, run, tokens

from harness.config.file import load_raw, override
from harness.config.sweep import with_settings
from harness.run.compare import tune
from harness.run.tuning import TuningResult
from harness.store import Store

METHODS = ("dpo", "simpo", "sr_dpo", "self_contrast")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])  # type: ignore[union-attr]
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="small numbers; writes tuning-quick.json")
    options = parser.parse_args()
    small = [*QUICK, "source.tuning=32"] if options.quick else []
    raw = override(load_raw(ROOT / "configs" / "sandbox-tuned.yaml"), [f"tuning.trials={options.trials}", *small])
    raw["methods"] = ["sft", *options.methods]
    together, choice = searched(raw, options.workers)
    separate: Counter[str] = Counter()
    for method in options.methods:
        for trial in choice.entries[method].trials or ():
            row = with_settings({"method": method}, trial.settings)
            alone = {
                **{name: value for name, value in raw.items() if name != "tuning"},
                **{"methods": [row], "baseline": method, "seeds": [trial.seed]},
                **{"evaluation": {"split": "tuning"}, "evaluators": ["gold_reward"]},
            }
            separate.update(run(alone, options.workers))
    ratios = {name: separate[name] / together[name] for name in ("seconds", "processor_seconds", *FACTS) if together[name]}
    measured = {
        **{
            "methods": list(options.methods),
            "trials": options.trials,
            "workers": options.workers,
            "torch": version("torch"),
            "load": round(os.getloadavg()[0], 1),
        },
        **{"together": together, "separate": dict(separate), "ratios": ratios},
    }
    name = "tuning-quick" if options.quick else "tuning"
    (RESULTS / f"{name}.json").write_text(json.dumps(measured, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(measured, indent=1))


def searched(raw: dict[str, Any], workers: int) -> tuple[dict[str, Any], TuningResult]:
    """Seconds and tokens of the search from an empty store, and what it tried."""
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "store"
        start, before = time.perf_counter(), processor_seconds()
        choice = tune(raw, folder=Path(folder) / "run", store=store, workers=workers)
        spent = {"seconds": time.perf_counter() - start, "processor_seconds": processor_seconds() - before}
        return {**spent, **tokens(Store(store))}, choice


if __name__ == "__main__":
    main()
