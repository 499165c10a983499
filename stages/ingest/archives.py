"""Data sets whose images are bytes in archives: webdataset tars, Hugging Face's Parquet files.

Stages read files, so the images are unpacked once, into a folder that `ingest` owns.
"""

from __future__ import annotations

import json
import re
import shutil
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from stages.common.errors import UserError
from stages.common.tables import digest, write_json
from stages.ingest.listing import EXTENSIONS, Listing, Request, read_lines, safe_id
from stages.ingest.manifests import class_order

LISTING = "listing.json"
MAGIC = {b"\xff\xd8\xff": ".jpg", b"\x89PNG": ".png", b"RIFF": ".webp", b"GIF8": ".gif", b"BM": ".bmp"}


class Sample(NamedTuple):
    """An image of an archive."""

    image_id: str
    data: bytes
    label: str
    """Its class: a name, or a number as text."""


def unpack(request: Request, sources: Sequence[Path], samples: Iterator[Sample], names: list[str] | None) -> Listing:
    """Write the images of archives into `request.unpacked`; what is there of the same archives is taken as it is.

    Args:
        names: the classes' names, if labels are numbers that count them.

    Raises:
        UserError: two images of one name, or a label beyond the names.
    """
    folder = request.unpacked
    facts = [
        [path.relative_to(request.root).as_posix(), path.stat().st_size, path.stat().st_mtime_ns] for path in sources
    ]
    stamp = digest([facts, str(request.root.absolute()), names, request.split, request.columns.model_dump()])
    kept = _earlier(folder, stamp)
    if kept is not None:
        return kept
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    label_of_image: dict[str, str] = {}
    try:
        temporary.mkdir(parents=True)
        for sample in samples:
            path = temporary / sample.image_id
            if sample.image_id in label_of_image:
                raise UserError(f"two images of the archives in '{request.root}' are called '{sample.image_id}'")
            label_of_image[sample.image_id] = sample.label
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(sample.data)
        listing = _labelled(label_of_image, names, folder)
        found = {"stamp": stamp, "images": listing.images, "names": listing.names}
        write_json(temporary / LISTING, found)
        shutil.rmtree(folder, ignore_errors=True)
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return listing


def _labelled(label_of_image: dict[str, str], names: list[str] | None, root: Path) -> Listing:
    if names is None:
        classes = class_order(label_of_image.values())
        places = {name: place for place, name in enumerate(classes)}
    else:
        classes = names
        places = {str(place): place for place in range(len(names))}
    for image_id, label in label_of_image.items():
        if label not in places:
            raise UserError(f"'{image_id}' has the label '{label}'; expected 0 to {len(classes) - 1}")
    return Listing([(image_id, places[label]) for image_id, label in label_of_image.items()], classes, root=root)


def _earlier(folder: Path, stamp: str) -> Listing | None:
    """The listing of images that were unpacked before, if it is of these archives and the images are there."""
    try:
        found = json.loads((folder / LISTING).read_text(encoding="utf-8"))
        images = [(image_id, label) for image_id, label in found["images"]]
        if found["stamp"] != stamp or not all((folder / image_id).is_file() for image_id, _ in images):
            return None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return Listing(images, found["names"], root=folder)


# webdataset: files of a tar that share a name up to its first dot are a sample.


def read_webdataset(request: Request) -> Listing:
    """The tars in the root, or in `<root>/<split>`: `<key>.jpg` with `<key>.cls`, a number or a name.

    With `classnames.txt` in the root, one name a line, numbers count its lines. `columns` may name other endings than
    these, as `label: txt`.

    Raises:
        UserError: no tars, one that is not whole, or a sample without image or label.
    """
    top = request.root / request.split if request.split else request.root
    shards = sorted(top.glob("*.tar"))
    if not shards:
        raise UserError(f"no *.tar in '{top}'; `split` names a sub-folder of the data set's root")
    listed = next((path for path in (top / "classnames.txt", request.root / "classnames.txt") if path.is_file()), None)
    names = read_lines(listed) if listed else None
    sources = [*shards, listed] if listed else shards
    return unpack(request, sources, _tar_samples(request, shards), names)


