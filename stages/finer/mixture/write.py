"""finer.mixture: training images, labels and attributes -> conversations to tune an LVLM on, `data/finer/mixture/`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from stages.common.digests import signed
from stages.common.errors import UserError, warn
from stages.common.seeding import generator
from stages.common.tables import make_meta, write_json, write_table
from stages.finer import paths
from stages.finer.artifacts import MIXTURE, MixtureParameters
from stages.finer.attributes import read_by_class
from stages.finer.cli import FinerJob
from stages.finer.mixture.conversations import (
    Entry,
    attribute_conversation,
    chat_row,
    direct_conversation,
    read_mix,
)
from stages.finer.mixture.selection import Class, choose, classes_of, groups_of, held_out_classes
from stages.finer.params import Finer
from stages.finer.unified import Sample, class_names, read_unified

ATTRIBUTES, DIRECT = "attributes", "direct"
CLASSES = "classes.json"
"""`{data set: {"seen": [class, ...], "held_out": [class, ...]}}`, and a digest."""


def write_mixture(job: FinerJob) -> str:
    """Write both kinds of conversations, each as LLaVA's JSON and as a Parquet table, and `classes.json`.

    Returns:
        The line to print.

    Raises:
        UserError: files that are missing or do not fit, or a wrong file under `finer.mixture.append`.
    """
    seed, settings = job.params.seed, job.finer.mixture
    entries, parts = all_conversations(seed, job.finer)
    made = len(entries[ATTRIBUTES])
    appended = read_mix(Path(settings.append)) if settings.append is not None else []
    made_by: dict[str, Any] = {"seed": seed, "datasets": list(job.finer.datasets), **settings.model_dump()}
    for kind, own in entries.items():
        mixed = shuffled(seed, kind, [*own, *appended])
        write_json(paths.MIXTURE / f"{kind}.json", mixed)
        table = pa.Table.from_pylist([chat_row(entry) for entry in mixed], schema=MIXTURE.columns)
        meta = make_meta(MIXTURE, "finer", MixtureParameters(kind=kind, **made_by))
        write_table(paths.MIXTURE / f"{kind}.parquet", table, meta)
    write_json(paths.MIXTURE / CLASSES, signed(parts))
    added = f" and {len(appended)} of {settings.append}" if settings.append is not None else ""
    count = sum(len(own["held_out"]) for own in parts.values())
    return f"finer.mixture: {made} conversations{added}, {count} classes held out"


def shuffled(seed: int, kind: str, entries: Sequence[Entry]) -> list[Entry]:
    return [entries[place] for place in generator(seed, "shuffled", kind).permutation(len(entries))]


def all_conversations(seed: int, finer: Finer) -> tuple[dict[str, list[Entry]], dict[str, dict[str, list[str]]]]:
    """The conversations of every data set that is not left out, by kind; and the content of `classes.json`.

    A class is seen where some conversation is about it. It is held out where it was drawn or its data set is left out.
    A class that has no image to train on, or whose images were not chosen, is neither. Without images to train on both
    are empty, and a warning says so, because the benchmark can be run without tuning.

    Raises:
        UserError: files that are missing or do not fit.
    """
    settings = finer.mixture
    entries: dict[str, list[Entry]] = {ATTRIBUTES: [], DIRECT: []}
    parts: dict[str, dict[str, list[str]]] = {}
    for dataset in finer.datasets:
        train, test = (read_unified(paths.unified(dataset, split), dataset) for split in (paths.TRAIN, paths.TEST))
        samples = [*train, *test]
        classes = classes_of(read_by_class(paths.attributes_by_class(dataset), class_names(samples)), samples)
        if dataset == settings.leave_out:
            parts[dataset] = {"seen": [], "held_out": [found.name for found in classes]}
            continue
        # Classes with the same answer, such as NABirds' male and female eiders, are held out together.
        answers = list(dict.fromkeys(found.answer for found in classes))
        drawn = set(held_out_classes(seed, dataset, answers, settings.held_out_classes))
        held_out = [found.name for found in classes if found.answer in drawn]
        found, seen = dataset_conversations(seed, dataset, classes, train, held_out, settings.per_dataset)
        if seen:
            parts[dataset] = {"seen": seen, "held_out": held_out}
        else:
            warn(f"finer.mixture: no conversation is made of {dataset}, which has no images to train on")
        for kind, some in found.items():
            entries[kind] += some
    if not entries[ATTRIBUTES]:
        warn(
            "finer.mixture: there is nothing to make conversations of, so the mixture is empty; to tune, name more "
            "under finer.datasets, with a train_share above 0, or leave_out: null"
        )
        return entries, {}
    return entries, parts


def dataset_conversations(
    seed: int,
    dataset: str,
    classes: Sequence[Class],
    samples: Sequence[Sample],
    held_out: Sequence[str],
    per_dataset: int,
) -> tuple[dict[str, list[Entry]], list[str]]:
    """A data set's conversations by kind, both about the same images; and the names of their classes, by label.

    Args:
        samples: those to train on.
        held_out: names of classes.

    Raises:
        UserError: a class that a conversation is about has no required attributes.
    """
    trained = [sample for sample in samples if classes[sample.label].name not in set(held_out)]
    bare = sorted({classes[sample.label].name for sample in trained if not classes[sample.label].required})
    if bare:
        more = f" and {len(bare) - 10} more" if len(bare) > 10 else ""
        raise UserError(
            f"{paths.attributes(dataset)} has no required attributes of {len(bare)} classes: {', '.join(bare[:10])}"
            f"{more}; add them, or remove the file to have it made again"
        )
    entries: dict[str, list[Entry]] = {ATTRIBUTES: [], DIRECT: []}
    chosen = choose(seed, dataset, trained, groups_of(classes), per_dataset)
    for sample in chosen:
        name, key = f"{dataset}-{sample.idx}", sample.image_id
        rng = generator(seed, ATTRIBUTES, dataset, key)
        entries[ATTRIBUTES].append(attribute_conversation(name, sample, classes[sample.label].required, rng))
        entries[DIRECT].append(direct_conversation(name, sample, generator(seed, DIRECT, dataset, key)))
    return entries, [classes[label].name for label in sorted({sample.label for sample in chosen})]
