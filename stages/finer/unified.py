"""The published format of the benchmark's data, `unified-<data set>-<split>-combined.jsonl`: a line per image."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from stages.common.digests import DIGEST, digest
from stages.common.errors import UserError
from stages.common.jsons import parse_json
from stages.common.tables import write_text

KEYS = ("idx", "basic-level-lbl", "coarse-level-lbl", "fine-level-lbl", "img_path")
REMEDY = "fix the file, or have it built from the tables: `make finer`"


@dataclass(frozen=True)
class Sample:
    """One line: an image and its labels at three granularities. Multi-word labels are whole strings."""

    idx: int
    superordinate: str
    """`basic-level-lbl`."""
    coarse: list[str]
    """`coarse-level-lbl`; may be empty."""
    fine: list[str]
    """`fine-level-lbl`: the class's name, and other names that are also right."""
    img_path: str
    """Relative to the project's root, or absolute."""
    metadata: dict[str, Any] = field(default_factory=dict)
    """Ours, written by `unify`: `dataset`, `image_id`, `label` and `class` (of `classes.parquet`), `content` (digest of
    the image file)."""

    @property
    def label(self) -> int:
        """The class. Every sample that `read_unified` returns has one."""
        label: int = self.metadata["label"]
        return label

    @property
    def image_id(self) -> str:
        """The image's id in `images.parquet`. Every sample that `read_unified` returns has one."""
        return str(self.metadata["image_id"])


def sample_metadata(dataset: str, image_id: str, label: int, name: str, content: str) -> dict[str, Any]:
    """What `unify` adds to a line.

    Args:
        name: of the class.
        content: digest of the image file, by which later stages notice that an image was replaced.
    """
    return {"dataset": dataset, "image_id": image_id, "label": label, "class": name, "content": content}


def write_unified(path: Path, samples: Iterable[Sample]) -> None:
    """Write the file, whole or not at all."""
    lines = [_line(sample) for sample in samples]
    for place, line in enumerate(lines):
        line["metadata"][DIGEST] = digest([len(lines), place, line])
    write_text(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))


def _line(sample: Sample) -> dict[str, Any]:
    """A line of the file, without its digest."""
    return {
        "idx": sample.idx,
        "basic-level-lbl": sample.superordinate,
        "coarse-level-lbl": sample.coarse,
        "fine-level-lbl": sample.fine,
        "img_path": sample.img_path,
        "metadata": {key: value for key, value in sample.metadata.items() if key != DIGEST},
    }


def parse_unified(path: Path) -> list[tuple[int, Sample]]:
    """The lines of a unified file with their numbers; only their form is checked.

    Raises:
        UserError: no such file, a line that is not of the format, a repeated `idx`. Names file and line.
    """
    numbered = [(number, _sample(path, number, line)) for number, line in _lines(path)]
    _refuse_duplicates(path, numbered)
    return numbered


def read_unified(path: Path, dataset: str) -> list[Sample]:
    """The lines of a unified file that `unify` wrote: each names its image and its class.

    Raises:
        UserError: as `parse_unified`; a line without the metadata that `unify` writes, or of another data set; lines
            that are not all that `unify` wrote, as they were.
    """
    samples = []
    numbered = parse_unified(path)
    for place, (number, sample) in enumerate(numbered):
        line = _line(sample)
        right = digest([len(numbered), place, line])
        if sample.metadata.get(DIGEST, right) != right:
            raise UserError(
                f"{path} is damaged: its line {number}, or the number of its lines, is not what was written; delete it "
                f"and run `python -m stages.finer.unify --dataset {dataset}`"
            )
        found = line["metadata"]
        label, named = found.get("label"), (found.get("image_id"), found.get("class"))
        is_label = type(label) is int and label >= 0
        if found.get("dataset") != dataset or not is_label or not all(isinstance(name, str) for name in named):
            raise UserError(
                f"{path}, line {number}: `metadata` does not name the image and class in {dataset}; run "
                f"`python -m stages.finer.unify --dataset {dataset}`. A published file belongs under "
                f"finer.datasets.{dataset}.unified in params.yaml"
            )
        samples.append(replace(sample, metadata=found))
    return samples


def class_names(samples: Iterable[Sample]) -> dict[int, str]:
    """Label -> name of the classes of samples that `read_unified` returned."""
    return {sample.label: sample.metadata["class"] for sample in samples}


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path} is missing; make it with `make finer`") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not in UTF-8 ({error.reason} at byte {error.start}); save it as such") from None
    # `splitlines` would also cut at characters that JSON allows in a string.
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
    # Blank labels go, because the published exact match finds them in every answer.
    return Sample(line["idx"], above, coarse, [*filter(_is_label, fine)], line["img_path"], metadata)


def _is_label(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _are_labels(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_label, value))


def _has_label(value: Any) -> bool:
    """Whether a list has a label. There may be blank ones too, for iNaturalist's species without a common name."""
    return isinstance(value, list) and any(map(_is_label, value)) and all(isinstance(label, str) for label in value)


def _refuse_duplicates(path: Path, numbered: Sequence[tuple[int, Sample]]) -> None:
    first: dict[int, int] = {}
    again = [(number, sample.idx) for number, sample in numbered if first.setdefault(sample.idx, number) != number]
    if again:
        number, idx = again[0]
        count = f"; {len(again)} lines repeat one" if len(again) > 1 else ""
        raise UserError(f"{path}, line {number}: idx {idx} is that of line {first[idx]} as well{count}; {REMEDY}")
