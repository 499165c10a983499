"""After a conflict in dvc.lock: fetch what both sides have embedded, so that `dvc repro` embeds none of it again.

    git checkout --ours dvc.lock      # or --theirs
    python -m stages.merge            # in the middle of the merge; after it: python -m stages.merge HEAD^1 HEAD^2
    dvc repro

Only texts and views of one's own side and of the other side are fetched, and only those that are not here yet. They are
put where `refine` and `embed` look for what an earlier run has embedded, and those stages remove them.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from stages.common import paths
from stages.common.errors import UserError, run
from stages.common.files import replacing
from stages.common.params import load_params


def main() -> None:
    parser = argparse.ArgumentParser("python -m stages.merge", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("revisions", nargs="*", default=["HEAD", "MERGE_HEAD"], help="of git; both sides of a merge")
    params = load_params()
    places = {paths.texts(dataset, model) for dataset in params.datasets for model in params.models}
    places |= {paths.views(dataset, model) for dataset in params.datasets for model in params.models}
    for revision in parser.parse_args().revisions:
        files, size = fetch(revision, places)
        print(f"merge: {files} files of {revision} fetched, {size / 1e6:.1f} MB")


def fetch(revision: str, places: set[Path]) -> tuple[int, int]:
    """Fetch texts and views of a revision that are not here: how many files, and their bytes.

    Args:
        places: paths of texts, and folders of views.

    Raises:
        UserError: git does not know the revision, or DVC has the files neither in its cache nor in the remote.
    """
    from dvc.api import DVCFileSystem
    from dvc.exceptions import DvcException

    tracked = places & set(_tracked(revision))
    files, size = 0, 0
    try:
        there = DVCFileSystem(rev=revision)
        for place in sorted(tracked):
            for source in there.find(place.as_posix()):
                target = _aside(place, str(there.info(source)["md5"]))
                if not _is_here(Path(source), target):
                    target.parent.mkdir(parents=True, exist_ok=True)
                    with replacing(target) as temporary:
                        there.get_file(source, str(temporary))
                    files, size = files + 1, size + target.stat().st_size
    except (DvcException, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{revision}: DVC cannot fetch its texts and views ({reason}); have its author `dvc push`"
        ) from None
    return files, size


def _tracked(revision: str) -> Iterator[Path]:
    """The outputs that the dvc.lock of a revision lists."""
    command = ["git", "show", f"{revision}:./dvc.lock"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = done.stderr.strip().splitlines()[0]
        raise UserError(f"{reason}; run this in the middle of a merge, or give two revisions such as HEAD^1 HEAD^2")
    stages: dict[str, Any] = (yaml.safe_load(done.stdout) or {}).get("stages") or {}
    for stage in stages.values():
        yield from (Path(out["path"]) for out in stage.get("outs", ()))


def _aside(place: Path, digest: str) -> Path:
    """Where a fetched file waits for its stage, named by its content."""
    return (paths.old_views(place) if place.suffix == "" else paths.old_texts(place)) / f"{digest}.parquet"


def _is_here(source: Path, target: Path) -> bool:
    here = Path(*source.parts[1:]) if source.is_absolute() else source
    same = here.is_file() and hashlib.md5(here.read_bytes()).hexdigest() == target.stem
    return same or target.is_file()


if __name__ == "__main__":
    run(main)
