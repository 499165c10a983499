"""The description files, `descriptions/<dataset>/<source>.json`: in the shape of published ones."""

from __future__ import annotations

from pathlib import Path

from stages.common.errors import UserError
from stages.common.jsons import read_json

Descriptions = dict[str, list[str]]
"""Class name -> sentences, or descriptors."""

REMEDY = "correct it, or move it away so that `describe` makes it again"


def read_descriptions(path: Path) -> Descriptions:
    """Read a description file, whether it was published or made by `describe`.

    Raises:
        FileNotFoundError: no such file.
        UserError: it is not JSON of the shape {class name: [sentence, ...]}, or has a class twice.
    """
    found = read_json(path, REMEDY)
    if not isinstance(found, dict):
        raise UserError(f"{path} must be {{class name: [sentence, ...]}}, not a {type(found).__name__}; {REMEDY}")
    for name, texts in found.items():
        wrong = texts if not isinstance(texts, list) else next((t for t in texts if not isinstance(t, str)), None)
        if not isinstance(texts, list) or any(not isinstance(text, str) for text in texts):
            raise UserError(f"{path}: '{name}' must be a list of sentences, but has {wrong!r:.80}; {REMEDY}")
    return found
