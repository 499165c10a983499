"""Classify image files with the class texts that a data set already has; DVC and data/ stay as they are.

    python -m stages.predict IMAGE_OR_FOLDER... --dataset D --model M [--method bifta] [--csv [FILE]] [--json [FILE]]

Crops, views and scores are those of the pipeline: an image below the data set's root gets the same prediction as there.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tabulate import tabulate
from tqdm import tqdm

from stages.common.errors import UserError, run
from stages.common.tables import write_text
from stages.ingest.walk import files_below

if TYPE_CHECKING:
    from stages.classify import Prediction

STDOUT = "-"
HEADINGS = ("image", "predicted", "score", "margin", "runner-up", "agreement")


def main() -> None:
    options = _parse()
    found = list(find_images(options.images))
    # Loading takes seconds; a wrong path is said before.
    from stages.classify import load_classifier

    classifier = load_classifier(options.dataset, options.model, options.method)
    predictions: list[Prediction] = []
    with tqdm(total=sum(len(images) for _, images in found), desc="predict", unit="image", disable=None) as progress:
        for folder, images in found:
            for prediction in classifier.classify(images, folder):
                predictions.append(prediction)
                progress.update()
    if not predictions:
        raise UserError("none of the images can be read")
    for path, text in ((options.csv, csv_text(predictions)), (options.json, json_text(predictions))):
        if path not in (None, STDOUT):
            write_text(Path(path), text)
        elif path == STDOUT:
            sys.stdout.write(text)
    if STDOUT not in (options.csv, options.json):
        print(table(predictions))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "python -m stages.predict", description="Classify image files with the texts that a data set already has."
    )
    parser.add_argument("images", nargs="+", metavar="IMAGE_OR_FOLDER", help="folders are read at any depth")
    parser.add_argument("--dataset", required=True, help="a key of `datasets` in params.yaml: its classes and texts")
    parser.add_argument("--model", required=True, help="a key of `models` in params.yaml")
    parser.add_argument("--method", help="a row of docs/methods.md; default: score.csv_method, which is bifta")
    for form in ("csv", "json"):
        parser.add_argument(
            f"--{form}",
            nargs="?",
            const=STDOUT,
            metavar="FILE",
            help=f"write {form.upper()}, to the terminal or a file",
        )
    options = parser.parse_args()
    if options.csv == options.json == STDOUT:
        raise UserError("--csv and --json cannot both go to the terminal; give one of them a file")
    for form in ("csv", "json"):
        path = getattr(options, form)
        if path not in (None, STDOUT) and Path(path).suffix.lower() != f".{form}":
            raise UserError(f"--{form} takes a file that ends in .{form}, not '{path}'; put images before the options")
    return options


def find_images(names: Sequence[str]) -> Iterator[tuple[Path | None, list[Path]]]:
    """The images of each argument, and the folder that they were found in; None for a file.

    Raises:
        UserError: no such file or folder, or a folder without images.
    """
    for name in names:
        path = Path(name)
        if path.is_dir():
            images = [path / below for below in files_below(path)]
            if not images:
                raise UserError(f"no images below '{name}'")
            yield path, images
        elif path.exists():
            yield None, [path]
        else:
            raise UserError(f"no file or folder '{name}'")


def table(predictions: Sequence[Prediction]) -> str:
    """The predictions as aligned text."""
    rows = [
        (p.image, p.predicted, f"{p.score:.4f}", f"{p.margin:.4f}", p.runner_up or "-", f"{p.agreement:.2f}")
        for p in predictions
    ]
    sides = ["left", "left", "right", "right", "left", "right"]
    # The headings are a row, because tabulate makes columns wider for real ones.
    text = tabulate([HEADINGS, *rows], (), "plain", disable_numparse=True, colalign=sides, preserve_whitespace=True)
    return "\n".join(line.rstrip() for line in text.splitlines())


def csv_text(predictions: Sequence[Prediction]) -> str:
    """With the columns of `predictions.csv`."""
    from stages.classify import as_rows

    text, rows = io.StringIO(), as_rows(predictions)
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def json_text(predictions: Sequence[Prediction]) -> str:
    """A list of objects: the columns of the CSV without `true_class`, the image_id, and the five best classes."""
    from stages.classify import as_rows

    objects = []
    for row, found in zip(as_rows(predictions), predictions, strict=True):
        best = [{"class": name, "score": score} for name, score in zip(found.classes, found.scores, strict=True)]
        row.pop("true_class")
        objects.append({**row, "image_id": found.image_id, "best": best})
    return json.dumps(objects, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    run(main)
