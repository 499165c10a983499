"""Closed lists of options hold exactly one right one, and examples name nothing that is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import open_clip
import pytest
import torchvision
from conftest import ROOT
from PIL import Image

from stages.common.names import spelling
from stages.demo.birds.species import SPECIES
from stages.finer import matching, options, prompts
from stages.finer.ask.questions import Question, build_questions
from stages.finer.attributes import Attributes, Concept
from stages.finer.options import listed_form
from stages.finer.params import load_finer_params
from stages.finer.score.scores import score_row
from stages.finer.unified import Sample
from stages.ingest.torchvision_readers import EUROSAT


def sample_of(folder: Path, idx: int = 0, **labels: Any) -> Sample:
    path = folder / f"{idx}.png"
    Image.new("RGB", (8, 8), (idx, 0, 0)).save(path)
    return Sample(idx, **labels, img_path=str(path), metadata={"image_id": f"{idx}.png", "label": 0})


def questions_of(*samples: Sample) -> list[Question]:
    ask = load_finer_params(ROOT / "params.yaml").finer.ask.model_copy(update={"images_per_class": None})
    return build_questions(samples, [Concept(0, "it", Attributes(["a crown"], []))], ask, 0, "toy")


def options_of(text: str) -> list[str]:
    return text.partition("Choose one of: ")[2].partition(". ")[0].split(", ")


@pytest.mark.parametrize(
    ("labels", "listed", "missing"),
    [
        # The published lists, where "Birds" stands for "bird".
        (("Bird", ["Albatross"], ["Laysan Albatross"]), "Birds", ()),
        (("dog", [], ["Shih-Tzu"]), "Dogs", ("Mammals", "Animalia")),
        (("airplane", ["Boeing"], ["737-800", "Boeing 737"]), "Airplane", ("aircraft",)),
        (("Car", ["van"], ["Audi 100 Wagon 1994"]), "Car", ("car",)),
        (("Plants", ["Tree", "Shrub"], ["Cornus alternifolia"]), "Plants", ("tree", "flower")),
        # "ani" occurs in "Animalia", "ant" in "Plants", "ray" in "Ray-finned Fishes".
        (("Bird", ["Ani"], ["Groove-billed Ani"]), "Birds", ("Animalia",)),
        (("Insects", ["Ant"], ["Formica rufa"]), "Insects", ("Plants",)),
        (("Animalia", ["Ray"], ["Raja clavata"]), "Animalia", ("Ray-finned Fishes",)),
        # Data sets of one's own: nothing that may be said of the same thing.
        (("tree", ["oak"], ["bur oak"]), "tree", ("Plants",)),
        (("pet", ["dog"], ["pug"]), "pet", ("Dogs", "Birds", "Mammals", "Animalia")),
        (("vehicle", ["bus"], ["school bus"]), "vehicle", ("Car", "Trucks", "Train")),
        (("antelope", ["gazelle"], ["dorcas gazelle"]), "antelope", ("Mammals", "Animalia", "Dogs")),
        (("cars", ["roadster"], ["Miata"]), "cars", ("Car",)),
    ],
)
def test_the_superordinate_question_has_one_right_option(
    labels: tuple[str, list[str], list[str]], listed: str, missing: tuple[str, ...], tmp_path: Path
) -> None:
    superordinate, coarse, fine = labels
    sample = sample_of(tmp_path, superordinate=superordinate, coarse=coarse, fine=fine)
    golds = matching.accepted_golds("superordinate", superordinate, coarse, fine)
    texts = {q.text for q in questions_of(sample) if q.granularity == "superordinate"}
    assert texts
    for text in texts:
        found = options_of(text)
        assert [option for option in found if matching.exact_match(option, golds)] == [listed]
        assert score_row(f"Answer: {listed}", golds, [listed_form(superordinate)])["strict_em"] == 1
        assert len(found) >= 6 and not set(missing) & set(found)


def test_a_data_set_of_several_kinds_has_one_right_option_for_each(tmp_path: Path) -> None:
    kinds = {"bird": "Birds", "tree": "tree", "land bird": "land bird"}
    for superordinate, listed in kinds.items():
        others = [
            sample_of(tmp_path, idx + 1, superordinate=other, coarse=[], fine=["other"])
            for idx, other in enumerate(kinds)
        ]
        sample = sample_of(tmp_path, superordinate=superordinate, coarse=[], fine=["it"])
        asked = [q for q in questions_of(sample, *others) if q.sample.idx == 0]
        found = options_of(next(q.text for q in asked if q.granularity == "superordinate"))
        assert [option for option in found if matching.exact_match(option, [superordinate])] == [listed]


@pytest.mark.parametrize(
    ("superordinate", "coarse", "question", "right"),
    [
        ("airplane", ["Lockheed Martin"], "What is the manufacturer of the airplane in the image?", "Lockheed Martin"),
        ("Car", ["SUV"], "What is the body style of the Car in the image?", "SUV"),
        ("Car", ["roadster"], "What is the family or type of the Car in the image?", None),
        ("bird", ["finch"], "What is the family or type of the bird in the image?", None),
    ],
)
def test_a_published_coarse_list_is_closed_where_it_has_every_label(
    superordinate: str, coarse: list[str], question: str, right: str | None, tmp_path: Path
) -> None:
    sample = sample_of(tmp_path, superordinate=superordinate, coarse=coarse, fine=["C-130"])
    texts = {(q.prompting, q.modality): q.text for q in questions_of(sample) if q.granularity == "coarse"}
    assert all(question in text for text in texts.values())
    found = options_of(texts["attrseek", "image"])
    right_ones = [option for option in found if matching.exact_match(option, [*coarse, "C-130"])]
    assert right_ones == ([right] if right else [])
    assert len(found) == {"airplane": 30, "Car": 7}.get(superordinate if right else "", 1)


def test_a_coarse_label_outside_of_the_published_list_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = {"superordinate": "car", "fine": ["it"]}
    cars = [sample_of(tmp_path, idx, coarse=[body], **labels) for idx, body in enumerate(("van", "wagon"))]
    assert not any("Choose one of" in q.text for q in questions_of(*cars) if q.granularity == "coarse")
    assert "lacks 1 of 2 coarse labels, such as 'wagon'; the question is asked without" in capsys.readouterr().err


def test_examples_name_no_class_and_no_label_of_any_data_set() -> None:
    """Against every table of names that is at hand."""
    flowers: list[str] = list(torchvision.datasets.Flowers102.classes)
    names = [*open_clip.IMAGENET_CLASSNAMES, *flowers, *(one.name for one in SPECIES), *EUROSAT.values()]
    names += [*options.ORGANISMS, *options.DOGS_AND_OTHERS, *options.OBJECTS, *options.BODIES, *options.MANUFACTURERS]
    names += [
        "bird",
        "dog",
        "aircraft",
        "pet",
        "food",
        "flower",
        "texture",
        "scene",
        "place",
        "land use",
        "living being",
    ]
    cub = ROOT.parent / "shared/cub_names.txt"
    names += cub.read_text().splitlines() if cub.exists() else []
    said = [f" {spelling(answer)} " for examples in prompts.EXAMPLES.values() for _, answer in examples]
    assert len(said) == len(set(said)) == 6
    for name in names:
        form = f" {spelling(name)} "
        assert not [answer for answer in said if answer in form or form in answer], name
