"""Bad input: one line that names the thing and the remedy, exit code 1, no traceback, and what was computed stays."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from artifact_files import read_raw, write_raw
from conftest import (
    CLASSES,
    ROOT,
    Call,
    Outcome,
    Project,
    descriptions_for,
    make_image,
    make_project,
    make_tiny_model,
    run_stages,
)
from safetensors.torch import load_file, save_file

STAGES = {
    "ingest": ("--dataset", "toy"),
    "describe": ("--dataset", "toy", "--source", "cupl"),
    "refine": ("--dataset", "toy", "--model", "tiny"),
    "crop": ("--dataset", "toy"),
    "embed": ("--dataset", "toy", "--model", "tiny"),
    "score": ("--dataset", "toy", "--model", "tiny"),
    "report": ("--dataset", "toy", "--model", "tiny"),
}
OTHER = ("--dataset", "toy", "--model", "other")
IMAGE = Path("toy-images/blue tavo/1.jpg")
CUPL = Path("descriptions/toy/cupl.json")
VIEWS = Path("data/toy/tiny/views")
LONGEST = 800

Refuse = Callable[..., str]
Params = dict[str, Any]


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def check_refusal(done: Outcome, *names: str) -> str:
    """The one line of a refusal, checked to hold each of `names`."""
    lines = done.err.splitlines()
    assert done.code == 1, done
    assert "Traceback" not in done.err
    assert len(lines) == 1, done.err
    assert lines[0].startswith("error: ")
    assert len(lines[0]) < LONGEST, lines[0]
    assert [name for name in names if name not in lines[0]] == [], lines[0]
    return lines[0]


@pytest.fixture(scope="module")
def computed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small project with two models, everything computed for the first and views for the other."""
    made = make_project(tmp_path_factory.mktemp("bad-input") / "project")
    make_tiny_model(made.folder / "other-model", seed=1)
    made.edit(lambda params: params["models"].update(other={"name": "local-dir:other-model"}))
    lines = [" ".join([name, *arguments]) for name, arguments in STAGES.items()]
    lines += [" ".join([name, *OTHER]) for name in ("refine", "embed")]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(made.folder)
        patch.setattr(sys, "argv", [])
        run_stages(*lines)
    return made.folder


