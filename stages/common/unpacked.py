"""Images that `ingest` unpacked from archives, unpacked again if they are missing.

DVC does not track them, because they repeat the archives. So they are absent in the folders of `dvc exp run --temp` and
of queued experiments, after `dvc pull` on another machine, and after somebody deleted them.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from stages.common import paths
from stages.common.errors import UserError
from stages.common.workers import output_of


def image_root(dataset: str, root: str, unpacked: bool) -> str:
    """The folder that image_ids are relative to.

    Args:
        root: of the data set's entry in params.yaml.
        unpacked: as the metadata of `images.parquet` says.
    """
    return paths.unpacked(dataset).as_posix() if unpacked else root


def ensure_unpacked(dataset: str, root: str, image_ids: Iterable[str]) -> None:
    """Unpack the archives of a data set again if one of its images is gone; nothing for other data sets.

    Args:
        root: as `image_root` says.

    Raises:
        UserError: the archives are gone as well, or cannot be read.
    """
    folder = paths.unpacked(dataset)
    if root == folder.as_posix() and not all((folder / image_id).is_file() for image_id in image_ids):
        _unpack(dataset)


def ensure_there(image: Path) -> None:
    """The same for the path of one image, as unified files and conversations have it.

    Raises:
        UserError: as `ensure_unpacked`.
    """
    parts = image.parts
    if len(parts) > 3 and image.is_relative_to(paths.unpacked(parts[1])) and not image.is_file():
        _unpack(parts[1])


def _unpack(dataset: str) -> None:
    """Unpack in a process of its own, because stages do not import each other.

    `embed` compares an image's bytes with the digest in `images.parquet`, so archives that have changed are noticed.
    """
    try:
        output_of("stages.ingest.unpack", "--dataset", dataset)
    except UserError as why:
        where = paths.unpacked(dataset)
        raise UserError(f"images of '{dataset}' are not in '{where}', and unpacking them again failed: {why}") from None
