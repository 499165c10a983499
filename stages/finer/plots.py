"""Rows of the plots: what the templates of `dvc plots` and the pictures draw, each a value with its interval."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from stages.finer.metrics import ATTRSEEK_GAIN, GAP, GRANULARITIES, HELD_OUT, PROMPTINGS, SEEN, Figures
from stages.finer.results import Results

Row = dict[str, str | float | int]


def granularity_rows(results: Results) -> list[Row]:
    """EM by granularity and prompting, shown the image alone."""
    return _rows(results, ((level, kind, f"{level}/image/{kind}") for level in GRANULARITIES for kind in PROMPTINGS))


def tuning_rows(results: Results) -> list[Row]:
    """EM at the fine level by prompting, apart for classes in the mixture and held out of it, shown the image alone."""
    return _rows(
        results, ((part, kind, f"fine/image/{kind}/{part}") for part in (SEEN, HELD_OUT) for kind in PROMPTINGS)
    )


def gap_rows(results: Results) -> list[Row]:
    """The modality gap in EM by prompting."""
    return _difference_rows(results, GAP, PROMPTINGS)


def attrseek_rows(results: Results) -> list[Row]:
    """ATTRSEEK minus plain in EM by granularity."""
    return _difference_rows(results, ATTRSEEK_GAIN, GRANULARITIES)


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


def _rows(results: Results, cells: Iterator[tuple[str, str, str]]) -> list[Row]:
    """A row a cell and LVLM, from (panel, kind, key of the figures); cells without an answer have none."""
    wanted = list(cells)
    return [
        {"dataset": dataset, "lvlm": lvlm, "panel": panel, "kind": kind, **_value(own), **_note(results, dataset)}
        for dataset in results.datasets
        for panel, kind, key in wanted
        for lvlm, figures in results.of(dataset)
        if (own := figures.get(key)) and own["em"] is not None
    ]


def _difference_rows(results: Results, name: str, kinds: Sequence[str]) -> list[Row]:
    return [
        {"dataset": dataset, "lvlm": lvlm, "kind": kind, **_value(own), **_note(results, dataset)}
        for dataset in results.datasets
        for kind in kinds
        for lvlm, figures in results.of(dataset)
        if (own := figures.get(name, {}).get(kind)) and own["em"] is not None
    ]


def _value(own: Figures) -> Row:
    """EM and the ends of its interval, which a single class has not."""
    row: Row = {"em": own["em"]}
    if own["em_low"] is not None:
        row |= {"low": own["em_low"], "high": own["em_high"]}
    return row


def _note(results: Results, dataset: str) -> Row:
    return {"note": results.note(dataset)} if results.note(dataset) else {}
