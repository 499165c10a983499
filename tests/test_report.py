"""The report: numbers of the table, what the plots are drawn from, pictures, and the summary."""

from __future__ import annotations

import csv
import json
import shutil
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
import yaml
from artifact_files import ENCODER, boxes_parameters, filled, predictions_parameters
from dvc_render.vega import VegaRenderer  # type: ignore[import-untyped]
from matplotlib import font_manager
from matplotlib.ft2font import FT2Font
from matplotlib.text import Text
from PIL import Image

from stages.common import paths
from stages.common.artifacts import (
    BOXES,
    CLASSES,
    IMAGES,
    PREDICTIONS,
    ClassesParameters,
    ImagesParameters,
    Metadata,
    PredictionsParameters,
)
from stages.common.boxes import iou
from stages.common.errors import UserError
from stages.common.errors import run as run_main
from stages.common.labels import names_digest
from stages.common.metrics import METRICS as METRICS_KEY
from stages.common.metrics import metrics_digest
from stages.common.ranking import Tally
from stages.common.tables import make_meta, open_table, write_json, write_table
from stages.report import changes, legible, plots, votes
from stages.report.__main__ import main
from stages.report.pictures import Crops, closest, read_candidates
from stages.report.table import DEMO_NOTE, UNTRAINED, Result, markdown, plain, read_result
from stages.report.write import write_report

ROOT = Path(__file__).parents[1]
METRICS: dict[str, Any] = {
    "clip": {"top1": 41.25, "top5": 80.1, "mean_per_class": 40.5, "std": 0.0, "images": 18, "runs": 1},
    "wca": {"top1": 50.0, "top5": 90.0, "mean_per_class": 51.25, "std": 1.234, "images": 18, "runs": 5},
    "bifta": {"top1": 61.5, "top5": 95.55, "mean_per_class": 60.0, "std": 0.456, "images": 18, "runs": 5},
}
NAMES = ["red kite", "$4 finch", "snow goose"]


@pytest.fixture(autouse=True)
def _in_a_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty project: params.yaml with one data set `birds` and one model `vit`."""
    monkeypatch.chdir(tmp_path)
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    params["datasets"] = {"birds": {"reader": "folder", "root": "photos"}}
    params["models"] = {"vit": {"name": "ViT-B-32", "pretrained": "openai"}}
    params["report"] = {"pictures": 2}
    params["score"]["runs"] = 5
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")


def predictions_meta(**encoder: str) -> Metadata[PredictionsParameters]:
    asked = predictions_parameters(iou_threshold=0.8, runs=5, methods=["clip", "cupl", "wca", "bifta"])
    return make_meta(PREDICTIONS, "birds", asked, ENCODER.model_copy(update=encoder))


def make_inputs(
    *, classes: int = 3, untrained: bool = False, reader: str = "folder", metrics: dict[str, Any] = METRICS
) -> pl.DataFrame:
    """Write all that the report reads, for 6 images a class and 5 runs; returns the predictions."""
    rng = np.random.default_rng(7)
    names = NAMES if classes == 3 else [f"species {label}" for label in range(classes)]
    image_ids = [f"{label:02d}/{number}.png" for label in range(classes) for number in range(6)]
    labels = [label for label in range(classes) for _ in range(6)]
    for image_id in image_ids:
        path = Path("photos") / image_id
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (60, 40), (200, 120, 90)).save(path)
    count = len(image_ids)
    images = {
        "image_id": image_ids,
        "label": labels,
        "content": image_ids,
        "width": [60] * count,
        "height": [40] * count,
    }
    meta = make_meta(IMAGES, "birds", ImagesParameters(reader=reader, classes=names_digest(names)))
    write_table(paths.images("birds"), filled(IMAGES, {**images}), meta)
    table = filled(CLASSES, {"label": list(range(classes)), "name": names})
    write_table(paths.classes("birds"), table, make_meta(CLASSES, "birds", ClassesParameters()))
    write_boxes(image_ids)

    rows = [
        (image_id, label, method, run, int(rng.choice([label, (label + 1) % classes, (label + 2) % classes])))
        for image_id, label in zip(image_ids, labels, strict=True)
        for method, figures in metrics.items()
        for run in range(figures["runs"])
    ]
    columns = list(zip(*rows, strict=True))
    predictions = pa.table(
        {
            "image_id": columns[0],
            "label": pa.array(columns[1], pa.int32()),
            "method": pa.array(columns[2]),
            "run": pa.array(columns[3], pa.int32()),
            "predicted": pa.array(columns[4], pa.int32()),
            "score": pa.array(np.zeros(len(rows)), pa.float32()),
            "margin": pa.array(np.zeros(len(rows)), pa.float32()),
        }
    )
    made = predictions_meta(pretrained=UNTRAINED) if untrained else predictions_meta()
    answers = pl.DataFrame(rows, schema=["image_id", "label", "method", "run", "predicted"], orient="row")
    counted: dict[str, Any] = {method: {**figures, **top1_of(answers, method)} for method, figures in metrics.items()}
    counted |= {"weights": UNTRAINED} if untrained else {}
    write_table(paths.predictions("birds", "vit"), predictions, made, **{METRICS_KEY: metrics_digest(counted)})
    write_json(paths.metrics("birds", "vit"), counted)
    return answers


def top1_of(answers: pl.DataFrame, method: str) -> dict[str, float]:
    """The mean over runs and the deviation of a method's accuracy in percent, and its number of images."""
    right = answers.filter(pl.col("method") == method)
    runs = right.group_by("run").agg(top1=100 * (pl.col("label") == pl.col("predicted")).mean())["top1"].to_numpy()
    deviation = round(float(runs.std(ddof=1)), 4) if len(runs) > 1 else 0.0
    of_class = right.group_by("label").agg(share=100 * (pl.col("label") == pl.col("predicted")).mean())["share"]
    return {
        "top1": round(float(runs.mean()), 4),
        "mean_per_class": round(float(of_class.mean()), 4),  # type: ignore[arg-type]
        "std": deviation,
        "images": right["image_id"].n_unique(),
    }