def _tar_samples(request: Request, shards: Sequence[Path]) -> Iterator[Sample]:
    label_ending = (request.columns.label or "cls").lstrip(".")
    image_endings = {(request.columns.image or "").lstrip(".").lower()} - {""} or {ending[1:] for ending in EXTENSIONS}
    for shard in shards:
        images: dict[str, tuple[str, bytes]] = {}
        labels: dict[str, str] = {}
        try:
            with tarfile.open(shard) as archive:
                for member in archive:
                    path = PurePosixPath(member.name)
                    stem, _, ending = path.name.partition(".")
                    key = (path.parent / stem).as_posix()
                    file = archive.extractfile(member) if member.isfile() else None
                    if file is None:
                        continue
                    if ending.lower() in image_endings:
                        images[key] = (ending, file.read())
                    elif ending == label_ending:
                        labels[key] = file.read().decode("utf-8").strip()
                    # A sample's files stand together, so that a shard is never in memory whole.
                    if key in images and key in labels:
                        kind, data = images.pop(key)
                        yield Sample(safe_id(f"{shard.stem}/{key}.{kind}", shard), data, labels.pop(key))
        except (tarfile.TarError, OSError, EOFError, UnicodeDecodeError) as error:
            raise UserError(f"'{shard}' is no whole webdataset tar ({error}); fetch it again") from None
        for key in [*images, *labels]:
            lacks = f"label ({key}.{label_ending})" if key in images else "image"
            raise UserError(f"'{shard}': the sample '{key}' has no {lacks}; `columns` may name other endings")


# Hugging Face `datasets`: Parquet files with a column of {bytes, path} and features in the schema's metadata.


def read_huggingface(request: Request) -> Listing:
    """The Parquet files below the root, of one split: `<split>-00000-of-00002.parquet`, or in a folder of its name.

    Raises:
        UserError: no such files, not whole, or without a column of images or of labels.
    """
    files = sorted(request.root.rglob("*.parquet"))
    splits = sorted({_split_of(file) for file in files})
    if not files:
        raise UserError(f"no *.parquet below '{request.root}'")
    if request.split is None and len(splits) > 1:
        raise UserError(f"'{request.root}' holds several splits; set `split` to one of: {', '.join(splits)}")
    chosen = request.split or splits[0]
    shards = [file for file in files if _split_of(file) == chosen]
    if not shards:
        raise UserError(f"no split '{chosen}' below '{request.root}'; there are: {', '.join(splits)}")
    try:
        image, label, names = _features(pq.read_schema(shards[0]), request, shards[0])
        return unpack(request, shards, _parquet_samples(request, shards, image, label), names)
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"the Parquet files of '{request.root}' cannot be read ({reason}); fetch them again") from None


def _split_of(file: Path) -> str:
    """`test` of `data/test-00000-of-00001.parquet`, of `test.parquet` and of `test/0000.parquet`."""
    numbered = re.fullmatch(r"(.+?)-\d+-of-\d+(-[0-9a-f]+)?", file.stem)
    if numbered:
        return numbered[1]
    return file.parent.name if file.stem.isdecimal() else file.stem


def _features(schema: pa.Schema, request: Request, path: Path) -> tuple[str, str, list[str] | None]:
    """The columns of images and labels, and the names of the classes if the metadata has them."""
    try:
        features: dict[str, Any] = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, ValueError, TypeError):
        features = {}
    kind = {name: feature.get("_type") for name, feature in features.items() if isinstance(feature, dict)}
    structs = [f.name for f in schema if pa.types.is_struct(f.type) and f.type.get_field_index("bytes") >= 0]
    images = [name for name, what in kind.items() if what == "Image"] or structs
    labels = [name for name, what in kind.items() if what == "ClassLabel"]
    image = request.columns.image or (images[0] if len(images) == 1 else "image")
    label = request.columns.label or (labels[0] if len(labels) == 1 else "label")
    for name in (image, label):
        if name not in schema.names:
            raise UserError(
                f"'{path}' has no column '{name}'; say which under `columns` (image, label); it has: "
                f"{', '.join(schema.names)}"
            )
    return image, label, features.get(label, {}).get("names") if kind.get(label) == "ClassLabel" else None


def _parquet_samples(request: Request, shards: Sequence[Path], image: str, label: str) -> Iterator[Sample]:
    for shard in shards:
        place = shard.relative_to(request.root).with_suffix("").as_posix()
        row = 0
        for batch in pq.ParquetFile(shard).iter_batches(64, columns=[image, label]):
            for value, key in zip(batch[image].to_pylist(), batch[label].to_pylist(), strict=True):
                data = value.get("bytes") if isinstance(value, dict) else value
                if not isinstance(data, bytes) or key is None:
                    lacks = "label" if isinstance(data, bytes) else "image bytes"
                    raise UserError(f"'{shard}', row {row} has no {lacks} in the column '{image}' or '{label}'")
                name = PurePosixPath(value.get("path") or "") if isinstance(value, dict) else PurePosixPath()
                ending = name.suffix.lower() if name.suffix.lower() in EXTENSIONS else _ending(data)
                yield Sample(f"{place}/{row:06d}{ending}", data, str(key))
                row += 1


def _ending(data: bytes) -> str:
    return next((ending for magic, ending in MAGIC.items() if data.startswith(magic)), ".img")
