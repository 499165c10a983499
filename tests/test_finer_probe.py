"""probe: finds what is in the features, misses what the projector destroyed, and treats both sides alike."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from artifact_files import filled
from conftest import ROOT, Call, make_image
from finer_models import make_tiny_llava
from transformers import CLIPVisionConfig, LlamaConfig, LlavaNextConfig, LlavaNextForConditionalGeneration
from transformers.models.llava_next import LlavaNextImageProcessor

from stages.common.artifacts import CLASSES, ClassesParameters
from stages.common.digests import DIGEST, signed
from stages.common.errors import UserError
from stages.common.paths import classes
from stages.common.tables import make_meta, write_table
from stages.finer import paths
from stages.finer.llava import Llava, load_llava
from stages.finer.params import Probe
from stages.finer.probe.features import extract
from stages.finer.probe.mlp import accuracy, difference, probe_features, standardised
from stages.finer.unified import Sample, sample_metadata, write_unified

PROBE = Probe(epochs=20, seeds=3, hidden=32, learning_rate=0.01, batch_size=16)
NAMES = ("red", "green", "blue")


def planted(count: int, width: int, strength: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Noise in which, at this strength, one of three classes is planted: features [count, width] and labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, count)
    where = np.random.default_rng(1).normal(size=(3, width))
    return (rng.normal(size=(count, width)) + strength * where[labels]).astype(np.float32), labels


def test_the_probe_finds_planted_information_and_none_where_there_is_none() -> None:
    before, labels = planted(300, 16, 2.0, seed=0)
    after = np.zeros((300, 24), dtype=np.float32)  # a projector that destroys everything
    found = probe_features((before, after), labels, np.arange(300) < 200, PROBE, 0, "demo")
    chance = 100 * np.bincount(labels[200:]).max() / 100
    assert found["before"]["mean"] > 95
    assert found["after"]["mean"] <= chance == found["chance"]
    assert found["difference"]["high"] < -40
    assert found["images"] == {"train": 200, "test": 100}


def test_the_same_features_on_both_sides_make_no_difference() -> None:
    """Trained alike: the same first weights, batches and epochs, run by run."""
    features, labels = planted(200, 12, 0.4, seed=2)
    found = probe_features((features, features.copy()), labels, np.arange(200) < 100, PROBE, 0, "demo")
    assert found["before"] == found["after"]
    assert found["difference"] == {"mean": 0.0, "std": 0.0, "low": 0.0, "high": 0.0}
    assert len(found["before"]["runs"]) == PROBE.seeds


def test_scale_and_offset_of_features_do_not_matter() -> None:
    features, labels = planted(200, 12, 0.5, seed=3)
    moved = features * np.float32(1000) + np.float32(50)
    found = probe_features((features, moved), labels, np.arange(200) < 100, PROBE, 0, "demo")
    assert abs(found["difference"]["mean"]) <= 2


def test_standardised_by_the_training_images_alone() -> None:
    train = np.array([[0.0, 5.0], [2.0, 5.0]], dtype=np.float32)
    test = np.array([[3.0, 7.0]], dtype=np.float32)
    scaled, other = standardised(train, test)
    assert scaled.tolist() == [[-1, 0], [1, 0]]
    assert other.tolist() == [[2, 0]]  # a column that did not vary says nothing


def test_runs_differ_and_each_can_be_repeated() -> None:
    train, labels = planted(60, 8, 0.3, seed=4)
    test, expected = planted(200, 8, 0.3, seed=5)
    runs = [accuracy(train, labels, test, expected, PROBE, 0, ("demo", str(run))) for run in (0, 1, 2, 0)]
    assert runs[0] == runs[3]
    assert len(set(runs[:3])) > 1


def test_the_interval_of_the_difference_by_hand() -> None:
    # Differences -2, -4, -6: mean -4, deviation 2, t of 2 degrees of freedom 4.3027, half width 4.3027 * 2 / sqrt(3).
    found = difference([50.0, 60.0, 70.0], [48.0, 56.0, 64.0])
    assert found == {"mean": -4.0, "std": 2.0, "low": -8.9683, "high": 0.9683}
    assert difference([50.0], [40.0]) == {"mean": -10.0, "std": 0.0, "low": -10.0, "high": -10.0}


# Features.


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_llava(tmp_path_factory.mktemp("llava") / "tiny", seed=5)


def load(folder: Path) -> Llava:
    return load_llava(str(folder), torch.device("cpu"), torch.float32, "test")


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    files = [tmp_path / f"{index}.png" for index in range(20)]
    for index, path in enumerate(files):
        make_image(path, 40 + 5 * index, 60, index)
    return files


def test_features_are_those_of_the_second_to_last_layer_without_the_class_token(
    tiny: Path, pictures: list[Path]
) -> None:
    from stages.common.images import open_rgb

    llava = load(tiny)
    before, after = extract(llava, pictures)
    batch = llava.processor.image_processor([open_rgb(path) for path in pictures], return_tensors="pt")
    tower, projector = llava.model.model.vision_tower, llava.model.model.multi_modal_projector
    with torch.no_grad():
        layers = tower(batch["pixel_values"], output_hidden_states=True).hidden_states
        patches = layers[-2][:, 1:]
        shown = projector(patches).mean(dim=1)
    assert len(layers) == 4  # embeddings and three layers
    np.testing.assert_allclose(before, patches.mean(dim=1).numpy(), atol=1e-5)
    np.testing.assert_allclose(after, shown.numpy(), atol=1e-5)
    assert before.shape == (20, 16) and after.shape == (20, 32)


def test_features_that_are_not_finite_are_refused(tiny: Path, pictures: list[Path]) -> None:
    llava = load(tiny)
    with torch.no_grad():
        next(llava.model.model.multi_modal_projector.parameters()).view(-1)[0] = torch.nan
    with pytest.raises(UserError, match=r"0\.png are not finite \(and 1 others\)\. The model's weights hold NaN"):
        extract(llava, pictures[:2])


def test_tiles_of_llava_next_are_pooled_as_well(tmp_path: Path, pictures: list[Path]) -> None:
    vision = CLIPVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=3, num_attention_heads=2, image_size=32, patch_size=16
    )
    text = LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=2,
    )  # fmt: skip
    config = LlavaNextConfig(
        vision_config=vision, text_config=text, image_token_index=1, image_grid_pinpoints=[[32, 64], [64, 32]]
    )
    model = LlavaNextForConditionalGeneration(config).eval()
    images = LlavaNextImageProcessor(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}, image_grid_pinpoints=[[32, 64], [64, 32]]
    )

    class Processor:
        image_processor = images

    before, after = extract(Llava(model, Processor()), pictures[:3])
    assert before.shape == (3, 16) and after.shape == (3, 32)
    assert np.isfinite(before).all() and len(np.unique(before[:, 0])) == 3


# The stage.


@pytest.fixture
def project(tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose images are of three plain colours, which even random weights can tell apart."""
    monkeypatch.chdir(tmp_path)
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["finer"].update(served={"toy": "data/finer/models/toy"})
    params["finer"]["probe"].update(PROBE.model_dump())
    Path("params.yaml").write_text(yaml.safe_dump({**params, "device": "cpu"}))
    from PIL import Image

    table = filled(CLASSES, {"label": [0, 1, 2], "name": list(NAMES)})
    write_table(classes("demo"), table, make_meta(CLASSES, "demo", ClassesParameters()))
    shutil.copytree(tiny, paths.MODELS / "toy")
    rng = np.random.default_rng(0)
    samples: dict[str, list[Sample]] = {paths.TRAIN: [], paths.TEST: []}
    for index in range(36):
        label = index % 3
        colour = np.full(3, 40)
        colour[label] = 200
        path = Path("images") / f"{index}.png"
        path.parent.mkdir(exist_ok=True)
        noise = rng.integers(-30, 30, (32, 32, 3))
        Image.fromarray((colour + noise).astype(np.uint8)).save(path)
        split = paths.TRAIN if index < 24 else paths.TEST
        samples[split].append(
            Sample(
                index,
                "colour",
                [],
                [NAMES[label]],
                str(path),
                sample_metadata("demo", str(index), label, NAMES[label], ""),
            )
        )
    for split, own in samples.items():
        write_unified(paths.unified("demo", split), own)
    return tmp_path


