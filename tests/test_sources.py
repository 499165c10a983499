"""refine: description files in any spelling, and the texts of the baselines."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from stages.common.errors import UserError
from stages.refine.baselines import join_descriptor, waffle_descriptors
from stages.refine.sources import match_classes, read_descriptions, spelling

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
    assert f"{FILE} has no descriptions of 3 classes" in message
    assert "'wheaten terrier' (nearest key: 'wheaten terier'), 'zyx' (nearest key: '" in message
    assert "'bengal' (nearest key: 'Bengal')" in message, "a key whose texts say nothing"
    assert "aliases" in message


def test_an_alias_names_the_key(capsys: pytest.CaptureFixture[str]) -> None:
    found = {"English_Cocker_Spaniel": ["a dog"]}
    assert match_classes(FILE, found, ["cocker"], {"cocker": "english cocker spaniel"}) == [["a dog"]]
    assert capsys.readouterr().err == "", "a key that an alias uses is no stranger"


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
        ('["a"]', "must hold {class name: [sentence, ...]}"),
        ('{"pug": "a dog"}', "must hold {class name: [sentence, ...]}"),
        ('{"pug": ["a dog", 3]}', "must hold {class name: [sentence, ...]}"),
        ('{"pug": {"q": ["a dog"]}}', "must hold {class name: [sentence, ...]}"),
        (None, "is missing"),
    ],
)
def test_other_files_are_refused_in_one_line(tmp_path: Path, content: str | bytes | None, expected: str) -> None:
    path = tmp_path / "cupl.json"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError) as refused:
        read_descriptions(path)
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
        ("a red crown", "a photo of a tavo, which has a red crown."),
        ("  red   legs.\n", "a photo of a tavo, which has red legs."),
        ("is small", "a photo of a tavo, which is small."),
        ("Has a tail", "a photo of a tavo, which Has a tail."),
        ("often perches", "a photo of a tavo, which often perches."),
        ("issues a call", "a photo of a tavo, which has issues a call."),
    ],
)
def test_descriptors_are_joined_as_a_clause(descriptor: str, expected: str) -> None:
    assert join_descriptor("a photo of a tavo.", descriptor) == expected


def test_random_descriptors_are_pairs_of_words_and_of_strings_the_same_every_time() -> None:
    found = waffle_descriptors(0, 15)
    assert len(found) == 30
    assert found == waffle_descriptors(0, 15)
    assert found != waffle_descriptors(1, 15)
    assert found[:10] == waffle_descriptors(0, 5)
    assert len(set(found)) == 30
    for words, strings in zip(found[::2], found[1::2], strict=True):
        assert re.fullmatch(r"[a-z]{4,10} [a-z]{4,10}", words)
        assert re.fullmatch(r"\S{4,10}, \S{4,10}", strings)
