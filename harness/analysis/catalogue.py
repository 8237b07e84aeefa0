"""All analyses, by name: what they reproduce, what they need, how long they take. A value; nothing registers itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module

from harness.analysis.lab import Lab
from harness.analysis.report import Report
from harness.errors import HarnessError, StageError, did_you_mean
from harness.types import Paper

SELF_CONTRAST = Paper("Extensive Self-Contrast Enables Feedback-Free Language Model Alignment", "2404.00604")
ONLY_PROMPTING = Paper("Just say what you want: only-prompting self-rewarding online preference optimization", "2409.17534")
SELF_REFINED = Paper("Direct Alignment of Language Models via Quality-Aware Self-Refinement", "2405.21040")


@dataclass(frozen=True)
class Analysis:
    """One analysis; its module is named like it and has a `run(lab)`.

    Attributes:
        question: what it answers, in one line.
        places: figures and tables of the paper.
        needs: what the source must provide.
        minutes: about; on two cores with the quickstart's settings and an empty store, from runs with twice its seeds.
    """

    name: str
    question: str
    paper: Paper
    places: str
    needs: tuple[str, ...]
    minutes: float

    def run(self, lab: Lab) -> Report:
        """Run it.

        Raises:
            ConfigError: the source lacks what it needs, or the config is wrong.
            StageError: a stage failed, or what it made is too little for an interval.
        """
        lab.require(*self.needs)
        run: Callable[[Lab], Report] = import_module(f"harness.analysis.{self.name.replace('-', '_')}").run
        try:
            return run(lab)
        except ValueError as error:
            raise StageError(f"{self.name} has too little data for an interval ({error}): raise budget.prompts") from error


ANALYSES = (
    Analysis(
        "data-accuracy",
        "How many negatives are really worse than the target, against a % and R, and what that does to the trained policy",
        SELF_CONTRAST,
        "Figure 5, §4.1",
        ("target", "gold"),
        2,
    ),
    Analysis(
        "negative-rewards",
        "How the negatives' rewards are distributed, filtered or not, and how far that is from a filter by reward",
        SELF_CONTRAST,
        "Figure 6, §4.1",
        ("target", "gold"),
        1,
    ),
    Analysis(
        "negatives-count",
        "Whether more negatives per prompt make a better policy, filtered or not, and what they cost",
        SELF_CONTRAST,
        "Figure 4, Tables 1 and 2, §4.2",
        ("target", "ranked", "gold"),
        4,
    ),
    Analysis(
        "gradient-variance",
        "Theorem 1: how many negatives replace how many pairs, in closed form, simulated, and with real gradients",
        SELF_CONTRAST,
        "Theorem 1, Appendix A",
        ("target",),
        2,
    ),
    Analysis(
        "prompted-rewards",
        "Whether a policy answers as well as it is asked to, by round; fixed gap; answering with the chosen prefix",
        ONLY_PROMPTING,
        "Figures 3 and 4, Tables 2 and 3",
        ("gold",),
        2,
    ),
    Analysis(
        "refinement-accuracy",
        "Whether the augmented prompt ranks pairs as the plain one does; the choice of λ; the number of tuples",
        SELF_REFINED,
        "Figures 1, 2 and 3, §4.1",
        ("ranked",),
        5,
    ),
)


def find(names: Sequence[str]) -> list[Analysis]:
    """The analyses of these names, each once; `all` is every one.

    Raises:
        HarnessError: a name is not known.
    """
    known = {analysis.name: analysis for analysis in ANALYSES}
    wanted = [found for name in names for found in (known if name == "all" else [name])]
    for name in wanted:
        if name not in known:
            raise HarnessError(f"no analysis is called {name!r}: {did_you_mean(name, [*known, 'all', 'list'])}")
    return [known[name] for name in dict.fromkeys(wanted)]
