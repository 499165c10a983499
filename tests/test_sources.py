"""refine: description files in any spelling, and the texts of the baselines."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from conftest import Project
from embed_project import in_folder

from stages.common.descriptions import read_descriptions
from stages.common.errors import UserError
from stages.refine.baselines import join_descriptor, join_to_prompt, waffle_descriptors
from stages.refine.sources import (
    match_classes,
    read_source,
    read_templates,
    spelling,
    warn_of_unknown_aliases,
)

FILE = Path("descriptions/toy/cupl.json")


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("wheaten terrier", "wheaten_terrier"),
        ("wheaten terrier", "Wheaten Terrier"),
        ("Abyssinian", "abyssinian"),
        ("Egyptian Mau", "egyptian_mau"),
        ("Maine Coon", "maine-coon"),
        ("Egyptian Mau", "  Egyptian   Mau "),
        ("boeing 737-200", "Boeing_737-200"),
        ("jack-o'-lantern", "Jack O Lantern"),
        ("T-shirt", "t_shirt"),
        ("Straße", "STRASSE"),
    ],
)
def test_names_match_whatever_case_and_separators(name: str, key: str) -> None:
    assert match_classes(FILE, {key: ["It is."]}, [name], {}) == [["It is."]]


@pytest.mark.parametrize(("name", "other"), [("red tavo", "redtavo"), ("737-200", "737-300"), ("crane", "cranes")])
def test_different_names_do_not_match(name: str, other: str) -> None:
    assert spelling(name) != spelling(other)
    with pytest.raises(UserError):
        match_classes(FILE, {other: ["It is."]}, [name], {})


def test_texts_come_in_the_order_of_the_classes(capsys: pytest.CaptureFixture[str]) -> None:
    found = {"Blue_Tavo": ["b1", "b2"], "red tavo": ["r1"]}
    assert match_classes(FILE, found, ["red tavo", "blue tavo"], {}) == [["r1"], ["b1", "b2"]]
    assert capsys.readouterr().err == ""


def test_missing_classes_are_named_at_once_each_with_the_nearest_key() -> None:
    found = {"wheaten terier": ["a dog"], "pug": ["a dog"], "Bengal": ["..."]}
    with pytest.raises(UserError) as refused:
        match_classes(FILE, found, ["wheaten terrier", "pug", "zyx", "bengal"], {})
    message = str(refused.value)
    assert "\n" not in message
    assert f"{FILE} has no descriptions of 3 of 4 classes" in message
    assert "'wheaten terrier' (nearest key: 'wheaten terier'), 'zyx' (nearest key: '" in message
    assert "'bengal' (nearest key: 'Bengal')" in message, "a key whose texts say nothing"
    assert "aliases" in message


def test_an_alias_names_the_key(capsys: pytest.CaptureFixture[str]) -> None:
    found = {"English_Cocker_Spaniel": ["a dog"]}
    assert match_classes(FILE, found, ["cocker"], {0: "english cocker spaniel"}) == [["a dog"]]
    out, err = capsys.readouterr()
    assert err == "", "a key that an alias uses is no stranger"
    assert out == f"{FILE}: 1 of 1 classes read another key: 'cocker' reads 'English_Cocker_Spaniel'\n"


def test_the_alias_comes_before_the_own_name_and_the_own_name_before_fallbacks() -> None:
    """A file with the keys `missile` and `projectile` describes both classes."""
    names, fallbacks = ["missile", "projectile"], {1: ["missile"]}
    both, one = {"missile": ["m"], "projectile": ["p"]}, {"missile": ["m"]}
    assert match_classes(FILE, both, names, {}, fallbacks) == [["m"], ["p"]]
    assert match_classes(FILE, one, names, {}, fallbacks) == [["m"], ["m"]]
    assert match_classes(FILE, both, names, {1: "Missile"}, fallbacks) == [["m"], ["m"]]
    assert match_classes(FILE, both, names, {1: "rocket"}, fallbacks) == [["m"], ["p"]], "a key of another file"


def test_an_alias_of_no_file_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    warn_of_unknown_aliases("x", {0: "Eft", 1: "maillott", 2: "maillott"}, {"eft", "maillot", "tench"})
    assert capsys.readouterr().err == (
        "warning: datasets.x.aliases: no description file has the key 'maillott' (nearest key: 'maillot'); it is not "
        "used\n"
    )


def test_the_order_of_words_makes_no_difference_where_it_tells_nothing_apart() -> None:
    cars = {"2012 Acura RL Sedan": ["a"], "2012 Acura TL Sedan": ["b"]}
    assert match_classes(FILE, cars, ["Acura TL Sedan 2012", "Acura RL Sedan 2012"], {}) == [["b"], ["a"]]
    houses = {"house boat": ["afloat"]}
    with pytest.raises(UserError, match=r"1 of 2 classes: 'boat house' \(nearest key: 'house boat'\)"):
        match_classes(FILE, houses, ["house boat", "boat house"], {})
    with pytest.raises(UserError, match="'c a b'"):
        match_classes(FILE, {"a b c": ["1"], "b a c": ["2"]}, ["c a b"], {})


@pytest.mark.parametrize(
    ("name", "keys", "nearest"),
    [
        ("bazaar indoor", ["barndoor", "bazaar", "basilica", "indoor pool"], "bazaar"),
        ("apartment building outdoor", ["apartment building", "outdoor hotel", "building"], "apartment building"),
        ("centred face", ["off-center face", "centered face", "face of a cougar cat"], "centered face"),
        ("sea ice", ["lake or sea", "ice rink", "sea_ice (arctic)"], "sea_ice (arctic)"),
        ("abisinian", ["Bengal", "Abyssinian", "Sphynx"], "Abyssinian"),
    ],
)
def test_the_nearest_key_shares_words_before_letters(name: str, keys: list[str], nearest: str) -> None:
    with pytest.raises(UserError, match=re.escape(f"'{name}' (nearest key: '{nearest}')")):
        match_classes(FILE, {key: ["text"] for key in keys}, [name], {})


def test_a_key_that_no_class_reads_is_the_nearer_one() -> None:
    """The key that is left over is most likely the one that is wanted."""
    with pytest.raises(UserError, match=r"'newt' \(nearest key: 'eft'\)"):
        match_classes(FILE, {"new": ["a"], "eft": ["b"]}, ["new", "newt"], {})


def test_published_lists_of_descriptors_may_be_empty() -> None:
    found = {"donuts": [], "pizza": ["melted cheese"]}
    assert match_classes(FILE, found, ["donuts", "pizza"], {}, may_be_empty=True) == [[], ["melted cheese"]]
    with pytest.raises(UserError, match="'donuts'"):
        match_classes(FILE, found, ["donuts", "pizza"], {})
    with pytest.raises(UserError, match="'oysters'"):
        match_classes(FILE, found, ["oysters", "pizza"], {}, may_be_empty=True)


def test_templates_are_given_or_in_a_published_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "toy" / "clip-e.json"
    file.parent.mkdir()
    file.write_text('["a photo of a {}, a type of bird.", "art of the {}."]')
    wanted = ["a photo of a {name}, a type of bird.", "art of the {name}."]
    assert read_templates(["a {name}."], file.parent) == ["a {name}."]
    assert read_templates("clip-e.json", file.parent) == wanted
    assert capsys.readouterr().err == ""
    assert read_templates(str(file), tmp_path / "other") == wanted
    assert "DVC does not watch" in capsys.readouterr().err
    for content in ("{", "[]", '{"a": ["b"]}', '["a photo."]', '["a {0}"]', '["a {name} {x}"]'):
        file.write_text(content)
        with pytest.raises(UserError, match=re.escape(str(file))):
            read_templates("clip-e.json", file.parent)
    with pytest.raises(UserError, match="is missing"):
        read_templates("other.json", file.parent)


def test_two_keys_for_one_class_are_refused() -> None:
    with pytest.raises(UserError, match="'red_tavo' and 'Red Tavo' name the same class") as refused:
        match_classes(FILE, {"red_tavo": ["a"], "Red Tavo": ["b"]}, ["red tavo"], {})
    assert str(FILE) in str(refused.value)


def test_keys_of_no_class_are_named_in_one_warning(capsys: pytest.CaptureFixture[str]) -> None:
    match_classes(FILE, {"pug": ["a"], "zebra": ["b"], "okapi": ["c"]}, ["pug"], {})
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("warning: ")
    assert "2 keys match no class" in err
    assert "zebra, okapi" in err
    many = {"pug": ["a"], **{f"animal {index:02}": ["a"] for index in range(14)}}
    match_classes(FILE, many, ["pug"], {})
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "animal 09 and 4 more" in err
    assert "animal 10" not in err


def test_white_space_is_cleaned_and_texts_without_letters_are_dropped() -> None:
    texts = ["\n\nIt has\t a  tail. ", "", "  ", "...", "1.", "-- 3 --", "é", "3 legs"]
    assert match_classes(FILE, {"pug": texts}, ["pug"], {}) == [["It has a tail.", "é", "3 legs"]]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("{", "is not valid JSON"),
        (b"\xff\xfe\x00", "is not valid JSON"),
        ("", "is not valid JSON"),
        ('["a"]', "must be {class name: [sentence, ...]}, not a list"),
        ('{"pug": "a dog"}', "'pug' must be a list of sentences, but has 'a dog'"),
        ('{"pug": ["a dog", 3]}', "'pug' must be a list of sentences, but has 3"),
        ('{"pug": {"q": ["a dog"]}}', "'pug' must be a list of sentences, but has {'q'"),
        (None, "is missing"),
    ],
)
def test_other_files_are_refused_in_one_line(tmp_path: Path, content: str | bytes | None, expected: str) -> None:
    path = tmp_path / "cupl.json"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError) as refused:
        read_source(path)
    assert str(refused.value).startswith(str(path))
    assert expected in str(refused.value)
    assert "\n" not in str(refused.value)


PUBLISHED = ("cupl", "attrvr_des", "attrvr_dist", "clip-d", "bifta0.99")


@pytest.mark.parametrize("source", PUBLISHED)
@pytest.mark.parametrize("dataset", ["oxford_pets", "dtd"])
def test_published_files_match_one_another_in_any_spelling(real: Path, dataset: str, source: str) -> None:
    folder = real / "descriptions" / dataset
    names = list(json.loads((folder / "cupl.json").read_text()))
    assert len(names) == {"oxford_pets": 37, "dtd": 47}[dataset]
    path = folder / f"{source}.json"
    for spelled in (names, [name.upper() for name in names], [re.sub(r"[\s_-]", "_", name) for name in names]):
        texts = match_classes(path, read_descriptions(path), spelled, {})
        assert len(texts) == len(names)
        assert all(texts)


@pytest.mark.parametrize(
    ("descriptor", "expected"),
    [
        ("a seabird", "which is a seabird"),
        ("an orange bill", "which is an orange bill"),
        ("antlers", "which is antlers"),  # the published rule goes by the letter
        ("has a tail", "which has a tail"),
        ("often perches", "which often perches"),
        ("typically brown", "which typically brown"),
        ("may be spotted", "which may be spotted"),
        ("can be striped", "which can be striped"),
        ("used for cutting", "which is used for cutting"),
        ("  red   legs.\n", "which has red legs."),  # published descriptors with a full stop keep it
        ("is small", "which has is small"),
        ("A red crown", "which has A red crown"),
    ],
)
def test_descriptors_are_joined_by_the_published_rule(descriptor: str, expected: str) -> None:
    assert join_descriptor("Tavo", descriptor) == f"Tavo, {expected}"
    assert join_descriptor("Washington D.C.", descriptor) == f"Washington D.C., {expected}"
    assert join_to_prompt("a photo of a tavo.", descriptor) == f"a photo of a tavo, {expected}."
    assert join_to_prompt("a photo of a D.C..", descriptor) == f"a photo of a D.C., {expected}."


def test_random_descriptors_have_the_shape_of_the_class_names_and_are_the_same_every_time() -> None:
    names = [
        "Black-footed Albatross",
        "Least Auklet",
        "Bobolink",
    ]  # 1.67 words of 7.5 letters, the longest 9 on average
    found = waffle_descriptors(0, 15, names)
    assert len(found) == len(set(found)) == 30
    assert found == waffle_descriptors(0, 15, names)
    assert found != waffle_descriptors(1, 15, names)
    assert found[:10] == waffle_descriptors(0, 5, names)
    for words, strings in zip(found[::2], found[1::2], strict=True):
        assert re.fullmatch(r"[a-z]{4,8} [a-z]{4,8}", words)
        assert re.fullmatch(r"\S{5}, \S{5}", strings)
    one, three = (waffle_descriptors(0, 3, [name])[:2] for name in ("pug", "Boeing 737 MAX"))
    assert [len(one[0].split()), len(three[0].split())] == [1, 3]
    assert [len(one[0]), len(one[1])] == [3, 4], "3 letters; a string is one longer where the groups divide it"
    assert re.fullmatch(r"\S{3}, \S{3}, \S{3}", three[1])


def test_a_project_without_any_descriptions_is_scored_by_the_names(project: Project) -> None:
    shutil.rmtree(project.folder / "descriptions")
    project.edit(lambda params: params.update(sources={}))
    pair = "--dataset toy --model tiny"
    before = ("settings --dataset toy", "ingest --dataset toy", "describe --dataset toy", "crop --dataset toy")
    in_folder(project.folder, *before, f"refine {pair}", f"embed {pair}", f"score {pair}", f"report {pair}")
    metrics = json.loads((project.folder / "data/toy/tiny/metrics.json").read_text())
    assert list(metrics) == ["clip", "clip-e", "waffle"]
    assert "clip-e" in (project.folder / "data/toy/tiny/report/table.md").read_text()
