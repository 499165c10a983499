"""share: a folder that others can load, check and import."""

from __future__ import annotations

import fcntl
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
import yaml
from artifact_files import read_raw, write_raw
from conftest import Call, Project, make_project
from embed_project import CROP, EMBED, INGEST, in_folder

from stages.common.artifacts import PREDICTIONS, TEXTS, VIEWS
from stages.common.tables import open_table
from stages.share import write
from stages.share.card import unique_names

REFINE, SCORE = "refine --dataset toy --model tiny", "score --dataset toy --model tiny"
KEYS = ("--dataset", "toy", "--model", "tiny")
TABLES = ("classes", "images", "texts", "boxes", "views", "predictions")
ARTIFACTS = {
    **{f"{name}.parquet": f"{name}.parquet" for name in ("images", "classes", "skipped", "boxes")},
    **{f"{name}.parquet": f"tiny/{name}.parquet" for name in ("texts", "predictions")},
    **{f"views/part-0000{number}.parquet": f"tiny/views/part-0000{number}.parquet" for number in range(3)},
}


@pytest.fixture(scope="module")
def computed(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project of nine images in three shards. Not to be changed."""
    made = make_project(tmp_path_factory.mktemp("share") / "project")
    in_folder(made.folder, INGEST, CROP, REFINE, EMBED, SCORE)
    return made


@pytest.fixture
def project(computed: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A copy of it that may be changed, and is the present folder."""
    shutil.copytree(computed.folder, tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    return Project(tmp_path / "project")


@pytest.fixture(scope="module")
def shared(computed: Project, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the project shares. Not to be changed."""
    out = tmp_path_factory.mktemp("shared") / "toy tiny"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(computed.folder)
        write.share("toy", "tiny", out)
    return out


def files(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def head(folder: Path) -> dict[str, Any]:
    """The YAML at the top of the card."""
    found: dict[str, Any] = yaml.safe_load((folder / "README.md").read_text().split("---\n")[1])
    return found


def code(folder: Path, library: str) -> str:
    """The card's example of a library, for this folder."""
    blocks = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    found: str = next(block for block in blocks if re.search(rf"(from|import) {library}\b|{library}\(\)", block))
    assert len(found.split("\n\n")[1].splitlines()) <= 2, "two lines"
    return found.replace("FOLDER", str(folder))


def test_the_folder_holds_the_artifacts_byte_for_byte(computed: Project, shared: Path) -> None:
    there = files(shared)
    assert there.keys() == {*ARTIFACTS, "README.md", "LICENSE"}
    for name, own in ARTIFACTS.items():
        assert there[name] == (computed.folder / "data" / "toy" / own).read_bytes(), name
    assert list(shared.parent.iterdir()) == [shared]


def test_the_card_says_what_is_there(computed: Project, shared: Path) -> None:
    said, text = head(shared), (shared / "README.md").read_text()
    assert [entry["config_name"] for entry in said["configs"]] == list(TABLES)
    assert (said["license"], said["license_link"]) == ("other", "LICENSE") and said["license_name"]
    assert "not in `configs`: `skipped.parquet`" in text
    meta = read_raw(computed.folder / "data/toy/tiny/texts.parquet")[1]
    assert f"weights: {meta['model']['weights']}" in text and "interpolation: bicubic" in text
    for name in TABLES:
        rows = sum(pq.read_metadata(path).num_rows for path in shared.glob(f"{name}.parquet")) or sum(
            pq.read_metadata(path).num_rows for path in shared.glob("views/*.parquet")
        )
        assert f"| {name} | {rows:,} |" in text


def test_examples_of_the_card(shared: Path) -> None:
    views = pl.concat([pl.read_parquet(path) for path in sorted(shared.glob("views/*.parquet"))])
    wanted = np.stack(views["embedding"].to_list()).astype(np.float32)
    found: dict[str, Any] = {}
    for library in ("polars", "duckdb", "to_numpy"):
        exec(code(shared, library), found)
        if library == "polars":
            assert found["views"].equals(views)
        elif library == "duckdb":
            assert found["views"].columns == views.columns and str(found["views"].types[-1]) == "FLOAT[16]"
            [(rows, cosine)] = (
                found["views"].aggregate("count(*), min(array_cosine_similarity(embedding, embedding))").fetchall()
            )
            assert rows == len(views) and cosine == pytest.approx(1, abs=1e-5)
        else:
            assert np.array_equal(found["embeddings"], wanted) and found["embeddings"].dtype == np.float16


def test_hugging_face_reads_every_table(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets", reason="`datasets` of requirements-dev.txt is not installed")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    found: dict[str, Any] = {}
    exec(code(shared, "datasets"), found)
    assert found["views"].num_rows == sum(pq.read_metadata(path).num_rows for path in shared.glob("views/*.parquet"))
    names = pl.read_parquet(shared / "classes.parquet")["name"].to_list()
    for name in TABLES:
        table = datasets.load_dataset(str(shared), name, split="train", cache_dir=str(tmp_path / "cache"))
        plain = pl.concat(
            [pl.read_parquet(path) for path in sorted(shared.glob(f"{name}.parquet"))]
            or [pl.read_parquet(path) for path in sorted(shared.glob("views/*.parquet"))]
        )
        assert table.column_names == plain.columns and table.num_rows == len(plain)
        for column in {"label", "predicted"} & set(plain.columns):
            assert table.features[column].names == names
            assert table[column][:] == plain[column].to_list()
        if "embedding" in plain.columns:
            assert np.array_equal(np.array(table["embedding"][:5]), np.stack(plain["embedding"].to_list())[:5])


def test_class_names_that_repeat() -> None:
    assert unique_names(["crane", "a", "crane", "crane (0)"]) == ["crane (0) (0)", "a", "crane (2)", "crane (0)"]


def test_only_what_exists_is_shared(project: Project, tmp_path: Path, call: Call) -> None:
    shutil.rmtree("data/toy/tiny/views")
    assert call("share", *KEYS, str(tmp_path / "texts")).code == 0
    found: dict[str, Any] = {}
    exec(code(tmp_path / "texts", "to_numpy"), found)
    assert found["embeddings"].shape == (pq.read_metadata(tmp_path / "texts/texts.parquet").num_rows, 16)
    Path("data/toy/tiny/texts.parquet").unlink()
    assert call("share", *KEYS, str(tmp_path / "out")).code == 0
    names = [entry["config_name"] for entry in head(tmp_path / "out")["configs"]]
    assert names == ["classes", "images", "boxes", "predictions"]
    shutil.rmtree("data/toy/tiny")
    done = call("share", *KEYS, str(tmp_path / "other"))
    assert done.code == 1 and done.err.startswith("error: nothing to share of toy: no data/toy/tiny/texts.parquet, ")
    assert not (tmp_path / "other").exists()


def test_no_path_of_the_machine(computed: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Call) -> None:
    shutil.copytree(computed.folder, tmp_path / "project", ignore=shutil.ignore_patterns("data"))
    project, weights = Project(tmp_path / "project"), (tmp_path / "tiny-weights").as_posix()
    shutil.move(project.folder / "tiny-model", weights)
    project.edit(lambda params: params["models"].update(tiny={"name": f"local-dir:{weights}"}))
    in_folder(project.folder, INGEST, CROP, REFINE, EMBED, SCORE)
    monkeypatch.chdir(project.folder)
    done = call("share", *KEYS, str(tmp_path / "out"))
    assert done.code == 0, done
    for path in (path for path in (tmp_path / "out").rglob("*") if path.is_file()):
        said = repr(pq.read_schema(path).metadata) if path.suffix == ".parquet" else path.read_text()
        assert str(tmp_path) not in said, path
        assert str(tmp_path).encode() not in path.read_bytes(), path
    for name, artifact in (("texts", TEXTS), ("predictions", PREDICTIONS), ("views/part-00000", VIEWS)):
        mine, theirs = (
            open_table(folder / f"{name}.parquet", artifact)
            for folder in (project.folder / "data/toy/tiny", tmp_path / "out")
        )
        assert theirs.meta.encoder().name == "local-dir:tiny-weights"
        assert theirs.read().equals(mine.read()) and theirs.meta.without_notes() == mine.meta.without_notes()
        assert {**theirs.digests, "all": ""} == {**mine.digests, "all": ""}


def lose_a_row(path: Path) -> None:
    """Its digests fit what is left."""
    table, meta = read_raw(path)
    write_raw(path, table.slice(0, len(table) - 1), meta)


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 0xFF
    path.write_bytes(content)


def test_what_is_damaged_or_does_not_fit_is_refused(project: Project, tmp_path: Path, call: Call) -> None:
    data = project.folder / "data" / "toy"
    broken = {
        "tiny/views/part-00001.parquet": lose_a_row,
        "tiny/predictions.parquet": lose_a_row,
        "boxes.parquet": lose_a_row,
        "images.parquet": lose_a_row,
        "classes.parquet": lose_a_row,
        "tiny/texts.parquet": flip_a_byte,
    }
    for name, damage in broken.items():
        whole = (data / name).read_bytes()
        damage(data / name)
        done = call("share", *KEYS, str(tmp_path / "out"))
        assert done.code == 1 and f"data/toy/{name}" in done.err and done.err.count("\n") == 1, (name, done)
        (data / name).write_bytes(whole)
    project.edit(lambda params: params.update(seed=1))
    in_folder(project.folder, CROP)
    done = call("share", *KEYS, str(tmp_path / "out"))
    assert done.code == 1 and "do not belong together: crop.seed is 0 in the first, 1 in the second" in done.err
    assert list(tmp_path.iterdir()) == [project.folder]


def test_a_folder_with_something_in_it_is_left(project: Project, tmp_path: Path, call: Call) -> None:
    (tmp_path / "empty").mkdir()
    assert call("share", *KEYS, str(tmp_path / "empty")).code == 0
    before = files(tmp_path / "empty")
    done = call("share", *KEYS, str(tmp_path / "empty"))
    assert done.code == 1 and done.err.endswith("is not an empty folder; name a new one\n")
    assert files(tmp_path / "empty") == before
    (tmp_path / "a-file").touch()
    assert call("share", *KEYS, str(tmp_path / "a-file")).code == 1


def test_written_whole_or_not_at_all(project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write, "write_text", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="out"):
        write.share("toy", "tiny", tmp_path / "out")
    assert list(tmp_path.iterdir()) == [project.folder]
    left = tmp_path / ".out.999999999.tmp"
    left.mkdir()
    monkeypatch.undo()
    monkeypatch.chdir(project.folder)
    write.share("toy", "tiny", tmp_path / "out")
    assert not left.exists(), "what a killed run left"
    assert json.dumps(head(tmp_path / "out"))


def test_not_while_a_stage_is_writing(project: Project, tmp_path: Path, call: Call) -> None:
    with Path("data/.embed,toy,tiny.lock").open("w+") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        done = call("share", *KEYS, str(tmp_path / "out"))
    assert done.code == 1 and done.err.startswith("error: another run of embed (toy, tiny) is under way")
    assert not (tmp_path / "out").exists()
