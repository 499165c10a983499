"""Published unified files: the end of `img_path` finds the image, and the image gives the class."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from stages.common.errors import UserError, nearest, warn
from stages.common.images import UNREADABLE, content_digest, read_image, reason
from stages.common.names import spelling
from stages.finer.classes import ClassLabels
from stages.finer.params import Benchmark
from stages.finer.paths import TEST, TRAIN
from stages.finer.unified import Sample, parse_unified, sample_metadata

SPLITS = frozenset({"train", "val", "valid", "validation", "test", "trainval", "cars_train", "cars_test"})
"""Folders that hold one split each, so that files of the same name in two of them are different images."""

SAME_FOLDER = {"2021_valid": "val", "2021_train": "train", "2021_train_mini": "train_mini"}
"""iNaturalist's folders: torchvision's name -> the published files' name."""


@dataclass(frozen=True)
class Row:
    """A row of `images.parquet`."""

    label: int
    content: str


class Places:
    """Finds the image that a path of another machine means.

    A path means an image if it ends with the image_id, or if the image's own path, root included, ends with it.
    "/shared/nas/data/CUB_200_2011/images/001.x/a.jpg" and "{data_dir_path}/CUB_200_2011/images/001.x/a.jpg" both mean
    "images/001.x/a.jpg" of the root "cub/CUB_200_2011".
    """

    def __init__(self, root: str, image_ids: Iterable[str]) -> None:
        self._root = Path(root)
        self._above = _parts(self._root.absolute().as_posix())
        self._ids: dict[str, list[tuple[str, tuple[str, ...]]]] = {}
        for image_id in image_ids:
            parts = _parts(image_id)
            self._ids.setdefault(parts[-1], []).append((image_id, parts))

    def find(self, img_path: str) -> Path | None:
        """The file, relative to the project's root or absolute; None if there is none.

        Raises:
            UserError: the path means several images of the data set equally well; names two.
        """
        direct, below = Path(img_path), self._root / img_path
        if direct.is_file():
            inside = _relative(direct, self._root)
            return self._root / inside if inside is not None else direct
        if below.is_file():
            return below
        img_path = img_path.strip().replace("\\", "/")  # as Windows writes paths
        parts = _parts(img_path)
        if not parts:
            return None
        lengths = {image_id: self._match(parts, own) for image_id, own in self._ids.get(parts[-1], ())}
        longest = max(lengths.values(), default=0)
        best = sorted(image_id for image_id, length in lengths.items() if length == longest and length)
        if len(best) > 1:
            raise UserError(f"img_path '{img_path}' could be the image '{best[0]}' or '{best[1]}' of '{self._root}'")
        return self._root / best[0] if best else self._unlisted(img_path)

    def _match(self, parts: tuple[str, ...], own: tuple[str, ...]) -> int:
        """How many parts at the end of a path are the image's; 0 if the path does not mean the image."""
        whole = (*self._above, *own)
        common = 0
        for part, known in zip(reversed(parts), reversed(whole), strict=False):
            if part != known:
                break
            common += 1
        if common == len(parts):
            return common
        apart = common < len(whole) and {parts[-common - 1], whole[-common - 1]} <= SPLITS
        return common if common >= max(len(own), 2) and not apart else 0

    def _unlisted(self, img_path: str) -> Path | None:
        """A file below the root that `images.parquet` does not list, such as one of another split."""
        parts = PurePosixPath(img_path).parts
        for cut in range(1, len(parts) - 1):
            file = self._root.joinpath(*parts[cut:])
            if file.is_file() and not {parts[cut - 1], self._root.absolute().name} <= SPLITS:
                return file
        return None


def _parts(path: str) -> tuple[str, ...]:
    """The parts of a path within a data set: without "/", "." and everything up to a placeholder `{...}`."""
    parts = [SAME_FOLDER.get(part, part) for part in PurePosixPath(path).parts if part not in ("/", ".")]
    placeholders = [place for place, part in enumerate(parts) if part.startswith("{") and part.endswith("}")]
    return tuple(parts[placeholders[-1] + 1 :] if placeholders else parts)


def _relative(file: Path, root: Path) -> Path | None:
    """The path of a file relative to a folder; None if it is not in it."""
    absolute = root.absolute()
    return file.absolute().relative_to(absolute) if file.absolute().is_relative_to(absolute) else None


class Labels:
    """Finds the class that fine labels mean: by the classes' own names, or if no own name matches, by other names."""

    def __init__(self, names: Sequence[Sequence[str]]) -> None:
        self._names = names
        self._own: dict[str, set[int]] = {}
        self._other: dict[str, set[int]] = {}
        self._sets = [{spelling(form) for form in forms} for forms in names]
        self._found: dict[tuple[str, ...], set[int]] = {}
        for label, forms in enumerate(names):
            self._own.setdefault(spelling(forms[0]), set()).add(label)
            for form in forms:
                self._other.setdefault(spelling(form), set()).add(label)

    def find(self, fine: Sequence[str]) -> set[int]:
        """The classes that the labels can mean: none, one, or several where they contradict or do not decide.

        An aircraft's family fits several variants, and the label beside it names one of them. If both labels are own
        names of classes, the class with exactly these names is meant: the variant CRJ-900 of the family CRJ-700.
        """
        key = tuple(fine)  # many images have the same labels
        if key not in self._found:
            forms = {spelling(form) for form in fine}
            own = {label for form in forms for label in self._own.get(form, ())}
            exact = {label for label in own if self._sets[label] == forms}
            self._found[key] = exact or own or self.named(fine)
        return self._found[key]

    def named(self, fine: Sequence[str]) -> set[int]:
        """Every class that has one of the labels as a name."""
        return {label for form in map(spelling, fine) for label in self._other.get(form, ())}

    def knows(self, form: str) -> bool:
        return spelling(form) in self._other

    def puzzle(self, fine: Sequence[str]) -> str:
        """Why labels do not mean one class."""
        quoted = ", ".join(f"'{form}'" for form in fine)
        found = sorted(self.find(fine))
        if found:
            first, second = (self._names[label][0] for label in found[:2])
            return f"the fine label {quoted} could be the class '{first}' or '{second}'"
        known = [form for forms in self._names for form in forms]
        return f"the fine label {quoted} is no class of the data set{nearest(fine[0], known)}"