def counted_metrics() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(paths.metrics("birds", "vit").read_text(encoding="utf-8"))
    return found


def write_boxes(image_ids: list[str]) -> None:
    """Four candidates an image; at 0.8 the first and third are kept, and refinement stops there."""
    corners = np.array([[0, 0, 30, 30], [1, 0, 31, 30], [20, 10, 50, 40], [30, 5, 60, 35]], dtype=np.int32)
    thresholds = [0.5, 0.6, 0.7, 0.8, 0.9]
    kept = [thresholds, [], [0.8], [0.5]]
    sides = ["left", "top", "right", "bottom"]
    columns = {side: np.tile(corners[:, i], len(image_ids)) for i, side in enumerate(sides)}
    table = pa.table(
        {
            "image_id": np.repeat(image_ids, 4),
            "candidate": pa.array(np.tile(np.arange(4), len(image_ids)), pa.int32()),
            **columns,
            "kept": pa.array(kept * len(image_ids), pa.list_(pa.float32())),
        }
    )
    write_table(paths.boxes("birds"), table, make_meta(BOXES, "birds", boxes_parameters(candidates=4, max_views=2)))


def result_of(metrics: dict[str, Any], *, demo: bool = False, **encoder: str) -> Result:
    path = Path("metrics.json")
    write_json(path, metrics)
    table = PREDICTIONS.columns.empty_table()
    write_table(Path("predictions"), table, predictions_meta(**encoder), **{METRICS_KEY: metrics_digest(metrics)})
    return read_result("birds", "vit", path, open_table(Path("predictions"), PREDICTIONS), demo=demo)


def table_rows(text: str) -> dict[str, list[str]]:
    """Cells of a Markdown table by their row's first."""
    lines = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("| ")]
    return {line[0].strip(): [cell.strip() for cell in line[1:]] for line in lines}


def test_the_table_has_the_numbers_and_the_best_in_bold() -> None:
    rows = table_rows(markdown(result_of(METRICS)))
    assert list(rows) == ["method", "clip", "wca", "bifta"]
    assert rows["clip"] == ["41.25", "40.50", "80.10", "whole image", "label prompt", "18", "1"]
    assert rows["wca"] == ["50.00 ± 1.23", "51.25", "90.00", "all crops", "CuPL sentences", "18", "5"]
    assert rows["bifta"] == ["**61.50 ± 0.46**", "60.00", "95.55", "refined crops", "refined union", "18", "5"]


