"""share: whether a folder from somebody else belongs here, and using it instead of embedding again."""

from __future__ import annotations

import fcntl
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from conftest import Call, Project, make_image, make_project, make_tiny_model
from embed_project import CROP, EMBED, INGEST, encoded, in_folder

from stages.common.encoders import Encoder
from stages.share import write

REFINE, SCORE, REPORT = (f"{stage} --dataset toy --model tiny" for stage in ("refine", "score", "report"))
KEYS = ("--dataset", "toy", "--model", "tiny")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, Path]:
    """A colleague's project and what it shares. Not to be changed."""
    made = make_project(tmp_path_factory.mktemp("theirs") / "project")
    in_folder(made.folder, INGEST, CROP, REFINE, EMBED, SCORE)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(made.folder)
        write.share("toy", "tiny", made.folder.parent / "shared")
    return made, made.folder.parent / "shared"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project of one's own, with the same weights in another place, where only `ingest` has run."""
    made = make_project(tmp_path / "project")
    shutil.move(made.folder / "tiny-model", tmp_path / "weights")
    made.edit(lambda params: params["models"].update(tiny={"name": f"local-dir:{tmp_path / 'weights'}"}))
    in_folder(made.folder, INGEST)
    monkeypatch.chdir(made.folder)
    return made


@contextmanager
def encoded_texts() -> Iterator[list[int]]:
    """Counts texts that the encoder is given in this process."""
    counts: list[int] = []
    encode = Encoder.encode_texts

    def counting(self: Encoder, texts: Any, *rest: Any) -> Any:
        counts.append(len(texts))
        return encode(self, texts, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Encoder, "encode_texts", counting)
        yield counts


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("images_per_shard", [4, 5])
def test_nothing_is_embedded_after_an_import(
    shared: tuple[Project, Path], project: Project, call: Call, images_per_shard: int
) -> None:
    theirs, folder = shared
    project.edit(lambda params: params["embed"].update(images_per_shard=images_per_shard))
    said = call("share", "--check", str(folder), *KEYS)
    assert said.code == 0 and said.err == "" and said.out.count("\n") == 1
    assert said.out.startswith(f"{folder} belongs to datasets.toy with models.tiny: 3 classes, 9 images, ")
    assert "not compared" not in said.out
    done = call("share", "--import", str(folder), *KEYS)
    assert done.code == 0 and "5 files imported" in done.out, done  # boxes, texts, three shards
    with encoded() as views, encoded_texts() as texts:
        in_folder(project.folder, INGEST, CROP, REFINE, EMBED, SCORE, REPORT)
    assert sum(views) == sum(texts) == 0
    mine, other = (contents(made.folder / "data/toy") for made in (project, theirs))
    for name in ("tiny/metrics.json", "boxes.parquet", "images.parquet"):
        assert mine[name] == other[name], name
    again = call("share", "--import", str(folder), *KEYS)
    if images_per_shard == 4:
        assert again.code == 0 and "0 files imported" in again.out, again
    else:
        assert again.code == 1 and "data/toy/tiny/views is there and differs" in again.err


def other_weights(project: Project) -> None:
    make_tiny_model(project.folder.parent / "weights", seed=1)


def other_class(project: Project) -> None:
    (project.folder / "toy-images" / "blue tavo").rename(project.folder / "toy-images" / "blue tit")
    in_folder(project.folder, INGEST)


def other_image(project: Project) -> None:
    make_image(project.folder / "toy-images" / "blue tavo" / "0.jpg", 69, 71, 99)
    in_folder(project.folder, INGEST)


def other_description(project: Project) -> None:
    path = project.folder / "descriptions/toy/cupl.json"
    found = json.loads(path.read_text())
    found["blue tavo"][0] = "Another sentence."
    path.write_text(json.dumps(found))


def params(change: Callable[[dict[str, Any]], Any]) -> Callable[[Project], None]:
    return lambda project: project.edit(lambda found: change(found))


DIFFERENCES: dict[str, tuple[Callable[[Project], None], str]] = {
    "classes": (other_class, "the class 1 is 'blue tavo' in the folder, 'blue tit' in data/toy/classes.parquet"),
    "images": (other_image, "of 'blue tavo/0.jpg' is"),
    "crop": (params(lambda p: p["crop"].update(candidates=40)), "crop.candidates is 30 in the folder, 40 in "),
    "override": (params(lambda p: p["datasets"]["toy"].update(crop={"max_scale": 0.8})), "crop.max_scale is 0.9 "),
    "seed": (params(lambda p: p.update(seed=7)), "seed is 0 in the folder, 7 in params.yaml"),
    "refine": (params(lambda p: p["refine"].update(top_k=4)), "refine.top_k is 5 in the folder, 4 in params.yaml"),
    "sources": (params(lambda p: p["sources"].pop("clip-d")), "sources is {'clip-d': 'descriptors', 'cupl': "),
    "texts": (other_description, "a text of 'cupl' is 'The blue tavo has a long tail.' in the folder, 'Another "),
    "model": (other_weights, "the model's weights is "),
    "preprocess": (params(lambda p: p["models"]["tiny"].update(preprocess={"mean": [0, 0, 0]})), "the model's prep"),
}  # fmt: skip


