"""Texts with places to fill in, such as "a photo of a {name}."; the one rule for every template of `params.yaml` and of
files.

`str.format` would also fill `{name.__class__}` and `{name!r}`. Here a place is a field's name in braces and nothing
else; `{{` and `}}` stand for braces.
"""

from __future__ import annotations

import re
from collections.abc import Collection

_PART = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")


def fields(text: str, allowed: Collection[str] = ("name",)) -> set[str]:
    """The fields that a template has a place for.

    Raises:
        ValueError: a place for anything but the `allowed` fields, or a single brace.
    """
    found = set()
    for part in _PART.finditer(text):
        if part[0] in ("{{", "}}"):
            continue
        if part[1] not in allowed:
            what = f"a single '{part[0]}'" if part[1] is None else f"the placeholder {part[0]}"
            known = " and ".join(f"{{{name}}}" for name in allowed)
            line = f"'{text}' has {what}; only {known} can be filled in; write {{{{ and }}}} for braces"
            raise ValueError(" ".join(line.split()))
        found.add(part[1])
    return found


def fill(text: str, **values: str) -> str:
    """The template with its places filled. Braces in the values are text."""

    def filled(part: re.Match[str]) -> str:
        if part[0] in ("{{", "}}"):
            return part[0][0]
        return values.get(part[1], part[0])

    return _PART.sub(filled, text)


def class_template(text: str) -> str:
    """A template for class names, with `{name}`; published files write `{}`.

    Raises:
        ValueError: no place for the name, or another place.
    """
    named = _PART.sub(lambda part: "{name}" if part[0] == "{}" else part[0], text)
    if not fields(named):
        raise ValueError(f"'{text}' must contain {{name}}")
    return named
