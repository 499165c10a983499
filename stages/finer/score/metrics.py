"""Scores -> `metrics.json`: means and intervals by granularity, modality and prompting; modality gap; ATTRSEEK's gain.

`{lvlm: {dataset: {"fine/image/plain": {...}, ..., "gap": {...}, "attrseek_gain": {...}, "generation": {...}}}}`,
percent with two digits; null where there was no data.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import polars as pl

from stages.common.seeding import generator
from stages.finer.figures import ATTRSEEK_GAIN, GAP, MEASURES, WITH_INTERVAL, Figures, Parts
from stages.finer.promptings import ATTRSEEK, GRANULARITIES, MODALITIES, PLAIN, PROMPTINGS
from stages.finer.score.bootstrap import Estimate, bootstrap, bootstrap_difference


@dataclass(frozen=True)
class Draws:
    """How intervals are drawn: from the same seed for every measure and cell of an LVLM and data set."""

    seed: int
    resamples: int
    lvlm: str
    dataset: str

    @property
    def rng(self) -> np.random.Generator:
        return generator(self.seed, "bootstrap", self.lvlm, self.dataset)

    def mean(self, values: pl.Series, labels: pl.Series) -> Estimate:
        return bootstrap(_floats(values), labels.to_numpy(), self.resamples, self.rng)

    def difference(self, first: pl.Series, second: pl.Series, labels: pl.Series) -> Estimate:
        return bootstrap_difference(_floats(first), _floats(second), labels.to_numpy(), self.resamples, self.rng)


def metrics_of(scores: pl.DataFrame, draws: Draws, parts: Parts | None) -> Figures:
    """The figures of one LVLM and data set.

    Args:
        scores: rows of `scores.parquet` of that LVLM and data set.
        parts: parts of the classes that also get figures of their own at the fine level; None if there is no mixture,
            or if the LVLM cannot have been tuned on it.
    """
    figures: Figures = {}
    for granularity, modality, prompting in product(GRANULARITIES, MODALITIES, PROMPTINGS):
        rows = _cell(scores, granularity, modality, prompting)
        if rows.is_empty():
            continue
        key = f"{granularity}/{modality}/{prompting}"
        figures[key] = cell_figures(rows, draws)
        if granularity == "fine" and parts is not None:
            for name, labels in parts.items():
                part = rows.filter(pl.col("label").is_in(sorted(labels)))
                if len(part):
                    figures[f"{key}/{name}"] = cell_figures(part, draws)
    gap = {
        prompting: difference_figures(
            _cell(scores, "fine", "text", prompting),
            _cell(scores, "fine", "image", prompting),
            draws,
            ("text", "image"),
        )
        for prompting in PROMPTINGS
    }
    gain = {
        granularity: difference_figures(
            _cell(scores, granularity, "image", ATTRSEEK),
            _cell(scores, granularity, "image", PLAIN),
            draws,
            (ATTRSEEK, PLAIN),
        )
        for granularity in GRANULARITIES
    }
    figures[GAP] = {key: value for key, value in gap.items() if value}
    figures[ATTRSEEK_GAIN] = {key: value for key, value in gain.items() if value}
    return figures


def cell_figures(rows: pl.DataFrame, draws: Draws) -> Figures:
    """Means over the answered rows of a cell, and counts of the others."""
    figures: Figures = {}
    for measure in MEASURES:
        if measure in WITH_INTERVAL:
            figures.update(_with_interval(measure, draws.mean(rows[measure], rows["label"])))
        else:
            figures[measure] = percent(rows[measure].mean())
    return figures | {
        "asked": len(rows),
        "missing": int(rows["missing"].is_not_null().sum()),
        "empty": int(rows["empty"].sum()),
        "unmarked": int(rows["unmarked"].sum()),
        "cut": int(rows["cut"].sum()),
        "classes": rows["label"].n_unique(),
    }


def difference_figures(first: pl.DataFrame, second: pl.DataFrame, draws: Draws, names: tuple[str, str]) -> Figures:
    """The mean of `first` - `second` over the images that have both, in points of percent.

    `em_<name>` is each side's mean over these pairs. `left_out` counts images with a missing answer or question on
    either side. Empty if one side was not asked at all.
    """
    if first.is_empty() or second.is_empty():
        return {}
    wanted = ["idx", "label", *MEASURES]
    both = first.select(wanted).join(second.select(wanted), on="idx", how="full", suffix="_second")
    both = both.with_columns(label=pl.coalesce("label", "label_second")).sort("idx")
    figures: Figures = {}
    for measure in MEASURES:
        mine, other = both[measure], both[f"{measure}_second"]
        estimate = draws.difference(mine, other, both["label"])
        figures.update(_with_interval(measure, estimate))
        paired = both.filter(mine.is_not_null() & other.is_not_null())
        figures[f"{measure}_{names[0]}"] = percent(paired[measure].mean())
        figures[f"{measure}_{names[1]}"] = percent(paired[f"{measure}_second"].mean())
        if measure == "em":
            counts = {"pairs": estimate.values, "left_out": estimate.left_out, "classes": estimate.classes}
    return figures | counts


def percent(share: Any) -> float | None:
    """A share as percent with two digits."""
    return None if share is None else round(100 * float(share), 2)


def _with_interval(measure: str, estimate: Estimate) -> Figures:
    return {
        measure: percent(estimate.mean),
        f"{measure}_low": percent(estimate.low),
        f"{measure}_high": percent(estimate.high),
    }


def _cell(scores: pl.DataFrame, granularity: str, modality: str, prompting: str) -> pl.DataFrame:
    return scores.filter(
        (pl.col("granularity") == granularity) & (pl.col("input") == modality) & (pl.col("prompting") == prompting)
    )


def _floats(values: pl.Series) -> np.ndarray:
    """[N] float64, NaN where null."""
    return values.cast(pl.Float64).fill_null(float("nan")).to_numpy()
