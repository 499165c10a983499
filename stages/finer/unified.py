"""The published format of the benchmark's data: `unified-<data set>-<split>-combined.jsonl`, one image a line."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stages.common.errors import UserError, nearest, warn
from stages.common.names import spelling
from stages.common.tables import write_text

KEYS = ("idx", "basic-level-lbl", "coarse-level-lbl", "fine-level-lbl", "img_path")
MEND = "mend the file, or have it built from the tables: `dvc repro stages/finer/dvc.yaml`"


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


def read_unified(path: Path, names: Sequence[Sequence[str]]) -> list[Sample]:
    """The lines of a unified file, checked.

    Args:
        names: of each class of the data set, every name by which it is right (`ClassLabels.fine`). Of a line's fine
            labels one at least must be among them, in whatever spelling, and none may be another class's own name.

    Raises:
        UserError: no such file, a line that is not of the format, an `idx` that is there twice, a fine label that is no
            class's. Names the file, the line and the mend.
    """
    numbered = [(number, _sample(path, number, line)) for number, line in _lines(path)]
    _refuse_duplicates(path, numbered)
    _refuse_strangers(path, numbered, names)
    return [sample for _, sample in numbered]


class Labels:
    """Finds the class that fine labels mean: by the classes' own names, or where those say nothing, by others."""

    def __init__(self, names: Sequence[Sequence[str]]) -> None:
        self._own: dict[str, int] = {}
        self._other: dict[str, set[int]] = {}
        self._found: dict[tuple[str, ...], set[int]] = {}
        for label, forms in enumerate(names):
            self._own.setdefault(spelling(forms[0]), label)
            for form in forms:
                self._other.setdefault(spelling(form), set()).add(label)

    def find(self, fine: Sequence[str]) -> set[int]:
        """The classes that the labels can mean: none, one, or several where they contradict or do not decide.

        Aircraft's family is right of several variants, of which the label beside it names one.
        """
        key = tuple(fine)  # many images have the same labels
        if key not in self._found:
            forms = [spelling(form) for form in fine]
            own = {self._own[form] for form in forms if form in self._own}
            self._found[key] = own or {label for form in forms for label in self._other.get(form, ())}
        return self._found[key]

    def knows(self, form: str) -> bool:
        return spelling(form) in self._other


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
    try:
        line = json.loads(text)
    except ValueError as error:
        raise UserError(f"{where}: not JSON ({error}); {MEND}") from None
    if not isinstance(line, dict):
        raise UserError(f"{where}: not a JSON object with the keys {', '.join(KEYS)}; {MEND}")
    missing = [key for key in KEYS if key not in line]
    if missing:
        raise UserError(f"{where}: no '{missing[0]}'; a line has the keys {', '.join(KEYS)}; {MEND}")
    metadata = line.get("metadata") or {}
    wrong = [
        f"'{key}' must be {what}, not {json.dumps(line.get(key), ensure_ascii=False)}"
        for key, what, right in (
            ("idx", "a whole number of at least 0", type(line["idx"]) is int and line["idx"] >= 0),
            ("basic-level-lbl", "a label", _is_label(line["basic-level-lbl"])),
            ("coarse-level-lbl", "a list of labels", _are_labels(line["coarse-level-lbl"])),
            ("fine-level-lbl", "a list of at least one label", _are_labels(line["fine-level-lbl"], fewest=1)),
            ("img_path", "the path of an image", _is_label(line["img_path"])),
            ("metadata", "an object", isinstance(metadata, dict)),
        )
        if not right
    ]
    if wrong:
        raise UserError(f"{where}: {wrong[0]}; {MEND}")
    above, coarse, fine = (line[f"{level}-level-lbl"] for level in ("basic", "coarse", "fine"))
    return Sample(line["idx"], above, coarse, fine, line["img_path"], metadata)


def _is_label(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _are_labels(value: Any, fewest: int = 0) -> bool:
    return isinstance(value, list) and len(value) >= fewest and all(map(_is_label, value))


def _refuse_duplicates(path: Path, numbered: Sequence[tuple[int, Sample]]) -> None:
    first: dict[int, int] = {}
    again = [(number, sample.idx) for number, sample in numbered if first.setdefault(sample.idx, number) != number]
    if again:
        number, idx = again[0]
        count = f"; {len(again)} lines repeat one" if len(again) > 1 else ""
        raise UserError(f"{path}, line {number}: idx {idx} is that of line {first[idx]} as well{count}; {MEND}")


def _refuse_strangers(path: Path, numbered: Sequence[tuple[int, Sample]], names: Sequence[Sequence[str]]) -> None:
    """Refuse lines whose fine labels are no class's or several classes'; count other labels that no class has."""
    labels = Labels(names)
    odd = [(number, sample.fine) for number, sample in numbered if len(labels.find(sample.fine)) != 1]
    if odd:
        number, fine = odd[0]
        found = sorted(labels.find(fine))
        if found:
            what = f"could be the class '{names[found[0]][0]}' or '{names[found[1]][0]}'"
        else:
            what = f"is no class of the data set{nearest(fine[0], [form for forms in names for form in forms])}"
        count = f"; {len(odd)} lines have such labels" if len(odd) > 1 else ""
        quoted = ", ".join(f"'{form}'" for form in fine)
        raise UserError(f"{path}, line {number}: the fine label {quoted} {what}{count}; {MEND}")
    others = [form for _, sample in numbered for form in sample.fine if not labels.knows(form)]
    if others:
        warn(
            f"{path}: {len(others)} fine labels stand beside a class's own and are unknown to the data set, such as "
            f"'{others[0]}'; they count as right"
        )
