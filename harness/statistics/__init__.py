"""How large a difference is, and how sure that is: pure functions on numpy and scipy, draws from a given seed.

docs/statistics.md says what was chosen, after whom, and what was measured.
"""

from harness.statistics.agreement import Agreement, agree
from harness.statistics.bootstrap import Bootstrap, interval, paired
from harness.statistics.correction import benjamini_hochberg, holm
from harness.statistics.differences import Difference
from harness.statistics.effects import Wins, seeds_t_test, standardised, wins
from harness.statistics.intervals import Interval
from harness.statistics.permutation import sign_flip, sign_flips
from harness.statistics.power import detectable, power, questions_needed, seeds_needed
from harness.statistics.ranking import Rank, rank_stability, win_shares
from harness.statistics.values import Floats, Values, by_metric, mean_over_seeds, shared
from harness.statistics.variance import Components, Error, components

__all__ = [
    "Agreement",
    "Bootstrap",
    "Components",
    "Difference",
    "Error",
    "Floats",
    "Interval",
    "Rank",
    "Values",
    "Wins",
    "agree",
    "benjamini_hochberg",
    "by_metric",
    "components",
    "detectable",
    "holm",
    "interval",
    "mean_over_seeds",
    "paired",
    "power",
    "questions_needed",
    "rank_stability",
    "seeds_needed",
    "seeds_t_test",
    "shared",
    "sign_flip",
    "sign_flips",
    "standardised",
    "win_shares",
    "wins",
]