def read_published(
    dataset: str, path: Path, root: str, classes: Sequence[ClassLabels], images: Mapping[str, Row]
) -> list[Sample]:
    """The lines of a published unified file with our metadata.

    The class is that of the image in `images.parquet`. Names decide only for an image that is not in that table.

    Args:
        images: image_id -> row of `images.parquet`.

    Raises:
        UserError: as `parse_unified`; missing images; a path that means several images; fine labels of another class
            than the image's; an image that is not in the table and whose labels do not name one class.
    """
    labels, places = Labels([found.fine for found in classes]), Places(root, images)
    samples, missing = [], []
    for number, sample in parse_unified(path):
        where = f"{path}, line {number}"
        try:
            file = places.find(sample.img_path)
        except UserError as error:
            raise UserError(f"{where}: {error}; give more of the path") from None
        if file is None:
            missing.append(sample.img_path)
            continue
        inside = _relative(file, Path(root))
        image_id = (inside or file).as_posix()
        row = images.get(image_id)
        label = _label(where, dataset, sample, labels, classes, row)
        content = row.content if row else _content(file, where)
        own_name = classes[label].name
        metadata = {**sample.metadata, **sample_metadata(dataset, image_id, label, own_name, content)}
        # The class's own name comes first, because the mixture answers with it. An aircraft's family is also right.
        name = spelling(own_name)
        own, others = ([form for form in sample.fine if (spelling(form) == name) is same] for same in (True, False))
        samples.append(replace(sample, fine=[*own, *others], img_path=file.as_posix(), metadata=metadata))
    if missing:
        raise UserError(
            f"{path}: {len(missing)} images are not there, such as '{missing[0]}'; img_path is looked for in the "
            f"project's folder, and by its last parts in '{root}' (datasets.{dataset}.root)"
        )
    _warn_about(path, samples, labels)
    return sorted(samples, key=lambda sample: sample.idx)


def _content(file: Path, where: str) -> str:
    """The digest of an image that no table lists."""
    try:
        return content_digest(read_image(file))
    except UNREADABLE as error:
        raise UserError(f"{where}: image '{file}' cannot be read ({reason(error)}); replace it") from None


def _label(
    where: str, dataset: str, sample: Sample, labels: Labels, classes: Sequence[ClassLabels], row: Row | None
) -> int:
    if row is None:
        found = labels.find(sample.fine)
        if len(found) != 1:
            raise UserError(
                f"{where}: {labels.puzzle(sample.fine)}, and the image '{sample.img_path}' is not in the table of "
                f"images, which would tell; ingest a split that has it (datasets.{dataset}.split) or correct the label"
            )
        return min(found)
    named = labels.named(sample.fine)
    if named and row.label not in named:
        raise UserError(
            f"{where}: the fine label '{sample.fine[0]}' is that of the class '{classes[min(named)].name}', but the "
            f"image is of the class '{classes[row.label].name}'; correct the label or img_path"
        )
    return row.label


def _warn_about(path: Path, samples: Sequence[Sample], labels: Labels) -> None:
    """Warn about labels that the data set does not have, and about images without coarse labels."""
    others = [form for sample in samples for form in sample.fine if not labels.knows(form)]
    if others:
        warn(
            f"{path}: {len(others)} fine labels are no class's name in the data set, such as '{others[0]}'; they count "
            "as right"
        )
    without = sum(not sample.coarse for sample in samples)
    if without:
        warn(f"{path}: {without} of {len(samples)} images have no coarse labels; coarse questions of them are left out")


def published(
    dataset: str, benchmark: Benchmark, root: str, classes: Sequence[ClassLabels], images: Mapping[str, Row]
) -> dict[str, list[Sample]]:
    """Both splits from published files. Without a file to train on, that split is empty and a warning says so.

    Raises:
        UserError: as `read_published`; an image that is in both files.
    """
    split: dict[str, list[Sample]] = {TRAIN: [], TEST: []}
    for name, file in ((TRAIN, benchmark.unified_train), (TEST, benchmark.unified)):
        if file is not None:
            split[name] = read_published(dataset, Path(file), root, classes, images)
    if benchmark.unified_train is None:
        warn(
            f"finer.datasets.{dataset}: unified is given and unified_train is not, so no image is there to train on; "
            "the mixture and the probe go without the data set"
        )
    asked = {sample.img_path for sample in split[TEST]}
    twice = sorted({sample.img_path for sample in split[TRAIN]} & asked)
    if twice:
        raise UserError(
            f"{benchmark.unified_train}: {len(twice)} images are in {benchmark.unified} as well, such as "
            f"'{twice[0]}'; none may be both trained on and asked about"
        )
    return split
