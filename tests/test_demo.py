"""The embedded demo: drawings, species, descriptions and the small model."""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from stages.common.errors import UserError
from stages.common.tokenizer import build_tokenizer
from stages.demo.birds.attributes import concepts, likely_attributes, required_attributes
from stages.demo.birds.draw import SIDE, draw_bird, write_images
from stages.demo.birds.species import ATTRIBUTES, FAMILIES, SPECIES, random_look
from stages.demo.clip.captions import FRAMES, caption, encode_facts, made_up_noun
from stages.demo.clip.train import MODEL_DIR, contrastive_loss, filler_words
from stages.demo.clip.views import visible_facts
from stages.demo.descriptions import wording
from stages.demo.descriptions.__main__ import SOURCES, descriptions
from stages.demo.others import __main__ as others
from stages.demo.others import draw

ROOT = Path(__file__).parent.parent
SHIPPED = {source: json.loads((ROOT / f"descriptions/demo/{source}.json").read_text()) for source in SOURCES}


def files_of(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def test_images_are_the_same_byte_for_byte_and_depend_on_nothing_else(tmp_path: Path) -> None:
    write_images(tmp_path / "one", seed=3, images_per_class=1)
    write_images(tmp_path / "two", seed=3, images_per_class=2)
    write_images(tmp_path / "other", seed=4, images_per_class=1)
    one, two, other = (files_of(tmp_path / name) for name in ("one", "two", "other"))
    assert one.pop("families.csv") == two.pop("families.csv") == other.pop("families.csv")
    assert len(one) == len(SPECIES)
    assert len(two) == 2 * len(SPECIES)
    assert "red-crowned_tavo/000.jpg" in one
    assert one.items() <= two.items(), "an image depends on the seed, its species and its index only"
    assert len(set(two.values())) == len(two)
    assert not set(one.values()) & set(other.values())
    with Image.open(tmp_path / "one" / "red-crowned_tavo" / "000.jpg") as image:
        assert image.size == (SIDE, SIDE)
        assert image.mode == "RGB"


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32))
def test_a_bird_is_in_the_frame_and_leaves_room_around_it(seed: int) -> None:
    rng = np.random.default_rng(seed)
    boxes = draw_bird(random_look(rng), rng).boxes
    left, top, right, bottom = boxes["whole"]
    assert left >= 0
    assert top >= 0
    assert right <= SIDE
    assert bottom <= SIDE
    assert 0.4 * SIDE < max(right - left, bottom - top) < 0.75 * SIDE
    for part in ("crown", "back", "belly", "tail", "legs", "beak"):
        a, b, c, d = boxes[part]
        assert c > a
        assert d > b
        assert a >= left
        assert b >= top
        assert c <= right
        assert d <= bottom


def test_species_are_distinct_and_many_differ_in_one_or_two_attributes() -> None:
    assert len({species.name for species in SPECIES}) == len(SPECIES) >= 25
    nearest = [min(a.differences(b) for b in SPECIES if b is not a) for a in SPECIES]
    assert min(nearest) >= 1
    assert sum(distance <= 2 for distance in nearest) > len(SPECIES) / 2
    assert {species.family for species in SPECIES} == set(FAMILIES)
    for species in SPECIES:
        assert all(getattr(species, name) in values for name, values in ATTRIBUTES.items())


def test_training_excludes_the_species_and_their_names() -> None:
    rng = np.random.default_rng(0)
    for look in (random_look(rng) for _ in range(500)):
        assert min(look.differences(species) for species in SPECIES) > 1
    nouns = {species.name.split()[-1] for species in SPECIES}
    assert not nouns & {made_up_noun(rng) for _ in range(5000)}
    assert not nouns & set(filler_words())


def test_captions_state_only_what_is_visible() -> None:
    rng = np.random.default_rng(0)
    look = random_look(rng)
    boxes = draw_bird(look, rng).boxes
    assert visible_facts(look, boxes, (0, 0, SIDE, SIDE)).keys() == ATTRIBUTES.keys()
    left, top, right, bottom = boxes["crown"]
    visible = visible_facts(look, boxes, (left - 1, top - 1, right + 1, bottom + 1))
    assert visible["crown"] == look.crown
    assert "legs" not in visible
    assert "tail" not in visible
    for _ in range(200):
        _, stated = caption(visible, ("some", "words"), rng)
        assert stated.items() <= visible.items()


