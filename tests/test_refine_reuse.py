"""refine: a text is embedded once, and what is embedded earlier gives the bytes of a run from nothing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from artifact_files import as_format_1, read_raw, without_digests, write_raw
from conftest import CLASSES, Project, descriptions_for, make_project, run_stages

from stages.common.encoders import Encoder

TEXTS = Path("data/toy/tiny/texts.parquet")
REFINE = "refine --dataset toy --model tiny"


@pytest.fixture
def refined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project whose texts are embedded, in batches that they do not divide."""
    made = make_project(tmp_path / "project")
    made.edit(lambda params: params["refine"].update(batch_size=7))
    monkeypatch.chdir(made.folder)
    run_stages("ingest --dataset toy", REFINE)
    return made


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The texts that the encoder is given."""
    texts: list[str] = []
    encode = Encoder.encode_texts

    def counting(self: Encoder, some: Sequence[str], *arguments: Any, **named: Any) -> torch.Tensor:
        texts.extend(some)
        return encode(self, some, *arguments, **named)

    monkeypatch.setattr(Encoder, "encode_texts", counting)
    return texts


def from_nothing(project: Project, folder: Path, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """What a run in an empty folder writes."""
    shutil.copytree(project.folder, folder, ignore=shutil.ignore_patterns("data"))
    monkeypatch.chdir(folder)
    run_stages("ingest --dataset toy", REFINE)
    monkeypatch.chdir(project.folder)
    return (folder / TEXTS).read_bytes()


def add_sentence(project: Project) -> None:
    path = project.folder / "descriptions" / "toy" / "cupl.json"
    answers = descriptions_for(CLASSES)
    answers[CLASSES[0]].insert(1, "A sentence that nobody wrote before.")
    path.write_text(json.dumps(answers))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda project: project.edit(lambda params: params["refine"].update(top_k=2)), []),
        (lambda project: project.edit(lambda params: params["refine"].update(cosine_threshold=0.5)), []),
        (lambda project: project.edit(lambda params: params["sources"].pop("clip-d")), []),
        (add_sentence, ["A sentence that nobody wrote before."]),
    ],
    ids=["top_k", "cosine_threshold", "source removed", "sentence added"],
)
def test_only_new_texts_are_embedded_and_the_bytes_are_those_of_a_run_from_nothing(
    refined: Project,
    asked: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[Project], None],
    expected: list[str],
) -> None:
    before = (refined.folder / TEXTS).read_bytes()
    change(refined)
    run_stages(REFINE)
    assert asked == expected
    after = (refined.folder / TEXTS).read_bytes()
    assert after != before
    assert after == from_nothing(refined, tmp_path / "fresh", monkeypatch)


def test_texts_of_another_model_are_not_used(refined: Project, asked: list[str]) -> None:
    refined.edit(lambda params: params["models"]["tiny"].update(preprocess={"resize_mode": "squash"}))
    run_stages(REFINE)
    assert len(asked) == len(set(asked)) > 20


def test_a_broken_file_of_texts_is_made_again(refined: Project, asked: list[str]) -> None:
    before = (refined.folder / TEXTS).read_bytes()
    (refined.folder / TEXTS).write_bytes(before[:300])
    run_stages(REFINE)
    assert (refined.folder / TEXTS).read_bytes() == before
    assert len(asked) > 20


@pytest.mark.parametrize("older", [as_format_1, without_digests])
def test_texts_of_earlier_versions_are_not_embedded_again(
    refined: Project,
    asked: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    older: Callable[[dict[str, Any]], dict[str, Any]],
) -> None:
    table, meta = read_raw(TEXTS)
    write_raw(TEXTS, table, older(meta))
    run_stages(REFINE)
    assert asked == []
    assert TEXTS.read_bytes() == from_nothing(refined, tmp_path / "fresh", monkeypatch)
