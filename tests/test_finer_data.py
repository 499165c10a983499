"""FINER's data: unified files, concept-attribute files, the split, the command line."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import polars as pl
import pytest
from conftest import Call, Project
from finer_project import NAMES, make_labelled, read_lines
from hypothesis import given
from hypothesis import strategies as st

from stages.common.digests import DIGEST
from stages.common.errors import UserError
from stages.common.images import content_digest
from stages.finer.attributes import Attributes, Concept, read_attributes, write_attributes
from stages.finer.classes import ClassLabels
from stages.finer.concepts.matching import class_concepts, match_concepts
from stages.finer.params import Rank, load_finer_params
from stages.finer.unified import Sample, read_unified, sample_metadata, write_unified
from stages.finer.unify.write import as_published, build_samples, check_classes, split_of

AIRCRAFT = [["707-320", "Boeing 707"], ["707-420", "Boeing 707"], ["A300B4", "A300"]]
OURS = sample_metadata("x", "a.jpg", 2, "A300B4", "0123")


def line(**changes: Any) -> dict[str, Any]:
    """A right line of a unified file, changed; a value of `...` leaves the key out."""
    right = {
        "idx": 0,
        "basic-level-lbl": "aircraft",
        "coarse-level-lbl": ["Boeing"],
        "fine-level-lbl": ["707-320", "Boeing 707"],
        "img_path": "a.jpg",
        "metadata": OURS,
    }
    return {key: value for key, value in {**right, **changes}.items() if value is not ...}


def unified_file(path: Path, *lines: Any) -> Path:
    path.write_text("".join((one if isinstance(one, str) else json.dumps(one)) + "\n" for one in lines))
    return path


# Unified files


LABELS = st.text(min_size=1).filter(lambda text: bool(text.strip()) and text.isprintable())


@given(st.lists(st.tuples(LABELS, st.lists(LABELS, max_size=3)), max_size=5))
def test_unified_file_is_read_as_it_was_written(tmp_path_factory: pytest.TempPathFactory, rows: list) -> None:
    path = tmp_path_factory.mktemp("unified") / "u.jsonl"
    samples = [
        Sample(idx, above, coarse, ["A300B4"], f"{idx}.jpg", OURS | {"image_id": above})
        for idx, (above, coarse) in enumerate(rows)
    ]
    write_unified(path, samples)
    assert read_unified(path, "x") == samples


def test_published_keys_and_multi_word_labels(tmp_path: Path) -> None:
    path = tmp_path / "u.jsonl"
    metadata = OURS
    write_unified(path, [Sample(7, "ray-finned fish", ["moray eel", "eel\u2028s"], ["A300"], "r/a.jpg", metadata)])
    assert json.loads(path.read_text()) == {
        "idx": 7,
        "basic-level-lbl": "ray-finned fish",
        "coarse-level-lbl": ["moray eel", "eel\u2028s"],
        "fine-level-lbl": ["A300"],
        "img_path": "r/a.jpg",
        "metadata": metadata | {DIGEST: ANY},
    }
    # A line separator inside of a label is no end of the line.
    assert read_unified(path, "x")[0].coarse == ["moray eel", "eel\u2028s"]


def test_a_changed_or_missing_line_of_a_unified_file_shows(tmp_path: Path) -> None:
    """Those that were written by an earlier version have no digests, and are read."""
    samples = [Sample(idx, "aircraft", ["Boeing"], ["A300B4"], f"{idx}.jpg", OURS) for idx in range(3)]
    path, unsigned = tmp_path / "u.jsonl", unified_file(tmp_path / "v.jsonl", *(line(idx=idx) for idx in range(3)))
    write_unified(path, samples)
    lines = path.read_text().splitlines()
    assert read_unified(path, "x") == samples and len(read_unified(unsigned, "x")) == 3
    for changed in (lines[:2], lines[1:], lines[::-1], [lines[0].replace("Boeing", "Boejng"), *lines[1:]]):
        with pytest.raises(UserError, match=r"v\.jsonl is damaged: its line 1, or the number of its lines"):
            read_unified(unified_file(unsigned, *changed), "x")


@pytest.mark.parametrize(
    ("lines", "match"),
    [
        (["{"], r"u\.jsonl, line 1 is not valid JSON \(.*\); fix the file"),
        (["", line(), "[1]"], "line 3: not a JSON object with the keys idx, basic-level-lbl"),
        ([line(**{"coarse-level-lbl": ...})], "line 1: no 'coarse-level-lbl'; a line has the keys"),
        ([line(img_path=...)], "line 1: no 'img_path'"),
        ([line(img_path="")], "line 1: 'img_path' must be the path of an image, not \"\""),
        ([line(idx="3")], "'idx' must be a whole number of at least 0, not \"3\""),
        ([line(idx=True)], "'idx' must be a whole number of at least 0, not true"),
        ([line(idx=-1)], "'idx' must be a whole number"),
        ([line(**{"basic-level-lbl": ["bird"]})], "'basic-level-lbl' must be a label, not"),
        ([line(**{"coarse-level-lbl": "Boeing"})], "'coarse-level-lbl' must be a list of labels, not \"Boeing\""),
        ([line(**{"coarse-level-lbl": [" "]})], "'coarse-level-lbl' must be a list of labels"),
        ([line(**{"fine-level-lbl": []})], "'fine-level-lbl' must be a list of at least one label"),
        ([line(metadata=[1])], "'metadata' must be an object"),
        ([line(idx=4), line(idx=5), line(idx=4)], "line 3: idx 4 is that of line 1 as well; fix"),
        ([line(), line(), line()], "line 2: idx 0 is that of line 1 as well; 2 lines repeat one; fix"),
        # A published file in the place of one that `unify` wrote, and one of another data set.
        ([line(), line(idx=1, metadata=...)], "line 2: `metadata` does not name the image and class in x; run `python"),
        ([line(metadata=OURS | {"label": -1})], "line 1: `metadata` does not name"),
        ([line(metadata=OURS | {"dataset": "y"})], "A published file belongs under finer.datasets.x.unified"),
    ],
)
def test_unified_file_refused(lines: list, match: str, tmp_path: Path) -> None:
    path = unified_file(tmp_path / "u.jsonl", *lines)
    with pytest.raises(UserError, match=match) as refused:
        read_unified(path, "x")
    assert "\n" not in str(refused.value)


def test_unified_file_missing_or_in_another_encoding(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"u\.jsonl is missing; make it with `make finer`"):
        read_unified(tmp_path / "u.jsonl", "x")
    (tmp_path / "u.jsonl").write_bytes(b'{"idx": "\xe9"}')
    with pytest.raises(UserError, match="not in UTF-8"):
        read_unified(tmp_path / "u.jsonl", "x")


def test_a_species_without_a_common_name_has_a_blank_label_that_is_left_out(tmp_path: Path) -> None:
    path = unified_file(tmp_path / "u.jsonl", line(**{"fine-level-lbl": ["A300B4", ""]}))
    assert read_unified(path, "x")[0].fine == ["A300B4"]
    with pytest.raises(UserError, match="'fine-level-lbl' must be a list of at least one label"):
        read_unified(unified_file(path, line(**{"fine-level-lbl": [" "]})), "x")


# The split


IMAGES = st.lists(st.tuples(st.text(), st.integers(0, 4)), unique_by=lambda pair: pair[0], max_size=40)


@given(IMAGES, st.integers(0, 9), st.floats(0, 0.99), st.randoms(use_true_random=False))
def test_split_has_its_share_of_each_class_whatever_the_order(images: list, seed: int, share: float, rnd: Any) -> None:
    def split(rows: list) -> dict[str, str]:
        ids = [image_id for image_id, _ in rows]
        return dict(zip(ids, split_of(seed, "x", ids, [label for _, label in rows], share), strict=True))

    found = split(images)
    assert set(found.values()) <= {"train", "test"}
    for label in range(5):
        members = [image_id for image_id, other in images if other == label]
        trained = sum(found[image_id] == "train" for image_id in members)
        assert trained == math.floor(share * len(members) + 1e-9)
        # An image's split depends on its own class alone.
        alone = split([(image_id, label) for image_id in members])
        assert alone == {image_id: found[image_id] for image_id in members}
    shuffled = list(images)
    rnd.shuffle(shuffled)
    assert split(shuffled) == found


def test_split_by_hand() -> None:
    ids = [f"{number}.jpg" for number in range(100)]
    counts = {share: split_of(0, "x", ids, [0] * 100, share).count("train") for share in (0.0, 0.29, 0.5, 0.999)}
    assert counts == {0.0: 0, 0.29: 29, 0.5: 50, 0.999: 99}
    assert split_of(0, "x", ids, [0] * 100, 0.5) != split_of(1, "x", ids, [0] * 100, 0.5)
    assert split_of(0, "x", ids, [0] * 100, 0.5) != split_of(0, "y", ids, [0] * 100, 0.5)
    small, large = (split_of(0, "x", ids, [0] * 100, share) for share in (0.3, 0.6))
    assert all(b == "train" for a, b in zip(small, large, strict=True) if a == "train"), "a larger share adds images"


# Classes


def test_classes_with_the_labels_of_the_published_files() -> None:
    family = ClassLabels("707-320", ["707-320", "Boeing 707"], ["boeing_707", "Boeing", "Boeing"], "aircraft")
    (aircraft,) = as_published("x", [family], "aircraft", None)
    assert aircraft == ClassLabels("707-320", ["707-320", "Boeing 707"], ["Boeing"], "airplane")
    (sample,) = build_samples("x", "some/root", [("a/b.jpg", 0, "00ff")], [aircraft])
    metadata = {"dataset": "x", "image_id": "a/b.jpg", "label": 0, "class": "707-320", "content": "00ff"}
    assert sample == Sample(0, "airplane", ["Boeing"], ["707-320", "Boeing 707"], "some/root/a/b.jpg", metadata)
    drake = ClassLabels("Eider (male)", ["Eider (male)", "Eider"], ["Common Eider", "Ducks"], "bird")
    assert as_published("x", [drake], "nabirds", None) == [ClassLabels("Eider (male)", ["Eider"], ["Ducks"], "bird")]
    own = ClassLabels("owl (barn)", ["owl (barn)"], ["owls"], "bird")  # its parenthesis says which
    assert as_published("x", [own], "manifest", None) == [own]


def test_one_rank_of_inaturalist_is_coarse() -> None:
    ranks = ["Lumbricus", "Lumbricidae", "Haplotaxida", "Clitellata", "Annelida", "Animalia"]
    worm = ClassLabels("Lumbricus terrestris", ["Lumbricus terrestris"], ranks, "Animalia")
    chosen: list[Rank | None] = [None, "genus", "family", "order", "class"]
    coarse = [as_published("x", [worm], "inaturalist", rank)[0].coarse for rank in chosen]
    assert coarse == [[ranks[1]], [ranks[0]], [ranks[1]], [ranks[2]], [ranks[3]]]
    with pytest.raises(UserError, match=r"^finer\.datasets\.x\.rank is for the reader inaturalist, not 'cub'"):
        as_published("x", [worm], "cub", "family")


def test_classes_without_superordinate_are_refused_and_without_coarse_labels_told(
    capsys: pytest.CaptureFixture[str],
) -> None:
    known, bare = ClassLabels("owl", ["owl"], ["raptor"], "bird"), ClassLabels("wren", ["wren"], [], None)
    with pytest.raises(UserError, match=r"1 of 2 classes have no superordinate, such as 'wren'; give a manifest"):
        check_classes("x", [known, bare])
    check_classes("x", [known])
    assert capsys.readouterr().err == ""
    check_classes("x", [known, ClassLabels("Ovenbird", ["Ovenbird"], [], "bird")])
    assert "1 of 2 classes have no coarse labels, such as 'Ovenbird'; coarse" in capsys.readouterr().err


@pytest.fixture
def labelled(project: Project, call: Call, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project with labels at three granularities, ingested."""
    make_labelled(project)
    monkeypatch.chdir(project.folder)
    assert call("ingest", "--dataset", "toy").code == 0
    return project


