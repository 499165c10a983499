"""images: pictures without labels. Their classes are named in params.yaml."""

from __future__ import annotations

import tarfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

import pyarrow as pa
import pyarrow.parquet as pq

from stages.common.errors import UserError
from stages.ingest.archives import TAR, Sample, check_shards, stem, unpack
from stages.ingest.folders import split_folder
from stages.ingest.huggingface import features_of, parquet_samples
from stages.ingest.listing import Listing, Request, safe_id
from stages.ingest.manifests import read_image_list
from stages.ingest.parquet import IMAGE_BYTES
from stages.ingest.tars import DAMAGED, Member, end_notes, file_bytes, members_of, not_whole, refuse_large
from stages.ingest.walk import LeftOut, files_below, is_image, shown


def read_images(request: Request) -> Listing:
    """Images without labels, and no classes yet.

    Those that `manifest` lists; otherwise those at any depth below the root (or the sub-folder `split`). Where there
    are none, those in tars. Where there are no tars either, those in Parquet files.

    Raises:
        UserError: there are no images, or an archive is not whole.
    """
    if request.manifest is not None:
        return read_image_list(request)
    top, left_out = split_folder(request.root, request.split), LeftOut()
    prefix = PurePosixPath(top.relative_to(request.root).as_posix())
    found = files_below(top, left_out)
    if found:
        images = [((prefix / name).as_posix(), None) for name in found]
        return Listing(images, [], notes=tuple(left_out.notes(request.root)))
    tars = [top / name for name in files_below(top, wanted=lambda name: TAR.search(name) is not None)]
    if tars:
        notes = check_shards(tars)
        samples = _tar_samples(request.root, tars, notes)
        return unpack(request, tars, samples, None, lambda _: (), notes, labelled=False)
    tables = [top / name for name in files_below(top, wanted=lambda name: name.lower().endswith(".parquet"))]
    if tables:
        return _read_parquet(request, tables)
    raise UserError(f"no images at any depth in '{top}', and no *.tar or *.parquet with images")


def _read_parquet(request: Request, shards: Sequence[Path]) -> Listing:
    notes = check_shards(shards)
    try:
        columns = {features_of(pq.read_schema(shard), request, shard)[0] for shard in shards}
        if len(columns) > 1:
            raise UserError(f"the Parquet files of '{request.root}' have images in several columns; name it in columns")
        samples = parquet_samples(request, shards, columns.pop(), None)
        return unpack(request, shards, samples, None, lambda _: (), notes, labelled=False)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"the Parquet files of '{request.root}' cannot be read ({reason}); fetch them again") from None


def _tar_samples(root: Path, shards: Sequence[Path], notes: list[str]) -> Iterator[Sample]:
    """The images of tars; `notes` takes what was not read."""
    unread: Counter[str] = Counter()
    for shard in shards:
        place = shard.relative_to(root).parent / stem(shard)
        try:
            with tarfile.open(shard, tarinfo=Member) as archive:
                notes += end_notes(archive, shard)
                for member in members_of(archive):
                    if not is_image(member.name):
                        unread[PurePosixPath(member.name).suffix or "without ending"] += 1
                        continue
                    refuse_large(member, IMAGE_BYTES, shard)
                    image_id = safe_id((place / member.name).as_posix(), shard)
                    yield Sample(image_id, file_bytes(archive, member, shard), None)
        except DAMAGED as error:
            raise not_whole(shard, error) from None
    if unread:
        counts = ", ".join(f"{count} {shown(ending)}" for ending, count in unread.most_common(10))
        notes.append(f"files in the tars that do not end like images are not read: {counts}")
