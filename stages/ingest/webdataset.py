"""webdataset: tars in which files with the same name but for the ending make a sample."""

from __future__ import annotations

import json
import tarfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path, PurePosixPath

from stages.common.errors import UserError
from stages.common.images import IMAGE_MIB
from stages.ingest.archives import TAR, Sample, check_shards, stem, unpack
from stages.ingest.labels import label_text
from stages.ingest.listing import Listing, Request, read_lines, safe_id
from stages.ingest.places import SPLITS, bases, is_split, said_split
from stages.ingest.tars import DAMAGED, Member, end_notes, file_bytes, members_of, not_whole, refuse_large
from stages.ingest.walk import EXTENSIONS, foreign, shown, some


def read_webdataset(request: Request) -> Listing:
    """The tars in the root, or in `<root>/<split>`: `<key>.jpg` with `<key>.cls`, a number or a name.

    If the names of tars in the root contain splits, as `train-000.tar` does, `split` chooses among them. With
    `classnames.txt` in the
    root (one name for each line), labels are line numbers. Without it, classes are the labels of all splits.
    `columns` may name other endings than these, as `label: txt`.

    Raises:
        UserError: no tars, or those of several splits; one that is not whole; a sample without image or label, or with
            two images.
    """
    top = request.root / request.split if request.split else request.root
    shards, others = _of_split(request, top)
    top = shards[0].parent if shards else top
    inner = [folder.name for folder in bases(top)[1:] if _tars(folder)]
    if not shards:
        there = f"; there are tars in {some(inner)}" if inner else ""
        raise UserError(f"no *.tar in '{top}'; `split` names a sub-folder of the data set's root{there}")
    listed = next((path for path in (top / "classnames.txt", request.root / "classnames.txt") if path.is_file()), None)
    names = read_lines(listed) if listed else None
    beside: dict[str, list[Path]] = {} if names else others
    if names is None and top != request.root:
        beside = {folder.name: _tars(folder) for folder in bases(top.parent)[1:] if folder != top}
    notes = check_shards(shards)
    if inner and not request.split:
        notes.append(f"the tars in the folders {some(inner)} are not read; `split` may name one of them instead")
    endings = Endings(request)
    sources = [*shards, *chain.from_iterable(beside.values()), *([listed] if listed else [])]
    samples = _tar_samples(shards, endings, notes)
    return unpack(request, sources, samples, names, lambda ours: _labels(beside, endings, ours), notes)


def _tars(folder: Path) -> list[Path]:
    """The tars in a folder, compressed ones included."""
    found = (path for path in folder.iterdir() if TAR.search(path.name) and not foreign(path.name))
    return sorted(path for path in found if not path.is_dir())


def _of_split(request: Request, folder: Path) -> tuple[list[Path], dict[str, list[Path]]]:
    """The tars of the split, and those in the same folder whose names say other splits.

    Args:
        folder: of the split, which may not be there.

    Raises:
        UserError: no such folder or tars; tars of several splits where none is given.
    """
    if folder.is_dir() and request.split:
        return _tars(folder), {}
    splits: dict[str, list[Path]] = {}
    for tar in _tars(request.root):
        splits.setdefault(said_split(stem(tar), sorted(SPLITS)) or "", []).append(tar)
    named = sorted(filter(None, splits))
    if request.split is None:
        if len(named) > 1:
            raise UserError(f"'{request.root}' holds tars of several splits; set `split` to one of: {some(named)}")
        return sorted(chain.from_iterable(splits.values())), {}
    if request.split not in named:
        there = [*named, *(inner.name for inner in bases(request.root)[1:] if _tars(inner))]
        known = f"; there are: {some(there)}" if there else ""
        raise UserError(f"no folder '{folder}'; `split` names a sub-folder of the data set's root{known}")
    return splits.pop(request.split), splits


class Endings:
    """How the files of a sample are named: `<key>.<ending>`."""

    def __init__(self, request: Request) -> None:
        self.label = (request.columns.label or "cls").lstrip(".")
        chosen = (request.columns.image or "").lstrip(".").lower()
        self.images = [chosen] if chosen else [ending[1:] for ending in EXTENSIONS]

    def split(self, name: str) -> tuple[str, str]:
        """Key and ending of an image or label; otherwise the name and an empty text."""
        for ending in self.images:
            if name.lower().endswith(f".{ending}"):
                return name[: -len(ending) - 1], name[-len(ending) :]
        if name.lower().endswith(f".{self.label.lower()}"):
            return name[: -len(self.label) - 1], self.label
        return name, ""


