"""Conformance and a property of a registered objective, as a plugin's own tests would check them.

python examples/check_a_loss.py
"""

from __future__ import annotations

import sys

from harness.api.registry import Registry
from harness.testing import check, example_batch


def main(name: str = "dpo") -> bool:
    """Whether the component conforms; its verdict is printed."""
    verdicts = check(name)
    for verdict in verdicts:
        sys.stdout.write(f"{verdict}\n")
    objective = Registry.load().get("objective", name).component()
    loss = objective.loss(example_batch(objective))
    sys.stdout.write(f"loss of each pair: {loss.per_pair.tolist()}\n")
    return all(verdict.ok for verdict in verdicts)


if __name__ == "__main__":
    sys.exit(not main())
