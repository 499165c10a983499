"""Hugging Face `datasets`: Parquet files with a column of {bytes, path} and features in the schema's metadata."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from stages.common.errors import UserError
from stages.common.parquet_pages import EXPANSION
from stages.ingest.archives import Sample, check_shards, unpack
from stages.ingest.labels import label_text
from stages.ingest.listing import Listing, Request
from stages.ingest.parquet import IMAGE_BYTES, TEXT_BYTES, batches
from stages.ingest.places import SPLITS
from stages.ingest.walk import EXTENSIONS, files_below

MAGIC = {b"\xff\xd8\xff": ".jpg", b"\x89PNG": ".png", b"RIFF": ".webp", b"GIF8": ".gif", b"BM": ".bmp"}


def read_huggingface(request: Request) -> Listing:
    """The Parquet files below the root, of one split: `<split>-00000-of-00002.parquet`, or in a folder of its name.

    Classes come from the features, or else from the labels of all splits.

    Raises:
        UserError: no such files, some of them missing, of several configurations, not whole, or without a column of
            images or of labels.
    """
    root = request.root
    names = files_below(root, wanted=lambda name: name.lower().endswith(".parquet"))
    split_of = {root / name: _split_of(PurePosixPath(name)) for name in names}
    home_of = {root / name: (root / _configuration(PurePosixPath(name))).as_posix() for name in names}
    files, splits = list(split_of), sorted(set(split_of.values()))
    if not files:
        raise UserError(f"no *.parquet below '{root}'")
    if request.split is None and len(splits) > 1:
        raise UserError(f"'{root}' holds several splits; set `split` to one of: {', '.join(splits)}")
    chosen = request.split or splits[0]
    shards = [file for file in files if split_of[file] == chosen]
    if not shards:
        raise UserError(f"no split '{chosen}' below '{root}'; there are: {', '.join(splits)}")
    folders = sorted({home_of[file] for file in shards})
    if len(folders) > 1:
        several = ", ".join(f"'{folder}'" for folder in folders)
        raise UserError(f"'{root}' holds the split '{chosen}' in several folders; set root to one of: {several}")
    others = [file for file in files if split_of[file] != chosen and home_of[file] == folders[0]]
    notes = check_shards(shards)
    try:
        columns = [features_of(pq.read_schema(shard), request, shard) for shard in shards]
        for shard, (_, label, _) in zip(shards, columns, strict=True):
            require_column(label, pq.read_schema(shard), shard)
        image, label, classes = _same(columns, shards)
        beside = [file for file in others if label in pq.read_schema(file).names] if classes is None else []
        samples = parquet_samples(request, shards, image, label)
        return unpack(request, [*shards, *beside], samples, classes, lambda _: _labels(beside, label), notes)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"the Parquet files of '{root}' cannot be read ({reason}); fetch them again") from None


def _split_of(file: PurePosixPath) -> str:
    """`test` of `data/test-00000-of-00001.parquet`, of `test.parquet`, `test-0.parquet`, `test/0000.parquet`."""
    numbered = re.fullmatch(r"(.+?)-\d+-of-\d+(-[0-9a-f]+)?", file.stem) or re.fullmatch(r"(.+?)[-_.]\d+", file.stem)
    called = numbered[1] if numbered else file.stem
    if called.casefold() in SPLITS:
        return called
    if file.stem.isdecimal() or file.parent.name.casefold() in SPLITS:
        return file.parent.name
    return called if numbered and "-of-" in file.stem else file.stem


def _configuration(file: PurePosixPath) -> PurePosixPath:
    """The folder of a data set's configuration, which holds its splits."""
    return file.parent.parent if file.parent.name == _split_of(file) else file.parent


