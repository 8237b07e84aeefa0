"""How large a difference is, and how sure that is: pure functions on numpy and scipy, draws from a given seed.

docs/statistics.md says what was chosen, after whom, and what was measured.
"""

from harness.board.statistics.agreement import Agreement, RaterAgreement, Repeatability, agree, rater_agreement, repeatability
from harness.board.statistics.best import Pairs, best_p, compare_all, difference_of_means, may_be_best, pairs, rank_sets
from harness.board.statistics.bootstrap import Bootstrap, interval, paired, pooled_spreads
from harness.board.statistics.correction import benjamini_hochberg, both, holm
from harness.board.statistics.differences import Bounds, Difference, width_of
from harness.board.statistics.effects import Wins, seeds_t_test, standardised, wins
from harness.board.statistics.fits import crossed_pseudo_values, logistic, pseudo_values
from harness.board.statistics.intervals import Interval
from harness.board.statistics.noise import NoiseFloor, equivalence_p, noise_floor
from harness.board.statistics.permutation import sign_flip, sign_flips
from harness.board.statistics.power import (
    design_detectable,
    design_power,
    detectable,
    power,
    questions_needed,
    seeds_needed,
)
from harness.board.statistics.ranking import Rank, rank_stability, win_shares
from harness.board.statistics.sequential import Rule, State, decide
from harness.board.statistics.values import Floats, Values, by_metric, mean_over_seeds, shared
from harness.board.statistics.variance import Components, Error, Spread, components

__all__ = [
    "Agreement",
    "Bootstrap",
    "Bounds",
    "Components",
    "Difference",
    "Error",
    "Floats",
    "Interval",
    "NoiseFloor",
    "Pairs",
    "Rank",
    "RaterAgreement",
    "Repeatability",
    "Rule",
    "Spread",
    "State",
    "Values",
    "Wins",
    "agree",
    "benjamini_hochberg",
    "best_p",
    "both",
    "by_metric",
    "compare_all",
    "components",
    "crossed_pseudo_values",
    "decide",
    "design_detectable",
    "design_power",
    "detectable",
    "difference_of_means",
    "equivalence_p",
    "holm",
    "interval",
    "logistic",
    "may_be_best",
    "mean_over_seeds",
    "noise_floor",
    "paired",
    "pairs",
    "pooled_spreads",
    "power",
    "pseudo_values",
    "questions_needed",
    "rank_sets",
    "rank_stability",
    "rater_agreement",
    "repeatability",
    "seeds_needed",
    "seeds_t_test",
    "shared",
    "sign_flip",
    "sign_flips",
    "standardised",
    "width_of",
    "win_shares",
    "wins",
]
