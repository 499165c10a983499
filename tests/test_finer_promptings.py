"""A prompting style is declared once: all that lists styles comes from the declaration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml
from conftest import ROOT, make_image

from stages.common.errors import UserError
from stages.demo.toy.data import Drawing, Lessons, Species
from stages.finer import prompts
from stages.finer.ask.questions import build_questions
from stages.finer.attributes import Attributes, Concept
from stages.finer.params import FinerParams, load_finer_params
from stages.finer.promptings import PROMPTINGS, Prompting
from stages.finer.report import plots, tables
from stages.finer.report.results import Results
from stages.finer.score.metrics import Draws, metrics_of
from stages.finer.unified import Sample

NEW = "two-examples"


def load(folder: Path, prompting: list[str]) -> FinerParams:
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["finer"]["ask"]["prompting"] = prompting
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    return load_finer_params(folder / "params.yaml")


def figures(prompting: str) -> dict[str, Any]:
    """Of four questions in each modality of the fine level, three of them answered right."""
    rows = [
        {"idx": n, "label": n, "granularity": "fine", "input": modality, "prompting": prompting, "missing": None}
        | dict.fromkeys(("em", "f1", "strict_em", "strict_f1"), float(n > 0))
        | dict.fromkeys(("empty", "unmarked", "cut"), False)
        for modality in ("image", "text")
        for n in range(4)
    ]
    scores = pl.DataFrame(rows, schema_overrides={"missing": pl.String})
    return metrics_of(scores, Draws(0, 50, "lvlm", "birds"), None)


def test_a_new_style_is_allowed_asked_scored_and_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=f"must be one of plain, cot, few-shot-cot, attrseek, not '{NEW}'"):
        load(tmp_path, [NEW])
    monkeypatch.setitem(PROMPTINGS, NEW, Prompting(examples=True, modalities=("image", "text")))
    ask = load(tmp_path, [NEW]).finer.ask
    make_image(tmp_path / "0.jpg", 8, 8, 0)
    sample = Sample(0, "bird", ["finch"], ["tavo"], str(tmp_path / "0.jpg"), {"image_id": "0.jpg", "label": 0})
    questions = build_questions([sample], [Concept(0, "tavo", Attributes(["red crown"], []))], ask, 0, "birds")
    assert [(q.granularity, q.modality) for q in questions] == [
        ("superordinate", "image"), ("coarse", "image"), ("fine", "image"), ("fine", "text"),
    ]  # fmt: skip
    assert all(q.text.count("Example:") == 2 and q.text.endswith(prompts.ALONE) for q in questions)
    own = figures(NEW)
    assert own[f"fine/image/{NEW}"]["em"] == 75 and own["gap"][NEW]["em"] == 0
    results = Results({"lvlm": {"birds": own}}, [], frozenset())
    assert [row["prompting"] for row in plots.granularity_rows(results)] == [NEW]
    assert [row["prompting"] for row in plots.gap_rows(results)] == [NEW]
    assert tables.markdown(results).count(f"| {NEW} ") == tables.plain(results).count(f"\n{NEW} ") == 3


def test_the_toy_model_learns_the_styles_that_have_a_share(monkeypatch: pytest.MonkeyPatch) -> None:
    one = Species("tavo", "bird", "finch", ("red crown",))
    drawing = Drawing(Path("0.jpg"), "bird", "finch", ("red crown",))

    def asked() -> set[str]:
        lessons, rng = Lessons([drawing], [one]), np.random.default_rng(0)
        return {lessons.in_words(one, rng).turns[0][0] for _ in range(60)}

    assert sum(style.toy_share for style in PROMPTINGS.values()) == pytest.approx(1)
    assert len(asked()) == 3
    monkeypatch.setitem(PROMPTINGS, "plain", Prompting(toy_share=0.4))
    monkeypatch.setitem(PROMPTINGS, NEW, Prompting(examples=True, toy_share=0.1))
    assert len(asked()) == 4
