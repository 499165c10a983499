"""The list of corruptions: which change is made to which kinds of artifact, and to whom structure shows it."""

from __future__ import annotations

from functools import partial
from typing import Any

from benchmarks.faults import corruptions as c
from benchmarks.faults.base import KINDS
from benchmarks.faults.corruptions import ALL, Change, Corruption

TABLES = tuple(name for name, kind in KINDS.items() if kind.declared)
JSONS = tuple(name for name, kind in KINDS.items() if not kind.declared)
METRICS = ("metrics", "attrseek's metrics")
TOGETHER = ("score", "report", "finer.align")
"""The stages that read texts, views, images and classes together."""
PREDICTED = {"predictions": ALL, "top5": ALL}
NAN, INF = float("nan"), float("inf")


def table(name: str, kinds: str | tuple[str, ...], change: Change, shown: tuple[str, ...] = ()) -> Corruption:
    return Corruption(name, (kinds,) if isinstance(kinds, str) else kinds, change, shown=shown)


def file(name: str, kinds: tuple[str, ...], spoil: Any, **arguments: Any) -> Corruption:
    return Corruption(name, kinds, spoil=partial(spoil, **arguments) if arguments else spoil)


def _numbers() -> list[Corruption]:
    """Embeddings and cosines that are none."""
    found = []
    for kind, cosine in (("views", "similarity"), ("texts", "label_similarity")):
        for column in ("embedding", cosine):
            for name, value in (("NaN", NAN), ("Inf", INF)):
                found.append(table(f"{column}: {name}", kind, partial(c.with_value, name=column, value=value), ALL))
            for name, factor in (("zeros", 0.0), ("x 10", 10.0)):
                found.append(table(f"{column}: {name}", kind, partial(c.scaled, name=column, factor=factor), ALL))
        found.append(table("embedding: other width", kind, c.narrower, ALL))
    for column in ("score", "margin"):
        for kind in ("predictions", "attrseek"):
            changed = partial(c.with_value, name=column, value=NAN)
            found.append(table(f"{column}: NaN", kind, changed, ALL))
    return found


def _rows() -> list[Corruption]:
    """Rows that are missing, doubled or in another order."""
    asked = ("embed", *TOGETHER)
    changes: dict[str, Change] = {
        "rows: none": c.without_rows,
        "rows: one missing": c.without_one,
        "rows: half": c.without_half,
        "rows: doubled": c.doubled,
        "rows: shuffled": c.rows_shuffled,
    }
    shown: dict[str, dict[str, tuple[str, ...]]] = {
        "rows: none": dict.fromkeys(("images", "classes", "boxes", "views", "texts", *PREDICTED), ALL),
        "rows: one missing": {**PREDICTED, "boxes": ALL, "views": ALL, "images": asked, "classes": TOGETHER},
        "rows: half": {**PREDICTED, "boxes": ALL, "views": ALL, "images": asked, "classes": TOGETHER},
        "rows: doubled": {
            **dict.fromkeys(("images", "classes", "boxes", "views", "answers", *PREDICTED), ALL),
            "texts": TOGETHER,
        },
        "rows: shuffled": {"boxes": ALL, "views": ALL, "top5": ALL, "images": asked, "classes": ALL},
    }
    found = [
        table(name, kind, change, shown[name].get(kind, ())) for name, change in changes.items() for kind in TABLES
    ]
    for kind in ("boxes", "views", *PREDICTED):
        found.append(table("rows: an image missing", kind, partial(c.without_group, name="image_id"), ALL))
    found.append(table("rows: a class missing", "texts", partial(c.without_group, name="label"), TOGETHER))
    found.append(table("rows: a method missing", "predictions", partial(c.without_group, name="method"), ("report",)))
    found.append(table("rows: a method missing", "top5", partial(c.without_group, name="method"), ALL))
    found.append(table("rows: a run missing", "predictions", partial(c.without_last, name="run"), ALL))
    found.append(table("rows: a class fewer", "classes", partial(c.without_last, name="label"), TOGETHER))
    return found