TRAIN, TEST = (Path(f"data/finer/unified/unified-toy-{split}-combined.jsonl") for split in ("train", "test"))


def test_stage_writes_both_splits(labelled: Project, call: Call) -> None:
    done = call("finer.unify", "--dataset", "toy")
    assert (done.code, done.err) == (0, "")
    assert done.out == "finer.unify toy: 3 images to train on, 6 to be asked about, 3 classes\n"
    train, test = read_lines(TRAIN), read_lines(TEST)
    images = pl.read_parquet("data/toy/images.parquet")
    assert sorted(row["idx"] for row in [*train, *test]) == list(range(9))
    for rows in (train, test):
        assert [row["idx"] for row in rows] == sorted(row["idx"] for row in rows)
        for row in rows:
            found = images.row(row["idx"], named=True)
            ours = {"dataset": "toy", "class": NAMES[found["label"]], DIGEST: ANY}
            assert row["metadata"] == ours | {key: found[key] for key in ("image_id", "label", "content")}
            assert row["fine-level-lbl"] == [NAMES[found["label"]]]
            assert row["basic-level-lbl"] == "bird"
            assert row["coarse-level-lbl"] == ["wader" if found["label"] == 0 else "finch"]
            assert Path(row["img_path"]).is_file()
    before = TRAIN.read_bytes(), TEST.read_bytes()
    assert call("finer.unify", "--dataset", "toy").code == 0
    assert (TRAIN.read_bytes(), TEST.read_bytes()) == before
    labelled.edit(lambda params: params.update(seed=5))
    call("finer.unify", "--dataset", "toy")
    assert TRAIN.read_bytes() != before[0]