@pytest.mark.parametrize(("classes", "top5"), [(3, "-"), (4, "-"), (5, "80.10"), (None, "80.10")])
def test_of_fewer_than_five_classes_every_answer_is_among_the_top_five(classes: int | None, top5: str) -> None:
    result = replace(result_of(METRICS), classes=classes)
    assert table_rows(markdown(result))["clip"][2] == top5
    (line,) = [line for line in plain(result).splitlines() if line.startswith("clip")]
    assert line.split()[3] == top5


def test_a_single_run_has_no_deviation() -> None:
    metrics = {"bifta": {**METRICS["bifta"], "runs": 1}}
    assert "±" not in "".join(table_rows(markdown(result_of(metrics)))["bifta"])
    assert "±" not in plain(result_of(metrics))


def test_the_header_names_data_set_model_and_weights() -> None:
    text = markdown(result_of(METRICS))
    for part in ("`birds`", "`ViT-B-32`", "`openai`", "`0123456789abcdef`"):
        assert part in text
    assert UNTRAINED not in text


@pytest.mark.parametrize("write", [markdown, plain])
def test_random_weights_are_said_beside_every_table(write: Any) -> None:
    assert UNTRAINED in write(result_of({**METRICS, "weights": UNTRAINED}))
    assert UNTRAINED in write(result_of(METRICS, pretrained=UNTRAINED))


def test_the_demo_says_that_it_is_no_evidence() -> None:
    assert DEMO_NOTE in markdown(result_of(METRICS, demo=True))
    assert DEMO_NOTE in plain(result_of(METRICS, demo=True))
    assert DEMO_NOTE not in markdown(result_of(METRICS))


def test_a_missing_method_is_left_out_and_named() -> None:
    text = markdown(result_of(METRICS))
    assert "cupl" not in table_rows(text)
    assert "Not scored: cupl" in text


def test_plain_text_is_aligned_and_fits_a_terminal() -> None:
    metrics = {name: METRICS["bifta"] | {"images": 50000, "runs": 20} for name in ("clip-d", "waffle", "bifta-texts")}
    metrics["bifta"] = metrics["clip-d"] | {"top1": 100.0}
    text = plain(result_of(metrics)).splitlines()
    (first,) = [number for number, line in enumerate(text) if line.startswith("method")]
    lines = text[first : first + 5]
    assert max(map(len, lines)) <= 100
    assert len({line.index("±") for line in lines[1:]}) == 1
    assert [line.split()[0] for line in lines if "*" in line] == ["bifta"]


def test_metrics_that_are_none_are_refused_in_a_line() -> None:
    with pytest.raises(UserError, match="is missing"):
        read_result("birds", "vit", Path("nowhere.json"), None, demo=False)
    Path("metrics.json").write_text('{"clip": {"top1": 3}}', encoding="utf-8")
    with pytest.raises(UserError, match="not what the score stage writes"):
        read_result("birds", "vit", Path("metrics.json"), None, demo=False)
    with pytest.raises(UserError, match="holds no method"):
        result_of({"weights": UNTRAINED})


def brute_majority(predictions: pl.DataFrame, method: str) -> dict[str, int]:
    counts: dict[str, Counter[int]] = {}
    for image_id, _, name, _, predicted in predictions.iter_rows():
        if name == method:
            counts.setdefault(image_id, Counter())[predicted] += 1
    return {
        image_id: min(label for label, n in counter.items() if n == max(counter.values()))
        for image_id, counter in counts.items()
    }


