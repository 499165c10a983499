"""Reading published description files, with any spelling of the class names."""

from __future__ import annotations

import html
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from difflib import SequenceMatcher
from pathlib import Path

from stages.common import paths
from stages.common.artifacts import SourceFile, noted
from stages.common.descriptions import Descriptions, read_descriptions
from stages.common.errors import UserError, warn
from stages.common.jsons import read_json
from stages.common.names import spelling
from stages.common.params import FINER_SOURCE
from stages.common.responses import read_log, sha256
from stages.common.templates import class_template

SHOWN = 10
"""Classes or keys that a message lists by name."""


MARKS = re.compile(r"<\|?(?:(?:start|end)_?of_?text|bos|eos|pad|unk|/?s)\|?>", re.IGNORECASE)
"""CLIP's and SigLIP's tokenizers take these words for their own marks, and CLIP ignores everything after the end
mark."""


def clean(text: str) -> str:
    """The text with single spaces and without marks of a tokenizer."""
    plain = html.unescape(html.unescape(text))  # as CLIP's tokenizer does
    return " ".join(MARKS.sub(" ", plain if MARKS.search(plain) else text).split())


def read_source(path: Path) -> Descriptions:
    """The descriptions of a source.

    Raises:
        UserError: no such file, or not of this shape.
    """
    try:
        return read_descriptions(path)
    except FileNotFoundError:
        command = "dvc repro describe"
        if path.stem == FINER_SOURCE:
            command = f"python -m stages.finer.concepts --dataset {path.parent.name}"
        raise UserError(f"{path} is missing; put a published file there or run `{command}`") from None


def source_file(dataset: str, source: str) -> SourceFile:
    """The note about a source's file: its digest, who wrote it and how much it holds.

    Raises:
        UserError: as `read_source`.
    """
    path = paths.descriptions(dataset, source)
    found = read_source(path)
    digest = sha256(path.read_bytes())
    written_by = read_log(paths.responses(dataset, source)).written_by.get(digest)
    # A server may call a model by its path.
    origin = None if written_by is None else noted(written_by)
    return SourceFile(name=source, sha256=digest[:16], origin=origin, sentences=sum(map(len, found.values())))


def read_templates(templates: Sequence[str] | str, folder: Path) -> list[str]:
    """The templates of `clip-e`, with `{name}`.

    Args:
        templates: a list of them, or a JSON file that holds one, as published: its name in `folder`, or its path.

    Raises:
        UserError: no such file, or no list of templates in it.
    """
    if not isinstance(templates, str):
        return list(templates)
    path = folder / templates if "/" not in templates else Path(templates)
    try:
        found = read_json(path, "fix it or fetch it again")
    except FileNotFoundError:
        raise UserError(
            f"{path} is missing, which `templates` of the data set in params.yaml names; put it into {folder} and "
            f"write templates: {path.name}"
        ) from None
    if folder.resolve() not in path.resolve().parents:
        warn(f"{path}: DVC does not watch this file; put it into {folder}, or run `dvc repro -f` after changing it")
    if not isinstance(found, list) or not found or not all(isinstance(text, str) for text in found):
        raise UserError(f'{path} must hold a list of templates: ["a photo of a {{}}.", ...]')
    try:
        return [class_template(text) for text in found]
    except ValueError as error:
        raise UserError(f"{path}: {error}") from None


def match_classes(
    path: Path,
    found: Mapping[str, Sequence[str]],
    names: Sequence[str],
    aliases: Mapping[int, str],
    fallbacks: Mapping[int, Sequence[str]] | None = None,
    *,
    may_be_empty: bool = False,
) -> list[list[str]]:
    """The cleaned texts of each class, in the order of `names`; texts without a letter are dropped.

    Args:
        aliases, fallbacks: as of `find_keys`.
        may_be_empty: accept a key without texts; published lists of descriptors are empty for some classes.

    Raises:
        UserError: classes without a key or without texts (names each one's nearest key), or two keys for one class.
    """
    keys = find_keys(path, found, names, aliases, fallbacks or {})
    texts = [_with_letters(found[key]) if key else [] for key in keys]
    missing = [
        name for name, key, own in zip(names, keys, texts, strict=True) if key is None or not (own or may_be_empty)
    ]
    unused = [key for key in found if key not in set(keys)]
    if missing:
        some = [f"'{name}'{_nearest_key(name, list(found), unused)}" for name in missing[:SHOWN]]
        raise UserError(
            f"{path} has no descriptions of {len(missing)} of {len(names)} classes: {_listed(some, len(missing))}; add "
            "them, or map the names under `aliases` of the data set in params.yaml"
        )
    others = [f"'{n}' reads '{k}'" for n, k in zip(names, keys, strict=True) if k and spelling(k) != spelling(n)]
    if others:
        listed = _listed(others, len(others))
        print(f"{path}: {len(others)} of {len(names)} classes read another key: {listed}", flush=True)
    if unused:
        warn(f"{path}: {len(unused)} keys match no class and are not used: {_listed(unused, len(unused))}")
    return texts


