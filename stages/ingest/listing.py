"""What every reader shares: the request, the result, and one-line messages for what is missing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TypeVar

from stages.common.errors import UserError, nearest
from stages.common.params import Columns
from stages.ingest.walk import shown, unprintable

K = TypeVar("K")
T = TypeVar("T")


@dataclass(frozen=True)
class Listing:
    """What a reader finds: images with their labels, and the classes' names as a person would write them."""

    images: Sequence[tuple[str, int | None]]
    """(image_id, label or None); an image_id is a POSIX path relative to the root."""
    names: list[str]
    superordinate: str | list[str] | None = None
    """Of all classes, or of each."""
    coarse: list[list[str]] | None = None
    fine: list[list[str]] | None = None
    """Of each class, every name by which it is right; the first is that of `names`."""
    keys: list[list[str]] | None = None
    """Of each class, other keys under which published description files list it, best first."""
    root: Path | None = None
    """Where the images are, if not under the data set's root: archives are unpacked."""
    by_name: bool = field(default=False, compare=False)
    """The classes are the names that occur, sorted; otherwise they are a published list, which may repeat a name."""
    called: list[str] | None = field(default=None, compare=False)
    """The names of the classes on disk, if they differ; `names` in params.yaml may use either."""
    naming: tuple[str, ...] = field(default=(), compare=False)
    """Lines about the origin of the names, printed if the user gives none."""
    notes: tuple[str, ...] = field(default=(), compare=False)
    """Lines that the user should read."""


@dataclass(frozen=True)
class Request:
    """An entry of params.yaml, and a folder for unpacking archives."""

    root: Path
    split: str | None = None
    unpacked: Path = Path()
    manifest: str | None = None
    columns: Columns = field(default_factory=Columns)


@dataclass(frozen=True)
class Reader:
    """One kind of data set."""

    read: Callable[[Request], Listing]
    layout: str
    """What is expected under the root, for the message when it is not there."""
    get: str = ""
    """Where to get it, for the same message."""
    templates: str | list[str] = "imagenet7"
    """Templates of `clip-e`, as WCA's and CLIP's code have them: one of open_clip's sets, or the data set's own."""
    download: Callable[[Path], None] | None = None
    """Fetches it into a root folder, where torchvision can."""
    keys: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Class name -> other keys under which published description files list it, best first."""


def chosen_split(split: str | None, splits: Sequence[str]) -> str:
    """The split asked for; by default the first one.

    Raises:
        UserError: there is no such split.
    """
    if split is None:
        return splits[0]
    if split not in splits:
        raise UserError(f"no split '{split}'{nearest(split, list(splits))}; there are: {', '.join(splits)}")
    return split


def read_lines(path: Path) -> list[str]:
    """The lines of a list file, without blank ones.

    Raises:
        UserError: there is no such file, or it is not text.
    """
    return [line for _, line in _numbered(path)]


def read_rows(path: Path, fields: int, what: str) -> list[list[str]]:
    """The lines of a list file, split at blanks into `fields` fields; the last takes the rest.

    Raises:
        UserError: as `read_lines`, or a line has fewer fields than `what` describes.
    """
    rows = []
    for number, line in _numbered(path):
        row = line.split(maxsplit=fields - 1)
        if len(row) != fields:
            raise UserError(f"{path}, line {number}: expected '{what}', not '{line}'")
        rows.append(row)
    return rows


def _numbered(path: Path) -> Iterator[tuple[int, str]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"no '{path}'") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"'{path}' cannot be read as text in UTF-8 ({error}); save it as such") from None
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            yield number, line.strip()


def look_up(table: Mapping[K, T], key: K, path: Path, what: str) -> T:
    """`table[key]`.

    Raises:
        UserError: the file at `path` names a key that the table does not have.
    """
    if key not in table:
        raise UserError(f"'{path}' names the {what} '{key}', which no other list of the data set knows")
    return table[key]


def whole_number(text: str, path: Path) -> int:
    """A number of a list file.

    Raises:
        UserError: it is not a number.
    """
    try:
        return int(text)
    except ValueError:
        raise UserError(f"'{path}' has '{text}' where a whole number is expected") from None


def safe_id(name: str, where: Path) -> str:
    """A file name that a list or an archive gives, as an image_id.

    Raises:
        UserError: it is not a relative POSIX path, or leads out of its folder.
    """
    path = PurePosixPath(name)
    if unprintable(name):
        raise UserError(f"'{shown(str(where))}' names the image '{shown(name)}', which is not UTF-8; rename it")
    if not name or path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name:
        raise UserError(f"'{where}' names the image '{name}'; expected a path relative to its folder, with '/'")
    return path.as_posix()


def readable(name: str) -> str:
    """A folder's name as a person would write it."""
    return " ".join(name.replace("_", " ").split())


def prefixed(root: Path, folder: Path, files: Iterable[tuple[str, int]]) -> list[tuple[str, int]]:
    """(file below `folder`, label) -> (image_id relative to the root, label)."""
    prefix = folder.relative_to(root)
    return [((prefix / name).as_posix(), label) for name, label in files]
