"""The published format of the benchmark's data: `unified-<data set>-<split>-combined.jsonl`, one image a line."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from stages.common.errors import UserError, nearest
from stages.common.jsons import parse_json
from stages.common.names import spelling
from stages.common.tables import write_text

KEYS = ("idx", "basic-level-lbl", "coarse-level-lbl", "fine-level-lbl", "img_path")
REMEDY = "fix the file, or have it built from the tables: `dvc repro stages/finer/dvc.yaml`"


@dataclass(frozen=True)
class Sample:
    """One line: an image and its labels at three granularities. Multi-word labels are whole strings."""

    idx: int
    superordinate: str
    """`basic-level-lbl`."""
    coarse: list[str]
    """`coarse-level-lbl`, may be empty where the data set knows none."""
    fine: list[str]
    """`fine-level-lbl`, the class's name and other names that are right as well."""
    img_path: str
    """Relative to the project's root, or absolute."""
    metadata: dict[str, Any] = field(default_factory=dict)
    """Ours: `dataset`, `image_id`, `label`, `content` (digest of the file)."""

    @property
    def label(self) -> int:
        """The class; every sample that `read_unified` returns has one."""
        label: int = self.metadata["label"]
        return label


def write_unified(path: Path, samples: Iterable[Sample]) -> None:
    """Write the file, whole or not at all."""
    lines = (
        {
            "idx": sample.idx,
            "basic-level-lbl": sample.superordinate,
            "coarse-level-lbl": sample.coarse,
            "fine-level-lbl": sample.fine,
            "img_path": sample.img_path,
            "metadata": sample.metadata,
        }
        for sample in samples
    )
    write_text(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))


def parse_unified(path: Path) -> list[tuple[int, Sample]]:
    """The lines of a unified file with their numbers, checked for their form alone.

    Raises:
        UserError: no such file, a line that is not of the format, an `idx` that is there twice. Names file and line.
    """
    numbered = [(number, _sample(path, number, line)) for number, line in _lines(path)]
    _refuse_duplicates(path, numbered)
    return numbered


def read_unified(path: Path, dataset: str, names: Sequence[Sequence[str]]) -> list[Sample]:
    """The lines of a unified file, checked; `metadata` of each holds the label of its class.

    A line that `unify` wrote has the label itself. Names are looked up only for a line without one, because several
    classes may have one name: an aircraft's family can be another class's variant, and published names leave out what
    tells two classes apart.

    Args:
        names: of each class of the data set, every name by which it is right (`ClassLabels.fine`).

    Raises:
        UserError: as `parse_unified`; a label that no class has; fine labels that are no class's or could be several's.
    """
    labels = Labels(names)
    samples, odd = [], []
    for number, sample in parse_unified(path):
        label = known_label(sample, dataset)
        if label is None:
            found = labels.find(sample.fine)
            if len(found) != 1:
                odd.append((number, sample.fine))
                continue
            (label,) = found
        elif label >= len(names):
            raise UserError(
                f"{path}, line {number}: the data set has {len(names)} classes and none of label {label}; {REMEDY}"
            )
        samples.append(replace(sample, metadata={**sample.metadata, "label": label}))
    if odd:
        raise UserError(f"{path}, line {odd[0][0]}: {labels.puzzle(odd[0][1])}{_of_many(odd)}; {REMEDY}")
    return samples


def known_label(sample: Sample, dataset: str) -> int | None:
    """The label that `unify` wrote into a line of this data set, or None."""
    label = sample.metadata.get("label")
    return label if sample.metadata.get("dataset") == dataset and type(label) is int and label >= 0 else None


class Labels:
    """Finds the class that fine labels mean: by the classes' own names, or where those say nothing, by others."""

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

        Aircraft's family is right of several variants, of which the label beside it names one. Where both labels are
        a class's own name, the class that has exactly these names is meant: variant CRJ-900 of the family CRJ-700.
        """
        key = tuple(fine)  # many images have the same labels
        if key not in self._found:
            forms = {spelling(form) for form in fine}
            own = {label for form in forms for label in self._own.get(form, ())}
            exact = {label for label in own if self._sets[label] == forms}
            self._found[key] = exact or own or self.named(fine)
        return self._found[key]

    def named(self, fine: Sequence[str]) -> set[int]:
        """Every class of which one of the labels is a name."""
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


def _of_many(odd: Sequence[Any]) -> str:
    return f"; {len(odd)} lines have such labels" if len(odd) > 1 else ""


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path} is missing; make it with `dvc repro stages/finer/dvc.yaml`") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not in UTF-8 ({error.reason} at byte {error.start}); save it as such") from None
    # Not `splitlines`, which cuts at characters that JSON allows in a string.
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield number, line


def _sample(path: Path, number: int, text: str) -> Sample:
    """A line of the file.

    Raises:
        UserError: it is not of the format.
    """
    where = f"{path}, line {number}"
    line = parse_json(text.encode(), where, REMEDY)
    if not isinstance(line, dict):
        raise UserError(f"{where}: not a JSON object with the keys {', '.join(KEYS)}; {REMEDY}")
    missing = [key for key in KEYS if key not in line]
    if missing:
        raise UserError(f"{where}: no '{missing[0]}'; a line has the keys {', '.join(KEYS)}; {REMEDY}")
    metadata = line.get("metadata") or {}
    wrong = [
        f"'{key}' must be {what}, not {json.dumps(line.get(key), ensure_ascii=False)}"
        for key, what, right in (
            ("idx", "a whole number of at least 0", type(line["idx"]) is int and line["idx"] >= 0),
            ("basic-level-lbl", "a label", _is_label(line["basic-level-lbl"])),
            ("coarse-level-lbl", "a list of labels", _are_labels(line["coarse-level-lbl"])),
            ("fine-level-lbl", "a list of at least one label", _has_label(line["fine-level-lbl"])),
            ("img_path", "the path of an image", _is_label(line["img_path"])),
            ("metadata", "an object", isinstance(metadata, dict)),
        )
        if not right
    ]
    if wrong:
        raise UserError(f"{where}: {wrong[0]}; {REMEDY}")
    above, coarse, fine = (line[f"{level}-level-lbl"] for level in ("basic", "coarse", "fine"))
    # The published exact match finds a blank label in every answer.
    return Sample(line["idx"], above, coarse, [*filter(_is_label, fine)], line["img_path"], metadata)


def _is_label(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _are_labels(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_label, value))


def _has_label(value: Any) -> bool:
    """Whether a list has a label; blank ones may stand beside it, for iNaturalist's species without a common name."""
    return isinstance(value, list) and any(map(_is_label, value)) and all(isinstance(label, str) for label in value)


def _refuse_duplicates(path: Path, numbered: Sequence[tuple[int, Sample]]) -> None:
    first: dict[int, int] = {}
    again = [(number, sample.idx) for number, sample in numbered if first.setdefault(sample.idx, number) != number]
    if again:
        number, idx = again[0]
        count = f"; {len(again)} lines repeat one" if len(again) > 1 else ""
        raise UserError(f"{path}, line {number}: idx {idx} is that of line {first[idx]} as well{count}; {REMEDY}")