def test_published_file_in_place_of_one_built(labelled: Project, call: Call) -> None:
    rows = [
        line(idx=12, **{"fine-level-lbl": ["grey heron"], "coarse-level-lbl": ["Wader"]}, img_path="Grey_Heron/0.jpg"),
        line(idx=3, **{"fine-level-lbl": ["Blue Tavo"]}, img_path="toy-images/blue tavo/1.jpg", metadata={"who": "me"}),
    ]
    unified_file(Path("published.jsonl"), *rows)
    labelled.edit(lambda params: params["finer"]["datasets"]["toy"].update(unified="published.jsonl"))
    done = call("finer.unify", "--dataset", "toy")
    assert done.code == 0
    assert done.err == (
        "warning: finer.datasets.toy: unified is given and unified_train is not, so no image is there to train on; the "
        "mixture and the probe go without the data set\n"
    )
    assert TRAIN.read_bytes() == b""
    first, second = read_lines(TEST)
    assert (first["idx"], first["img_path"]) == (3, "toy-images/blue tavo/1.jpg")
    contents = dict(pl.read_parquet("data/toy/images.parquet").select("image_id", "content").iter_rows())
    content = contents["blue tavo/1.jpg"]
    assert first["metadata"] == {
        "who": "me",
        "dataset": "toy",
        "image_id": "blue tavo/1.jpg",
        "label": 1,
        "class": "blue tavo",
        "content": content,
        DIGEST: ANY,
    }
    assert second["img_path"] == "toy-images/Grey_Heron/0.jpg"
    assert second["fine-level-lbl"] == ["grey heron"]
    assert second["metadata"]["label"] == 0
    unified_file(Path("published.jsonl"), *rows, line(idx=5, **{"fine-level-lbl": ["blue tavo"]}, img_path="no.jpg"))
    done = call("finer.unify", "--dataset", "toy")
    assert done.err.splitlines()[-1] == (
        "error: published.jsonl: 1 images are not there, such as 'no.jpg'; img_path is looked for in the project's "
        "folder, and by its last parts in 'toy-images' (datasets.toy.root)"
    )


