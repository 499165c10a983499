"""FINER's instruction-tuning mixture: phrasings, conversations, what is chosen, held out and left out."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pyarrow.parquet as pq
import pytest
from conftest import Call, Project
from finer_project import NAMES, make_labelled, write_attributes_file
from hypothesis import given
from hypothesis import strategies as st

from stages.common.digests import DIGEST
from stages.common.errors import UserError
from stages.common.seeding import generator
from stages.finer import artifacts, prompts
from stages.finer.attributes import Attributes, Concept
from stages.finer.mixture.conversations import (
    IMAGE,
    attribute_conversation,
    chat_row,
    direct_conversation,
    read_mix,
)
from stages.finer.mixture.selection import Class, choose, classes_of, groups_of, held_out_classes
from stages.finer.mixture.write import dataset_conversations
from stages.finer.prompts import PHRASINGS
from stages.finer.unified import Sample, read_unified, write_unified

REQUIRED = ["red crown", "short tail"]


def sample(idx: int, label: int = 0, coarse: tuple[str, ...] = ("finch",)) -> Sample:
    metadata = {"image_id": f"{idx}.jpg", "label": label, "class": f"class {label}"}
    return Sample(idx, "bird", list(coarse), [f"class {label}"], f"root/{idx}.jpg", metadata)


def classes(count: int, *superordinates: str, required: list[list[str]] | None = None) -> list[Class]:
    above, names = superordinates or ("bird",), [f"class {label}" for label in range(count)]
    attributes = required or [[f"crown of {label}"] for label in range(count)]
    return [Class(name, name, above[n % len(above)], attributes[n]) for n, name in enumerate(names)]


def values(entry: dict[str, Any]) -> list[str]:
    return [turn["value"] for turn in entry["conversations"]]


# Phrasings


@pytest.mark.parametrize("slot", ["coarse", "attributes", "fine", "direct"])
def test_every_slot_has_15_to_20_phrasings_that_name_the_parent_label(slot: str) -> None:
    assert 15 <= len(PHRASINGS[slot]) == len(set(PHRASINGS[slot])) <= 20
    for text in PHRASINGS[slot]:
        assert re.findall(r"\{.*?\}", text) == ["{parent}"]
        assert IMAGE not in text


def test_the_first_phrasing_is_the_benchmark_s_own_question() -> None:
    asked = {slot: options[0].replace("{parent}", "finch") for slot, options in PHRASINGS.items()}
    assert asked == {
        "coarse": prompts.question("coarse", "plain", "image", "finch"),
        "attributes": prompts.seek("finch"),
        "fine": prompts.decide("fine", "finch"),
        "direct": prompts.question("fine", "plain", "image", "finch"),
    }


# Conversations


@given(st.integers(0, 2**32), st.lists(st.sampled_from(["finch", "small bird", "song bird"]), unique=True))
def test_conversations_have_their_turns_and_one_image_token_in_the_first(seed: int, coarse: list[str]) -> None:
    rng = generator(seed)
    three = attribute_conversation("x-1", sample(1, coarse=tuple(coarse)), REQUIRED, rng)
    one = direct_conversation("x-1", sample(1, coarse=tuple(coarse)), rng)
    assert len(three["conversations"]) == (6 if coarse else 4)
    assert len(one["conversations"]) == 2
    for entry in (three, one):
        assert (entry["id"], entry["image"]) == ("x-1", "root/1.jpg")
        assert [turn["from"] for turn in entry["conversations"]] == ["human", "gpt"] * (
            len(entry["conversations"]) // 2
        )
        first, *rest = values(entry)
        assert first.startswith(f"{IMAGE}\n") != first.endswith(f"\n{IMAGE}")
        assert first.count(IMAGE) == 1
        assert not any(IMAGE in text for text in rest)
    *above, attributes_question, attributes, fine_question, fine = values(three)
    assert (attributes, fine) == ("red crown; short tail", "Answer: class 0")
    told = above[1].removeprefix("Answer: ") if coarse else "bird"
    assert told in (coarse or ["bird"]), "one coarse label"
    assert told in attributes_question
    assert told in fine_question, "and it is kept"
    assert values(one)[1] == "Answer: class 0"


def test_conversation_by_hand() -> None:
    entry = attribute_conversation("demo-3", sample(3), REQUIRED, generator(0))
    question = values(entry)[0].replace(IMAGE, "").strip()
    assert question in [option.replace("{parent}", "bird") for option in PHRASINGS["coarse"]]
    assert values(entry)[1] == "Answer: finch"


def test_the_image_stands_first_as_often_as_last_and_every_phrasing_and_coarse_label_is_drawn() -> None:
    first, questions, told = Counter[bool](), Counter[str](), Counter[str]()
    for seed in range(600):
        entry = attribute_conversation("x", sample(1, coarse=("finch", "songbird")), REQUIRED, generator(seed))
        first[values(entry)[0].startswith(IMAGE)] += 1
        told[values(entry)[1]] += 1
        questions[values(entry)[4]] += 1
    assert 250 < first[True] < 350
    assert 250 < told["Answer: finch"] < 350
    assert len(questions) == 2 * len(PHRASINGS["fine"])


@given(st.integers(0, 2**32))
def test_chat_messages_say_the_same_and_keep_the_image_where_it_is(seed: int) -> None:
    entry = attribute_conversation("x-1", sample(1), REQUIRED, generator(seed))
    row = chat_row(entry)
    assert (row["id"], row["images"]) == ("x-1", ["root/1.jpg"])
    assert [message["role"] for message in row["messages"]] == ["user", "assistant"] * 3
    for turn, message in zip(entry["conversations"], row["messages"], strict=True):
        said = [part["text"] if part["type"] == "text" else IMAGE for part in message["content"]]
        assert "\n".join(said) == turn["value"]
        assert all((part["text"] is None) == (part["type"] == "image") for part in message["content"])


def test_chat_messages_of_somebody_s_mix() -> None:
    turns = [{"from": "human", "value": f"Compare {IMAGE} and\n{IMAGE}"}, {"from": "gpt", "value": "Alike."}]
    row = chat_row({"id": 7, "image": ["a.jpg", "b.jpg"], "conversations": turns})
    kinds = [part["type"] for part in row["messages"][0]["content"]]
    assert (row["id"], row["images"], kinds) == ("7", ["a.jpg", "b.jpg"], ["text", "image", "text", "image"])
    assert row["messages"][0]["content"][2] == {"type": "text", "text": "and"}
    assert chat_row({"conversations": turns[1:]})["images"] == []


# What is held out, and what is chosen


@given(st.integers(0, 60), st.floats(0, 0.99), st.integers(0, 9), st.randoms(use_true_random=False))
def test_held_out_classes(count: int, share: float, seed: int, rnd: Any) -> None:
    names = [f"class {label}" for label in range(count)]
    held = held_out_classes(seed, "x", names, share)
    assert set(held) <= set(names)
    assert held == [name for name in names if name in held]
    if share == 0 or count < 2:
        assert held == []
    else:
        assert 1 <= len(held) < count
        assert len(held) in {int(share * count + 0.5), 1, count - 1}
    other = list(names)
    rnd.shuffle(other)
    assert set(held_out_classes(seed, "x", other, share)) == set(held), "drawn by name"


@pytest.mark.parametrize(
    ("count", "share", "held"), [(25, 0.2, 5), (10, 0.25, 3), (10, 0.24, 2), (3, 0.01, 1), (2, 0.9, 1)]
)
def test_shares_of_classes_are_rounded_half_up(count: int, share: float, held: int) -> None:
    names = [f"class {label}" for label in range(count)]
    assert len(held_out_classes(0, "x", names, share)) == held
    assert held_out_classes(0, "x", [f"c{n}" for n in range(40)], 0.5) != held_out_classes(
        1, "x", [f"c{n}" for n in range(40)], 0.5
    )


LABELLED = st.lists(st.integers(0, 5), max_size=60)


@given(LABELLED, st.integers(1, 80), st.integers(0, 9), st.randoms(use_true_random=False))
def test_at_most_the_share_of_each_class(labels: list[int], per_dataset: int, seed: int, rnd: Any) -> None:
    rows = [sample(idx, label) for idx, label in enumerate(labels)]
    groups = groups_of(classes(6))
    chosen = choose(seed, "x", rows, groups, per_dataset)
    limit = max(1, per_dataset // 6)
    assert Counter(found.label for found in chosen) == {
        label: min(limit, count) for label, count in Counter(labels).items()
    }
    assert [found.idx for found in chosen] == sorted(found.idx for found in chosen)
    rnd.shuffle(rows)
    assert choose(seed, "x", rows, groups, per_dataset) == chosen


def test_by_superordinate_where_those_differ() -> None:
    found = classes(200, "Birds", "Plants")
    assert set(groups_of(found)) == {"Birds", "Plants"}
    rows = [sample(idx, idx % 200) for idx in range(1000)]
    chosen = choose(0, "x", rows, groups_of(found), per_dataset=100)
    assert Counter(found.label % 2 for found in chosen) == {0: 50, 1: 50}
    # By class there would be one of each, for 100 // 200 is none.
    assert len(choose(0, "x", rows, groups_of(classes(200)), per_dataset=100)) == 200


def conversations(seed: int = 0, held_out: tuple[str, ...] = (), per_dataset: int = 2500) -> dict[str, list[dict]]:
    samples = [sample(idx, idx % 5) for idx in range(40)]
    return dataset_conversations(seed, "x", classes(5), samples, held_out, per_dataset)[0]


def test_held_out_classes_appear_nowhere() -> None:
    entries = conversations(held_out=("class 1", "class 3"))
    for kind in ("attributes", "direct"):
        text = json.dumps(entries[kind])
        assert not re.search(r"class [13]|crown of [13]", text)
        assert {int(entry["id"].removeprefix("x-")) % 5 for entry in entries[kind]} == {0, 2, 4}
        assert len(entries[kind]) == 24


def test_both_kinds_are_of_the_same_images_and_depend_on_the_seed() -> None:
    entries = conversations(per_dataset=15)
    assert [one["id"] for one in entries["attributes"]] == [one["id"] for one in entries["direct"]]
    assert len(entries["direct"]) == 15
    assert conversations(per_dataset=15) == entries
    assert conversations(seed=1, per_dataset=15) != entries


def test_class_without_required_attributes_is_named() -> None:
    found = classes(2, required=[["crown"], []])
    with pytest.raises(UserError, match=r"attributes\.json has no required attributes of 1 classes: class 1; add them"):
        dataset_conversations(0, "x", found, [sample(0), sample(1, 1)], [], 10)
    samples = [sample(0), sample(1, 1)]
    entries, seen = dataset_conversations(0, "x", found, samples, ["class 1"], 10)
    assert (len(entries["direct"]), seen) == (1, ["class 0"])


def test_seen_are_the_classes_that_some_conversation_is_about() -> None:
    samples = [sample(3, 2), sample(4, 0), sample(5, 2), sample(6, 3)]  # class 1 has no image, class 3 is held out
    assert dataset_conversations(0, "x", classes(4), samples, ["class 3"], 40)[1] == ["class 0", "class 2"]
    # Of a superordinate's classes those alone whose images are chosen.
    above = classes(4, "bird", "plant")
    entries, seen = dataset_conversations(0, "x", above, samples, [], 2)
    assert len(entries["attributes"]) == len(seen) == 2
    assert {entry["conversations"][-1]["value"] for entry in entries["direct"]} == {f"Answer: {name}" for name in seen}
    assert dataset_conversations(0, "x", classes(4), [], ["class 3"], 40)[1] == []


def test_a_class_goes_by_what_the_unified_files_say_of_its_images() -> None:
    names = ["Common Eider (Adult male)", "Common Eider (Female)", "Smew"]
    concepts = [Concept(n, name, Attributes(["crown"], [])) for n, name in enumerate(names)]
    samples = [Sample(n, "bird", ["Ducks"], ["Common Eider"], f"{n}.jpg", {"label": n}) for n in range(2)]
    assert [(one.name, one.answer, one.superordinate) for one in classes_of(concepts, samples)] == [
        (names[0], "Common Eider", "bird"),
        (names[1], "Common Eider", "bird"),
        ("Smew", "Smew", None),  # without an image
    ]
    assert groups_of(classes_of(concepts, samples)) == ["Common Eider", "Common Eider", "Smew"]


# A mix to add to


def put_mix(path: Path, *entries: Any) -> Path:
    path.write_text(json.dumps(list(entries)))
    return path


TEXT = {"id": "t", "conversations": [{"from": "human", "value": "Hello."}, {"from": "gpt", "value": "Good day."}]}


@pytest.mark.parametrize(
    ("entry", "match"),
    [
        ([], "entry 2: no `conversations`; the file must hold"),
        ({"id": "x"}, "entry 2: no `conversations`"),
        ({"conversations": []}, "entry 2: no `conversations`"),
        ({"conversations": [{"from": "user", "value": "x"}]}, "a turn must be {from: human or gpt, value: text}, not"),
        ({"conversations": [{"from": "gpt", "value": None}]}, "a turn must be"),
        ({**TEXT, "image": 3}, "`image` must be a path, not 3"),
        ({**TEXT, "image": "a.jpg"}, "0 image tokens .<image>. for 1 images"),
        ({"conversations": [{"from": "human", "value": IMAGE}]}, "1 image tokens .<image>. for 0 images"),
        (
            {"image": "no.jpg", "conversations": [{"from": "human", "value": IMAGE}]},
            "1 of 1 images are not there, .*no.jpg",
        ),
    ],
)
def test_mix_refused(entry: Any, match: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=match):
        read_mix(put_mix(tmp_path / "mix.json", TEXT, entry))


def test_mix_that_is_no_list_or_not_there(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"finer\.mixture\.append '.*mix\.json' does not exist; give a LLaVA mix or null"
    ):
        read_mix(tmp_path / "mix.json")
    (tmp_path / "mix.json").write_text("{}")
    with pytest.raises(UserError, match="must hold"):
        read_mix(tmp_path / "mix.json")
    (tmp_path / "mix.json").write_text("[")
    with pytest.raises(UserError, match="not valid JSON"):
        read_mix(tmp_path / "mix.json")


# The stage

MIXTURE = Path("data/finer/mixture")


@pytest.fixture
def two(project: Project, call: Call, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project with the data sets `toy` and, the same images under other names, `more`; both unified."""
    make_labelled(project)

    def add(params: dict[str, Any]) -> None:
        others = [f"strange {name}" for name in NAMES]
        params["datasets"]["more"] = {**params["datasets"]["toy"], "names": others}
        params["finer"]["datasets"]["more"] = {"train_share": 0.7}
        params["finer"]["mixture"].update(held_out_classes=0.0)

    project.edit(add)
    write_attributes_file(project.folder / "data/finer/attributes/more.json", [f"strange {name}" for name in NAMES])
    monkeypatch.chdir(project.folder)
    for dataset in ("toy", "more"):
        assert call("ingest", "--dataset", dataset).code == 0
        assert call("finer.unify", "--dataset", dataset).code == 0
    return project


