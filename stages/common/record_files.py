"""JSON files that hold one record with a digest."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from stages.common.artifacts import Record
from stages.common.digests import DIGEST, is_damaged, signed
from stages.common.errors import UserError
from stages.common.jsons import read_json
from stages.common.tables import write_json

Kind = TypeVar("Kind", bound=Record)


def write_record(path: Path, record: Record) -> None:
    """Write a record, whole or not at all."""
    write_json(path, signed(record.model_dump(mode="json")))


def read_record(path: Path, kind: type[Kind], remedy: str) -> Kind:
    """The record in a file.

    Raises:
        FileNotFoundError: no such file.
        UserError: damaged, or of another kind; the message ends with `remedy`.
    """
    content = read_json(path, remedy)
    if not isinstance(content, dict) or DIGEST not in content or is_damaged(content):
        raise UserError(f"{path} is damaged, or another program has changed it; {remedy}")
    try:
        return kind.model_validate({key: value for key, value in content.items() if key != DIGEST})
    except ValidationError as error:
        where = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise UserError(f"{path} has no valid '{where}'; {remedy}") from None