def test_published_files_for_both_splits(labelled: Project, call: Call) -> None:
    fine = {"fine-level-lbl": ["blue tavo"]}
    elsewhere = Path("elsewhere.jpg")  # in no table: its bytes are read
    elsewhere.write_bytes(Path("toy-images/blue tavo/2.jpg").read_bytes() + b"more")
    unified_file(Path("test.jsonl"), line(idx=0, **fine, img_path="blue tavo/0.jpg"))
    train = [line(idx=0, **fine, img_path="blue tavo/1.jpg"), line(idx=1, **fine, img_path="elsewhere.jpg")]
    unified_file(Path("train.jsonl"), *train)
    files = {"unified": "test.jsonl", "unified_train": "train.jsonl"}
    labelled.edit(lambda params: params["finer"]["datasets"]["toy"].update(files))
    done = call("finer.unify", "--dataset", "toy")
    assert (done.code, done.err) == (0, "")
    assert done.out == "finer.unify toy: 2 images to train on, 1 to be asked about, 3 classes\n"
    inside, outside = (row["metadata"] for row in read_lines(TRAIN))
    assert [row["img_path"] for row in read_lines(TEST)] == ["toy-images/blue tavo/0.jpg"]
    assert inside["content"] == content_digest(Path("toy-images/blue tavo/1.jpg").read_bytes())
    assert (outside["image_id"], outside["content"]) == ("elsewhere.jpg", content_digest(elsewhere.read_bytes()))
    elsewhere.write_bytes(b"another")
    call("finer.unify", "--dataset", "toy")
    assert read_lines(TRAIN)[1]["metadata"]["content"] == content_digest(b"another"), "a replaced image is another"
    unified_file(Path("train.jsonl"), *train, line(idx=2, **fine, img_path="toy-images/blue tavo/0.jpg"))
    done = call("finer.unify", "--dataset", "toy")
    assert done.err == (
        "error: train.jsonl: 1 images are in test.jsonl as well, such as 'toy-images/blue tavo/0.jpg'; none may be "
        "both trained on and asked about\n"
    )