def read_mixture(kind: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((MIXTURE / f"{kind}.json").read_text())
    return found


def bytes_of_mixture() -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(MIXTURE.iterdir())}


def test_stage_writes_both_forms_and_the_same_again(two: Project, call: Call) -> None:
    done = call("finer.mixture")
    assert (done.code, done.err, done.out) == (0, "", "finer.mixture: 9 conversations, 0 classes held out\n")
    first = bytes_of_mixture()
    assert list(first) == ["attributes.json", "attributes.parquet", "classes.json", "direct.json", "direct.parquet"]
    trained = {
        f"{dataset}-{json.loads(row)['idx']}"
        for dataset in ("toy", "more")
        for row in Path(f"data/finer/unified/unified-{dataset}-train-combined.jsonl").read_text().splitlines()
    }
    for kind, turns in (("attributes", 6), ("direct", 2)):
        entries = read_mixture(kind)
        assert {entry["id"] for entry in entries} == trained
        assert all(len(entry["conversations"]) == turns for entry in entries)
        assert all(Path(entry["image"]).is_file() for entry in entries)
        table = pq.read_table(MIXTURE / f"{kind}.parquet")
        assert table.schema.equals(artifacts.MIXTURE.columns)
        assert table.to_pylist() == [chat_row(entry) for entry in entries]
        assert json.loads(table.schema.metadata[b"bifta"])["parameters"]["kind"] == kind
    ids = [entry["id"] for entry in read_mixture("attributes")]
    assert ids != [entry["id"] for entry in read_mixture("direct")] or ids != sorted(ids), "shuffled"
    assert json.loads(first["classes.json"]) == {
        "toy": {"seen": NAMES, "held_out": []},
        "more": {"seen": [f"strange {name}" for name in NAMES], "held_out": []},
        DIGEST: ANY,
    }
    assert call("finer.mixture").code == 0
    assert bytes_of_mixture() == first
    two.edit(lambda params: params.update(seed=9))
    for dataset in ("toy", "more"):
        call("finer.unify", "--dataset", dataset)
    call("finer.mixture")
    assert bytes_of_mixture()["attributes.json"] != first["attributes.json"]


