"""toy: the lessons' wording, several dialogues in one row, the eyes' targets, and a run that is broken off."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from artifact_files import filled
from conftest import ROOT, Call, make_image
from finer_models import TINY
from torch import Tensor
from transformers import AutoModelForImageTextToText, AutoProcessor

from stages.common.artifacts import CLASSES, ClassesParameters
from stages.common.paths import classes
from stages.common.tables import make_meta, write_table
from stages.demo.toy import train as toy_train
from stages.demo.toy.data import Dialogue, Drawing, Lessons, Species, read_drawings
from stages.demo.toy.model import Size, build_model, build_processor, build_tokenizer
from stages.demo.toy.sight import Targets, inside, shaken, sight_loss
from stages.demo.toy.talk import NAME_WEIGHT, Packer, talk_loss
from stages.finer import paths, prompts
from stages.finer.attributes import Attributes, Concept, write_attributes
from stages.finer.prompts import PHRASINGS

TARGET = paths.MODELS / "toy"
COLOURS = ("red", "white", "black")
PARTS = ("crown", "belly", "tail", "legs", "beak")


def attributes(rng: np.random.Generator) -> tuple[str, ...]:
    return tuple(f"{rng.choice(COLOURS)} {part}" for part in PARTS)


def some_drawings(count: int, folder: Path) -> list[Drawing]:
    rng = np.random.default_rng(0)
    boxes = tuple((0.1 * place, 0.2, 0.1 * place + 0.3, 0.6) for place in range(len(PARTS)))
    return [
        Drawing(folder / f"{index}.png", "bird", ("finch", "wader")[index % 2], attributes(rng), boxes)
        for index in range(count)
    ]


SPECIES = [
    Species("red tavo", "bird", "finch", ("red crown", "red belly", "red tail", "red legs", "red beak")),
    Species("black tavo", "bird", "finch", ("black crown", "red belly", "red tail", "red legs", "red beak")),
    Species("great orrel", "bird", "wader", ("white crown", "white belly", "black tail", "red legs", "red beak")),
]


@pytest.fixture
def lessons(tmp_path: Path) -> Lessons:
    return Lessons(some_drawings(30, tmp_path), SPECIES)


def many(lessons: Lessons, count: int = 300) -> list[tuple[Drawing, Dialogue]]:
    drawings = some_drawings(6, Path())
    rng = np.random.default_rng(1)
    return [
        (drawing, dialogue)
        for index in range(count)
        for drawing in [drawings[index % 6]]
        for dialogue in lessons.about(drawing, rng)
    ]


# Lessons.


def test_lessons_are_worded_as_the_questions_of_the_benchmark(lessons: Lessons) -> None:
    """Every question of a lesson is one that `prompts` or the mixture makes, of a family or a species that is known."""
    families = [prompts.NOTHING, "bird", "finch", "wader"]
    known = {prompts.seek(parent) for parent in families}
    known |= {question.format(parent=parent) for parent in families for question in PHRASINGS["attributes"]}
    for way in ("plain", "cot", "few-shot-cot"):
        known.add(prompts.question("superordinate", way, "image", None, lessons.options))
        known.add(prompts.question("coarse", way, "image", "bird"))
    known |= {prompts.decide("superordinate", None, lessons.options), prompts.decide("coarse", "bird")}
    known |= {prompts.decide("fine", family) for family in families[2:]}
    for _, dialogue in many(lessons):
        for question, _, _ in dialogue.turns:
            assert question in known or (question.count("Taxonomy: bird, ") == 1 and not dialogue.image)


def test_no_image_is_ever_said_to_be_of_a_species(lessons: Lessons) -> None:
    """A species is named where its attributes are told in words: with no image, or over one, in the turn before."""
    for drawing, dialogue in many(lessons):
        for turn, (question, answer, learnt) in enumerate(dialogue.turns):
            named = [one for one in SPECIES if answer.endswith(f"Answer: {one.name}")]
            if named and dialogue.image:
                assert turn == 1 and question == prompts.decide("fine", named[0].family)
                assert not dialogue.turns[0][2]  # the attributes, which are not the image's, are not learnt
            if learnt and not named and dialogue.image and "Answer" not in answer:
                assert answer == "; ".join(drawing.attributes)


def test_spoilt_attributes_still_mean_their_species(lessons: Lessons) -> None:
    rng = np.random.default_rng(3)
    changed = 0
    for one in SPECIES * 60:
        told = lessons.spoilt(one, rng)
        shared = {
            other.name: sum(a == b for a, b in zip(told, other.attributes, strict=True))
            for other in SPECIES
            if other.family == one.family
        }
        assert all(shared[one.name] > count for name, count in shared.items() if name != one.name)
        changed += told != list(one.attributes)
    assert changed > 20


# Several dialogues in one row.


@pytest.fixture(scope="module")
def tiny() -> tuple[Any, Any]:
    texts = list(Lessons(some_drawings(9, Path()), SPECIES).texts())
    size = Size(**{**TINY.__dict__, "vocabulary": 600})
    tokenizer = build_tokenizer(texts, size.vocabulary, size.context)
    return build_model(tokenizer, size, 1), build_processor(tokenizer, size)


def chat(dialogue: Dialogue) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = []
    for question, answer, _ in dialogue.turns:
        shown = [{"type": "image"}] if dialogue.image and not messages else []
        messages.append({"role": "user", "content": [*shown, {"type": "text", "text": question}]})
        messages.append({"role": "assistant", "content": [{"type": "text", "text": answer}]})
    return messages


def test_dialogues_in_one_row_are_answered_as_each_alone(tiny: tuple[Any, Any], lessons: Lessons) -> None:
    """The packed loss against that of each conversation as the chat template renders it, with the whole model."""
    model, processor = tiny
    found = [dialogue for _, dialogue in many(lessons, 60)]
    kinds = [(True, 1), (True, 2), (False, 1)]
    some = [[one for one in found if (one.image, len(one.turns)) == kind][:3] for kind in kinds]
    dialogues = [one for own in zip(*some, strict=True) for one in own]
    assert len(dialogues) == 9
    pixels = torch.randn(2, 3, TINY.image, TINY.image, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        features = model.model.vision_tower(pixels, output_hidden_states=True).hidden_states[-2][:, 1:]
        rows = Packer(processor.tokenizer, 4).pack([dialogues[:5], dialogues[5:]])
        packed = talk_loss(model, features, rows)
        losses: list[Tensor] = []
        weights: list[float] = []
        for index, dialogue in enumerate(dialogues):
            text = processor.apply_chat_template(chat(dialogue), tokenize=False).replace("<image>", "<image>" * 4)
            ids = torch.tensor([processor.tokenizer(text)["input_ids"]])
            given = {"pixel_values": pixels[index // 5][None]} if dialogue.image else {}
            logits = model(input_ids=ids, **given).logits[0]
            for place, weight in learnt_places(processor, dialogue):
                losses.append(weight * torch.nn.functional.cross_entropy(logits[place - 1], ids[0, place]))
                weights.append(weight)
    assert int((rows.weights > 0).sum()) == len(losses)
    torch.testing.assert_close(packed, torch.stack(losses).sum() / sum(weights), atol=1e-5, rtol=1e-5)


def learnt_places(processor: Any, dialogue: Dialogue) -> list[tuple[int, float]]:
    """Where the learnt answers are in the conversation, counted turn by turn, and what each token counts."""
    count, places = 0, []
    for turn, (question, answer, learnt) in enumerate(dialogue.turns):
        images = "<image>" * 4 if dialogue.image and turn == 0 else ""
        count += len(processor.tokenizer(f"<|user|>{images}{question}<|end|><|assistant|>")["input_ids"])
        length = len(processor.tokenizer(f"{answer}<|end|>")["input_ids"])
        _, answered, name = answer.partition("Answer:")
        last = len(processor.tokenizer(f"{answered}{name}<|end|>")["input_ids"]) if answered else 0
        weights = [1.0] * (length - last) + [NAME_WEIGHT] * last
        places += [(count + place, weight) for place, weight in enumerate(weights) if learnt]
        count += length
    return places


# Eyes.


def test_the_tower_without_its_last_layer_is_what_the_projector_sees(tiny: tuple[Any, Any]) -> None:
    model, _ = tiny
    tower = model.model.vision_tower
    pixels = torch.randn(2, 3, TINY.image, TINY.image)
    with torch.no_grad():
        expected = tower(pixels, output_hidden_states=True).hidden_states[-2]
        with toy_train.as_the_projector_sees(tower):
            torch.testing.assert_close(tower(pixels).last_hidden_state, expected)
        assert len(tower.encoder.layers) == TINY.vision_layers


def test_patches_that_touch_a_box() -> None:
    boxes = torch.tensor([[[0.0, 0.0, 0.2, 0.2], [0.3, 0.0, 0.7, 1.0], [0.9, 0.6, 1.0, 0.9]]])
    grids = inside(boxes, 4)[0].T.reshape(3, 4, 4).int().tolist()
    assert grids[0] == [[1, 0, 0, 0], [0] * 4, [0] * 4, [0] * 4]
    assert grids[1] == [[0, 1, 1, 0]] * 4
    assert grids[2] == [[0] * 4, [0] * 4, [0, 0, 0, 1], [0, 0, 0, 1]]


def test_boxes_move_with_what_they_are_around() -> None:
    """A white square in the middle of its box, however the image is mirrored and moved."""
    images, boxes = torch.zeros(40, 3, 32, 32), torch.zeros(40, 1, 4)
    for index in range(40):
        x, y = 8 + index % 16, 8 + index // 3
        images[index, :, y : y + 2, x : x + 2] = 1
        boxes[index, 0] = torch.tensor([x - 1, y - 1, x + 3, y + 3]) / 32
    moved, around = shaken(images, boxes, np.random.default_rng(0))
    mirrored = 0
    for index in range(40):
        rows, columns = moved[index, 0].nonzero().float().mean(dim=0).add(0.5).tolist()
        left, top, right, bottom = (around[index, 0] * 32).tolist()
        assert (columns, rows) == pytest.approx(((left + right) / 2, (top + bottom) / 2), abs=1e-3)
        mirrored += abs(columns - (8 + index % 16 + 1)) > 7
    assert mirrored


def test_looking_in_the_right_place_costs_less() -> None:
    codes, where = torch.zeros(1, 1, dtype=torch.long), torch.tensor([[[True], [False]]])
    logits = [torch.zeros(1, 2)]
    right, wrong = (torch.tensor([[[share], [1 - share]]]) for share in (0.9, 0.1))
    assert sight_loss(logits, right, codes, where) < sight_loss(logits, wrong, codes, where)
    assert sight_loss([torch.tensor([[5.0, 0.0]])], right, codes, where) < sight_loss(logits, right, codes, where)


def test_without_boxes_anywhere_will_do() -> None:
    drawing = Drawing(Path("a"), "bird", "finch", ("red crown", "red belly"))
    assert Targets([drawing]).boxes.tolist() == [[[0, 0, 1, 1]] * 3]


# The stage.


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Twelve drawings, three species, a model of a few thousand weights, and a handful of steps."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("stages.demo.toy.train.Size", lambda: Size(**{**TINY.__dict__, "vocabulary": 400}))
    monkeypatch.setattr(toy_train, "SAVE_EVERY", 2)
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["finer"]["toy"] = {"drawings": 12, "steps": 5, "batch_size": 4, "learning_rate": 0.01}
    Path("params.yaml").write_text(yaml.safe_dump({**params, "device": "cpu"}))
    lines = []
    for index, drawing in enumerate(some_drawings(12, paths.DRAWINGS)):
        make_image(drawing.image, 40, 40, index)
        line = {"image": drawing.image.name, "superordinate": "bird", "family": drawing.family}
        lines.append(json.dumps({**line, "attributes": drawing.attributes, "boxes": drawing.boxes}))
    (paths.DRAWINGS / "drawings.jsonl").write_text("\n".join(lines))
    concepts = [
        Concept(index, one.name, Attributes(list(one.attributes), ["small"])) for index, one in enumerate(SPECIES)
    ]
    write_attributes(paths.attributes_by_class("demo"), concepts)
    write_classes(["finch", "finch", "wader"])
    return tmp_path


def write_classes(families: list[str | None]) -> None:
    table = filled(
        CLASSES,
        {
            "label": [0, 1, 2],
            "name": [one.name for one in SPECIES],
            "superordinate": ["bird"] * 3,
            "coarse": [[family] if family else [] for family in families],
        },
    )
    write_table(classes("demo"), table, make_meta(CLASSES, "demo", ClassesParameters()))


def weights() -> bytes:
    return (TARGET / "model.safetensors").read_bytes()


def test_the_model_is_a_checkpoint_that_sees_as_many_patches_as_its_text_has_tokens(project: Path, call: Call) -> None:
    outcome = call("demo.toy")
    assert outcome.code == 0, outcome.err
    model: Any = AutoModelForImageTextToText.from_pretrained(TARGET)
    processor = AutoProcessor.from_pretrained(TARGET)
    message = {"role": "user", "content": [{"type": "image", "image": str(paths.DRAWINGS / "0.png")}, *part("Who?")]}
    batch = processor.apply_chat_template(
        [message], add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )
    assert int((batch["input_ids"] == model.config.image_token_id).sum()) == 4
    answer = model.generate(**batch, do_sample=False, max_new_tokens=5)
    assert answer.shape[1] > batch["input_ids"].shape[1]
    assert model.generation_config.eos_token_id == processor.tokenizer.eos_token_id
    losses = json.loads((TARGET / "training.json").read_text())
    assert [(entry["phase"], entry["step"]) for entry in losses] == [("see", 5), ("answer", 5)]


def part(text: str) -> list[dict[str, str]]:
    return [{"type": "text", "text": text}]


def test_a_finished_run_is_not_run_again_until_something_changes(project: Path, call: Call) -> None:
    call("demo.toy")
    before = weights()
    assert "already" in call("demo.toy").out
    path = paths.DRAWINGS / "drawings.jsonl"
    path.write_text(path.read_text().replace("red crown", "white crown", 1))
    assert "already" not in call("demo.toy").out
    assert weights() != before


@pytest.mark.parametrize("phase", ["see", "answer"])
def test_a_run_that_is_broken_off_goes_on_and_ends_with_the_same_weights(
    project: Path, call: Call, monkeypatch: pytest.MonkeyPatch, phase: str
) -> None:
    assert call("demo.toy").code == 0
    expected, curve = weights(), (TARGET / "training.json").read_bytes()
    shutil.rmtree(TARGET)
    steps: list[int] = []

    def broken(name: str, module: Any, loss_at: Any, *rest: Any) -> None:
        def counted(step: int) -> Tensor:
            steps.append(step)
            if name == phase and len(steps) > 3 and step == 3:
                raise KeyboardInterrupt
            return loss_at(step)

        fit(name, module, counted, *rest)

    fit = toy_train.fit
    monkeypatch.setattr(toy_train, "fit", broken)
    assert call("demo.toy").code == 130
    assert not TARGET.exists()
    monkeypatch.setattr(toy_train, "fit", fit)
    again: list[int] = []
    monkeypatch.setattr(toy_train, "generator", noting(again, toy_train.generator))
    assert call("demo.toy").code == 0
    assert again[0] == 2  # saved after two steps, broken off in the fourth
    assert weights() == expected
    assert (TARGET / "training.json").read_bytes() == curve
    assert not toy_train.UNFINISHED.exists()


def noting(steps: list[int], generator: Any) -> Any:
    def noted(seed: int, *names: str) -> Any:
        steps.append(int(names[-1]))
        return generator(seed, *names)

    return noted


def test_missing_drawings_are_one_line(project: Path, call: Call) -> None:
    (paths.DRAWINGS / "drawings.jsonl").unlink()
    outcome = call("demo.toy")
    assert outcome.code == 1 and "error: data/finer/drawings/drawings.jsonl is missing" in outcome.err


def test_a_damaged_drawing_is_named(project: Path, call: Call) -> None:
    (paths.DRAWINGS / "3.png").write_bytes(b"")
    outcome = call("demo.toy")
    assert outcome.code == 1 and "drawings/3.png: not an image (empty file)" in outcome.err


def test_a_class_without_a_family_is_named(project: Path, call: Call) -> None:
    write_classes(["finch", None, "wader"])
    outcome = call("demo.toy")
    assert outcome.code == 1 and "class 'black tavo' of demo has no coarse" in outcome.err


def test_a_list_that_is_no_list_of_drawings_is_named(project: Path) -> None:
    (paths.DRAWINGS / "drawings.jsonl").write_text('{"image": "0.png"}\n')
    with pytest.raises(Exception, match="is not a list of drawings"):
        read_drawings(paths.DRAWINGS)


def test_a_missing_package_is_one_line(project: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    outcome = call("demo.toy")
    assert outcome.code == 1 and "error: toy needs transformers; pip install -r requirements-finer.txt" in outcome.err