def test_a_rank_beside_a_published_file_is_one_line(labelled: Project, call: Call) -> None:
    labelled.edit(lambda params: params["finer"]["datasets"]["toy"].update(unified="u.jsonl", rank="order"))
    done = call("finer.unify", "--dataset", "toy")
    assert done.code == 1 and len(done.err.splitlines()) == 1
    assert "rank is given beside unified, a file that has coarse labels of its own; take one out" in done.err
    labelled.edit(lambda params: params["finer"]["datasets"]["toy"].update(unified=None, rank="kingdom"))
    assert "finer.datasets.toy.rank" in call("finer.unify", "--dataset", "toy").err


def test_published_train_file_alone_is_one_line(labelled: Project, call: Call) -> None:
    labelled.edit(lambda params: params["finer"]["datasets"]["toy"].update(unified_train="train.jsonl"))
    done = call("finer.unify", "--dataset", "toy")
    assert done.code == 1
    assert len(done.err.splitlines()) == 1
    assert "unified_train is given without unified; give the file to be asked about as well" in done.err


def test_data_set_without_superordinate_is_one_line(
    project: Project, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.edit(lambda params: params["finer"].update(datasets={"toy": {"train_share": 0.5}}, encoder="tiny"))
    monkeypatch.chdir(project.folder)
    assert call("ingest", "--dataset", "toy").code == 0
    done = call("finer.unify", "--dataset", "toy")
    assert done.code == 1
    assert done.err.startswith("error: datasets.toy: 3 of 3 classes have no superordinate, such as 'Grey Heron'; give")
    assert len(done.err.splitlines()) == 1
    assert not TRAIN.exists()


# The command line


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"datasets": {"toys": {}}}, "finer.datasets names 'toys', which is not under datasets .did you mean 'toy'"),
        ({"encoder": "huge"}, "finer.encoder names 'huge', which is not under models; there are: tiny"),
        ({"mixture.leave_out": "tiny"}, "finer.mixture.leave_out names 'tiny', which is not under finer.datasets"),
        ({"endpoints": {"toy": {"model": "x"}}}, "'toy' is under finer.endpoints and finer.served; rename one"),
    ],
)
def test_section_that_names_what_is_not_there(
    change: dict[str, Any], match: str, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_labelled(project)
    monkeypatch.chdir(project.folder)
    load_finer_params()

    def edit(params: dict[str, Any]) -> None:
        for key, value in change.items():
            *sections, last = key.split(".")
            section = params["finer"]
            for name in sections:
                section = section[name]
            section[last] = value

    project.edit(edit)
    with pytest.raises(UserError, match=match):
        load_finer_params()


def test_data_set_that_takes_no_part(labelled: Project, call: Call) -> None:
    labelled.edit(lambda params: params["datasets"].update(other={"reader": "folder", "root": "toy-images"}))
    done = call("finer.unify", "--dataset", "other")
    assert done.err == "error: params.yaml has no 'other' under finer.datasets; there are: toy\n"


# Concept-attribute files


def attributes_file(path: Path, entries: Any) -> Path:
    path.write_text(json.dumps(entries))
    return path


def entry(name: str, **more: Any) -> dict[str, Any]:
    return {"id": 4, "name": name, "attr_binomial": {"required": ["red crown"], "likely": []}, **more}


def test_attributes_are_read_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    concepts = [
        Concept(0, "Tyto alba", Attributes(["heart-shaped face"], ["white"]), "Barn Owl", Attributes(["face"], [])),
        Concept(1, "wren", Attributes(["short tail"], [])),
    ]
    write_attributes(path, concepts)
    assert read_attributes(path) == concepts
    assert list(json.loads(path.read_text())[0]) == ["id", "name", "common_name", "attr_binomial", "attr_common"]
    assert list(json.loads(path.read_text())[1]) == ["id", "name", "attr_binomial"]


def test_published_attributes_without_id(tmp_path: Path) -> None:
    bare = entry("owl")
    del bare["id"]
    assert [one.id for one in read_attributes(attributes_file(tmp_path / "a.json", [entry("wren"), bare]))] == [4, 1]


@pytest.mark.parametrize(
    ("entries", "match"),
    [
        ({"owl": []}, r"a\.json must hold \[\{id, name, attr_binomial"),
        (["owl"], "entry 1: not an object"),
        ([{"attr_binomial": {}}], "entry 1: no `name`"),
        ([entry("owl", id="7")], r"entry 1 \('owl'\): `id` must be a whole number, not '7'"),
        ([{"name": "owl"}], r"entry 1 \('owl'\): no `attr_binomial`"),
        ([entry("owl", attr_binomial=["red"])], "`attr_binomial` must be {required"),
        (
            [entry("owl", attr_binomial={"required": ["red"]})],
            r"`attr_binomial`\.likely must be a list of texts, not None",
        ),
        (
            [entry("owl", attr_common={"required": "x", "likely": []})],
            r"`attr_common`\.required must be a list of texts",
        ),
        ([entry("owl", common_name=3)], "`common_name` must be a name"),
        (
            [entry("barn owl"), entry("Barn_Owl")],
            "entries 1 and 2 are of one concept, 'barn owl' and 'Barn_Owl'; keep one",
        ),
    ],
)
def test_attributes_refused(entries: Any, match: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=match):
        read_attributes(attributes_file(tmp_path / "a.json", entries))


def test_attributes_missing_or_broken(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a\.json is missing; put a published file there or run"):
        read_attributes(tmp_path / "a.json")
    (tmp_path / "a.json").write_text("[")
    with pytest.raises(UserError, match="not valid JSON"):
        read_attributes(tmp_path / "a.json")


def concept(number: int, name: str, common_name: str | None = None) -> Concept:
    return Concept(number, name, Attributes([f"of {name}"], []), common_name)


def classes_of(*fine: list[str]) -> list[ClassLabels]:
    return [ClassLabels(names[0], names, [], "bird") for names in fine]


def test_concepts_match_by_any_name_the_class_s_own_first(capsys: pytest.CaptureFixture[str]) -> None:
    concepts = [concept(0, "boeing_707"), concept(1, "707 420"), concept(2, "A300B4")]
    assert [one.id for one in match_concepts(Path("a.json"), concepts, classes_of(*AIRCRAFT))] == [0, 1, 2]
    assert capsys.readouterr().err == ""
    birds = [concept(0, "Strix aluco"), concept(1, "Tyto alba", "Barn owl")]
    (matched,) = match_concepts(Path("a.json"), birds, classes_of(["barn owl"]))
    assert matched.id == 1
    assert capsys.readouterr().err == (
        "warning: a.json: 1 concepts are no class of the data set and are left out: 'Strix aluco'\n"
    )


def published(name: str, *required: str, **more: Any) -> dict[str, Any]:
    return {"id": 0, "name": name, "attr_binomial": {"required": list(required), "likely": ["none"]}, **more}


def pruned(required: str, *fine: str) -> dict[str, Any]:
    return {"fine": list(fine), "coarse": ["Boeing"], "required": [required]}


@pytest.mark.parametrize(
    ("entries", "fine", "required"),
    [
        # An aircraft variant without attributes of its own has those of its family.
        ([published("Boeing 737", "f"), published("737-300", "v"), published("737-800", "None")],
         [["737-300", "Boeing 737"], ["737-800", "Boeing 737"]], ["v", "f"]),
        # Of iNaturalist those of the common name stand in; another species of that name has no part in it.
        ([published("Poa annua", common_name="Grass", attr_common={"required": ["c"], "likely": []}),
          published("Poa alpina", "b", common_name="Grass")], [["Poa annua", "Grass"], ["Poa alpina", "Grass"]],
         ["c", "b"]),
        # NABirds' names without their parenthesis, Stanford Dogs' behind the last hyphen.
        ([published("Common Eider", "e")], [["Common Eider (male)", "Common Eider"], ["Common Eider (female)"]],
         ["e", "e"]),
        ([published("coated retriever", "r"), published("Tzu", "t")],
         [["flat-coated retriever"], ["curly-coated retriever"], ["Shih-Tzu"]], ["r", "r", "t"]),
        # Pruned: the entry with the class's own labels, whatever their order.
        ([pruned("9", "CRJ-700", "CRJ-900"), pruned("7", "CRJ-700"), pruned("8", "Boeing 737", "737-800"),
          pruned("3", "Boeing 737", "737-300")],
         [["CRJ-700"], ["CRJ-900", "CRJ-700"], ["737-300", "Boeing 737"], ["737-800", "Boeing 737"]],
         ["7", "9", "3", "8"]),
    ],
)  # fmt: skip
def test_published_attributes_find_their_classes(
    entries: Any, fine: list[list[str]], required: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = attributes_file(tmp_path / "a.json", entries)
    found = [one.binomial for one in class_concepts(path, classes_of(*fine))]
    assert [one.required for one in found] == [[text] for text in required]
    assert all(one.likely == [] for one in found)
    assert capsys.readouterr().err == ""


def test_a_class_left_without_attributes_is_named(tmp_path: Path) -> None:
    """A cut name is not taken where it is another class's own: a jay's attributes are no blue-jay's."""
    entries = [published("jay", "j"), published("wren", "none")]
    path = attributes_file(tmp_path / "a.json", entries)
    with pytest.raises(UserError, match=r"a\.json has no required attributes of 1 of 2 classes: 'wren'; add"):
        class_concepts(path, classes_of(["jay"], ["wren"]))
    with pytest.raises(UserError, match=r"a\.json has no concept of 1 of 3 classes: 'blue-jay'"):
        class_concepts(path, classes_of(["jay"], ["wren"], ["blue-jay"]))
    with pytest.raises(UserError, match="entry 1: `fine` must be a list of at least one label"):
        read_attributes(attributes_file(path, [{"fine": "jay", "required": []}]))


def test_concepts_that_are_missing_are_counted_and_ten_named() -> None:
    names = [f"bird {number:02d}" for number in range(14)]
    with pytest.raises(UserError) as refused:
        match_concepts(Path("a.json"), [concept(0, "bird 03")], classes_of(*([name] for name in names)))
    text = str(refused.value)
    assert text.startswith("a.json has no concept of 13 of 14 classes: 'bird 00' (did you mean 'bird 03'?), 'bird 01'")
    assert "'bird 10'" in text
    assert "'bird 11'" not in text
    assert text.endswith("and 3 more; add them, or remove the file to have all asked for")