def test_confusions_are_the_majority_over_runs() -> None:
    predictions = make_inputs()
    write_report("birds", "vit", 0, "photos")
    answers = brute_majority(predictions, "bifta")
    expected = Counter((NAMES[int(key[:2])], NAMES[label]) for key, label in answers.items())
    with (paths.report("birds", "vit") / "confusion.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 18
    assert Counter((row["actual"], row["predicted"]) for row in rows) == expected


def test_without_bifta_the_last_method_is_shown() -> None:
    assert votes.confusion_method(["clip", "bifta", "other"]) == "bifta"
    predictions = make_inputs(metrics={name: METRICS[name] for name in ("clip", "wca")})
    write_report("birds", "vit", 1, "photos")
    answers = brute_majority(predictions, "wca")
    rows = pl.read_csv(paths.report("birds", "vit") / "confusion.csv")
    right = sum(NAMES[label] == NAMES[int(key[:2])] for key, label in answers.items())
    assert (rows["actual"] == rows["predicted"]).sum() == right
    assert "show wca" in (paths.report("birds", "vit") / "table.md").read_text(encoding="utf-8")


def test_of_many_classes_the_most_confused_are_shown() -> None:
    pairs = [(50, 51)] * 4 + [(51, 50)] * 3 + [(7, 60)] * 5 + [(3, 4)] * 6 + [(60, 9)] + [(n, n) for n in range(70)]
    answers = pl.DataFrame(pairs, schema=["label", "predicted"], orient="row")
    assert votes.most_confused(answers, 4) == [3, 4, 50, 51]
    assert votes.most_confused(answers, 6) == [3, 4, 7, 50, 51, 60]
    # Nobody else is confused: the smallest labels fill up.
    assert votes.most_confused(answers, 9) == [0, 1, 3, 4, 7, 9, 50, 51, 60]
    rows, order, remark = votes.confusion(answers, {label: f"c{label}" for label in range(70)})
    assert len(order) == votes.SHOWN + 1
    assert order == sorted(order) and order[0] == votes.OTHER, "as `dvc plots show` sorts them"
    assert remark == "the 30 most confused of 70 classes"
    assert set(rows["actual"]) <= set(order)


def test_names_that_matplotlib_s_font_lacks(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    recwarn: pytest.WarningsRecorder,
) -> None:
    """A font of the machine draws them; without one they are written as code points, with one line for all pictures."""
    own, other = (FT2Font(font_manager.findfont(name)).get_charmap() for name in ("DejaVu Sans", "STIXGeneral"))
    foreign = chr(min(set(other) - set(own) - set(range(0xE000, 0xF900))))
    names = {0: "鶴", 1: f"{foreign} x", 2: "an " + 20 * "exceedingly " + "long name"}
    votes_ = pl.DataFrame({"label": [0, 1, 2, 2], "predicted": [0, 0, 1, 2]})
    pairs, order, remark = votes.confusion(votes_, names)
    result = Result(dataset="birds", model="vit", encoder=None, untrained=False, rows=[], demo=False, missing=[])
    monkeypatch.setattr(legible, "_fonts", lambda: {"STIXGeneral": font_manager.findfont("STIXGeneral")})
    legible._warned.clear()
    for _ in range(2):
        figure = plots.confusion_matrix(result, pairs, order, "bifta", remark)
        plots.save(figure, tmp_path / "confusion.png")
    said = texts_of(figure).splitlines()
    assert "U+9DB4" in said and f"{foreign} x" in said and "鶴" not in said
    assert max(map(len, said)) <= plots.LONGEST_NAME
    warned = capsys.readouterr().err
    assert warned.count("no font of this machine can draw '鶴'") == 1 and warned.count("\n") == 1
    assert not [str(one.message) for one in recwarn if "missing from font" in str(one.message)]
    assert plots.shortened(40 * "鶴" + "12", 10) == "鶴鶴…鶴12", "a character that is twice as wide counts twice"


def test_many_classes_are_said_in_the_report() -> None:
    make_inputs(classes=41)
    write_report("birds", "vit", 0, "photos")
    folder = paths.report("birds", "vit")
    assert "the 30 most confused of 41 classes" in (folder / "table.md").read_text(encoding="utf-8")
    rows = pl.read_csv(folder / "confusion.csv")
    assert len(rows) == 30 * 6
    assert rows["actual"].n_unique() == 30


def test_classes_of_one_name_are_told_apart() -> None:
    classes = pl.DataFrame({"label": [0, 1, 2], "name": ["crane", "heron", "crane"]})
    assert votes.class_names(classes) == {0: "crane (0)", 1: "heron", 2: "crane (2)"}


def test_bars_have_low_and_high() -> None:
    make_inputs()
    write_report("birds", "vit", 0, "photos")
    rows = json.loads((paths.report("birds", "vit") / "methods.json").read_text(encoding="utf-8"))
    assert [row["method"] for row in rows] == ["clip", "wca", "bifta"]
    clip, wca = counted_metrics()["clip"]["top1"], counted_metrics()["wca"]
    of_classes = counted_metrics()["clip"]["mean_per_class"]
    bar = {"method": "clip", "top1": clip, "low": clip, "high": clip, "mean_per_class": of_classes, "top5": 80.1}
    assert rows[0] == bar
    assert rows[1]["low"] == pytest.approx(wca["top1"] - wca["std"], abs=1e-3)
    assert rows[1]["high"] == pytest.approx(wca["top1"] + wca["std"], abs=1e-3)


@pytest.mark.parametrize("figure", ["top1", "mean_per_class", "std", "images"])
def test_figures_that_the_predictions_do_not_give_are_refused(figure: str) -> None:
    """Even if the predictions promise these very metrics."""
    make_inputs()
    counted = counted_metrics()
    counted["wca"][figure] += 1
    path = paths.predictions("birds", "vit")
    write_table(
        path, open_table(path, PREDICTIONS).read(), predictions_meta(), **{METRICS_KEY: metrics_digest(counted)}
    )
    write_json(paths.metrics("birds", "vit"), counted)
    with pytest.raises(UserError, match=f"gives wca a {figure} of .*, its metrics say .*dvc repro -f score"):
        write_report("birds", "vit", 0, "photos")


@pytest.mark.parametrize("per_class", [50.01, 44.0, None])
def test_bars_have_the_mean_per_class_where_it_is_another_figure(per_class: float | None) -> None:
    rows = [replace(row, top1=50.0, mean_per_class=50.0) for row in result_of(METRICS).rows]
    result = replace(result_of(METRICS), rows=[replace(rows[0], mean_per_class=per_class), *rows[1:]])
    (axes,) = plots.method_bars(result, 3).axes
    written = [text.get_text() for text in axes.texts]
    assert ("50.0  (◇ 44.0)" in written) == (per_class == 44.0)
    assert ("50.0" in written) == (per_class != 44.0)
    assert any("mean per class" in text for text in written) == (per_class == 44.0)


def test_random_weights_are_in_the_data_of_both_plots() -> None:
    make_inputs(untrained=True)
    write_report("birds", "vit", 1, "photos")
    folder = paths.report("birds", "vit")
    assert all(row["note"] == UNTRAINED for row in json.loads((folder / "methods.json").read_text(encoding="utf-8")))
    assert set(pl.read_csv(folder / "confusion.csv")["note"]) == {UNTRAINED}
    assert all(row["note"] == UNTRAINED for row in read_rows("classes.json") + read_rows("pairs.json"))


def read_rows(name: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads((paths.report("birds", "vit") / name).read_text(encoding="utf-8"))
    return rows


def test_changes_of_classes_are_means_over_images_and_runs() -> None:
    predictions = make_inputs()
    write_report("birds", "vit", 0, "photos")
    rows = read_rows("classes.json")
    assert [row["change"] for row in rows] == sorted((row["change"] for row in rows), reverse=True)
    assert {row["class"] for row in rows} == set(NAMES)
    for row in rows:
        label = NAMES.index(row["class"])
        for method in ("wca", "bifta"):
            said = [p == label for _, true, m, _, p in predictions.iter_rows() if (m, true) == (method, label)]
            assert row[method] == pytest.approx(100 * sum(said) / len(said), abs=1e-3)
        assert row["change"] == pytest.approx(row["bifta"] - row["wca"], abs=1e-3)


def test_of_many_classes_the_ends_of_the_changes_are_shown() -> None:
    make_inputs(classes=45)
    write_report("birds", "vit", 0, "photos")
    rows = read_rows("classes.json")
    assert len({row["class"] for row in rows}) == 40
    changes = [row["change"] for row in rows]
    assert changes == sorted(changes, reverse=True)


def test_without_one_of_the_methods_there_are_no_changes() -> None:
    make_inputs(metrics={name: METRICS[name] for name in ("clip", "wca")})
    write_report("birds", "vit", 0, "photos")
    assert read_rows("classes.json") == []
    assert read_rows("pairs.json")  # of the last method that there is


def test_every_class_has_its_recall_by_each_method(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "NAMES", ["</script>, x", "$4 finch", "$4 finch"])
    answers = make_inputs()
    write_report("birds", "vit", 0, "photos")
    text = (paths.report("birds", "vit") / "recalls.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(text.splitlines()))
    assert [row["class"] for row in rows] == ["‹/script>, x", "$4 finch (1)", "$4 finch (2)"]
    for label, row in enumerate(rows):
        assert list(row) == ["class", "images", "clip", "wca", "bifta"] and row["images"] == "6"
        for method in ("clip", "wca", "bifta"):
            own = answers.filter((pl.col("label") == label) & (pl.col("method") == method)).to_dicts()
            right = [each["predicted"] == label for each in own]
            assert float(row[method]) == pytest.approx(100 * sum(right) / len(right), abs=1e-4)


def test_a_class_without_images_has_no_recall() -> None:
    tally = Tally(runs=1, classes=2)
    tally.count(np.array([[True], [False]]), np.array([1, 1]))
    rows = changes.recalls({"clip": tally}, {0: "kite", 1: "crane"}).to_dicts()
    assert rows == [{"class": "kite", "images": 0, "clip": None}, {"class": "crane", "images": 2, "clip": 50.0}]


def test_confused_pairs_are_counted_one_way_most_first() -> None:
    answers = brute_majority(make_inputs(), "bifta")
    write_report("birds", "vit", 0, "photos")
    counts = Counter((int(image_id[:2]), said) for image_id, said in answers.items() if int(image_id[:2]) != said)
    rows = read_rows("pairs.json")
    assert {(row["actual"], row["predicted"]): row["count"] for row in rows} == {
        (NAMES[actual], NAMES[predicted]): count for (actual, predicted), count in counts.items()
    }
    assert [row["count"] for row in rows] == sorted(counts.values(), reverse=True)
    assert all(row["share"] == pytest.approx(100 * row["count"] / 6, abs=1e-3) for row in rows)


def texts_of(figure: Any) -> str:
    """Everything that is written in a figure."""
    return "\n".join(artist.get_text() for artist in figure.findobj(Text))


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What is written in each figure that is saved, by file name."""
    said: dict[str, str] = {}
    save = plots.save

    def read_and_save(figure: Any, path: Path) -> None:
        said[path.name] = texts_of(figure)
        save(figure, path)

    monkeypatch.setattr(plots, "save", read_and_save)
    return said


@pytest.mark.parametrize("untrained", [True, False])
def test_random_weights_are_said_in_every_figure(drawn: dict[str, str], untrained: bool) -> None:
    make_inputs(untrained=untrained)
    write_report("birds", "vit", 1, "photos")
    assert set(drawn) == {"methods.png", "confusion.png", "01.png", "table.png"}
    assert all((UNTRAINED in text) == untrained for text in drawn.values())


def test_a_picture_says_what_it_shows(drawn: dict[str, str]) -> None:
    predictions = make_inputs()
    write_report("birds", "vit", 1, "photos")
    said = drawn["01.png"]
    image_id = next(line.split("  ·  ")[0] for line in said.splitlines() if "  ·  " in line)
    assert f"{image_id}  ·  {NAMES[int(image_id[:2])]}" in said
    assert "kept 2 of 4 at IoU ≤ 0.8" in said
    assert "rejected 1; 1 more not needed" in said
    assert "IoU 0.94" in said  # 29 * 30 / (2 * 900 - 29 * 30)
    answer = brute_majority(predictions, "bifta")[image_id]
    assert f"bifta: {NAMES[answer]} {'✓' if answer == int(image_id[:2]) else '✗'}" in said


def test_pictures_are_whole_and_the_same_every_time() -> None:
    make_inputs()
    folder = paths.report("birds", "vit")
    write_report("birds", "vit", 2, "photos")
    first = {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*.png"))}
    assert sorted(map(str, first)) == ["boxes/01.png", "boxes/02.png", "confusion.png", "methods.png", "table.png"]
    for name in first:
        with Image.open(folder / name) as image:
            assert image.format == "PNG"
            image.load()
            assert set(image.info) <= {"dpi"}
    shutil.rmtree(folder)
    write_report("birds", "vit", 2, "photos")
    assert {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*.png"))} == first
    write_report("birds", "vit", 1, "photos")
    assert [path.name for path in (folder / "boxes").iterdir()] == ["01.png"]


def test_images_that_are_not_at_hand_cost_the_pictures_only(capsys: pytest.CaptureFixture[str]) -> None:
    make_inputs()
    shutil.rmtree("photos")
    write_report("birds", "vit", 2, "photos")
    warnings = capsys.readouterr().err.splitlines()
    assert len(warnings) == 1
    assert "images under photos" in warnings[0]
    folder = paths.report("birds", "vit")
    assert list((folder / "boxes").iterdir()) == []
    assert (folder / "table.md").exists()


def test_pictured_images_are_spread_and_rather_contested() -> None:
    images = pl.DataFrame({"image_id": [f"{label}-{n}" for label in range(4) for n in range(3)]}).with_columns(
        label=pl.col("image_id").str.head(1).cast(pl.Int32)
    )
    assert votes.choose_images(images, {"1-2", "2-1"}, 2) == ["1-2", "2-1"]
    assert sorted(votes.choose_images(images, {"1-1", "1-2"}, 4)) == ["0-0", "1-1", "2-0", "3-0"]
    assert votes.choose_images(images, set(), 2) == ["0-0", "2-0"]
    assert len(votes.choose_images(images, set(), 99)) == 12


def test_boxes_are_sorted_into_kept_rejected_and_unused() -> None:
    make_inputs()
    found, max_views = read_candidates("birds", ["01/3.png"], 0.8)
    assert max_views == 2
    crops = found["01/3.png"].crops(2)
    assert crops.kept.tolist() == [[0, 0, 30, 30], [20, 10, 50, 40]]
    assert crops.rejected.tolist() == [[1, 0, 31, 30]]
    assert (crops.unused, crops.candidates) == (1, 4)
    assert found["01/3.png"].crops(9).unused == 0
    with pytest.raises(UserError, match=r"0\.75 is not among those"):
        read_candidates("birds", ["01/3.png"], 0.75)


def test_the_example_is_what_the_rejected_box_overlaps_most() -> None:
    kept = np.array([[50, 50, 60, 60], [0, 0, 10, 10]], dtype=np.int32)
    rejected = np.array([[0, 0, 10, 9]], dtype=np.int32)
    assert iou(rejected[:1], kept).tolist() == [[0.0, 0.9]]
    example = closest(Crops(kept, rejected, 0))
    assert example is not None
    assert example[1].tolist() == [0, 0, 10, 10]
    assert closest(Crops(kept, rejected[:0], 0)) is None


def run_command(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int | str | None:
    monkeypatch.setattr(sys, "argv", ["stages.report", *arguments])
    try:
        run_main(main)
    except SystemExit as stop:
        return stop.code
    return 0


def test_the_command_prints_the_table_and_where_the_rest_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_inputs()
    assert run_command(monkeypatch, "--dataset", "birds", "--model", "vit") == 0
    printed = capsys.readouterr().out
    assert f"{counted_metrics()['bifta']['top1']:.2f} ± " in printed
    assert "data/birds/vit/report/boxes (2)" in printed
    assert run_command(monkeypatch, "--dataset", "birds") == 2


def test_the_summary_prints_every_table_that_there_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_json(paths.metrics("birds", "vit"), METRICS)  # as in a clone that pulled nothing
    assert run_command(monkeypatch) == 0
    printed = capsys.readouterr().out
    assert "61.50 ± 0.46*" in printed
    assert "dvc plots show" in printed
    assert "dvc metrics show" in printed


def test_the_summary_of_nothing_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(monkeypatch) == 1
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 1
    assert "dvc repro" in errors[0]


@pytest.mark.parametrize(
    ("template", "x", "y"),
    [
        ("method_bars", "top1", "method"),
        ("confusion_shares", "predicted", "actual"),
        ("class_changes", "change", "class"),
        ("confused_pairs", "count", "pair"),
    ],
)
def test_dvc_fills_the_templates(template: str, x: str, y: str) -> None:
    rows = [{"rev": rev, x: "a", y: "b", "low": 1, "high": 2} for rev in ("HEAD", "workspace")]
    renderer = VegaRenderer(rows, "plot", template=template, template_dir=str(ROOT / ".dvc/plots"), x=x, y=y)
    filled = renderer.partial_html()
    assert "<DVC_METRIC" not in filled
    assert json.loads(filled)["data"]["values"] == rows
