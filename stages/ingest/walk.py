"""Folders on disk: which files are images of the data set, and which belong to other programs."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from torchvision.datasets.folder import IMG_EXTENSIONS

from stages.common.errors import UserError

EXTENSIONS = (*IMG_EXTENSIONS, ".gif", ".avif", ".jfif", ".jp2")
"""File names that are taken for images, in either case."""

FOREIGN = {
    "__macosx",
    "__pycache__",
    "@eadir",
    "@recently-snapshot",
    "@recycle",
    "@sharebin",
    "@tmp",
    "#recycle",
    "#snapshot",
    "@__thumb",
    "@synoeastream",
    "@synoresource",
    "$recycle.bin",
    "ehthumbs.db",
    "found.000",
    "lost+found",
    "network trash folder",
    "recycler",
    "system volume information",
    "temporary items",
    "~snapshot",
    "desktop.ini",
    "thumbs.db",
}
"""Files and folders of operating systems and network drives, in lower case."""


def foreign(name: str) -> bool:
    """Whether a file or folder is another program's: hidden (".ipynb_checkpoints", "._x.jpg"), or one of FOREIGN."""
    return name.startswith(".") or name.casefold() in FOREIGN


def folders_in(folder: Path) -> list[str]:
    """Names of the folders in a folder, sorted, without those of other programs."""
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if not foreign(entry.name) and entry.is_dir())


def is_image(name: str) -> bool:
    """Whether a file's name is that of an image."""
    return name.lower().endswith(EXTENSIONS)


@dataclass
class LeftOut:
    """What was not read below a folder."""

    foreign: list[str] = field(default_factory=list)
    """Paths of images of other programs."""
    endings: Counter[str] = field(default_factory=Counter)
    """Number of other files by ending."""

    def notes(self, root: Path) -> list[str]:
        """One line for each kind, or none."""
        notes = []
        if self.foreign:
            first = shown(Path(min(self.foreign)).relative_to(root).as_posix())
            notes.append(f"{len(self.foreign)} images of other programs are left out, such as '{first}'")
        if self.endings:
            counts = ", ".join(f"{count} {shown(ending)}" for ending, count in self.endings.most_common(10))
            notes.append(f"files that do not end like images are not read: {counts}")
        return notes


def files_below(folder: Path, left_out: LeftOut | None = None, wanted: Callable[[str], bool] = is_image) -> list[str]:
    """Images at any depth below a folder, as sorted POSIX paths relative to it, without those of other programs.

    Args:
        left_out: takes what is not read.
        wanted: whether a file of this name is looked for; images by default.

    Raises:
        UserError: a folder below it is a link.
        OSError: a folder that cannot be read.
    """
    found = []
    for base, folders, files in os.walk(folder, onerror=_refuse):
        below = Path(base).relative_to(folder)
        inner = [name for name in folders if not foreign(name)]
        refuse_links(folder, [(below / name / "x").as_posix() for name in inner])
        own = [name for name in files if not foreign(name)]
        found += [(below / name).as_posix() for name in own if wanted(name)]
        if left_out is not None:
            left_out.foreign += [(Path(base) / name).as_posix() for name in set(files) - set(own) if wanted(name)]
            left_out.foreign += [
                path for name in set(folders) - set(inner) for path in foreign_images(Path(base) / name)
            ]
            left_out.endings.update(Path(name).suffix or "without ending" for name in own if not wanted(name))
        folders[:] = inner
    return sorted(found)


def foreign_images(folder: Path) -> list[str]:
    """The images in a folder of another program, without unreadable ones."""
    return [(Path(base) / name).as_posix() for base, _, files in os.walk(folder) for name in files if is_image(name)]


def _refuse(error: OSError) -> None:
    raise error


def refuse_links(root: Path, paths: Iterable[str]) -> None:
    """Refuse paths through a link to a folder, because DVC does not notice changes behind it.

    Args:
        root: may be a link itself, which DVC follows, as it follows links to files.
        paths: of files, relative to the root.

    Raises:
        UserError: as above.
    """
    folders: set[PurePosixPath] = set()
    for parent in {path.rpartition("/")[0] for path in paths}:
        folders |= {PurePosixPath(parent), *PurePosixPath(parent).parents}
    linked = sorted(folder.as_posix() for folder in folders - {PurePosixPath()} if (root / folder).is_symlink())
    if linked:
        link = root / linked[0]
        name, target = _quoted(link), link.resolve()
        advice = f"remove it: `rm {name}`"
        if target not in link.parent.resolve().parents and target != link.parent.resolve():  # else it leads in circles
            advice = f"put links to the files in its place: `rm {name} && cp -rs {_quoted(target)} {name}`"
        raise UserError(
            f"{len(linked)} folders in '{root}' are links, such as '{shown(linked[0])}', and DVC does not notice a "
            f"change behind a link to a folder; {advice}"
        )


def _quoted(path: Path) -> str:
    """A path, quoted for a shell."""
    return "'" + shown(str(path)).replace("'", "'\\''") + "'"


# Names, as they are on disk.


def some(names: Sequence[str]) -> str:
    """Ten names at most, and how many more there are."""
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return ", ".join(map(shown, names[:10])) + more


def shown(name: str) -> str:
    """A name that can be printed: bytes that are not UTF-8 as in "caf\\xe9", half a character as in "\\ud83d"."""

    def written(found: re.Match[str]) -> str:
        code = ord(found[0])
        return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else f"\\u{code:04x}"

    return SURROGATE.sub(written, name)


SURROGATE = re.compile("[\ud800-\udfff]")
"""What Python makes of a byte that is not UTF-8, and of half a character in JSON."""


def unprintable(name: str) -> bool:
    """Whether a name is not UTF-8 text, so that no table can hold it."""
    return SURROGATE.search(name) is not None