def test_leaving_one_data_set_out(two: Project, call: Call) -> None:
    two.edit(lambda params: params["finer"]["mixture"].update(leave_out="more", held_out_classes=0.3))
    assert call("finer.mixture").code == 0
    for kind in ("attributes", "direct"):
        entries = read_mixture(kind)
        assert entries
        assert all(entry["id"].startswith("toy-") for entry in entries)
        assert "strange" not in json.dumps(entries)
    parts = json.loads((MIXTURE / "classes.json").read_text())
    assert parts["more"] == {"seen": [], "held_out": [f"strange {name}" for name in NAMES]}
    (held_out,) = parts["toy"]["held_out"]
    assert parts["toy"]["seen"] == [name for name in NAMES if name != held_out]
    assert f"Answer: {held_out}" not in (MIXTURE / "attributes.json").read_text()


def test_a_class_without_images_to_train_on_is_neither_seen_nor_held_out(two: Project, call: Call) -> None:
    train = Path("data/finer/unified/unified-toy-train-combined.jsonl")
    write_unified(train, [sample for sample in read_unified(train, "toy") if sample.label != 1])
    Path("data/finer/unified/unified-more-train-combined.jsonl").write_text("")
    done = call("finer.mixture")
    assert "no conversation is made of more" in done.err
    parts = json.loads((MIXTURE / "classes.json").read_text())
    assert parts == {"toy": {"seen": [NAMES[0], NAMES[2]], "held_out": []}, DIGEST: ANY}


