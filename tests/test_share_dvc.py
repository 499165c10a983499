"""Sharing by DVC: artifacts of another repository, and a remote that speaks S3."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, Project
from dvc.repo import Repo

VIEWS = Path("data/demo/demo-clip/views")
KEY = "a-secret-of-the-test"
ARTIFACTS = yaml.safe_load((ROOT / "dvc.yaml").read_text())["artifacts"]


def git(project: Project, *arguments: str) -> None:
    project.run("git", "-c", "user.name=Somebody", "-c", "user.email=somebody@example.org", *arguments)


def make_repository(folder: Path, artifacts: bool = False) -> Project:
    """A git repository with DVC; with the project's `artifacts` where wanted, tracked and of random bytes."""
    folder.mkdir()
    made = Project(folder)
    git(made, "init", "--quiet")
    made.run("dvc", "init", "--quiet")
    if artifacts:
        (folder / "dvc.yaml").write_text(yaml.safe_dump({"artifacts": ARTIFACTS}))
        for entry in ARTIFACTS.values():
            path = folder / entry["path"]
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.suffix:
                path.write_bytes(os.urandom(1000))
            else:
                path.mkdir()
                for shard in range(3):
                    (path / f"part-{shard:05d}.parquet").write_bytes(os.urandom(1000))
        made.run("dvc", "add", "--quiet", *(entry["path"] for entry in ARTIFACTS.values()))
    git(made, "add", "--all")
    git(made, "commit", "--quiet", "--message", "Artifacts")
    return made


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("part-*.parquet"))}


def test_artifacts_are_outputs_of_stages() -> None:
    with Repo(str(ROOT)) as repo:
        outs = {Path(out.fs_path).relative_to(ROOT).as_posix() for out in repo.index.outs}
        named = {artifact.path for found in repo.artifacts.read().values() for artifact in found.values()}
    assert named and named <= outs


def test_artifacts_of_another_repository(tmp_path: Path) -> None:
    theirs = make_repository(tmp_path / "theirs", artifacts=True)
    theirs.run("dvc", "remote", "add", "--quiet", "--default", "team", str(tmp_path / "remote"))
    git(theirs, "commit", "--quiet", "--all", "--message", "A remote")
    git(theirs, "tag", "--annotate", "demo-views@v1.0.0", "--message", "Views")
    theirs.run("dvc", "push", "--quiet")
    mine, url = make_repository(tmp_path / "mine"), str(theirs.folder)
    mine.run("dvc", "get", "--quiet", url, str(VIEWS), "--out", "by-path")
    mine.run("dvc", "artifacts", "get", "--quiet", url, "demo-views", "--out", "by-name")
    mine.run("dvc", "import", "--quiet", url, str(VIEWS), "--out", "followed")
    wanted = contents(theirs.folder / VIEWS)
    assert len(wanted) == 3
    for name in ("by-path", "by-name", "followed"):
        assert contents(mine.folder / name) == wanted, name
    (theirs.folder / VIEWS / "part-00000.parquet").write_bytes(b"newer")
    theirs.run("dvc", "commit", "--quiet", "--force", f"{VIEWS}.dvc")
    git(theirs, "commit", "--quiet", "--all", "--message", "Newer views")
    theirs.run("dvc", "push", "--quiet")
    mine.run("dvc", "update", "--quiet", "followed.dvc")
    assert contents(mine.folder / "followed") == contents(theirs.folder / VIEWS) != wanted


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A local S3 server with the bucket `bifta`, and the environment of a user of it."""
    pytest.importorskip("dvc_s3", reason="`dvc[s3]` is not installed")
    server = pytest.importorskip("moto.server", reason="`moto[server]` is not installed")
    boto3 = pytest.importorskip("boto3")
    for name, value in {"ACCESS_KEY_ID": "somebody", "SECRET_ACCESS_KEY": KEY, "DEFAULT_REGION": "us-east-1"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    running = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    url = f"http://{host}:{port}"
    boto3.client("s3", endpoint_url=url).create_bucket(Bucket="bifta")
    yield url
    running.stop()


def test_a_remote_that_speaks_s3(tmp_path: Path, endpoint: str) -> None:
    theirs = make_repository(tmp_path / "theirs", artifacts=True)
    theirs.run("dvc", "remote", "add", "--quiet", "--default", "team", "s3://bifta/embeddings")
    theirs.run("dvc", "remote", "modify", "--quiet", "team", "endpointurl", endpoint)
    git(theirs, "commit", "--quiet", "--all", "--message", "A remote")
    theirs.run("dvc", "push", "--quiet")
    git(theirs, "clone", "--quiet", str(theirs.folder), str(tmp_path / "clone"))
    clone = Project(tmp_path / "clone")
    clone.run("dvc", "pull", "--quiet", f"{VIEWS}.dvc")
    assert contents(clone.folder / VIEWS) == contents(theirs.folder / VIEWS)
    assert not (clone.folder / "data/demo/boxes.parquet").exists(), "what was not asked for is not fetched"
    files = (path for made in (theirs, clone) for path in (made.folder / ".dvc").rglob("*") if path.is_file())
    assert not [path for path in files if KEY.encode() in path.read_bytes()]
