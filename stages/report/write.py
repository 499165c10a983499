"""One report: from the artifacts of a data set and a model to the files of the report."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import polars as pl

from stages.common import paths, tables
from stages.common.artifacts import UNTRAINED, Metadata, PredictionsParameters
from stages.common.errors import UserError, warn
from stages.common.images import UNREADABLE, open_rgb
from stages.common.labels import ClassTable, Labelled, read_classes, read_labels
from stages.common.methods import FULL, PLAIN, UNREFINED
from stages.common.predictions import open_predictions, read_answers
from stages.common.unpacked import ensure_unpacked, image_root
from stages.report import changes, evidence, evidence_picture, page, pictures, plots, table, votes
from stages.report.about import read_about
from stages.report.differences import differences
from stages.report.figures import write_figures
from stages.report.pictures import Candidates
from stages.report.skipped import skipped_notes
from stages.report.table import Named, Result

PICTURED = (PLAIN, UNREFINED, FULL)
"""The methods whose predictions are written over a picture of boxes."""


def write_report(
    dataset: str,
    model: str,
    picture_count: int,
    root: str,
    asked: PredictionsParameters | None = None,
    reference: str = UNREFINED,
) -> Result:
    """Write `table.md`, the data of the plots, the plots, the pictures of boxes, and `report.html` with all of it.

    Args:
        root: folder of the images, as the data set's entry in params.yaml has it.
        asked: what the predictions must have been made with; None: anything.
        reference: the method that differences are to.

    Raises:
        UserError: an artifact is missing, not whole, or does not belong with the others.
    """
    predictions = open_predictions(dataset, model, asked)
    classes = read_classes(dataset)
    images = read_labels(dataset, classes)
    count = len(classes.names)
    demo = images.meta.parameters.reader == "demo"
    result = table.read_result(dataset, model, paths.metrics(dataset, model), predictions, demo=demo, classes=count)
    found = votes.count_votes(read_answers(predictions, images, count), images.labels, count)
    table.require_counted(result, found.tallies, predictions.path)
    result = replace(result, reference=reference, differences=differences(found.right, reference))
    folder = paths.report(dataset, model)
    names = votes.class_names(pl.DataFrame(classes.table.select(["label", "name"])))

    method = votes.confusion_method([row.method for row in result.rows])
    answers = found.of(sorted({method, *PICTURED}), images)
    remark = _write_confusion(folder, result, answers.filter(pl.col("method") == method), names, method)
    tables.write_plot(folder / "methods.json", table.method_rows(result))
    plots.save(plots.method_table(table.plain(result), untrained=result.untrained), folder / "table.png")
    plots.save(plots.method_bars(result, len(names)), folder / "methods.png")
    _write_csv(folder / "recalls.csv", changes.recalls(found.tallies, names))
    changed, pairs = _write_changes(folder, result, found, images, answers.filter(pl.col("method") == method), names)
    listed = pl.DataFrame({"image_id": images.image_ids, "label": images.labels})
    chosen = choose(listed, answers, picture_count)
    place = Path(image_root(dataset, root, images.meta.parameters.unpacked))
    captions = write_pictures(folder, result, predictions.meta, place, chosen, classes)
    skipped, about = skipped_notes(dataset), read_about(dataset, model, predictions, images, classes)
    shown = f"{method}{f', {remark}' if remark else ''}"
    page.write_page(folder, page.labelled(folder, result, about, changed, pairs, shown, captions, skipped))
    note = f"`confusion.csv` and `confusion.png` show {method}" + (f", {remark}." if remark else ".")
    tables.write_page(folder / "table.md", table.markdown(result, [note, *skipped]))
    write_figures(result, predictions.meta, images, count)
    return result


def _write_confusion(folder: Path, result: Result, answers: pl.DataFrame, names: dict[int, str], method: str) -> str:
    """Write `confusion.csv` and `confusion.png`; return the remark on classes left out."""
    pairs, order, remark = votes.confusion(answers, names)
    note = "; ".join(filter(None, [UNTRAINED if result.untrained else "", remark]))
    _write_csv(folder / "confusion.csv", pairs.with_columns(note=pl.lit(note)) if note else pairs)
    plots.save(plots.confusion_matrix(result, pairs, order, method, remark), folder / "confusion.png")
    return remark


def _write_csv(path: Path, rows: pl.DataFrame) -> None:
    text = io.StringIO()
    rows.write_csv(text)
    tables.write_page(path, text.getvalue())


def _write_changes(
    folder: Path,
    result: Result,
    found: votes.Votes,
    images: Labelled,
    answers: pl.DataFrame,
    names: dict[int, str],
) -> tuple[changes.Rows, changes.Rows]:
    """Write `classes.json` and `pairs.json`, and return their rows; without rows they are empty lists, because DVC
    expects the files."""
    untrained = result.untrained
    rows = changes.class_changes(found.right, images.labels, names, untrained=untrained)
    tables.write_plot(folder / "classes.json", rows)
    pairs = changes.confused_pairs(answers, names, untrained=untrained)
    tables.write_plot(folder / "pairs.json", pairs)
    return rows, pairs


def choose(images: pl.DataFrame, answers: pl.DataFrame, count: int) -> pl.DataFrame:
    """The images that get a picture: `image_id`, `label` and, for each method of `PICTURED`, a column with its
    prediction."""
    wide = images.sort("image_id")
    for method in PICTURED:
        said = answers.filter(pl.col("method") == method).select("image_id", pl.col("predicted").alias(method))
        wide = wide.join(said, on="image_id", how="left", maintain_order="left")
    disagreed = set(wide.filter(pl.col(UNREFINED) != pl.col(FULL))["image_id"])
    chosen = votes.choose_images(images, disagreed, count)
    return wide.filter(pl.col("image_id").is_in(chosen)).sort("label", "image_id")


def _empty(folder: Path) -> None:
    """Make the folder of pictures, or remove those of an earlier run."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.png"):
        old.unlink()