def test_the_stage_writes_the_same_figures_each_time(project: Path, call: Call) -> None:
    outcome = call("finer.probe", "--lvlm", "toy")
    assert outcome.code == 0, outcome.err
    path = paths.PROBE / "toy" / "demo.json"
    text = path.read_text()
    found = json.loads(text)
    assert (found["model"], found["dataset"], found["images"]) == ("toy", "demo", {"train": 24, "test": 12})
    assert found["before"]["mean"] == 100.0 and found["chance"] == pytest.approx(33.3333)
    path.unlink()
    call("finer.probe")
    assert path.read_text() == text
    path.write_text(text.replace("100.0", "99.0"))
    call("finer.probe")
    assert path.read_text() == text, "a changed figure is made again"
    del found[DIGEST]
    other = signed(found | {"before": found["before"] | {"mean": 99.0}})
    path.write_text(json.dumps(other))  # what is there of the same weights and images is not made again
    assert "accuracy 99.0 before" in call("finer.probe", "--lvlm", "toy").out


def test_a_data_set_without_images_to_train_on_is_left_out_with_a_line(project: Path, call: Call) -> None:
    paths.unified("demo", paths.TRAIN).write_text("")
    outcome = call("finer.probe")
    assert (outcome.code, outcome.out) == (0, "probe toy demo: left out, it has no images to train on\n")
    assert not (paths.PROBE / "toy" / "demo.json").exists()