def normalise(text: str) -> str:
    return re.sub(r"[^a-z ]", "", text.lower()).strip()


def template_bank() -> list[str]:
    banks = [*wording.COLOUR_SENTENCES.values(), *wording.SHAPE_SENTENCES.values()]
    sentences = [sentence for bank in banks for sentence in bank]
    short = [*wording.COLOUR_DESCRIPTORS.values(), *wording.SHAPE_DESCRIPTORS.values()]
    lists = [*wording.LOOK_SENTENCES, *wording.LIST_SENTENCES, *wording.DISTINCT_SENTENCES, *wording.VAGUE_SENTENCES]
    return [*sentences, *short, *lists]


def test_shipped_sentences_are_worded_as_no_training_caption_is() -> None:
    assert not {normalise(frame) for frame in FRAMES} & {normalise(template) for template in template_bank()}
    rng = np.random.default_rng(0)
    captions = set()
    for species in SPECIES * 500:
        text, _ = caption({name: getattr(species, name) for name in ATTRIBUTES}, (), rng)
        captions.add(normalise(text))
    shipped = {normalise(text) for texts in SHIPPED.values() for bank in texts.values() for text in bank}
    assert not captions & shipped


def test_shipped_descriptions_are_what_the_script_writes() -> None:
    assert {source: descriptions(source) for source in SOURCES} == SHIPPED


def test_shipped_attributes_are_what_the_script_writes() -> None:
    shipped = ROOT / "descriptions/demo/attributes.json"
    assert shipped.read_text() == json.dumps(concepts(), indent=2) + "\n"


def test_attributes_tell_every_look_apart_and_not_its_family() -> None:
    tavo, orrel = SPECIES[0], SPECIES[7]
    assert required_attributes(tavo) == [
        "red crown",
        "brown back and wings",
        "white belly",
        "brown tail",
        "orange legs",
        "black beak",
        "barred wings",
        "conical beak",
        "short tail",
    ]
    assert likely_attributes(tavo) == ["dark eye in a pale ring", "perched on a branch"]
    assert likely_attributes(orrel) == ["dark eye in a pale ring", "standing on the ground"]
    assert len({tuple(required_attributes(species)) for species in SPECIES}) == len(SPECIES)
    words = " ".join(phrase for species in SPECIES for phrase in required_attributes(species)).split()
    assert not {*FAMILIES} & {*words}
    for concept, species in zip(concepts(), SPECIES, strict=True):
        assert concept["name"] == species.name
        assert concept["attr_binomial"]["required"] == required_attributes(species)


def test_other_drawings_are_of_no_species_and_a_killed_run_is_made_good(tmp_path: Path) -> None:
    folder = tmp_path / "drawings"
    draw.draw_others(folder, seed=3, count=4)
    first = files_of(folder)
    assert list(first) == ["000000.jpg", "000001.jpg", "000002.jpg", "000003.jpg", "drawings.jsonl"]
    lines = [json.loads(line) for line in first["drawings.jsonl"].decode().splitlines()]
    species = {tuple(required_attributes(one)) for one in SPECIES}
    for index, line in enumerate(lines):
        assert list(line) == ["image", "superordinate", "family", "attributes", "boxes"]
        assert len(line["boxes"]) == len(line["attributes"])
        assert all(0 <= low < high <= 1 for box in line["boxes"] for low, high in zip(box[:2], box[2:], strict=True))
        assert line["image"] == f"{index:06d}.jpg"
        assert line["superordinate"] == "bird"
        assert line["family"] in FAMILIES
        assert tuple(line["attributes"]) not in species
        with Image.open(folder / line["image"]) as image:
            assert image.size == (96, 96)
            assert image.format == "JPEG"
    # What a kill leaves: no index, an image of another run, half of one under its temporary name.
    (folder / "drawings.jsonl").unlink()
    (folder / "000001.jpg").write_bytes(b"of another run")
    (folder / "000009.jpg").write_bytes(b"of a longer run")
    (folder / ".000002.jpg.tmp").write_bytes(b"half")
    (folder / "notes.txt").write_text("the user's")
    draw.draw_others(folder, seed=3, count=4)
    assert files_of(folder) == {**first, "notes.txt": b"the user's"}
    assert draw.draw_other(4, 0) != draw.draw_other(3, 0)
    assert draw.draw_other(3, 2)[0] == first["000002.jpg"], "a drawing depends on the seed and its index only"