@pytest.fixture
def project(computed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A copy of the computed project, which is the present folder."""
    shutil.copytree(computed, tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    return Project(tmp_path / "project")


@pytest.fixture
def refuse(project: Project, call: Call) -> Refuse:
    """Runs a stage that must refuse with one line that holds the given names, and must leave all files as they were."""

    def check_stage(stage: str, *names: str, arguments: tuple[str, ...] | None = None) -> str:
        before = snapshot(project.folder)
        line = check_refusal(call(stage, *(STAGES[stage] if arguments is None else arguments)), *names)
        assert snapshot(project.folder) == before
        return line

    return check_stage


# The project


def test_all_is_well_to_begin_with(project: Project, call: Call) -> None:
    before = snapshot(project.folder)
    for name, arguments in STAGES.items():
        done = call(name, *arguments)
        assert (done.code, done.err) == (0, ""), name
    assert snapshot(project.folder) == before


@pytest.mark.parametrize("stage", STAGES)
def test_outside_of_the_root(stage: str, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    check_refusal(call(stage, *STAGES[stage]), "params.yaml", "root folder")
    assert not list(tmp_path.iterdir())


def test_outside_of_the_root_as_a_command(tmp_path: Path) -> None:
    done = Project(tmp_path).stage("report", check=False)
    check_refusal(Outcome(done.returncode, done.stdout, done.stderr), "params.yaml", "root folder")


@pytest.mark.parametrize("stage", STAGES)
def test_data_set_unknown(stage: str, refuse: Refuse) -> None:
    arguments = tuple(word.replace("toy", "toys") for word in STAGES[stage])
    refuse(stage, "params.yaml", "'toys' under datasets", "did you mean 'toy'?", arguments=arguments)


@pytest.mark.parametrize("stage", ["refine", "embed", "score", "report"])
def test_model_unknown(stage: str, refuse: Refuse) -> None:
    refuse(stage, "'tini' under models", "did you mean 'tiny'?", arguments=("--dataset", "toy", "--model", "tini"))


def test_source_unknown(refuse: Refuse) -> None:
    arguments = ("--dataset", "toy", "--source", "cupp")
    refuse("describe", "'cupp' under sources", "did you mean 'cupl'?", arguments=arguments)


# params.yaml


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("datasets: {toy: [", ("params.yaml is not valid YAML", "line")),
        ("\tseed: 0\n", ("params.yaml is not valid YAML", "line 1")),
        ("", ("params.yaml",)),
        ("- seed\n- device\n", ("params.yaml",)),
        ("just words", ("params.yaml",)),
        ("seed: 0\n", ("params.yaml", "datasets: missing", "score: missing")),
    ],
    ids=["open bracket", "tab", "empty", "list", "words", "keys missing"],
)
def test_params_file_broken(text: str, names: tuple[str, ...], project: Project, refuse: Refuse) -> None:
    (project.folder / "params.yaml").write_text(text)
    refuse("crop", *names)


def test_params_file_not_text(project: Project, refuse: Refuse) -> None:
    (project.folder / "params.yaml").write_bytes(b"seed: 0\n# caf\xe9\n")
    refuse("crop", "params.yaml", "UTF-8")


def _put(path: str, value: object) -> Callable[[Params], None]:
    def change(params: Params) -> None:
        *sections, key = path.split("/")
        for section in sections:
            params = params[section]
        params[key] = value

    return change


@pytest.mark.parametrize(
    ("path", "value", "names"),
    [
        ("score/iou_treshold", 0.7, ("score.iou_treshold: unknown key", "did you mean 'iou_threshold'?", "runs")),
        ("sed", 1, ("sed: unknown key", "did you mean 'seed'?")),
        ("datasets/toy/splitt", "a", ("datasets.toy.splitt: unknown key", "did you mean 'split'?", "reader")),
        ("models/tiny/pretraned", "a", ("models.tiny.pretraned: unknown key", "did you mean 'pretrained'?")),
        ("models/tiny/preprocess", {"men": [0, 0, 0]}, ("models.tiny.preprocess.men: unknown key", "'mean'")),
        ("crop/candidates", 0, ("crop.candidates", "greater than or equal to 1", "not 0")),
        ("crop/candidates", "many", ("crop.candidates", "integer", "'many'")),
        ("crop/min_scale", 0.95, ("crop", "min_scale", "max_scale")),
        ("crop/iou_thresholds", [0.8, 0.6], ("crop.iou_thresholds", "ascending")),
        ("score/iou_threshold", 0.75, ("score.iou_threshold 0.75", "crop.iou_thresholds", "[0.6, 0.8]")),
        ("score/views_per_run", "all", ("score", "views_per_run", "runs must be 1")),
        ("refine/sources", ["clip-d"], ("refine.sources", "'clip-d'", "['cupl']")),
        ("refine/label_prompt", "a photo", ("label_prompt", "{name}")),
        ("device", "gpu", ("device", "'cuda'", "'gpu'")),
        ("sources/cupl", "phrases", ("sources.cupl", "'sentences' or 'descriptors'", "'phrases'")),
        ("datasets/a b", {"reader": "folder", "root": "x"}, ("datasets.a b", "letters, digits")),
        ("datasets", {}, ("params.yaml has no 'toy' under datasets",)),
    ],
)
def test_parameter_refused(path: str, value: object, names: tuple[str, ...], project: Project, refuse: Refuse) -> None:
    project.edit(_put(path, value))
    refuse("crop", "params.yaml", *names)


def test_keys_that_make_one_stage_name(project: Project, refuse: Refuse) -> None:
    """Of `refine@toy-a-tiny` for (toy, a-tiny) and (toy-a, tiny) DVC would run one."""
    params = yaml.safe_load(Path("params.yaml").read_text())
    params["datasets"]["toy-a"] = params["datasets"]["toy"]
    params["models"]["a-tiny"] = params["models"]["tiny"]
    Path("params.yaml").write_text(yaml.safe_dump(params))
    refuse("crop", "datasets.toy with models.a-tiny", "datasets.toy-a with models.tiny", "rename one")


def test_prompt_with_another_field(project: Project, refuse: Refuse) -> None:
    project.edit(_put("refine/label_prompt", "a {colour} {name}"))
    refuse("refine", "refine.label_prompt", "{name}", "a {colour} {name}")


def test_template_with_another_field(project: Project, call: Call) -> None:
    project.edit(_put("datasets/toy/templates", ["a {size} {name}"]))
    check_refusal(call("ingest", *STAGES["ingest"]), "datasets.toy.templates", "{name}", "a {size} {name}")


# The data set


def test_root_missing_as_a_command(project: Project) -> None:
    project.edit(_put("datasets/toy/root", "nowhere"))
    before = snapshot(project.folder)
    done = project.stage("ingest", "--dataset", "toy", check=False)
    check_refusal(Outcome(done.returncode, done.stdout, done.stderr), "datasets.toy.root 'nowhere'", "one sub-folder")
    assert snapshot(project.folder) == before


@pytest.mark.parametrize(
    ("path", "value", "names"),
    [
        ("datasets/toy/root", "nowhere", ("datasets.toy.root 'nowhere' does not exist", "params.yaml")),
        ("sources/parts", "sentences", ("sources.parts has no descriptions/prompts/parts.yaml", "`paper: ")),
    ],
)
def test_refused_before_a_run(path: str, value: object, names: tuple[str, ...], project: Project, call: Call) -> None:
    """What DVC would say in its own words."""
    shutil.copytree(ROOT / "descriptions/prompts", "descriptions/prompts")
    assert call("common.check") == Outcome(0, "", "")
    project.edit(_put(path, value))
    check_refusal(call("common.check"), *names)


def test_reader_unknown(project: Project, refuse: Refuse) -> None:
    project.edit(_put("datasets/toy/reader", "folders"))
    refuse("ingest", "datasets.toy.reader 'folders'", "did you mean 'folder'?", "oxford-pets")


def test_split_missing(project: Project, refuse: Refuse) -> None:
    project.edit(_put("datasets/toy/split", "test"))
    refuse("ingest", "toy-images/test", "split")


def test_class_folder_empty(project: Project, refuse: Refuse) -> None:
    (project.folder / "toy-images/Kiwi").mkdir()
    (project.folder / "toy-images/Kiwi/notes.txt").write_text("No pictures yet.")
    refuse("ingest", "toy-images", "Kiwi", "remove the folder")


def test_root_without_class_folders(project: Project, refuse: Refuse) -> None:
    make_image(project.folder / "flat/0.jpg", 40, 40, 0)
    project.edit(_put("datasets/toy/root", "flat"))
    refuse("ingest", "no class folders in 'flat'", "one sub-folder a class")


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _dangle(path: Path) -> None:
    path.unlink()
    path.symlink_to("gone.jpg")


SPOIL: dict[str, tuple[Callable[[Path], object], str]] = {
    "truncated": (_truncate, "truncated"),
    "zero bytes": (lambda path: path.write_bytes(b""), "not an image"),
    "text": (lambda path: path.write_text("<html>404</html>"), "not an image"),
    "dangling link": (_dangle, "no such file"),
}


@pytest.mark.parametrize("kind", SPOIL)
def test_image_unreadable(kind: str, project: Project, refuse: Refuse) -> None:
    spoil, reason = SPOIL[kind]
    spoil(IMAGE)
    refuse("ingest", "1 of 9 images under 'toy-images'", "blue tavo/1.jpg", reason, "replace or remove")


def test_many_images_unreadable(project: Project, refuse: Refuse) -> None:
    for path in Path("toy-images").rglob("*.jpg"):
        path.write_bytes(b"")
    line = refuse("ingest", "9 of 9 images", "and 4 more")
    assert line.count(".jpg") == 5


@pytest.mark.parametrize("kind", [*SPOIL, "deleted"])
def test_image_spoilt_between_ingest_and_embed(kind: str, project: Project, refuse: Refuse, call: Call) -> None:
    """Shards of other images stay; those before it are there when the image is put back."""
    content = IMAGE.read_bytes()
    (VIEWS / "part-00001.parquet").unlink()  # the shard that the image is in
    if kind == "deleted":
        IMAGE.unlink()
    else:
        SPOIL[kind][0](IMAGE)
    refuse("embed", "'blue tavo/1.jpg' under 'toy-images'", "dvc repro")
    IMAGE.unlink(missing_ok=True)
    IMAGE.write_bytes(content)
    assert "1 shards written; 2 shards were there" in call("embed", *STAGES["embed"]).out


def test_image_of_another_size_between_ingest_and_embed(project: Project, refuse: Refuse) -> None:
    """Its boxes would be beyond its edges, and the shard's fingerprint would be that of the other image."""
    (VIEWS / "part-00001.parquet").unlink()
    make_image(IMAGE, 20, 18, 0)
    refuse("embed", "'blue tavo/1.jpg' under 'toy-images' has changed since ingest", "dvc repro")


# Descriptions


def _write_cupl(found: object) -> None:
    CUPL.write_text(json.dumps(found))


def test_descriptions_of_a_class_missing(project: Project, refuse: Refuse) -> None:
    found = descriptions_for(CLASSES)
    found["blue tavoo"] = found.pop("blue tavo")
    _write_cupl(found)
    refuse("refine", str(CUPL), "'blue tavo' (nearest key: 'blue tavoo')", "aliases")


def test_alias_mends_a_missing_class(project: Project, call: Call) -> None:
    """What the refusal proposes works."""
    found = descriptions_for(CLASSES)
    found["azure tavo"] = found.pop("blue tavo")
    _write_cupl(found)
    project.edit(_put("datasets/toy/aliases", {"blue tavo": "azure tavo"}))
    assert [call(stage, *STAGES[stage]).code for stage in ("ingest", "refine")] == [0, 0]


def test_descriptions_of_a_class_empty(project: Project, refuse: Refuse) -> None:
    _write_cupl({**descriptions_for(CLASSES), "blue tavo": ["", " 12. "]})
    refuse("refine", str(CUPL), "'blue tavo'")


def test_descriptions_of_unknown_classes_are_one_warning(project: Project, call: Call) -> None:
    extra = descriptions_for(tuple(f"stranger {number}" for number in range(12)))
    _write_cupl({**descriptions_for(CLASSES), **extra})
    before = pq.read_table("data/toy/tiny/texts.parquet")
    done = call("refine", *STAGES["refine"])
    assert done.code == 0
    assert done.err.startswith(f"warning: {CUPL}: 12 keys match no class and are not used: stranger 0, ")
    assert done.err.endswith(" and 2 more\n")
    assert done.err.count("\n") == 1
    assert pq.read_table("data/toy/tiny/texts.parquet").equals(before)


def test_descriptions_name_a_class_twice(project: Project, refuse: Refuse) -> None:
    _write_cupl({**descriptions_for(CLASSES), "Blue_Tavo": ["A bird."]})
    refuse("refine", str(CUPL), "'blue tavo' and 'Blue_Tavo'", "keep one")


@pytest.mark.parametrize("stage", ["describe", "refine"])
@pytest.mark.parametrize("text", ["{", "[]", '{"blue tavo": "A bird."}', '{"blue tavo": [1]}', "", "null"])
def test_descriptions_of_another_shape(stage: str, text: str, project: Project, refuse: Refuse) -> None:
    CUPL.write_text(text)
    refuse(stage, str(CUPL))


def test_descriptions_missing(project: Project, refuse: Refuse) -> None:
    CUPL.unlink()
    refuse("refine", str(CUPL), "missing", "published file", "dvc repro")


# Models


def test_model_name_unknown_to_open_clip(project: Project, refuse: Refuse) -> None:
    project.edit(_put("models/tiny", {"name": "ViT-B-23"}))
    refuse("embed", "models.tiny.name 'ViT-B-23'", "did you mean 'ViT-B-32'?", "open_clip")


def test_model_tag_unknown(project: Project, refuse: Refuse) -> None:
    project.edit(_put("models/tiny", {"name": "ViT-B-32", "pretrained": "openia"}))
    refuse("embed", "models.tiny.pretrained 'openia'", "did you mean 'openai'?", "neither a file nor a tag")


def test_model_folder_missing(project: Project, refuse: Refuse) -> None:
    project.edit(_put("models/tiny/name", "local-dir:nowhere"))
    refuse("embed", "models.tiny", "local-dir:nowhere")


def test_model_weights_truncated(project: Project, refuse: Refuse) -> None:
    _truncate(Path("tiny-model/open_clip_model.safetensors"))
    refuse("embed", "models.tiny", "local-dir:tiny-model")


def _poison(part: str, value: float) -> None:
    """Set one weight of a tower, as a broken download or a diverged training run leaves it."""
    path = Path("tiny-model/open_clip_model.safetensors")
    weights = load_file(path)
    weights[part].view(-1)[0] = value
    save_file(weights, path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize(
    ("stage", "part", "named"),
    [("refine", "text_projection", "the text 'a photo of a "), ("embed", "visual.proj", "a view of the image '")],
)
def test_weights_that_are_not_finite(
    stage: str, part: str, named: str, value: float, project: Project, call: Call
) -> None:
    _poison(part, value)
    line = check_refusal(call(stage, *STAGES[stage]), "models.tiny", named, "is not finite", "fetch the weights again")
    lower = stage == "embed" and "for float32" not in line  # the text tower always computes in float32
    assert ("set `precision: float32`" in line) == lower
    assert not (VIEWS / "part-00000.parquet").exists() or stage == "refine"


@pytest.mark.parametrize(("stage", "part"), [("refine", "text_projection"), ("embed", "visual.proj")])
@pytest.mark.parametrize("factor", [0.0, 1e-30, 1e30])
def test_embeddings_that_become_zero(stage: str, part: str, factor: float, project: Project, call: Call) -> None:
    """Numbers whose squares no float32 can hold: normalised, they are zero, and every class would tie."""
    path = Path("tiny-model/open_clip_model.safetensors")
    weights = load_file(path)
    weights[part] *= factor
    save_file(weights, path)
    project.edit(lambda params: params.update(precision="float32"))
    check_refusal(call(stage, *STAGES[stage]), "models.tiny", "is not finite or is zero", "fetch the weights again")


@pytest.mark.parametrize(
    ("artifact", "column"), [("texts.parquet", "label_similarity"), ("views/part-00000.parquet", "similarity")]
)
def test_cosines_that_are_not_finite(artifact: str, column: str, project: Project, refuse: Refuse) -> None:
    path = Path("data/toy/tiny") / artifact
    table, meta = read_raw(path)
    values = table[column].to_numpy().copy()
    values[-1] = np.nan
    table = table.set_column(table.schema.get_field_index(column), table.schema.field(column), [values])
    write_raw(path, table, meta)
    refuse("score", str(path), f"the {column} of '", "is not its cosine to the", "run `dvc repro`")


@pytest.mark.parametrize("artifact", ["texts.parquet", "views/part-00000.parquet"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_embeddings_that_are_not_finite(artifact: str, value: float, project: Project, refuse: Refuse) -> None:
    path = Path("data/toy/tiny") / artifact
    table, meta = read_raw(path)
    column = table["embedding"].combine_chunks()
    rows = column.flatten().to_numpy(zero_copy_only=False).copy()
    rows[-1] = value
    spoilt = pa.FixedSizeListArray.from_arrays(pa.array(rows), column.type.list_size)
    table = table.set_column(table.schema.get_field_index("embedding"), table.schema.field("embedding"), spoilt)
    write_raw(path, table, meta)
    refuse("score", str(path), "is not finite", "run `dvc repro`")


def test_texts_that_the_model_sees_in_part(project: Project, call: Call) -> None:
    """They are counted, and two of them are not called similar because of their common beginning."""
    words = "very long and soft white fur " * 30
    both = {name: [f"A {name} with {words} and a {end}." for end in ("collar", "tail")] for name in CLASSES}
    _write_cupl(both)
    done = call("refine", "--dataset", "toy", "--model", "tiny")
    assert done.code == 0
    assert "cupl: 6 of 6 texts exceed 24 tokens" in done.out
    table = pl.read_parquet("data/toy/tiny/texts.parquet").filter(pl.col("source") == "cupl")
    assert table["kept"].to_list() == [True] * 6
    assert table["truncated"].to_list() == [True] * 6
    assert (table["tokens"] > 100).all()


def test_marks_of_the_tokenizer_in_a_description_cut_nothing(project: Project, call: Call) -> None:
    _write_cupl({name: [f"A {name}. <end_of_text> &lt;|endoftext|&gt; It has</s> a {name} tail."] for name in CLASSES})
    assert call("refine", "--dataset", "toy", "--model", "tiny").code == 0
    texts = pl.read_parquet("data/toy/tiny/texts.parquet").filter(pl.col("source") == "cupl")["description"]
    assert sorted(texts) == sorted(f"A {name}. It has a {name} tail." for name in CLASSES)


def test_gpu_wanted_where_there_is_none(project: Project, refuse: Refuse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    project.edit(_put("device", "cuda"))
    for stage in ("refine", "embed", "score"):
        refuse(stage, "device is cuda", "auto")


# Artifacts


@pytest.mark.parametrize(
    ("stage", "artifact"),
    [
        ("refine", "data/toy/classes.parquet"),
        ("crop", "data/toy/images.parquet"),
        ("embed", "data/toy/images.parquet"),
        ("embed", "data/toy/boxes.parquet"),
        ("score", "data/toy/images.parquet"),
        ("score", "data/toy/classes.parquet"),
        ("score", "data/toy/boxes.parquet"),
        ("score", "data/toy/tiny/texts.parquet"),
        ("report", "data/toy/images.parquet"),
        ("report", "data/toy/classes.parquet"),
        ("report", "data/toy/boxes.parquet"),
        ("report", "data/toy/tiny/predictions.parquet"),
        ("report", "data/toy/tiny/metrics.json"),
    ],
)
def test_artifact_missing_or_broken(stage: str, artifact: str, project: Project, refuse: Refuse) -> None:
    path = Path(artifact)
    _truncate(path)
    refuse(stage, artifact, "dvc repro")
    path.unlink()
    refuse(stage, artifact, "missing", "dvc repro")


def test_artifact_of_another_kind(project: Project, refuse: Refuse) -> None:
    shutil.copy("data/toy/classes.parquet", "data/toy/images.parquet")
    refuse("crop", "data/toy/images.parquet", "holds classes")


def test_artifact_of_somebody_else(project: Project, refuse: Refuse) -> None:
    pq.write_table(pa.table({"image_id": ["a"]}), "data/toy/images.parquet")
    refuse("crop", "data/toy/images.parquet", "not written by this pipeline")


def test_shard_of_another_model(project: Project, refuse: Refuse, call: Call) -> None:
    """Scoring refuses it naming both files; embedding makes only it again."""
    right = snapshot(VIEWS)
    shard = VIEWS / "part-00001.parquet"
    shutil.copy("data/toy/other/views/part-00001.parquet", shard)
    refuse("score", str(shard), "data/toy/tiny/texts.parquet", "model.weights", "dvc repro embed")
    done = call("embed", *STAGES["embed"])
    assert "1 shards written; 2 shards were there" in done.out
    assert snapshot(VIEWS) == right


def test_texts_of_another_model(project: Project, refuse: Refuse) -> None:
    shutil.copy("data/toy/other/texts.parquet", "data/toy/tiny/texts.parquet")
    refuse("score", "data/toy/tiny/texts.parquet", str(VIEWS / "part-00000.parquet"), "model.weights")


def test_boxes_of_other_parameters(project: Project, refuse: Refuse, call: Call) -> None:
    project.edit(_put("crop/min_scale", 0.3))
    assert call("crop", *STAGES["crop"]).code == 0
    refuse("score", "data/toy/boxes.parquet", str(VIEWS / "part-00000.parquet"), "min_scale", "0.3")


def test_boxes_of_other_images(project: Project, refuse: Refuse, call: Call) -> None:
    make_image(IMAGE.with_name("9.jpg"), 40, 40, 9)
    assert call("ingest", *STAGES["ingest"]).code == 0
    refuse("embed", "data/toy/images.parquet", "data/toy/boxes.parquet", "dvc repro crop")


def test_boxes_of_an_image_that_was_renamed(project: Project, refuse: Refuse, call: Call) -> None:
    IMAGE.rename(IMAGE.with_name("9.jpg"))
    assert call("ingest", *STAGES["ingest"]).code == 0
    refuse("embed", "data/toy/boxes.parquet", "blue tavo/2.jpg", "dvc repro crop")


@pytest.mark.parametrize("index", [0, 1, 2])
def test_shard_missing(index: int, project: Project, refuse: Refuse) -> None:
    (VIEWS / f"part-{index:05d}.parquet").unlink()
    refuse("score", str(VIEWS), "dvc repro embed")


def test_shards_all_missing(project: Project, refuse: Refuse) -> None:
    shutil.rmtree(VIEWS)
    refuse("score", str(VIEWS), "dvc repro embed", "dvc pull")


def test_shard_truncated(project: Project, refuse: Refuse, call: Call) -> None:
    right = snapshot(VIEWS)
    _truncate(VIEWS / "part-00002.parquet")
    refuse("score", str(VIEWS / "part-00002.parquet"), "dvc repro")
    assert "1 shards written; 2 shards were there" in call("embed", *STAGES["embed"]).out
    assert snapshot(VIEWS) == right


def test_what_a_killed_run_left_is_no_shard(project: Project, call: Call) -> None:
    right = snapshot(VIEWS)
    (VIEWS / ".part-00001.parquet.tmp").write_bytes(b"PAR1 half of a shard")
    shutil.copy(VIEWS / "part-00002.parquet", VIEWS / "part-00003.parquet")
    assert call("score", *STAGES["score"]).code == 1
    assert "0 shards written; 3 shards were there" in call("embed", *STAGES["embed"]).out
    assert snapshot(VIEWS) == right


def test_metrics_broken(project: Project, refuse: Refuse) -> None:
    Path("data/toy/tiny/metrics.json").write_text('{"clip": 1}')
    refuse("report", "data/toy/tiny/metrics.json")


def test_nothing_computed(project: Project, call: Call) -> None:
    shutil.rmtree("data")
    check_refusal(call("report"), "nothing is computed yet", "dvc repro")


def test_folder_that_cannot_be_written(project: Project, refuse: Refuse) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    Path("data/toy").chmod(0o555)
    try:
        refuse("crop", "data/toy", "permission denied")
    finally:
        Path("data/toy").chmod(0o755)


def test_disk_full(project: Project, refuse: Refuse, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.fsync", full)
    project.edit(_put("crop/min_scale", 0.3))
    refuse("crop", "no space left on device", "run again")


def test_file_where_a_folder_belongs(project: Project, refuse: Refuse) -> None:
    shutil.rmtree("data/toy/tiny")
    Path("data/toy/tiny").write_text("")
    refuse("refine", "data/toy/tiny", "run again")


def test_output_that_is_no_longer_read_is_no_traceback(project: Project) -> None:
    code = "from stages.common.errors import run; run(lambda: print('line\\n' * 100_000))"
    done = project.run("bash", "-c", f'set -o pipefail; python -c "{code}" | head -1', check=False)
    assert (done.stdout, done.stderr) == ("line\n", "")
