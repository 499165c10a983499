"""common: params.yaml is refused in one line that names the key and what is allowed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT

from stages.common.errors import UserError
from stages.common.params import Crop, Params, Refine, Score, load_params
from stages.common.yamls import load_yaml
from stages.finer.params import load_finer_params

Raw = dict[str, Any]


def put(where: str, value: Any) -> Callable[[Raw], None]:
    """A change of one key, given by its path."""

    def change(raw: Raw) -> None:
        *sections, key = where.split("/")
        for section in sections:
            raw = raw[section]
        raw[key] = value

    return change


def remove(where: str) -> Callable[[Raw], None]:
    def change(raw: Raw) -> None:
        *sections, key = where.split("/")
        for section in sections:
            raw = raw[section]
        del raw[key]

    return change


def load_changed(folder: Path, *changes: Callable[[Raw], None]) -> Params:
    raw = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    for change in changes:
        change(raw)
    path = folder / "params.yaml"
    path.write_text(yaml.safe_dump(raw, sort_keys=False), encoding="utf-8")
    return load_params(path)


def test_the_shipped_file_loads() -> None:
    params = load_params(ROOT / "params.yaml")
    assert params.score.iou_threshold in params.crop.iou_thresholds
    assert params.refined_sources() == [name for name, kind in params.sources.items() if kind == "sentences"]


def test_the_shipped_file_states_the_papers_values_which_are_the_defaults_too() -> None:
    params = load_params(ROOT / "params.yaml")
    assert (params.refine, params.score) == (Refine(), Score())
    assert params.crop.model_copy(update={"iou_thresholds": [0.8]}) == Crop()
    assert (params.crop.candidates, params.crop.max_views) == (300, 100)
    assert (params.score.image_scale, params.score.text_scale, params.score.runs) == (4.0, 2.0, 20)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (put("sed", 1), ["sed: unknown key (did you mean 'seed'?)", "allowed here: seed, device"]),
        (put("crop/candidate", 1), ["crop.candidate: unknown key (did you mean 'candidates'?)", "max_views"]),
        (put("score/image_scale", 800.0), ["score.image_scale: ", "100"]),
        (put("score/image_scales", 1.0), ["score.image_scales: unknown key (did you mean 'image_scale'?)"]),
        (put("models/demo-clip/nam", "x"), ["models.demo-clip.nam: unknown key (did you mean 'name'?)", "activation"]),
        (put("datasets/demo/path", "x"), ["datasets.demo.path: unknown key", "allowed here: reader, root"]),
        (put("models/demo-clip/preprocess", {"means": [1, 1, 1]}), ["preprocess.means: unknown key", "mean"]),
        (remove("embed/engine"), ["embed.engine: missing"]),
        (remove("report"), ["report: missing"]),
        (put("crop/candidates", "300"), ["crop.candidates: ", "integer", "not '300'"]),
        (put("crop/candidates", 0), ["crop.candidates: ", "greater than or equal to 1", "not 0"]),
        (put("crop/candidates", 3.5), ["crop.candidates: ", "integer", "3.5"]),
        (put("score/normalize", "yes please"), ["score.normalize: ", "boolean"]),
        (put("score/normalize", 1), ["score.normalize: ", "boolean"]),
        (put("seed", True), ["seed: ", "integer"]),
        (put("seed", -1), ["seed: ", "greater than or equal to 0"]),
        (put("crop", None), ["crop: "]),
        (put("refine/cosine_threshold", 1.5), ["refine.cosine_threshold: ", "less than or equal to 1.01", "1.5"]),
        (put("refine/cosine_threshold", float("nan")), ["refine.cosine_threshold: "]),
        (put("crop/iou_thresholds", [0.8, 1.2]), ["crop.iou_thresholds.1: ", "less than or equal to 1", "1.2"]),
        (put("crop/iou_thresholds", [0.8, 0.5]), ["crop.iou_thresholds: ", "ascending"]),
        (put("crop/iou_thresholds", []), ["crop.iou_thresholds: "]),
        (put("crop/min_scale", 0.95), ["crop: ", "min_scale must not be above max_scale"]),
        (put("crop/min_scale", 0.0), ["crop.min_scale: ", "greater than 0"]),
        (
            put("score/iou_threshold", 0.85),
            ["score.iou_threshold 0.85", "crop.iou_thresholds [0.5, 0.6, 0.7, 0.8, 0.9]"],
        ),
        (put("score/views_per_run", "all"), ["score: ", "views_per_run: all", "runs must be 1"]),
        (put("score/views_per_run", 0), ["score.views_per_run: "]),
        (put("device", "gpu"), ["device: ", "'auto', 'cpu' or 'cuda'", "not 'gpu'"]),
        (put("precision", "int8"), ["precision: ", "'bfloat16'", "not 'int8'"]),
        (
            put("datasets/my birds", {"reader": "folder", "root": "x"}),
            ["my birds", "letters, digits, '_' and '-' only"],
        ),
        (put("models/a.b", {"name": "ViT-B-32"}), ["a.b", "letters, digits, '_' and '-' only"]),
        (put("sources", {"a/b": "sentences"}), ["sources.a/b", "letters, digits, '_' and '-' only"]),
        (put("sources/-x", "sentences"), ["-x", "letters, digits, '_' and '-' only"]),
        (put("sources/cupl", "prose"), ["sources.cupl: ", "'sentences' or 'descriptors'", "not 'prose'"]),
        (put("sources/label", "sentences"), ["sources", "'label'"]),
        (put("sources/waffle", "descriptors"), ["sources", "'waffle'"]),
        (
            put("refine/sources", ["cupl", "cup"]),
            ["refine.sources names 'cup'", "['cupl', 'attrvr_des', 'attrvr_dist']"],
        ),
        (put("refine/sources", ["clip-d"]), ["refine.sources names 'clip-d'"]),
        (put("refine/label_prompt", "a photo."), ["refine: ", "label_prompt must contain {name}"]),
        (put("refine/label_prompt", "a {kind} of {name}."), ["refine.label_prompt: ", "{kind}"]),
        (put("refine/label_prompt", "{name} {"), ["refine.label_prompt: ", "{name} {"]),
        (put("datasets/demo/templates", ["a {name} {x}"]), ["datasets.demo.templates", "{x}"]),
        (put("datasets/demo/templates", "/far/clip-e.json"), ["datasets.demo.templates", "put the file into"]),
        (put("datasets/demo/manifest", "/far/table.csv"), ["datasets.demo.manifest", "relative to the root"]),
        (put("datasets/demo/templates", "imagenet8"), ["datasets.demo.templates", "imagenet7 nor imagenet80", "JSON"]),
        (put("datasets/demo/aliases", {"red": "a", 3: "b"}), ["datasets.demo.aliases", 'write 3 as "3"']),
        (put("datasets/demo/crop", {"candidats": 9}), ["datasets.demo.crop.candidats: unknown key", "'candidates'"]),
        (put("datasets/demo/score", {"runs": "3"}), ["datasets.demo.score.runs: ", "integer", "not '3'"]),
        (put("datasets/demo/crop", {"min_scale": 0.95}), ["datasets.demo.crop: ", "must not be above max_scale"]),
        (
            put("datasets/demo/score", {"iou_threshold": 0.85}),
            ["datasets.demo: score.iou_threshold 0.85", "crop.iou_thresholds [0.5, 0.6, 0.7, 0.8, 0.9]"],
        ),
        (put("datasets/demo/sources", ["cup"]), ["datasets.demo.sources names 'cup'", "did you mean 'cupl'"]),
        (put("datasets/demo/refine", {"sources": ["clip-d"]}), ["datasets.demo: refine.sources names 'clip-d'"]),
        (put("models/demo-clip/activation", "relu"), ["models.demo-clip.activation: ", "'gelu' or 'quick_gelu'"]),
        (put("models/demo-clip/preprocess", {"mean": [1, 1]}), ["models.demo-clip.preprocess.mean"]),
    ],
    ids=lambda value: None if callable(value) else str(value[0])[:40],
)
def test_what_is_not_allowed_is_refused_in_one_line(
    tmp_path: Path, change: Callable[[Raw], None], expected: list[str]
) -> None:
    with pytest.raises(UserError) as refused:
        load_changed(tmp_path, change)
    message = str(refused.value)
    assert "\n" not in message
    assert message.startswith(f"{tmp_path / 'params.yaml'}: ")
    for part in expected:
        assert part in message


def test_several_mistakes_are_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(UserError) as refused:
        load_changed(tmp_path, put("crop/candidates", 0), put("sed", 1), remove("demo"))
    for part in ("crop.candidates: ", "sed: unknown key", "demo: missing"):
        assert part in str(refused.value)


@pytest.mark.parametrize("content", ["a: [", "", "- a\n- b\n", "seed: 1\n  device: x\n"])
def test_what_is_no_mapping_is_refused_in_one_line(tmp_path: Path, content: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(content)
    with pytest.raises(UserError) as refused:
        load_params(path)
    assert "\n" not in str(refused.value)
    assert str(refused.value).startswith(str(path))


def test_a_missing_file_says_where_to_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="run from the project's root folder"):
        load_params(tmp_path / "params.yaml")


def test_what_is_allowed_is_taken(tmp_path: Path) -> None:
    params = load_changed(
        tmp_path,
        put("device", "cuda"),
        put("score/views_per_run", "all"),
        put("score/runs", 1),
        put("score/iou_threshold", 0.5),
        put("refine/sources", ["attrvr_des", "cupl"]),
        put("models/b16", {"name": "ViT-B-16", "pretrained": "openai", "preprocess": {"mean": [0.5, 0.5, 0.5]}}),
        put("datasets/my_birds-2", {"reader": "folder", "root": "x", "templates": ["a {name}"]}),
    )
    assert params.device == "cuda"
    assert params.refined_sources() == ["attrvr_des", "cupl"], "in the order of the list"
    assert params.models["b16"].preprocess is not None
    assert params.models["b16"].preprocess.mean == (0.5, 0.5, 0.5)


def test_a_data_set_overrides_keys_and_restricts_sources(tmp_path: Path) -> None:
    own = {
        "reader": "folder",
        "root": "x",
        "sources": ["clip-d", "cupl"],
        "crop": {"candidates": 100, "iou_thresholds": [0.8, 0.85]},
        "refine": {"top_k": 20},
        "score": {"iou_threshold": 0.85},
    }
    params = load_changed(tmp_path, put("datasets/cub", own), put("refine/sources", ["attrvr_des", "cupl"]))
    cub, demo = params.for_dataset("cub"), params.for_dataset("demo")
    assert (cub.crop.candidates, cub.crop.max_views, cub.refine.top_k) == (100, 100, 20)
    assert cub.score.iou_threshold == 0.85
    assert list(cub.sources) == ["cupl", "clip-d"], "in the order of the section"
    assert cub.refined_sources() == ["cupl"]
    assert (demo.crop, demo.score, demo.sources) == (params.crop, params.score, params.sources)
    with pytest.raises(UserError, match=r"datasets\.cub: none of its sources .* set datasets\.cub\.refine\.sources"):
        load_changed(tmp_path, put("datasets/cub", own), put("refine/sources", ["attrvr_des"]))


def test_presets_of_the_papers_data_sets_are_allowed(tmp_path: Path) -> None:
    """As a user copies them: under `datasets` and `models`, beside what is there."""
    presets = yaml.safe_load((ROOT / "docs" / "presets.yaml").read_text(encoding="utf-8"))

    def copy(raw: dict[str, Any]) -> None:
        raw["datasets"].update(presets["datasets"])
        raw["models"].update(presets["models"])

    params = load_changed(tmp_path, copy)
    found = {key: params.for_dataset(key) for key in presets["datasets"]}
    sizes = {key: (p.crop.candidates, p.crop.max_views, p.crop.min_scale) for key, p in found.items()}
    shifted = dict.fromkeys(("imagenet_v2_wca", "imagenet_r", "imagenet_sketch", "imagenet_a"), (100, 100, 0.5))
    assert sizes == {
        "imagenet": (100, 100, 0.5),
        "imagenet_v2": (60, 200, 0.1),
        **dict.fromkeys(("cub", "oxford_pets", "dtd"), (300, 100, 0.5)),
        **dict.fromkeys(("food101", "places365"), (100, 100, 0.5)),
        "imagenet_wca": (60, 60, 0.5),
        "places365_wca": (100, 100, 0.7),
        **shifted,
    }
    for key, p in found.items():
        assert (p.crop.max_scale, p.score.views_per_run, p.score.runs) == (0.9, 60, 20)
        assert (p.score.image_scale, p.score.text_scale) == (4.0, 2.0)
        assert p.score.iou_threshold == (0.8 if key in {*shifted, "imagenet_v2"} or "_wca" in key else 0.85)
    assert "attrvr_des" not in found["cub"].sources


@pytest.mark.parametrize("section", ["datasets", "models", "sources", "finer/served"])
def test_a_key_that_is_a_number_is_taken_in_quotes(section: str, tmp_path: Path) -> None:
    """As the message advises."""
    raw = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    here = raw
    for part in section.split("/"):
        here = here[part]
    here[2024] = next(iter(here.values()))
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(raw), encoding="utf-8")
    load = load_finer_params if section.startswith("finer") else load_params
    with pytest.raises(
        UserError, match=rf"{section.replace('/', '.')}.2024: YAML reads .* 2024 \(int\); write it in quotes"
    ):
        load(path)
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace(" 2024:", ' "2024":'), encoding="utf-8")
    load(path)


def test_a_key_that_is_there_twice_is_named_with_both_lines(tmp_path: Path) -> None:
    """PyYAML would keep the second alone."""
    path = tmp_path / "params.yaml"
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    place = text.index("  demo:\n    reader: demo")
    path.write_text(text[:place] + "  demo: {reader: folder, root: x}\n" + text[place:], encoding="utf-8")
    line = text.count("\n", 0, place) + 1
    with pytest.raises(
        UserError, match=rf"the key 'demo' is there twice, at line {line} and line {line + 1}; keep one"
    ):
        load_params(path)


def test_anchors_and_merges_are_no_repetition() -> None:
    text = "a: &a {x: 1, y: 2}\nb: &b {<<: *a, x: 3}\nc: {<<: [*a, *b], y: 4}\nd: {'1': 1, 1: 2}"
    assert load_yaml(text) == yaml.safe_load(text)
