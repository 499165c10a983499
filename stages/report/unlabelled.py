"""The report of a data set without labels: predicted classes and certainty in place of accuracies."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from stages.common import methods, paths, tables
from stages.common.artifacts import PredictionsParameters
from stages.common.errors import UserError, warn
from stages.common.images import UNREADABLE, open_rgb
from stages.common.labels import Labelled, read_classes, read_labels
from stages.common.names import told_apart
from stages.common.predictions import open_predictions
from stages.common.unpacked import ensure_unpacked, image_root
from stages.report import certainty, contact, page, plots
from stages.report.about import read_about
from stages.report.certainty import Predicted, Unlabelled
from stages.report.figures import write_figures
from stages.report.skipped import skipped_notes
from stages.report.write import PICTURED, choose, write_pictures

SHEET = "evidence/00.png"
"""The contact sheet, before the evidence in single images. DVC cannot show names that are no numbers beside numbers."""


def write_unlabelled(
    dataset: str, model: str, picture_count: int, root: str, asked: PredictionsParameters | None = None
) -> Unlabelled:
    """Write every file of the report. What needs labels is empty, because DVC expects the files.

    Args:
        root: folder of the images, as the data set's entry in params.yaml has it.
        asked: what the predictions must have been made with; None: anything.

    Raises:
        UserError: an artifact is missing, not whole, or does not belong with the others.
    """
    predictions = open_predictions(dataset, model, asked)
    classes = read_classes(dataset)
    images, names = read_labels(dataset, classes, optional=True), told_apart(classes.names)
    result = certainty.read_unlabelled(dataset, model, paths.metrics(dataset, model), predictions)
    scored = [row.method for row in result.rows]
    method = methods.chosen(predictions.meta.parameters.csv_method, scored)

    def read(name: str) -> Predicted:
        return certainty.read_predicted(predictions, images, len(names), name)

    predicted = read(method)
    folder = paths.report(dataset, model)
    _write_nothing(folder, result)
    plots.save(plots.method_table(certainty.plain(result), untrained=result.untrained), folder / "table.png")

    plots.save(contact.class_bars(result, predicted, names), folder / "methods.png")
    plots.save(contact.no_confusions(result), folder / "confusion.png")

    said = {name: read(name).first for name in {*PICTURED, methods.chosen(methods.FULL, scored)} if name in scored}
    parts = [pl.DataFrame({"image_id": images.image_ids, "predicted": said[name]}) for name in said]
    answers = pl.concat([part.with_columns(method=pl.lit(name)) for name, part in zip(said, parts, strict=True)])
    listed = pl.DataFrame({"image_id": images.image_ids, "label": said[methods.chosen(methods.FULL, scored)]})
    place = Path(image_root(dataset, root, images.meta.parameters.unpacked))
    chosen = choose(listed, answers, picture_count)
    captions = write_pictures(folder, result, predictions.meta, place, chosen, classes, labelled=False)
    _write_sheet(folder / SHEET, result, predicted, names, place, images)
    notes, about = skipped_notes(dataset), read_about(dataset, model, predictions, images, classes)
    sheet = folder / SHEET
    page.write_page(folder, page.unlabelled(folder, result, about, predicted, names, sheet, captions, notes))
    tables.write_page(folder / "table.md", certainty.markdown(result, predicted, names, notes))
    write_figures(result, predictions.meta, images, len(names))
    return result


def _write_nothing(folder: Path, result: Unlabelled) -> None:
    """The files of plots that need labels."""
    for name in ("methods", "classes", "pairs"):
        tables.write_plot(folder / f"{name}.json", [])
    tables.write_page(folder / "confusion.csv", "actual,predicted\n")
    tables.write_page(folder / "recalls.csv", "class,images\n")


def _write_sheet(
    path: Path, result: Unlabelled, predicted: Predicted, names: list[str], root: Path, images: Labelled
) -> None:
    """Write the contact sheet, unless the images are missing, which gets a warning."""
    places = [place for own in contact.chosen(predicted) for place in own]
    image_ids = [images.image_ids[place] for place in places]
    try:
        ensure_unpacked(result.dataset, root.as_posix(), image_ids)
        photos = {place: open_rgb(root / image_id) for place, image_id in zip(places, image_ids, strict=True)}
    except (*UNREADABLE, UserError) as error:
        warn(f"no contact sheet: the images under {root} cannot be read ({error})")
        return
    plots.save(contact.sheet(result, predicted, names, photos), path)