def test_own_mix_is_shuffled_in(two: Project, call: Call) -> None:
    image = {
        "id": 12,
        "image": "toy-images/Grey_Heron/0.jpg",
        "conversations": [{"from": "human", "value": f"{IMAGE}\nWhat?"}, {"from": "gpt", "value": "A bird."}],
    }
    put_mix(Path("mix.json"), *[{**TEXT, "id": f"t{number}"} for number in range(20)], image)
    two.edit(lambda params: params["finer"]["mixture"].update(append="mix.json"))
    done = call("finer.mixture")
    assert done.out == "finer.mixture: 9 conversations and 21 of mix.json, 0 classes held out\n"
    for kind in ("attributes", "direct"):
        entries = read_mixture(kind)
        assert len(entries) == 30
        assert image in entries, "as it was given"
        own = [place for place, entry in enumerate(entries) if str(entry["id"]).startswith(("toy-", "more-"))]
        assert own != list(range(9))
        rows = {row["id"]: row for row in pq.read_table(MIXTURE / f"{kind}.parquet").to_pylist()}
        assert rows["t3"]["images"] == []
        assert rows["12"]["images"] == ["toy-images/Grey_Heron/0.jpg"]
        assert rows["t3"]["messages"][1]["content"] == [{"type": "text", "text": "Good day."}]


