"""What a result was made from, where a stage keeps what is still right."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from stages.common.errors import UserError
from stages.common.images import content_digest
from stages.common.tables import digest

STAGES = Path(__file__).parents[1]


def code_digest(*modules: str) -> str:
    """BLAKE2b-64 of modules of `stages`, such as "finer.tune.lora", hex: changed code makes another result."""
    whole = hashlib.blake2b(digest_size=8)
    for name in modules:
        whole.update((STAGES / f"{name.replace('.', '/')}.py").read_bytes())
    return whole.hexdigest()


def folder_hash(folder: Path) -> str:
    """BLAKE2b-64 over the names and bytes of a folder's files, hex."""
    whole = hashlib.blake2b(digest_size=8)
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        whole.update(path.relative_to(folder).as_posix().encode() + b"\0")
        with path.open("rb") as file:
            whole.update(hashlib.file_digest(file, "blake2b").digest())
    return whole.hexdigest()


def images_digest(paths: Iterable[str], stage: str) -> str:
    """Digest of image files, by their paths and bytes.

    Raises:
        UserError: a file that is missing.
    """
    contents = []
    for path in sorted(set(paths)):
        try:
            contents.append([path, content_digest(Path(path).read_bytes())])
        except OSError as error:
            reason = (error.strerror or "cannot be read").lower()
            raise UserError(f"{stage}: image {path}: {reason}; put it there, or make the mixture anew") from None
    return digest(contents)
