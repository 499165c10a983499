"""Rows of the plots, drawn by the templates of `dvc plots` and by the pictures: a value with its interval each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from stages.finer.figures import ATTRSEEK_GAIN, GAP, HELD_OUT, SEEN, Figures
from stages.finer.promptings import GRANULARITIES, PROMPTINGS
from stages.finer.report.results import Results

Row = dict[str, str | float | int]


def granularity_rows(results: Results) -> list[Row]:
    """EM by `granularity` and `prompting`, with the image alone."""
    return _rows(results, "granularity", GRANULARITIES, "{part}/image/{prompting}")


def tuning_rows(results: Results) -> list[Row]:
    """EM at the fine level by `prompting`, with the image alone, for `classes` in the mixture and held out."""
    return _rows(results, "classes", (SEEN, HELD_OUT), "fine/image/{prompting}/{part}")


def gap_rows(results: Results) -> list[Row]:
    """The modality gap in EM, `difference`, by `prompting`."""
    return _difference_rows(results, GAP, "prompting", PROMPTINGS)


def attrseek_rows(results: Results) -> list[Row]:
    """ATTRSEEK minus plain in EM, `difference`, by `granularity`."""
    return _difference_rows(results, ATTRSEEK_GAIN, "granularity", GRANULARITIES)


def probe_rows(results: Results) -> list[Row]:
    """Accuracy of each run of the probe, before and after the projector."""
    return [
        {
            "model": probe["model"],
            "dataset": probe["dataset"],
            "side": side,
            "run": run,
            "accuracy": accuracy,
            "chance": probe["chance"],
            **_note(results, probe["dataset"]),
        }
        for probe in results.probes
        for side in ("before", "after")
        for run, accuracy in enumerate(probe[side]["runs"])
    ]


def _rows(results: Results, name: str, parts: Sequence[str], key: str) -> list[Row]:
    """A row for each data set, part, prompting and LVLM with answers.

    Args:
        name: column of the parts.
        key: of the figures, with {part} and {prompting} in it.
    """
    return [
        {
            "dataset": dataset,
            "lvlm": lvlm,
            name: part,
            "prompting": prompting,
            **_value(own, "em"),
            **_note(results, dataset),
        }
        for dataset in results.datasets
        for part in parts
        for prompting in PROMPTINGS
        for lvlm, figures in results.of(dataset)
        if (own := figures.get(key.format(part=part, prompting=prompting))) and own["em"] is not None
    ]


def _difference_rows(results: Results, key: str, name: str, parts: Iterable[str]) -> list[Row]:
    return [
        {"dataset": dataset, "lvlm": lvlm, name: part, **_value(own, "difference"), **_note(results, dataset)}
        for dataset in results.datasets
        for part in parts
        for lvlm, figures in results.of(dataset)
        if (own := figures.get(key, {}).get(part)) and own["em"] is not None
    ]


def _value(own: Figures, name: str) -> Row:
    """EM as `name`, and the ends of its interval if there is one."""
    row: Row = {name: own["em"]}
    if own["em_low"] is not None:
        row |= {"low": own["em_low"], "high": own["em_high"]}
    return row


def _note(results: Results, dataset: str) -> Row:
    return {"note": results.note(dataset)} if results.note(dataset) else {}