def _columns() -> list[Corruption]:
    """Other columns than the declaration says."""
    found = [
        table("columns: reordered", TABLES, c.columns_reordered),
        table("columns: one more", TABLES, c.extra_column),
    ]
    for kind in TABLES:
        declared = KINDS[kind].declared
        assert declared is not None
        for name in declared.columns.names:
            found.append(table(f"columns: no {name}", kind, partial(c.without_column, name=name), ALL))
            if not str(declared.columns.field(name).type).startswith("string"):
                found.append(table(f"columns: {name} as text", kind, partial(c.as_text, name=name), ALL))
    return found


def _labels() -> list[Corruption]:
    found = []
    for value in (None, -1, 999):
        one = partial(c.with_value, name="label", value=value)
        found.append(table(f"label: {value}", "images", one, ("score", "report", *(("finer.unify",) if value else ()))))
        found.append(table(f"label: {value}", "texts", one, TOGETHER))
        for kind in ("classes", *PREDICTED):
            found.append(table(f"label: {value}", kind, one, ALL))
        found.append(table(f"label: {value}", "answers", one, ("finer.score", "finer.align")))
    found.append(table("label: shuffled", "images", partial(c.shuffled, names=["label"]), ("report",)))
    found.append(table("label: shuffled", "predictions", partial(c.shuffled, names=["label"]), ALL))
    found.append(table("label: shuffled", "answers", partial(c.shuffled, names=["label"])))
    found.append(table("label: shuffled", "attrseek", partial(c.shuffled, names=["label"])))
    for value in (-1, 999):
        one = partial(c.with_value, name="predicted", value=value)
        found.append(table(f"predicted: {value}", "predictions", one, ALL))
    found.append(table("predicted: shuffled", "predictions", partial(c.shuffled, names=["predicted"]), ("report",)))
    return found


def _content() -> list[Corruption]:
    """What only this kind of artifact has."""
    corners = ["left", "top", "right", "bottom"]
    sight = partial(c.shuffled, names=["embedding"], within="image_id")
    sameness = partial(c.shuffled, names=["embedding"], within="label")
    return [
        table("content: shuffled", "images", partial(c.shuffled, names=["content"]), TOGETHER),
        table("sizes: shuffled", "images", partial(c.shuffled, names=["width", "height"])),
        table("sizes: 0", "images", partial(c.filled, name="width", value=0), ("crop",)),
        table("image_id: foreign", "images", c.foreign_ids, ("embed", *TOGETHER)),
        table("image_id: foreign", ("boxes", "views", *PREDICTED), c.foreign_ids, ALL),
        table("image_id: foreign", ("answers",), c.foreign_ids, ("finer.align",)),
        table("name: another order", "classes", partial(c.shuffled, names=["name"]), TOGETHER),
        table("name: null", "classes", partial(c.with_value, name="name", value=None), ALL),
        table("coarse: shuffled", "classes", partial(c.shuffled, names=["coarse"])),
        table("boxes: shuffled", "boxes", partial(c.shuffled, names=corners, within="image_id")),
        table("boxes: of other images", "boxes", partial(c.shuffled, names=corners)),
        table("kept: shuffled", "boxes", partial(c.shuffled, names=["kept"], within="image_id")),
        table("kept: null", "boxes", partial(c.filled, name="kept", value=None), ALL),
        table("kept: one null", "boxes", partial(c.with_value, name="kept", value=None), ALL),
        table("kept: empty", "boxes", partial(c.filled, name="kept", value=[]), ALL),
        table("kept: unknown thresholds", "boxes", partial(c.filled, name="kept", value=[0.123]), ALL),
        table("kept: NaN", "boxes", partial(c.with_value, name="kept", value=[NAN]), ALL),
        table("candidate: beyond the boxes", "views", c.beyond, ALL),
        table("candidate: shuffled", "views", partial(c.shuffled, names=["candidate"], within="image_id"), ALL),
        table("embedding: shuffled within images", "views", sight, ALL),
        table("embedding: of other images", "views", c.other_embeddings_for_images),
        table("similarity: shuffled", "views", partial(c.shuffled, names=["similarity"], within="image_id"), ALL),
        table("embedding: shuffled within classes", "texts", sameness, TOGETHER),
        table("embedding: of other texts", "texts", partial(c.shuffled, names=["embedding"])),
        table("description: shuffled", "texts", partial(c.shuffled, names=["description"])),
        table("kept: all false", "texts", partial(c.filled, name="kept", value=False), TOGETHER),
        table("kept: all null", "texts", partial(c.filled, name="kept", value=None), TOGETHER),
        table("kept: shuffled", "texts", partial(c.shuffled, names=["kept"])),
        table("source: renamed", "texts", partial(c.renamed_values, name="source"), TOGETHER),
        table("source: null", "texts", partial(c.with_value, name="source", value=None), TOGETHER),
        table("classes: shuffled", "top5", partial(c.shuffled, names=["classes"]), ALL),
        table("classes: reversed", "top5", c.lists_reversed, ALL),
        table("classes: unknown", "top5", partial(c.with_value, name="classes", value=[9, 8, 7, 6, 5]), ALL),
        table("scores: NaN", "top5", partial(c.with_value, name="scores", value=[NAN] * 5), ALL),
        table("scores: fewer", "top5", partial(c.with_value, name="scores", value=[0.5]), ALL),
        table("agreement: 2", "top5", partial(c.with_value, name="agreement", value=2.0), ALL),
        table("method: renamed", tuple(PREDICTED), partial(c.renamed_values, name="method"), ALL),
        *(
            table(f"values of another {run}", "predictions", partial(c.values_of_other_run, run=run), ("report",))
            for run in ("seed", "threshold")
        ),
        table("reason: shuffled", "skipped", c.rows_shuffled),
        table("reason: null", "skipped", partial(c.filled, name="reason", value=None), ALL),
        table("answer: shuffled", "answers", partial(c.shuffled, names=["answer"])),
        table("answer: null", "answers", partial(c.with_value, name="answer", value=None)),
        table("attributes: shuffled", "answers", partial(c.shuffled, names=["attributes"])),
        table("granularity: unknown", "answers", partial(c.with_value, name="granularity", value="x"), ALL),
        table("em: shuffled", "scores", partial(c.shuffled, names=["em"])),
        table("messages: shuffled", "mixture", partial(c.shuffled, names=["messages"])),
        table("predicted: shuffled", "attrseek", partial(c.shuffled, names=["predicted"])),
    ]


