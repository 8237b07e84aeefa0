"""The lengths of Self-Contrast's negatives. An example of an analysis: it builds data and trains nothing."""

from typing import TYPE_CHECKING

from harness import Analysis, hookimpl

if TYPE_CHECKING:
    from harness import AnalysisContext, Report


class NegativeLengths(Analysis):
    """Builds one negative a prompt, with and without the filter, and counts words."""

    name = "negative-lengths"
    question = "Whether filtering makes negatives shorter"
    needs = frozenset({"target"})
    minutes = 1

    def run(self, context: "AnalysisContext") -> "Report":
        from harness import Axes, CheckedClaim, Figure, Line, Panel, Report, Values, contrast, interval

        keep = {"filtered": 0.25, "unfiltered": 1.0}
        rows = [context.row("self_contrast", label, data={"samples": 8, "keep": share}) for label, share in keep.items()]
        results = context.build(context.config("data", rows))
        words: dict[str, Values] = {}  # by label: [seeds, prompts]
        for label in keep:
            data = {seed: results.groups(label, seed) for seed in results.seeds}
            counts = {seed: {g.prompt.id: len(g.rejected[0].text.split()) for g in data[seed]} for seed in data}
            words[label] = Values.from_numbers(counts)
        means = [interval(words[label]) for label in keep]
        gap = contrast([words["unfiltered"], words["filtered"]], [1, -1])
        return Report(
            columns=["negatives", "words"],
            rows=list(zip(keep, means, strict=True)),
            figure=Figure("Words by filter", [Panel(Axes("negatives", "words", list(keep)), [Line("words", means)])]),
            findings=[CheckedClaim.above_zero("Filtering makes negatives shorter.", "our guess", "words lost", gap)],
            method=["Words of one negative a prompt, drawn from 8 samples; the filter keeps the 25 % least like the target."],
        )


@hookimpl
def harness_analyses() -> list[type[Analysis]]:
    return [NegativeLengths]