def find_keys(
    path: Path,
    found: Iterable[str],
    names: Sequence[str],
    aliases: Mapping[int, str],
    fallbacks: Mapping[int, Sequence[str]],
) -> list[str | None]:
    """The key of each class, in the order of `names`; several classes may have one key.

    A class takes the first of these that the file has, in any spelling: the user's alias, the class's own name, a
    fallback, the words of its name in another order.

    Args:
        aliases: label -> key that the user chose. A file of another source may lack it.
        fallbacks: label -> keys under which published files list the class, best first.

    Raises:
        UserError: two keys for one class.
    """
    key_of: dict[str, str] = {}
    for key in found:
        other = key_of.setdefault(spelling(key), key)
        if other != key:
            raise UserError(f"{path}: keys '{other}' and '{key}' name the same class; keep one")
    own_names = {spelling(name) for name in names}
    reordered = _by_words(form for form in key_of if form not in own_names)
    keys = []
    for label, name in enumerate(names):
        own = spelling(name)
        wanted = [spelling(aliases.get(label, name)), own, *map(spelling, fallbacks.get(label, ()))]
        wanted += reordered.get(_words(own), [])
        keys.append(next((key_of[form] for form in wanted if form in key_of), None))
    return keys


def warn_of_unknown_aliases(dataset: str, aliases: Mapping[int, str], keys: Collection[str]) -> None:
    """Warn about aliases whose key is in no description file, which is most likely a typing mistake.

    Args:
        keys: of all description files.
    """
    forms = {spelling(key) for key in keys}
    for wanted in dict.fromkeys(aliases.values()):
        if spelling(wanted) not in forms:
            near = _nearest_key(wanted, list(keys), [])
            warn(f"datasets.{dataset}.aliases: no description file has the key '{wanted}'{near}; it is not used")


def _with_letters(texts: Iterable[str]) -> list[str]:
    return [text for text in map(clean, texts) if re.search(r"[^\W\d_]", text)]


def _words(form: str) -> tuple[str, ...]:
    return tuple(sorted(form.split()))


def _by_words(forms: Iterable[str]) -> dict[tuple[str, ...], list[str]]:
    """Sorted words -> the key with these words, if there is only one.

    AttrVR's keys are "2012 Acura RL Sedan" and "outdoor apartment_building".
    """
    grouped: dict[tuple[str, ...], list[str]] = {}
    for form in forms:
        grouped.setdefault(_words(form), []).append(form)
    return {words: own for words, own in grouped.items() if len(own) == 1}


def _nearest_key(name: str, keys: Sequence[str], unused: Sequence[str]) -> str:
    """The key most similar to a class name, by shared words and then by letters. Unused keys come first."""
    wanted = spelling(name)
    words = set(wanted.split())

    def likeness(key: str) -> float:
        form = spelling(key)
        shared, either = words & set(form.split()), words | set(form.split())
        return len(shared) / max(1, len(either)) + SequenceMatcher(None, wanted, form).ratio()

    same = [key for key in keys if spelling(key) == wanted]  # the key exists, but its texts are empty
    candidates = same or unused or keys
    return f" (nearest key: '{max(candidates, key=likeness)}')" if candidates else ""


def _listed(items: Sequence[str], count: int) -> str:
    """The first of `count` items."""
    return ", ".join(items[:SHOWN]) + (f" and {count - SHOWN} more" if count > SHOWN else "")
