"""Reading description files as they were published, whatever their spelling of the class names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path

from stages.common.errors import UserError, warn
from stages.common.jsons import read_json
from stages.common.names import spelling
from stages.common.params import FINER_SOURCE


def clean(text: str) -> str:
    """White space collapsed."""
    return " ".join(text.split())


def read_descriptions(path: Path) -> dict[str, list[str]]:
    """A file `{class name: [sentence, ...]}`.

    Raises:
        UserError: no such file, or not of that shape.
    """
    try:
        found = read_json(path)
    except FileNotFoundError:
        stage = "describe"
        if path.stem == FINER_SOURCE:
            stage = f"stages/finer/dvc.yaml:concepts@{path.parent.name}"
        raise UserError(f"{path} is missing; put a published file there or run `dvc repro {stage}`") from None
    right = isinstance(found, dict) and all(
        isinstance(texts, list) and all(isinstance(text, str) for text in texts) for texts in found.values()
    )
    if not right:
        raise UserError(f"{path} must hold {{class name: [sentence, ...]}}")
    return found


def _nearest_key(name: str, keys: Iterable[str]) -> str:
    """The key most like a class name, however little, for the message that it has none."""
    closest = get_close_matches(name, list(keys), n=1, cutoff=0.0)
    return f" (nearest key: '{closest[0]}')" if closest else ""


def match_classes(
    path: Path, found: Mapping[str, Sequence[str]], names: Sequence[str], aliases: Mapping[str, str]
) -> list[list[str]]:
    """The cleaned texts of each class, in the order of `names`; texts without a letter are dropped.

    Args:
        aliases: class name -> key in the file, for spellings that do not match by themselves; in a file without
            that key the name itself is looked for.

    Raises:
        UserError: classes without texts (gives each one's nearest key), or two keys for one class.
    """
    key_of: dict[str, str] = {}
    for key in found:
        other = key_of.setdefault(spelling(key), key)
        if other != key:
            raise UserError(f"{path}: keys '{other}' and '{key}' name the same class; keep one")
    texts, missing, used = [], [], set()
    for name in names:
        # Files of other sources may know the class by its own name.
        forms = [spelling(form) for form in (aliases.get(name, name), name)]
        wanted = next((form for form in forms if form in key_of), forms[0])
        used.add(wanted)
        cleaned = [clean(text) for text in found[key_of[wanted]]] if wanted in key_of else []
        texts.append([text for text in cleaned if re.search(r"[^\W\d_]", text)])
        if not texts[-1]:
            missing.append(f"'{name}'{_nearest_key(name, found)}")
    if missing:
        raise UserError(
            f"{path} has no descriptions of {len(missing)} classes: {', '.join(missing)}; add them, or map the names "
            "under `aliases` of the data set in params.yaml"
        )
    unknown = [key for form, key in key_of.items() if form not in used]
    if unknown:
        more = f" and {len(unknown) - 10} more" if len(unknown) > 10 else ""
        warn(f"{path}: {len(unknown)} keys match no class and are not used: {', '.join(unknown[:10])}{more}")
    return texts