def test_nothing_to_talk_about(two: Project, call: Call) -> None:
    two.edit(lambda params: params["finer"]["mixture"].update(leave_out="more"))
    Path("data/finer/unified/unified-toy-train-combined.jsonl").write_text("")
    done = call("finer.mixture")
    assert done.code == 0
    assert done.err.splitlines()[0] == (
        "warning: finer.mixture: no conversation is made of toy, which has no images to train on"
    )
    assert "there is nothing to make conversations of, so the mixture is empty" in done.err.splitlines()[1]
    assert json.loads((MIXTURE / "attributes.json").read_text()) == []
    assert json.loads((MIXTURE / "classes.json").read_text()) == {DIGEST: ANY}


def test_attributes_of_other_classes_are_refused_and_the_stage_named_makes_them(two: Project, call: Call) -> None:
    by_class = Path("data/finer/attributes/toy.json")
    remedy = "run `python -m stages.finer.concepts --dataset toy`"
    write_attributes_file(by_class, NAMES[:2])
    assert call("finer.mixture").err == f"error: {by_class} is not of the present classes; {remedy}\n"
    by_class.unlink()
    assert call("finer.mixture").err == f"error: {by_class} is missing; {remedy}\n"
    assert call("finer.concepts", "--dataset", "toy").code == 0  # which that command runs
    assert call("finer.mixture").code == 0
