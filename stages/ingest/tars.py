"""Reading tars of other people: what is damaged or too large is refused, links stay within the tar."""

from __future__ import annotations

import lzma
import tarfile
import zlib
from pathlib import Path, PurePosixPath

from stages.common.errors import UserError
from stages.ingest.walk import foreign, shown

DAMAGED = (tarfile.TarError, OSError, EOFError, zlib.error, lzma.LZMAError)
"""Errors from reading a tar that is not whole."""


def not_whole(shard: Path, error: Exception) -> UserError:
    reason = str(error).splitlines()[0].removesuffix(":").replace("(", "").strip()
    return UserError(f"'{shard}' is no whole tar ({reason}); fetch it again")


class Member(tarfile.TarInfo):
    """A file of a tar, whose own description is not read if it is too long; Python reads it at once."""

    def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        if self.size > LONGEST_HEADER and self.type in DESCRIPTIONS:
            raise tarfile.ReadError(f"a name or note of {self.size:,} bytes")
        member: tarfile.TarInfo = super()._proc_member(archive)  # type: ignore[misc]
        return member


DESCRIPTIONS = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)
"""Types of blocks that describe the file behind them."""
LONGEST_HEADER = 1 << 20


def end_notes(archive: tarfile.TarFile, shard: Path) -> list[str]:
    """A note if a tar has no end mark. A tar that was cut between two files has none either.

    Raises:
        TarError: something else is there, at which Python's reader stops silently.
    """
    archive.getmembers()
    file = archive.fileobj
    if file is None:
        return []
    file.seek(archive.offset)
    block = file.read(tarfile.BLOCKSIZE)
    if block and block != tarfile.NUL * tarfile.BLOCKSIZE:
        raise tarfile.ReadError(f"damaged at byte {archive.offset}")
    return [] if block else [f"'{shown(str(shard))}' has no mark at its end; files may be missing there"]


def members_of(archive: tarfile.TarFile) -> list[tarfile.TarInfo]:
    """The files of a tar and the links to them, without those of other programs."""
    members = [member for member in archive.getmembers() if member.isfile() or member.islnk() or member.issym()]
    return [one for one in members if not any(map(foreign, set(PurePosixPath(one.name).parts) - {"..", "."}))]


def file_bytes(archive: tarfile.TarFile, member: tarfile.TarInfo, shard: Path) -> bytes:
    """The content of a file, or of the file in the same tar that it links to.

    Raises:
        UserError: a link to something else.
    """
    try:
        file = archive.extractfile(member)
    except (KeyError, RecursionError):  # no such file; a link that leads in circles
        file = None
    if file is None:
        raise UserError(
            f"'{shard}': '{shown(member.name)}' is a link to '{shown(member.linkname)}', which is no file of this tar; "
            "make the tar again with `tar --dereference`"
        )
    return file.read()


def refuse_large(member: tarfile.TarInfo, most: int, shard: Path) -> None:
    """Refuse a file that is too large, by its header, which stands before it.

    Args:
        most: bytes that it may have.

    Raises:
        UserError: as above.
    """
    if member.size > most:
        raise UserError(
            f"'{shard}': '{shown(member.name)}' has {member.size:,} bytes; at most {most:,} are read; remove the file "
            "from the tar"
        )