def test_other_drawings_are_at_least_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("sys.argv", ["others", "--count", "0", "--seed", "0", "--out", str(tmp_path)])
    with pytest.raises(UserError, match="the count is at least 1"):
        others.main()


@pytest.mark.parametrize(
    ("source", "fewest", "most"), [("cupl", 26, 34), ("attrvr_des", 20, 26), ("attrvr_dist", 20, 26), ("clip-d", 5, 6)]
)
def test_every_species_has_its_descriptions(source: str, fewest: int, most: int) -> None:
    assert list(SHIPPED[source]) == [species.name for species in SPECIES]
    assert all(fewest <= len(texts) <= most for texts in SHIPPED[source].values())
    assert all("{" not in text for texts in SHIPPED[source].values() for text in texts)


def test_descriptions_repeat_themselves_but_not_only() -> None:
    texts = [text for source in SOURCES[:3] for bank in SHIPPED[source].values() for text in bank]
    repeats = Counter((name, text) for source in SOURCES[:3] for name, bank in SHIPPED[source].items() for text in bank)
    duplicates = len(texts) - len(repeats)
    assert 0.01 < duplicates / len(texts) < 0.3


def test_the_loss_is_lowest_where_every_true_pair_agrees() -> None:
    seen = torch.tensor([[0, 1], [0, 2]])
    stated = torch.tensor([[0, 1], [0, 2], [0, -1]])
    views = F.normalize(torch.tensor([[1.0, 1.0, 0.0], [1.0, 0.0, 1.0]]), dim=1)
    right = F.normalize(torch.tensor([[1.0, 2.0, 0.0], [1.0, 0.0, 2.0], [1.0, 0.5, 0.5]]), dim=1)
    good = contrastive_loss(views, right, seen, stated, 10.0)
    assert good < contrastive_loss(views, right[[1, 0, 2]], seen, stated, 10.0)


def test_facts_have_codes() -> None:
    codes = encode_facts({"crown": "red", "tail_length": "long"})
    assert codes.tolist() == [-1, 0, -1, -1, -1, -1, -1, -1, -1, 1]


@pytest.fixture(scope="module")
def model() -> Any:
    loaded, _, _ = open_clip.create_model_and_transforms(f"local-dir:{MODEL_DIR}")
    return loaded.eval()


def embed(model: Any, texts: list[str]) -> torch.Tensor:
    tokenizer = build_tokenizer(model.vocab_size, model.context_length)
    with torch.inference_mode():
        return model.encode_text(tokenizer(texts), normalize=True)


def test_the_model_is_small_and_its_log_is_whole() -> None:
    assert sum(path.stat().st_size for path in MODEL_DIR.iterdir()) < 10e6
    lines = [json.loads(line) for line in (MODEL_DIR / "training.jsonl").read_text().splitlines()]
    rounds = [line for line in lines if "seed" in line]
    assert lines[0] is rounds[0]
    assert lines[-2]["step"] == rounds[-1]["steps"]
    assert "held_out_accuracy" in lines[-1]


def test_the_model_tells_species_apart_in_words(model: Any) -> None:
    texts = embed(model, [" ".join(SHIPPED["clip-d"][species.name]) for species in SPECIES])
    assert torch.isfinite(texts).all()
    assert float(texts[0] @ texts[-1]) < 0.95


def test_descriptions_beat_names(model: Any, tmp_path: Path) -> None:
    write_images(tmp_path, seed=11, images_per_class=4)
    _, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{MODEL_DIR}", load_weights=False)
    pixels, labels = [], []
    for label, species in enumerate(SPECIES):
        for path in sorted((tmp_path / species.name.replace(" ", "_")).iterdir()):
            pixels.append(preprocess(Image.open(path)))
            labels.append(label)
    with torch.inference_mode():
        images = model.encode_image(torch.stack(pixels), normalize=True)
    names = embed(model, [f"a photo of a {species.name}." for species in SPECIES])
    means = torch.stack([embed(model, SHIPPED["cupl"][species.name]).mean(dim=0) for species in SPECIES])
    by_name, by_description = (
        ((images @ F.normalize(texts, dim=1).T).argmax(dim=1) == torch.tensor(labels)).float().mean().item()
        for texts in (names, means)
    )
    assert by_description > 0.55
    assert by_description > by_name + 0.25