def write_pictures(
    folder: Path,
    result: Named,
    predictions: Metadata[PredictionsParameters],
    root: Path,
    chosen: pl.DataFrame,
    classes: ClassTable,
    *,
    labelled: bool = True,
) -> list[pictures.Caption]:
    """Write `boxes/<nn>.png` and `evidence/<nn>.png` for each image chosen; returns their captions.

    `label` of images without labels is what was predicted. Warns and writes none if the images are missing, and no
    evidence if texts or views are missing.
    """
    image_ids = chosen["image_id"].to_list()
    try:
        ensure_unpacked(result.dataset, root.as_posix(), image_ids)
        photos = [open_rgb(root / image_id) for image_id in image_ids]
    except (*UNREADABLE, UserError) as error:
        warn(f"no pictures: the images under {root} cannot be read ({error})")
        _empty(folder / "boxes")
        _empty(folder / "evidence")
        return []
    threshold, names = predictions.parameters.iou_threshold, votes.class_names(pl.DataFrame(classes.table))
    candidates, max_views = pictures.read_candidates(result.dataset, image_ids, threshold)
    found = _read_evidence(result, predictions, chosen, candidates, classes)
    _empty(folder / "boxes")
    _empty(folder / "evidence")
    captions = []
    for number, (row, photo) in enumerate(zip(chosen.iter_rows(named=True), photos, strict=True), start=1):
        caption = pictures.Caption(
            image_id=row["image_id"],
            actual=names[row["label"]] if labelled else None,
            answers=[(m, names[row[m]], row[m] == row["label"]) for m in PICTURED if row[m] is not None],
            threshold=threshold,
            untrained=result.untrained,
        )
        captions.append(caption)
        name = f"{number:02d}.png"
        plots.save(pictures.draw(photo, candidates[row["image_id"]].crops(max_views), caption), folder / "boxes" / name)
        if found:
            figure = evidence_picture.draw(photo, found[row["image_id"]], caption, names)
            # Broad figures, which at the usual resolution would not fit a page of `dvc plots show`.
            plots.save(figure, folder / "evidence" / name, dpi=125)
    return captions


def _read_evidence(
    result: Named,
    predictions: Metadata[PredictionsParameters],
    chosen: pl.DataFrame,
    candidates: Mapping[str, Candidates],
    classes: ClassTable,
) -> dict[str, evidence.Evidence]:
    """The evidence in each image chosen; empty, with a warning, if its inputs are missing."""
    if chosen.is_empty():
        return {}
    if chosen[FULL].null_count():
        warn("no pictures of evidence: bifta was not scored")
        return {}
    if not evidence.at_hand(result.dataset, result.model):
        warn("no pictures of evidence: texts or views are missing; fetch them with `dvc pull`")
        return {}
    return evidence.read_evidence(result.model, predictions, chosen, candidates, classes)
