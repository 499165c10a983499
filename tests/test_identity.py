"""Artifacts say what something is, not where it lay: no path of a machine, and the same bytes from other places."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from conftest import ROOT, Project, make_project
from embed_project import encoded, in_folder
from openai_server import Endpoint
from PIL import Image

from stages.common.artifacts import noted
from stages.common.encoders import Encoder

PAIR = "--dataset toy --model tiny"
BEFORE = ("settings --dataset toy", "ingest --dataset toy", "describe --dataset toy", "crop --dataset toy")
BEHIND = (f"refine {PAIR}", f"embed {PAIR}", f"score {PAIR}", f"report {PAIR}")


@pytest.fixture
def project(tmp_path: Path, endpoint: Endpoint) -> Project:
    """A project whose images and model are outside of it, with one description file that an LLM writes."""
    made = make_project(tmp_path / "project")
    home = tmp_path / "somebody"
    home.mkdir()
    for name in ("toy-images", "tiny-model"):
        shutil.move(made.folder / name, home / name)
    (home / "toy-images/blue tavo/torn.jpg").write_bytes(b"no image")
    made.edit(lambda params: params["datasets"]["toy"].update(root=f"{home}/toy-images"))
    made.edit(lambda params: params["models"]["tiny"].update(name=f"local-dir:{home}/tiny-model"))
    made.edit(lambda params: params["ingest"].update(on_bad_image="skip"))
    made.edit(lambda params: params["describe"].update(max_retries=0))
    made.edit(lambda params: params["sources"].update(parts="sentences"))
    prompts = made.folder / "descriptions/prompts/parts.yaml"
    shutil.copytree(ROOT / "descriptions/prompts", prompts.parent)
    prompts.write_text("templates: ['What does {name} look like?']")
    in_folder(made.folder, *BEFORE, *BEHIND)
    return made


def outputs(project: Project) -> dict[str, bytes]:
    """Everything that was made: path -> bytes."""
    made = (path for name in ("data", "descriptions") for path in (project.folder / name).rglob("*"))
    return {path.relative_to(project.folder).as_posix(): path.read_bytes() for path in made if path.is_file()}


def said(path: Path) -> str:
    """All texts of a file: of a table its cells and metadata, of a picture its text chunks."""
    if path.suffix == ".parquet":
        table = pq.read_table(path)
        columns = [
            column.to_pylist() for name, column in zip(table.column_names, table, strict=True) if name != "embedding"
        ]
        return f"{pq.read_metadata(path).metadata} {table.schema.metadata} {columns}"
    if path.suffix == ".png":
        with Image.open(path) as image:
            image.load()
            return str(image.info)
    return path.read_text()


@contextmanager
def texts_embedded() -> Iterator[list[str]]:
    """The texts that an encoder is given in this process."""
    found: list[str] = []
    encode = Encoder.encode_texts

    def counting(self: Encoder, texts: list[str], *rest: object) -> object:
        found.extend(texts)
        return encode(self, texts, *rest)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Encoder, "encode_texts", counting)
        yield found


def test_no_output_has_a_path_of_the_machine(project: Project, tmp_path: Path) -> None:
    files = [project.folder / name for name in outputs(project)]
    kinds = {path.suffix for path in files}
    assert {".parquet", ".json", ".jsonl", ".md", ".csv", ".png"} <= kinds
    private = (str(tmp_path), "somebody", str(Path.home()), "127.0.0.1")
    found = {(path.name, word) for path in files for word in private if word in said(path)}
    assert found == set()
    assert "tiny-model" in said(project.folder / "data/toy/tiny/texts.parquet"), "a note stays"


def test_other_places_of_the_same_inputs_change_no_byte_and_embed_nothing(project: Project, tmp_path: Path) -> None:
    before = outputs(project)
    shutil.copytree(tmp_path / "somebody", tmp_path / "colleague")
    (tmp_path / "colleague/tiny-model").rename(tmp_path / "colleague/clip")
    shutil.rmtree(tmp_path / "somebody")
    project.edit(lambda params: params["datasets"]["toy"].update(root=f"{tmp_path}/colleague/toy-images"))
    in_folder(project.folder, *BEFORE)
    assert outputs(project) == before
    project.edit(lambda params: params["models"]["tiny"].update(name=f"local-dir:{tmp_path}/colleague/clip"))
    with encoded() as passes, texts_embedded() as texts:
        in_folder(project.folder, *BEHIND)
    assert (list(passes), list(texts)) == ([], [])
    assert outputs(project) == before


def test_what_a_note_says_of_a_path() -> None:
    kept = ("ViT-B-32", "openai", "hf-hub:timm/x", "local-dir:stages/demo/model", "weights/b.pt")
    assert [noted(place) for place in kept] == list(kept)
    assert noted("/home/a/b.pt") == noted("../b.pt") == noted("~/b.pt") == "b.pt"
    assert noted("local-dir:/home/a/clip") == "local-dir:clip"