def features_of(schema: pa.Schema, request: Request, path: Path) -> tuple[str, str, list[str] | None]:
    """The columns of images and labels, and the names of the classes if the metadata has them.

    Raises:
        UserError: no column of images.
    """
    try:
        features: dict[str, Any] = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, ValueError, TypeError):
        features = {}
    features = features if isinstance(features, dict) else {}
    kind = {name: feature.get("_type") for name, feature in features.items() if isinstance(feature, dict)}
    structs = [f.name for f in schema if pa.types.is_struct(f.type) and f.type.get_field_index("bytes") >= 0]
    images = [name for name, what in kind.items() if what == "Image"] or structs
    labels = [name for name, what in kind.items() if what == "ClassLabel"]
    image = request.columns.image or (images[0] if len(images) == 1 else "image")
    label = request.columns.label or (labels[0] if len(labels) == 1 else "label")
    require_column(image, schema, path)
    return image, label, features.get(label, {}).get("names") if kind.get(label) == "ClassLabel" else None


def require_column(name: str, schema: pa.Schema, path: Path) -> None:
    """Refuse a file without a column.

    Raises:
        UserError: names the columns that there are.
    """
    if name not in schema.names:
        raise UserError(
            f"'{path}' has no column '{name}'; say which under `columns` (image, label); it has: "
            f"{', '.join(schema.names)}"
        )


def _same(
    columns: Sequence[tuple[str, str, list[str] | None]], shards: Sequence[Path]
) -> tuple[str, str, list[str] | None]:
    """What `_features` gives for all shards.

    Raises:
        UserError: two shards differ, so that a label's number would mean another class in each.
    """
    first = next((place for place, (_, _, names) in enumerate(columns) if names is not None), 0)
    for shard, (image, label, names) in zip(shards, columns, strict=True):
        if (image, label) != columns[first][:2] or names not in (None, columns[first][2]):
            raise UserError(
                f"'{shards[first]}' and '{shard}' differ in their columns or in the names of their classes; fetch both "
                "again, of one version of the data set"
            )
    return columns[first]


def parquet_samples(request: Request, shards: Sequence[Path], image: str, label: str | None) -> Iterator[Sample]:
    """The images of Parquet files, with their labels if `label` names a column.

    Raises:
        UserError: a row without image bytes or label, or an image that is too large.
    """
    for shard in shards:
        place = shard.relative_to(request.root).with_suffix("").as_posix()
        row = unpacked = 0
        for batch in batches(shard, {image: IMAGE_BYTES, **({label: TEXT_BYTES} if label else {})}, 64):
            keys = batch[label].to_pylist() if label else [None] * len(batch)
            for value, key in zip(batch[image].to_pylist(), keys, strict=True):
                data = value.get("bytes") if isinstance(value, dict) else value
                if not isinstance(data, bytes):
                    raise UserError(
                        f"'{shard}', row {row} has no image bytes in the column '{image}'; name another column under "
                        "`columns.image`, or use the reader 'manifest' for a table of paths"
                    )
                unpacked += len(data)
                if len(data) > IMAGE_BYTES or unpacked > max(IMAGE_BYTES, EXPANSION * shard.stat().st_size):
                    raise UserError(
                        f"'{shard}', row {row}: the image has {len(data):,} bytes, and with those before it "
                        f"{unpacked:,}; an image has at most {IMAGE_BYTES:,}, and all together little more than the "
                        "file; make it again"
                    )
                if label and key is None:
                    raise UserError(
                        f"'{shard}', row {row} has no label in the column '{label}'; name another column under "
                        "`columns.label`, or remove such rows"
                    )
                try:
                    text = label_text(key) if label else None
                except ValueError as error:
                    raise UserError(
                        f"'{shard}', column '{label}', row {row}: {error}; name another column under `columns.label`"
                    ) from None
                called = value.get("path") if isinstance(value, dict) else None
                suffix = PurePosixPath(called).suffix.lower() if isinstance(called, str) else ""
                ending = suffix if suffix in EXTENSIONS else _ending(data)
                yield Sample(f"{place}/{row:06d}{ending}", data, text)
                row += 1


def _ending(data: bytes) -> str:
    return next((ending for magic, ending in MAGIC.items() if data.startswith(magic)), ".img")


def _labels(shards: Sequence[Path], label: str) -> Iterator[str]:
    """The labels of other splits, without missing ones and the -1 of hidden labels."""
    for shard in shards:
        for batch in batches(shard, {label: TEXT_BYTES}):
            for value in batch[label].to_pylist():
                with suppress(ValueError):
                    if value != -1:
                        yield label_text(value)
