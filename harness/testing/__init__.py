"""What plugin authors test with.

`check` and `assert_conforms` say whether a registered component keeps to what the host relies on; `example_batch`,
`ScriptedBuild` and `ScriptedEvaluation` are what they run it on, for tests of your own, as is
`analysis_context` for analyses; `harness.testing.strategies` has
Hypothesis strategies and needs the extra `testing`.
"""

from harness.sandbox.scripted import ScriptedBuild, ScriptedEvaluation
from harness.sandbox.untrained import untrained_policy
from harness.testing.analyses import analysis_context
from harness.testing.batches import example_batch
from harness.testing.conformance import assert_conforms, check
from harness.testing.verdict import Finding, Verdict

__all__ = [
    "Finding",
    "ScriptedBuild",
    "ScriptedEvaluation",
    "Verdict",
    "analysis_context",
    "assert_conforms",
    "check",
    "example_batch",
    "untrained_policy",
]