@pytest.mark.parametrize("what", DIFFERENCES)
def test_the_first_difference_is_named(shared: tuple[Project, Path], project: Project, call: Call, what: str) -> None:
    change, said = DIFFERENCES[what]
    change(project)
    before = contents(project.folder / "data")
    for option in ("--check", "--import"):
        done = call("share", option, str(shared[1]), *KEYS)
        assert done.code == 1 and done.out == "" and done.err.count("\n") == 1
        assert done.err.startswith(f"error: {shared[1]} does not belong to datasets.toy with models.tiny: "), done
        assert said in done.err, done
    assert contents(project.folder / "data") == before


def test_another_precision_would_embed_again(shared: tuple[Project, Path], project: Project, call: Call) -> None:
    theirs = next(
        word for word in ("float32", "bfloat16") if f"precision: {word}" in (shared[1] / "README.md").read_text()
    )
    other = {"float32": "bfloat16", "bfloat16": "float32"}[theirs]
    project.edit(lambda params: params.update(precision=other))
    done = call("share", "--check", str(shared[1]), *KEYS)
    assert done.code == 1 and f"here they would be in {other}; set `precision: {theirs}` in params.yaml" in done.err
    project.edit(lambda params: params.update(precision=theirs))
    assert call("share", "--check", str(shared[1]), *KEYS).code == 0


def test_what_could_not_be_compared_is_said(shared: tuple[Project, Path], project: Project, call: Call) -> None:
    shutil.rmtree("data")
    Path("descriptions/toy/cupl.json").unlink()
    done = call("share", "--import", str(shared[1]), *KEYS)
    assert done.code == 0 and "8 files imported" in done.out
    assert "not compared: classes and images, because `dvc repro ingest@toy` has not run, texts, because " in done.out
    shutil.rmtree("toy-images")  # somebody without the images can score
    in_folder(project.folder, SCORE)


def test_another_data_set(shared: tuple[Project, Path], project: Project, call: Call) -> None:
    project.edit(lambda params: params.update(datasets={"other": params["datasets"]["toy"]}))
    done = call("share", "--check", str(shared[1]), "--dataset", "other", "--model", "tiny")
    assert done.code == 1 and done.err.endswith("it is of the data set 'toy', not 'other'\n")


@pytest.mark.parametrize("name", ["texts.parquet", "views/part-00001.parquet", "boxes.parquet", "images.parquet"])
def test_a_damaged_folder_is_refused(
    shared: tuple[Project, Path], project: Project, call: Call, tmp_path: Path, name: str
) -> None:
    folder = tmp_path / "shared"
    shutil.copytree(shared[1], folder)
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 3] ^= 0xFF
    (folder / name).write_bytes(content)
    before = contents(project.folder / "data")
    for option in ("--check", "--import"):
        done = call("share", option, str(folder), *KEYS)
        assert done.code == 1 and f"{folder / name}" in done.err and done.err.endswith("; get the folder again\n"), done
    (folder / name).unlink()
    if name != "texts.parquet":
        done = call("share", "--import", str(folder), *KEYS)
        assert done.code == 1 and str(folder) in done.err and done.err.endswith("; get the folder again\n"), done
    assert contents(project.folder / "data") == before


def test_what_is_there_is_not_overwritten(shared: tuple[Project, Path], project: Project, call: Call) -> None:
    project.edit(lambda params: params["refine"].update(top_k=3))
    in_folder(project.folder, REFINE)
    project.edit(lambda params: params["refine"].update(top_k=5))
    before = contents(project.folder / "data")
    done = call("share", "--import", str(shared[1]), *KEYS)
    assert done.code == 1 and "error: data/toy/tiny/texts.parquet is there and differs from the folder's" in done.err
    assert contents(project.folder / "data") == before
    Path("data/toy/tiny/texts.parquet").rename("mine.parquet")
    assert call("share", "--import", str(shared[1]), *KEYS).code == 0, "the remedy works"


def test_not_while_a_stage_is_writing(shared: tuple[Project, Path], project: Project, call: Call) -> None:
    with Path("data/.refine,toy,tiny.lock").open("w+") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        done = call("share", "--import", str(shared[1]), *KEYS)
    assert done.code == 1 and done.err.startswith("error: another run of refine (toy, tiny) is under way")
    assert not Path("data/toy/tiny").exists()
