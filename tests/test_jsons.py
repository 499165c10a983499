"""The reader of users' JSON: what Python's passes over without a word is refused in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from stages.common.descriptions import read_descriptions
from stages.common.errors import UserError
from stages.common.jsons import parse_json, read_json
from stages.finer.attributes import read_attributes
from stages.finer.concepts.texts import read_texts


@pytest.mark.parametrize(
    "value",
    [
        {"wren": ['It is "brown": {small}.', "Ünï 🐦 }"], "a\nb": [1.5, None, True]},
        [{"name": "wren", "x": {"name": "tit"}}, {"name": "wren", "x": {}}],  # a key of each object
        "x",
    ],
)
@pytest.mark.parametrize("ascii_only", [True, False])
def test_sound_json_is_read_as_it_is(value: object, ascii_only: bool, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text(json.dumps(value, ensure_ascii=ascii_only, indent=2))
    assert read_json(path) == value
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())  # as Notepad saves it
    assert read_json(path) == value


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (
            '{"wren": ["a"],\n "tit": [],\n "wren": ["b"]}',
            "'wren' is there twice, at line 1 column 2 and line 3 column 2",
        ),
        ('{"w\\u0072en": [], "wren": []}', "'wren' is there twice, at line 1 column 2 and line 1 column 19"),
        ('[{"id": 0}, {"id": 1, "a": {"id": 2}, "id": 3}]', "'id' is there twice, at line 1 column 14 and line 1 col"),
        ('{"a": "{", "b": 1, "b": 1}', "'b' is there twice, at line 1 column 12 and line 1 column 20"),
        ('{"\\ud83d": 1, "\\ud83d": 2}', r"'\ud83d' is there twice"),
        ('{"wren": ["It is brown.",\n"It is \\ud83d."]}', r"line 2 column 1 has half of a character, \ud83d"),
        ('{"wr\\uDC26en": []}', r"the text at line 1 column 2 has half of a character, \udc26"),
        ("{", "is not valid JSON (Expecting"),
        ("", "is not valid JSON (Expecting"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_what_would_be_lost_is_refused_in_one_line(text: str, complaint: str) -> None:
    with pytest.raises(UserError) as error:
        parse_json(text.encode(), "x.json", "correct it")
    message = str(error.value)
    assert message.startswith("x.json") and message.endswith("; correct it") and complaint in message
    assert "\n" not in message
    message.encode()  # it can be printed


def test_a_whole_character_in_two_halves_is_read() -> None:
    assert parse_json(b'"\\ud83d\\udc26"', "x") == "🐦"


@pytest.mark.parametrize("reader", [read_descriptions, read_attributes])
@pytest.mark.parametrize("text", ['{"a": [], "a": []}', '{"a": ["\\ud83d"]}', "{", '["\xe9"]'])
def test_every_reader_of_a_user_s_json_says_so(reader: object, text: str, tmp_path: Path) -> None:
    assert callable(reader)
    path = tmp_path / "x.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=r"^\S*x\.json.* (is there twice|half of a character|not valid JSON)") as error:
        reader(path)
    assert "\n" not in str(error.value)


def test_a_line_of_texts_says_so(tmp_path: Path) -> None:
    path = tmp_path / "concepts.jsonl"
    path.write_text('{"name": "wren", "text": "a"}\n{"name": "wren", "name": "tit", "text": "b"}\n')
    with pytest.raises(UserError, match=r"concepts\.jsonl, line 2: the key 'name' is there twice"):
        read_texts(path, ["wren", "tit"])
