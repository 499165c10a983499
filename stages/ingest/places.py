"""Finding a data set: in the root that the user gives, in a folder there, or the root is a folder of a split."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from stages.common.errors import UserError
from stages.ingest.listing import Request, chosen_split
from stages.ingest.walk import folders_in, refuse_links, some


def bases(root: Path) -> list[Path]:
    """Where a layout may be: the root, or a folder in it that may be read."""
    inner = [root / name for name in folders_in(root)]
    return [root, *(folder for folder in inner if os.access(folder, os.R_OK | os.X_OK))]


def only(found: Sequence[Path], root: Path) -> Path | None:
    """The one folder that was found, or None.

    Raises:
        UserError: there are several.
    """
    if len(found) > 1:
        raise UserError(
            f"'{root}' holds several such data sets: {some([str(path) for path in found])}; set root to one"
        )
    return found[0] if found else None


def home(root: Path, *places: str, marker: str, unless: str | None = None) -> Path:
    """The folder that holds `marker`: the root, one of the places below it, or else any one folder in the root.

    Args:
        unless: a folder with this file belongs to another data set.

    Raises:
        UserError: no folder holds it, or several do; or it is behind a link to a folder.
    """
    named = [root / place for place in ("", *places) if (root / place / marker).exists()][:1]
    found = named or [
        base
        for base in bases(root)
        if (base / marker).exists() and not (unless is not None and (base / unless).exists())
    ]
    base = only(found, root)
    if base is not None:
        refuse_links(root, [(base / marker).relative_to(root).as_posix()])
        return base
    above = Path(os.path.abspath(root)).parent
    if (above / marker).exists():
        raise UserError(f"no '{marker}' in '{root}'; it is in '{above}': set root to that folder")
    below = f" (or below it in {' or '.join(f'{place}/' for place in places)})" if places else ""
    raise UserError(f"no '{marker}' in '{root}'{below}")


SPLITS = {"train", "training", "val", "valid", "validation", "dev", "test", "testing", "eval", "trainval"}
"""Usual names of the folders of splits."""


def is_split(name: str, classes: set[str], ours: set[str]) -> bool:
    """Whether a folder beside that of a split is another split: by its name, or because it has half of the classes.

    Args:
        classes: of the folder.
        ours: the classes of the chosen split; half is that of the smaller set.
    """
    half = 2 * len(classes & ours) >= min(len(classes), len(ours))
    return bool(classes) and (name.casefold() in SPLITS or half)


SPELLED = {"valid": "val", "validation": "val", "training": "train", "testing": "test"}
"""Splits as folders spell them."""


def said_split(name: str, splits: Sequence[str]) -> str | None:
    """The split in a folder's name, such as val in "2021_valid", or None."""
    spelled = {**{other: split for other, split in SPELLED.items() if split in splits}, **{s: s for s in splits}}
    for form in sorted(spelled, key=len, reverse=True):
        if re.search(rf"(?<![a-z0-9]){re.escape(form)}(?![a-z0-9])", name.casefold()):
            return spelled[form]
    return None


def find_split(
    request: Request, splits: Sequence[str], places: Sequence[str], has_classes: Callable[[Path], bool]
) -> tuple[Path, str]:
    """The folder of a split's classes, and the split.

    It is looked for in the root, in a folder in the root, and may be the root itself.

    Args:
        splits: the first is the default.
        places: where it may be, with `{split}`.
        has_classes: whether a folder holds classes of this data set.

    Raises:
        UserError: there is none or there are several, or the root is the folder of another split.
    """
    root = request.root
    split = chosen_split(request.split, splits)
    below = [place.format(split=split) for place in places]
    named = [root / place for place in below if (root / place).is_dir()]
    for folder in filter(has_classes, named):
        return folder, split
    if has_classes(root):
        # The root may be a link to the folder.
        said = said_split(Path(os.path.abspath(root)).name, splits) or said_split(root.resolve().name, splits)
        if request.split is not None and said not in (None, split):
            raise UserError(
                f"'{root}' is the folder of the split '{said}', but `split` is '{split}'; set split: {said}, or set "
                "root to the folder above it"
            )
        return root, said or split
    found = []
    for base in bases(root)[1:]:
        inner = [base / place for place in below if (base / place).is_dir()][:1]
        # The folder itself, if it has the split's name or the data set has no splits.
        itself = has_classes(base) and (len(splits) == 1 or said_split(base.name, splits) == split)
        found += inner if inner and has_classes(inner[0]) else [base] if itself else []
    one = only(found, root)
    if one is None and named:  # the reader reports what is missing there
        return named[0], split
    if one is None:
        raise UserError(f"no folder {' or '.join(repr(str(root / place)) for place in below)}")
    return one, split