def test_a_checkpoint_of_another_architecture_is_left_out_with_a_line(project: Path, call: Call) -> None:
    config = paths.MODELS / "toy" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"model_type": "qwen2_vl"}))
    outcome = call("finer.probe")
    assert (outcome.code, outcome.out) == (
        0,
        "probe: toy is left out, which is not of the LLaVA architecture\n",
    )


def test_a_projector_of_zeros_shows_the_language_model_nothing(project: Path, call: Call) -> None:
    folder = paths.MODELS / "toy"
    llava = load(folder)
    with torch.no_grad():
        for parameter in llava.model.model.multi_modal_projector.parameters():
            parameter.zero_()
    llava.model.save_pretrained(folder)
    assert call("finer.probe", "--lvlm", "toy").code == 0
    found = json.loads((paths.PROBE / "toy" / "demo.json").read_text())
    assert found["before"]["mean"] == 100.0
    assert found["after"]["mean"] == found["chance"]


def test_an_endpoint_cannot_be_probed(project: Path, call: Call) -> None:
    params = yaml.safe_load(Path("params.yaml").read_text())
    params["finer"]["endpoints"] = {"gpt": {"model": "gpt-4o-mini"}}
    Path("params.yaml").write_text(yaml.safe_dump(params))
    outcome = call("finer.probe", "--lvlm", "gpt")
    assert outcome.code == 1 and "error: probe: gpt is an endpoint" in outcome.err


def test_an_image_that_cannot_be_read_is_named(project: Path, call: Call) -> None:
    Path("images/7.png").write_bytes(b"no image")
    outcome = call("finer.probe", "--lvlm", "toy")
    assert outcome.code == 1 and "error: probe: image images/7.png: not an image" in outcome.err


def test_a_missing_model_is_named(project: Path, call: Call) -> None:
    shutil.rmtree(paths.MODELS / "toy")
    outcome = call("finer.probe", "--lvlm", "toy")
    assert outcome.code == 1 and "error: probe: no model folder data/finer/models/toy" in outcome.err
