"""What a result was made from: named digests beside the result. They tell a stage whether the result is still valid.

The record is a JSON object of names and digests under the key `made_from`, the same for every stage that keeps one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from stages.common.digests import digest, is_damaged, signed
from stages.common.errors import UserError
from stages.common.images import content_digest
from stages.common.tables import write_json

KEY = "made_from"
STAGES = Path(__file__).parents[1]

Record = dict[str, str]
"""Name of an input -> its digest."""


def made_from(**inputs: Any) -> Record:
    """The record of a result: for each input the digest of a JSON value, such as another digest or parameters."""
    return {name: digest(value) for name, value in inputs.items()}


def write_result(path: Path, result: dict[str, Any], record: Record) -> None:
    """Write a JSON object with what it was made from, and a digest. It may be empty where the result is other files."""
    write_json(path, signed({**result, KEY: record}))


def read_result(path: Path, record: Record) -> dict[str, Any] | None:
    """The JSON object at `path` if it was made from `record`; None if it was not, was changed, or is no such file."""
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return found if found[KEY] == record and not is_damaged(found) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def code_digest(*modules: str) -> str:
    """BLAKE2b-64 of modules of `stages`, such as "finer.tune.lora", in hex. Changed code makes another result."""
    whole = hashlib.blake2b(digest_size=8)
    for name in modules:
        whole.update((STAGES / f"{name.replace('.', '/')}.py").read_bytes())
    return whole.hexdigest()


def file_digest(path: Path) -> str:
    """BLAKE2b, cut to 64 bits, of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()[:16]


def folder_digest(folder: Path) -> str:
    """BLAKE2b-64 of the names and bytes of a folder's files, in hex."""
    whole = hashlib.blake2b(digest_size=8)
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        whole.update(path.relative_to(folder).as_posix().encode() + b"\0")
        with path.open("rb") as file:
            whole.update(hashlib.file_digest(file, "blake2b").digest())
    return whole.hexdigest()


def images_digest(paths: Iterable[str], stage: str) -> str:
    """Digest of image files, by their paths and bytes.

    Args:
        stage: for the message.

    Raises:
        UserError: a file that is missing.
    """
    contents = []
    for path in sorted(set(paths)):
        try:
            contents.append([path, content_digest(Path(path).read_bytes())])
        except OSError as error:
            reason = (error.strerror or "cannot be read").lower()
            raise UserError(f"{stage}: image {path}: {reason}; put it there, or make the mixture again") from None
    return digest(contents)