def _plan(names: Sequence[str], endings: Endings, shard: Path) -> tuple[dict[str, str], Counter[str]]:
    """Which files of a tar are images and labels (name -> key), and how many there are of each other ending.

    An image of a longer key than a whole sample's, as `1.seg.png` beside `1.jpg` and `1.cls`, is another of its files.

    Raises:
        UserError: two images or two labels of one sample.
    """
    parts = {name: endings.split(name) for name in names}
    is_label = {name: ending == endings.label for name, (_, ending) in parts.items() if ending}
    keys = {label: {parts[n][0] for n, kind in is_label.items() if kind == label} for label in (True, False)}
    whole = keys[True] & keys[False]
    key_of: dict[str, str] = {}
    taken: dict[tuple[str, bool], str] = {}
    rest: Counter[str] = Counter()
    for name in names:
        key, ending = parts[name]
        longer = [key[:place] for place, letter in enumerate(key) if letter == "." and key[:place] in whole]
        if not ending or (key not in whole and longer):
            rest[PurePosixPath(name).name.partition(".")[2] or "no ending"] += 1
            continue
        other = taken.setdefault((key, is_label[name]), name)
        if other != name or name in key_of:
            what = "labels" if is_label[name] else "images"
            both = f"{shown(other)} and {shown(name)}" if other != name else f"{shown(name)} twice"
            raise UserError(
                f"'{shard}': the sample '{shown(key)}' has two {what} ({both}); keep one, or name its ending under "
                "`columns`"
            )
        key_of[name] = key
    return key_of, rest


def _tar_samples(shards: Sequence[Path], endings: Endings, notes: list[str]) -> Iterator[Sample]:
    """The samples of tars; `notes` takes what was not read."""
    unread: Counter[str] = Counter()
    for shard in shards:
        try:
            with tarfile.open(shard, tarinfo=Member) as archive:
                for member in archive:
                    _refuse_large(member, endings, shard)
                notes += end_notes(archive, shard)
                yield from _samples(archive, shard, endings, unread)
        except DAMAGED as error:
            raise not_whole(shard, error) from None
    if unread:
        counts = ", ".join(f"{count} {shown(ending)}" for ending, count in unread.most_common(10))
        notes.append(f"files of other endings in the tars are not read: {counts}")


LABEL_BYTES = 1 << 20


def _refuse_large(member: tarfile.TarInfo, endings: Endings, shard: Path) -> None:
    """Refuse an image or label that is too large, by its header, which stands before it.

    Raises:
        UserError: as above.
    """
    ending = endings.split(member.name)[1]
    if ending:
        refuse_large(member, LABEL_BYTES if ending == endings.label else IMAGE_MIB << 20, shard)


def _samples(archive: tarfile.TarFile, shard: Path, endings: Endings, unread: Counter[str]) -> Iterator[Sample]:
    members = members_of(archive)
    key_of, rest = _plan([member.name for member in members], endings, shard)
    unread += rest
    images: dict[str, tuple[str, bytes]] = {}
    labels: dict[str, str] = {}
    for member in members:
        key = key_of.get(member.name)
        if key is None:
            continue
        data = file_bytes(archive, member, shard)
        ending = endings.split(member.name)[1]
        if ending == endings.label:
            labels[key] = _label(data, shard, member.name)
        else:
            images[key] = (ending, data)
        # A sample's files stand together, so that a shard is never in memory whole.
        if key in images and key in labels:
            ending, data = images.pop(key)
            yield Sample(safe_id(f"{stem(shard)}/{key}.{ending}", shard), data, labels.pop(key))
    for key in [*images, *labels]:
        lacks = f"label ({shown(key)}.{endings.label})" if key in images else "image"
        raise UserError(f"'{shard}': the sample '{shown(key)}' has no {lacks}; `columns` may name other endings")


def _label(data: bytes, shard: Path, name: str) -> str:
    """A label file's text; of a JSON file, its name or number.

    Raises:
        UserError: it is empty, not UTF-8, or a structure.
    """
    try:
        text = label_text(json.loads(data) if name.lower().endswith(".json") else data)
    except UnicodeDecodeError:
        raise UserError(f"'{shard}': '{shown(name)}' is not UTF-8; write the label in UTF-8") from None
    except json.JSONDecodeError as error:
        raise UserError(f"'{shard}': '{shown(name)}' is not JSON ({error})") from None
    except ValueError as error:
        raise UserError(
            f"'{shard}': '{shown(name)}': {error}; correct it, or put the label alone into a file of the sample and "
            "name that file's ending under `columns.label`"
        ) from None
    return text


def _labels(shards: Mapping[str, Sequence[Path]], endings: Endings, ours: set[str]) -> set[str]:
    """The labels of other splits.

    Args:
        shards: the tars in each folder beside that of the split.
        ours: the split's own labels.
    """
    found: set[str] = set()
    for folder, tars in shards.items():
        labels = {label for tar in tars for label in _labels_in(tar, endings)}
        found |= labels if is_split(folder, labels, ours) else set()
    return found


def _labels_in(shard: Path, endings: Endings) -> Iterator[str]:
    try:
        with tarfile.open(shard, tarinfo=Member) as archive:
            for member in archive:
                _refuse_large(member, endings, shard)
            for member in members_of(archive):
                if endings.split(member.name)[1] == endings.label:
                    yield _label(file_bytes(archive, member, shard), shard, member.name)
    except DAMAGED as error:
        raise not_whole(shard, error) from None