def _files() -> list[Corruption]:
    every = (*TABLES, *JSONS)
    found = [
        file("file: cut", every, c.cut),
        file("file: without its end", every, c.without_tail),
        file("file: 64 bytes of zeros", every, c.zeroed),
        # A unified file without lines is right where there are no images.
        file("file: empty", tuple(kind for kind in every if kind != "unified"), c.holding, content=b""),
        file("file: text", every, c.holding, content=b"no Parquet, no JSON\n"),
        file("file: magic bytes alone", TABLES, c.holding, content=b"PAR1PAR1"),
        file("file: a folder", every, c.as_folder),
        file("file: of another kind", every, c.of_other_kind),
        file("file: of another data set", tuple(k for k in every if KINDS[k].other_dataset), c.of_other_dataset),
        file("file: of another model", tuple(k for k in every if KINDS[k].other_model), c.of_other_model),
    ]
    for run in ("seed", "threshold"):
        found.append(file(f"file: of another {run}", ("metrics",), c.of_other_run, run=run))
        # What `finer.align` reads does not say which seed is wanted.
        readers = KINDS["predictions"].readers[: 2 if run == "seed" else None]
        spoil = partial(c.of_other_run, run=run)
        found.append(Corruption(f"file: of another {run}", ("predictions",), spoil=spoil, shown=readers))
    for figure in ("top1", "top5", "mean_per_class", "std", "images", "runs"):
        kinds = METRICS if figure != "std" else ("metrics",)
        found.append(file(f"figures: {figure} changed", kinds, c.figure_changed, figure=figure))
    for name, content in (("null", b"null"), ("a list", b"[]"), ("an empty object", b"{}"), ("NaN", b'{"clip": NaN}')):
        found.append(file(f"figures: {name}", JSONS, c.holding, content=content))
    found.append(file("figures: a method missing", METRICS, c.method_missing))
    found.append(file("figures: a method renamed", METRICS, c.method_renamed))
    found.append(file("figures: em changed", ("FINER's metrics",), c.finer_figure_changed))
    return found


CORRUPTIONS = [*_numbers(), *_rows(), *_columns(), *_labels(), *_content(), *_files()]
