"""What stands on `report.html`, the page for a colleague who does not have the project."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from stages.common import methods, paths, tables
from stages.report import certainty, made_of, table
from stages.report.about import About
from stages.report.certainty import MOST_CLASSES, Predicted, Unlabelled
from stages.report.changes import SIDE, Rows
from stages.report.pictures import Caption
from stages.report.render import Bar, Heading, Page, Picture, Section, Table, Text, Warned, picture, render
from stages.report.table import Named, Result

PICTURE_BYTES = 6_500_000
"""Most bytes of pictures on a page, which in the text of the page are a third more."""

ABOUT_METHODS = (
    "Nothing is trained here. An encoder compares each image with texts about each class, and the class with the "
    "highest score is the answer. Each row is a method: which views of the image meet which texts. Crops are squares "
    "cut out of the image; of refined crops, those that overlap an earlier one too much were left out. A refined union "
    "has the sentences of all sources without those that nearly repeat another."
)
ABOUT_FIGURES = (
    "Top-1 is the share of images whose answer is right, top-5 that of images whose class is among the first five."
)
ABOUT_PICTURES = (
    "For some images, the first picture shows the crops that refinement keeps and those that it rejects. The second "
    "shows what decided about the answer of `bifta`: how much each crop weighs, what it adds to the scores of two "
    "classes, and the sentences that matched best."
)


def write_page(folder: Path, page: Page) -> None:
    """Write `report.html`."""
    tables.write_text(folder / paths.REPORT_PAGE, render(page))


def labelled(
    folder: Path,
    result: Result,
    about: About,
    changes: Rows,
    pairs: Rows,
    confusions: str,
    captions: Sequence[Caption],
    notes: Sequence[str],
) -> Page:
    """The page of a data set with labels.

    Args:
        folder: of the report, with its pictures.
        changes, pairs: as `class_changes` and `confused_pairs` give them.
        confusions: whose confusions are shown, and which classes.
        captions: of the pictures, in the order of their numbers.
        notes: lines below the table.
    """
    best = [row.method for row in result.rows if row.top1 == result.best]
    lead = "" if result.untrained else f"Most often right: {' and '.join(best)}, for {result.best:.2f} % of the images."
    sections = [
        Section("Methods", _methods(folder, result, notes)),
        Section("Classes", [*_changes(changes, about.class_count), *_confusions(folder, pairs, confusions)]),
        *_pictures(folder, captions),
        _settings(about),
    ]
    return _page(result, result.title, lead, about, result.notes, sections)


def unlabelled(
    folder: Path,
    result: Unlabelled,
    about: About,
    predicted: Predicted,
    names: Sequence[str],
    sheet: Path,
    captions: Sequence[Caption],
    notes: Sequence[str],
) -> Page:
    """The page of a data set without labels.

    Args:
        predicted: of the method that is shown.
        names: of the classes.
        sheet: the contact sheet; there may be none.
        captions, notes: as for `labelled`.
    """
    rows = certainty.method_rows(result)
    numeric = set(certainty.HEADINGS) - certainty.LEFT
    sure = Table("Methods", "How sure each method is.", certainty.HEADINGS, rows, numeric)
    sections = [
        Section("Methods", [Text(ABOUT_METHODS), sure, Text(certainty.LEGEND), *map(Text, notes)]),
        Section("Predicted classes", _predicted(predicted, names)),
        Section("Certainty", _certainty(predicted, names, sheet)),
        *_pictures(folder, captions),
        _settings(about),
    ]
    return _page(result, result.heading, "", about, result.notes, sections)


def _page(
    result: Named, title: str, lead: str, about: About, notes: Sequence[str], sections: Sequence[Section]
) -> Page:
    warnings = [Warned(note, untrained=note == table.UNTRAINED_NOTE) for note in notes]
    return Page(title=title, lead=lead, warnings=warnings, facts=about.facts, sections=sections)


def _methods(folder: Path, result: Result, notes: Sequence[str]) -> list[Text | Heading | Table | Picture]:
    rows = table.cells(result)
    heads = [*rows[0]]
    bold = {(number, "top-1") for number, row in enumerate(result.rows) if row.top1 == result.best}
    accuracies = Table(
        label="Methods",
        caption="Accuracy of each method; the best top-1 is bold.",
        headings=heads,
        rows=[[*row.values()] for row in rows],
        numeric={head for head in heads if table.is_numeric(head)},
        bold=bold,
    )
    bars = picture(
        folder / "methods.png",
        label="Bars of the methods",
        alt="Bar chart of the top-1 accuracies in the table above.",
        caption="Top-1 accuracy of each method.",
        photo=False,
    )
    papers = _papers([row.method for row in result.rows])
    return [
        Text(ABOUT_METHODS),
        Text(ABOUT_FIGURES),
        accuracies,
        Text(table.legend(result)),
        *papers,
        *map(Text, notes),
        bars,
    ]


def _papers(scored: Sequence[str]) -> list[Text]:
    """One line with the papers that the methods come from."""
    by_paper: dict[str, list[str]] = {}
    for method in methods.METHODS:
        if method.name in scored:
            by_paper.setdefault(method.paper, []).append(method.name)
    said = [f"{', '.join(names)}: arXiv {paper}" for paper, names in by_paper.items()]
    return [Text(f"Papers. {'; '.join(said)}.")] if said else []


def _changes(rows: Rows, classes: int) -> list[Table]:
    if not rows:
        return []
    before, after = methods.UNREFINED, methods.FULL
    most = max(abs(float(row["change"])) for row in rows) or 1.0
    ends = len(rows) == 2 * SIDE < classes
    some = f" The {SIDE} most improved and the {SIDE} most worsened of {classes:,}." if ends else ""
    cells = [
        (str(row["class"]), f"{row[before]:.1f}", f"{row[after]:.1f}", _signed(float(row["change"]))) for row in rows
    ]
    caption = f"Top-1 of each class in percent without refinement (`{before}`) and with it (`{after}`).{some}"
    heads = ("class", before, after, "change")
    return [Table("Changes of classes", caption, heads, cells, heads[1:], (), [_change(row, most) for row in rows])]


def _signed(points: float) -> str:
    return f"{points:+.1f}".replace("-", "−") if round(points, 1) else "0.0"


def _change(row: dict[str, str | float | int], most: float) -> Bar:
    """From the middle of the column to the right for a gain, to the left for a loss."""
    change = float(row["change"])
    width = round(50 * abs(change) / most, 2)
    return Bar(50 - width if change < 0 else 50, width, change < 0)


def _confusions(folder: Path, pairs: Rows, confusions: str) -> list[Text | Table | Picture]:
    matrix = picture(
        folder / "confusion.png",
        label="Confusions",
        alt="Matrix of confusions, with a row for each actual class and a column for each predicted one.",
        caption=f"Images of each actual class (row) by the class that was predicted (column): {confusions}.",
        photo=False,
    )
    if not pairs:
        return [matrix, Text("No image is confused.")]
    cells = [(str(row["actual"]), str(row["predicted"]), str(row["count"]), f"{row['share']:.1f} %") for row in pairs]
    most = max(float(row["count"]) for row in pairs)
    bars = [Bar(0, round(100 * float(row["count"]) / most, 2)) for row in pairs]
    caption = "The most confused pairs of classes: number of images, and their share of the actual class."
    heads = ("actual", "predicted", "images", "share")
    return [matrix, Table("Confused pairs", caption, heads, cells, heads[2:], (), bars)]


def _predicted(predicted: Predicted, names: Sequence[str]) -> list[Text | Table]:
    rows = certainty.class_rows(predicted, names)
    shown = rows[:MOST_CLASSES]
    most = max(int(row[1]) for row in shown)
    bars = [Bar(0, round(100 * int(row[1]) / most, 2)) for row in shown]
    caption = f"Classes that {predicted.method} predicts, the most frequent first."
    heads = certainty.CLASS_HEADINGS
    texts = [Text(note) for note in certainty.class_notes(rows, names)]
    return [Table("Predicted classes", caption, heads, shown, heads[1:], (), bars), *texts]


def _certainty(predicted: Predicted, names: Sequence[str], sheet: Path) -> list[Text | Table | Picture]:
    heads, rows = certainty.IMAGE_HEADINGS, certainty.least_certain(predicted, names)
    caption = f"The images that {predicted.method} is least certain about."
    least = Table("Least certain images", caption, heads, rows, set(heads) - certainty.LEFT)
    if not sheet.exists():
        return [least]
    contact = picture(
        sheet,
        label="Contact sheet",
        alt="Contact sheet: the most certain images, then the least certain, each with its predicted class.",
        caption=f"The images that {predicted.method} is most and least certain about, by the margin to the next class.",
    )
    return [contact, least]


def _pictures(folder: Path, captions: Sequence[Caption]) -> list[Section]:
    """The pictures of boxes and evidence, as many as a page can hold; none if there are no pictures."""
    parts: list[Text | Heading | Picture] = [Text(ABOUT_PICTURES)]
    room = PICTURE_BYTES
    for number, caption in enumerate(captions, start=1):
        found = _pictures_of(folder, number, caption)
        room -= sum(len(one.data) for one in found)
        if room < 0:
            left = len(captions) - number + 1
            others = "the other image" if left == 1 else f"the other {left} images"
            parts.append(Text(f"The pictures of {others} are in the report's folders `boxes` and `evidence`."))
            break
        parts += [Heading(caption.image_id), *found]
    return [Section("Pictures", parts)] if captions else []


def _pictures_of(folder: Path, number: int, caption: Caption) -> list[Picture]:
    marks = {True: " ✓", False: " ✗"} if caption.actual is not None else {True: "", False: ""}
    names = [(method, f"{name}{marks[right]}") for method, name, right in caption.answers]
    if caption.actual is not None:
        names.insert(0, ("true class", caption.actual))
    boxes, evidence = (folder / kind / f"{number:02d}.png" for kind in ("boxes", "evidence"))
    found = [
        picture(
            boxes,
            label=f"Crops of image {number}",
            alt=f"{caption.image_id} twice: left with the crops that are kept, right with those rejected.",
            caption=f"Crops kept (left) and rejected (right) at IoU ≤ {caption.threshold:g}.",
            names=names,
        )
    ]
    if evidence.exists():
        found.append(
            picture(
                evidence,
                label=f"Evidence in image {number}",
                alt=f"{caption.image_id} with its weighted crops, beside the best matching sentences of two classes.",
                caption="What each crop and each sentence adds to the scores.",
            )
        )
    return found


def _settings(about: About) -> Section:
    caption = "Settings that decided these figures, by their keys in the pipeline's `params.yaml`."
    settings = Table("Settings", caption, ("setting", "value", "meaning"), about.settings)
    if not about.score.files:
        return Section("What made it", [Text(made_of.said(about.score)), settings])
    files = made_of.rows(about.dataset, about.score)
    sources = Table("Sources", made_of.said(about.score), made_of.HEADINGS, files, {"sentences"})
    return Section("What made it", [sources, settings])
