"""finer.mixture: training images, labels and attributes -> conversations to tune an LVLM on, `data/finer/mixture/`.

FINER (arXiv 2402.16315, section 5): `attributes` has three turns an image, `direct` is the single-turn baseline on the
same images. Each is written as LLaVA's JSON and as a Parquet table of chat messages.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from stages.common.errors import UserError, warn
from stages.common.seeding import generator, order_key
from stages.finer import paths
from stages.finer.attributes import read_by_class
from stages.finer.classes import ClassLabels, fine_labels, read_classes
from stages.finer.mixture.conversations import (
    Entry,
    attribute_conversation,
    direct_conversation,
)
from stages.finer.params import Finer
from stages.finer.unified import Sample, read_unified

ATTRIBUTES, DIRECT = "attributes", "direct"
CLASSES = "classes.json"
"""`{data set: {"seen": [class, ...], "held_out": [class, ...]}}`."""


def held_out_classes(seed: int, dataset: str, names: Sequence[str], share: float) -> list[str]:
    """The classes that no conversation is made of, drawn by name, in the order of `names`.

    Their share is rounded, half up; it is one class at least, and leaves one at least, where there are two or more.
    """
    if share == 0 or len(names) < 2:
        return []
    count = min(max(math.floor(share * len(names) + 0.5), 1), len(names) - 1)
    drawn = sorted(names, key=lambda name: (generator(seed, "held-out", dataset, name).random(), name))[:count]
    return [name for name in names if name in set(drawn)]


def groups_of(classes: Sequence[ClassLabels]) -> list[str]:
    """What the conversations are spread over: fine labels, or (iNaturalist) superordinates where those differ."""
    if len({found.superordinate for found in classes}) > 1:
        return [found.superordinate or "" for found in classes]
    return [answer_of(found) for found in classes]


def answer_of(found: ClassLabels) -> str:
    """The fine label that a conversation about a class ends with."""
    return fine_labels(found)[0]


def choose(seed: int, dataset: str, samples: Iterable[Sample], groups: Sequence[str], per_dataset: int) -> list[Sample]:
    """At most `per_dataset` divided by the number of groups, and one at least, of each group.

    Drawn by image, so that neither order nor other images decide; in order of `idx`.
    """
    limit = max(1, per_dataset // len(set(groups)))
    ranked: dict[str, list[tuple[bytes, int, Sample]]] = {}
    for sample in samples:
        place = order_key(seed, "chosen", dataset, image_key(sample))
        ranked.setdefault(groups[sample.label], []).append((place, sample.idx, sample))
    chosen = [row for rows in ranked.values() for row in sorted(rows, key=lambda row: row[:2])[:limit]]
    return [sample for _, _, sample in sorted(chosen, key=lambda row: row[1])]


def image_key(sample: Sample) -> str:
    """What random numbers about an image depend on."""
    return str(sample.metadata.get("image_id", sample.img_path))


def dataset_conversations(
    seed: int,
    dataset: str,
    classes: Sequence[ClassLabels],
    samples: Sequence[Sample],
    required: Sequence[Sequence[str]],
    held_out: Sequence[str],
    per_dataset: int,
) -> tuple[dict[str, list[Entry]], list[str]]:
    """A data set's conversations, by kind, and the classes that they are about, in order of labels.

    Both kinds are of the same images.

    Args:
        samples: those to train on.
        required: of each class, its required attributes.

    Raises:
        UserError: a class that is talked about has no required attributes.
    """
    trained = [sample for sample in samples if classes[sample.label].name not in set(held_out)]
    bare = sorted({classes[sample.label].name for sample in trained if not required[sample.label]})
    if bare:
        more = f" and {len(bare) - 10} more" if len(bare) > 10 else ""
        raise UserError(
            f"{paths.attributes(dataset)} has no required attributes of {len(bare)} classes: {', '.join(bare[:10])}"
            f"{more}; add them, or remove the file to have it made anew"
        )
    entries: dict[str, list[Entry]] = {ATTRIBUTES: [], DIRECT: []}
    chosen = choose(seed, dataset, trained, groups_of(classes), per_dataset)
    for sample in chosen:
        name, key = f"{dataset}-{sample.idx}", image_key(sample)
        rng = generator(seed, ATTRIBUTES, dataset, key)
        entries[ATTRIBUTES].append(attribute_conversation(name, sample, required[sample.label], rng))
        entries[DIRECT].append(direct_conversation(name, sample, generator(seed, DIRECT, dataset, key)))
    return entries, [classes[label].name for label in sorted({sample.label for sample in chosen})]


def shuffled(seed: int, kind: str, entries: Sequence[Entry]) -> list[Entry]:
    return [entries[place] for place in generator(seed, "shuffled", kind).permutation(len(entries))]


def collect(seed: int, finer: Finer) -> tuple[dict[str, list[Entry]], dict[str, dict[str, list[str]]]]:
    """The conversations of every data set that is not left out, by kind; and what `classes.json` says.

    A class is seen where some conversation is about it, and held out where it was drawn or its data set is left out;
    one that merely has no image to train on, or gives way to others of its group, is neither. Without images to train
    on both are empty, and a warning says so: a benchmark is complete without tuning.

    Raises:
        UserError: files that are missing or do not fit.
    """
    settings = finer.mixture
    entries: dict[str, list[Entry]] = {ATTRIBUTES: [], DIRECT: []}
    parts: dict[str, dict[str, list[str]]] = {}
    for dataset in finer.datasets:
        classes = read_classes(dataset)
        if dataset == settings.leave_out:
            parts[dataset] = {"seen": [], "held_out": [found.name for found in classes]}
            continue
        # Classes of one fine label, as NABirds' male and female eiders, are held out together.
        answers = list(dict.fromkeys(map(answer_of, classes)))
        drawn = set(held_out_classes(seed, dataset, answers, settings.held_out_classes))
        held_out = [found.name for found in classes if answer_of(found) in drawn]
        concepts = read_by_class(paths.attributes_by_class(dataset), [found.name for found in classes])
        samples = read_unified(paths.unified(dataset, paths.TRAIN), dataset, [found.fine for found in classes])
        required = [concept.binomial.required for concept in concepts]
        found, seen = dataset_conversations(seed, dataset, classes, samples, required, held_out, settings.per_dataset)
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
