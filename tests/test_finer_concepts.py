"""Concept attributes: texts and their sections, what is asked, how answers are sorted, and that none is paid twice."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from conftest import Call, Project
from finer_project import NAMES, make_labelled
from openai_server import KEY, Endpoint

from stages.common import paths as common_paths
from stages.common.artifacts import CLASSES as CLASSES_TABLE
from stages.common.errors import UserError
from stages.common.tables import read_table, write_table
from stages.finer import paths
from stages.finer.ask.serve import transformers_command
from stages.finer.attributes import Attributes, read_by_class
from stages.finer.concepts.answers import NoAttributes, concept_request, parse_attributes
from stages.finer.concepts.texts import excerpt, read_texts
from stages.finer.params import load_finer_params

TARGET, SOURCE = Path("descriptions/toy/attributes.json"), Path("descriptions/toy/finer.json")
LOG = Path("data/finer/concepts/toy.jsonl")

# Texts


WIKI = (
    "Lead words.\n\n== Taxonomy ==\nNames.\n== Description ==\nRed crown.\n=== Male ===\nBrighter.\n== Range ==\nFar."
)
MARKDOWN = "Lead.\n# Design\nTwin engines.\n## Wing\nSwept.\n# History\nOld."
BARE = "Lead text here.\n\ndescription of nothing.\n\nDescription\nRed crown.\n\nRange\nFar away."


@pytest.mark.parametrize(
    ("text", "section"),
    [
        (WIKI, "Red crown. Brighter."),
        (MARKDOWN, "Twin engines. Swept."),
        (BARE, "Red crown."),
        ("== Description ==\n", "== Description =="),  # an empty section says nothing: the text as it is
        ("No heading at all, and a design of sorts.", "No heading at all, and a design of sorts."),
    ],
)
def test_the_section_headed_description_or_design_is_shown(text: str, section: str) -> None:
    assert excerpt(text, 256) == section


def test_no_more_words_are_shown_than_asked_for() -> None:
    assert excerpt("== Description ==\n" + "word " * 300, 256) == " ".join(["word"] * 256)


def write_texts(folder: Path, *records: object) -> Path:
    path = folder / "concepts.jsonl"
    path.write_text("".join(f"{record if isinstance(record, str) else json.dumps(record)}\n" for record in records))
    return path


def test_texts_are_matched_to_classes_whatever_their_spelling(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_texts(tmp_path, {"name": "grey heron", "text": "Long legs."}, "", {"name": "gray heron", "text": "?"})
    assert read_texts(path, ["Grey_Heron"]) == {"Grey_Heron": "Long legs."}
    assert capsys.readouterr().err == (
        f"warning: {path}: 1 texts are of no class and not used: 'gray heron' (did you mean 'Grey_Heron'?)\n"
    )
    assert read_texts(tmp_path / "none.jsonl", ["Grey_Heron"]) == {}


@pytest.mark.parametrize("line", ["{", "[]", '{"name": "blue tavo"}', '{"name": "blue tavo", "text": 3}'])
def test_a_line_that_is_no_text_is_named(tmp_path: Path, line: str) -> None:
    path = write_texts(tmp_path, {"name": "blue tavo", "text": "Blue."}, line)
    with pytest.raises(UserError, match=r"line 2.* (expected|valid JSON) .*; correct the line"):
        read_texts(path, ["blue tavo"])


def test_two_texts_of_a_class_are_refused(tmp_path: Path) -> None:
    path = write_texts(tmp_path, {"name": "blue tavo", "text": "a"}, {"name": "Blue_Tavo", "text": "b"})
    with pytest.raises(UserError, match="line 2: a second text of 'blue tavo'; keep one"):
        read_texts(path, ["blue tavo"])


def test_a_line_may_hold_any_character_that_json_allows(tmp_path: Path) -> None:
    text = "Red\u2028crown\x85and tail."
    path = tmp_path / "concepts.jsonl"
    path.write_text(json.dumps({"name": "blue tavo", "text": text}, ensure_ascii=False) + "\n", encoding="utf-8")
    assert read_texts(path, ["blue tavo"]) == {"blue tavo": text}


def test_a_file_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    path = tmp_path / "concepts.jsonl"
    path.write_bytes('{"name": "blue tavo", "text": "é"}\n'.encode("latin-1"))
    with pytest.raises(UserError, match=r"concepts\.jsonl is not in UTF-8 \(.* at byte 31\); save it as such$"):
        read_texts(path, ["blue tavo"])


# Answers


RED, LONG, WHITE = "red crown", "long tail", "white belly"
LIKE = "Likely the reddest crown of all"


@pytest.mark.parametrize(
    ("answer", "required", "likely"),
    [
        ('{"required": ["red crown"], "likely": ["white belly"]}', [RED], [WHITE]),
        ('Here:\n```json\n{"Required": ["red crown"], "Likely": []}\n```', [RED], []),
        ('<think>{"required": ["x"]}</think>{"required": ["red crown"], "likely": []}', [RED], []),
        ("Required:\n1. red crown\n2) long tail\n\nLikely:\n(3) white belly", [RED, LONG], [WHITE]),
        ("**Required attributes**\n• red crown\n‣ long tail\n## Likely\n▪ white belly", [RED, LONG], [WHITE]),
        ("required\n- red crown\nlikely\n* white belly\n+ long tail", [RED], [WHITE, LONG]),
        ("- Required (always visible): red crown; long tail\n- Likely: white belly", [RED, LONG], [WHITE]),
        ("Visible required features:\nred crown\nMost likely visible features:\nwhite belly", [RED], [WHITE]),
        # An attribute in which the word occurs is no heading.
        (f"Required:\n- {LIKE}\n- red crown\nLikely:\n- white belly", [LIKE, RED], [WHITE]),
        # "none" and what cannot be seen in a photo are dropped, repetitions are said once.
        ("Required:\n- red crown\n- Red crown.\n- a 3.5 cm beak\nLikely:\n- None\n- red crown", [RED], []),
        ("Required:\n- a weight of 2 kg\n- red crown\nLikely:\nN/A", [RED], []),
    ],
)
def test_answers_are_sorted_whatever_their_lists_look_like(answer: str, required: list[str], likely: list[str]) -> None:
    assert parse_attributes(answer)[0] == Attributes(required, likely)


@pytest.mark.parametrize(
    "item",
    [
        "- None mentioned",
        "- None specified in the text.",
        "- none visible",
        "1. (none)",
        "-none",
        "1.(none)",
        "N/A",
        "- N/A",
        "*none*",
        "• n.a.",
        "- Not mentioned in the text",
        "- None; the text says nothing",
        "None, as it is",
    ],
)
@pytest.mark.parametrize("before", ["\n", " "])
def test_none_is_no_attribute(item: str, before: str) -> None:
    answer = f"Required:\n- red crown\nLikely:{before}{item}"
    assert parse_attributes(answer) == (Attributes([RED], []), Counter(none=1))
    assert parse_attributes(f"{answer}\n\nNothing else is certain.")[0] == Attributes([RED], [])


@pytest.mark.parametrize(
    "line",
    [
        "•red crown",
        "-red crown",
        "*red crown",
        "1.red crown",
        "2)red crown",
        "–red crown",
        "■ red crown",
        "▸red crown",
        "🔹 red crown",
        "✔️ red crown",
        "- [ ] red crown",
        "ii. red crown",
        "*red crown*",
        "- *red* crown",
        "−red crown",
    ],
)
def test_a_bullet_is_no_part_of_an_attribute(line: str) -> None:
    assert parse_attributes(f"Required:\n{line}")[0] == Attributes([RED], [])


@pytest.mark.parametrize(
    "item",
    [
        "x-shaped mark",
        "-5 stripes",
        "4 feet",
        "4 feet with long claws",
        "no visible tail",
        "nonexistent crest",
        "nape of rust",
        "non-iridescent wing",
        "round “eye” spot",
        "V-shaped notch",
        "1.5-fold crest",
        "a-shaped spot",
    ],
)
@pytest.mark.parametrize("bullet", ["", "- ", "•", "1. "])
def test_an_attribute_that_looks_like_something_else_is_kept(bullet: str, item: str) -> None:
    assert parse_attributes(f"Required:\n{bullet}{item}")[0].required == [item]


@pytest.mark.parametrize(
    "item",
    ["2.5 feet", "4 feet tall", "12-15 feet long", "4 feet in height", "6-foot tail", "4 ft", "3 inches", "20 m high"],
)
def test_a_measure_is_dropped(item: str) -> None:
    answer = f"Required:\n- red crown\n- {item}"
    assert parse_attributes(answer) == (Attributes([RED], []), Counter({"size or weight": 1}))


CLOSING = "I hope this helps!\nAsk me for more."


@pytest.mark.parametrize(
    ("answer", "required", "likely"),
    [
        (f"Required:\n- red crown\nLikely:\n- white belly\n\n{CLOSING}", [RED], [WHITE]),
        (f"Required:\n\n- red crown\n\n{CLOSING}\n\nLikely:\n\n1. white belly\n\n2. long tail", [RED], [WHITE, LONG]),
        (f"Required: red crown\nLikely: white belly\n\n{CLOSING}", [RED], [WHITE]),
        # Without any bullet a line is an attribute, whatever is between them.
        ("Required:\nred crown\n\nlong tail\n\nLikely:\n\nwhite belly", [RED, LONG], [WHITE]),
    ],
)
def test_a_closing_paragraph_is_no_attribute(answer: str, required: list[str], likely: list[str]) -> None:
    assert parse_attributes(answer)[0] == Attributes(required, likely)


@pytest.mark.parametrize(
    "heading",
    [
        "## Likely to be visible",
        "**Likely to be seen:**",
        "__Likely in some photos__",
        "### 2. Likely, not always",
        "- **Likely to be visible:**",
        "**Likely in some photos**:",
        "*Likely:*",
        "Likely, but not in every photo:",
    ],
)
def test_a_heading_is_known_by_its_marks(heading: str) -> None:
    answer = f"## Required in every photo\n### Head\n- red crown\n- {LIKE}\n- **{LIKE}.**\n\n{heading}\n- white belly"
    assert parse_attributes(answer)[0] == Attributes([RED, LIKE], [WHITE])


def test_the_command_transformers_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    beside, elsewhere = tmp_path / "python" / "transformers", tmp_path / "user" / "transformers"
    monkeypatch.setattr(sys, "executable", str(beside.with_name("python3")))
    monkeypatch.setenv("PATH", str(elsewhere.parent))
    with pytest.raises(UserError, match=r"^asking .* needs the command `transformers`; pip install -r [\w.-]+$"):
        transformers_command()
    for command in (elsewhere, beside):  # the one beside this Python comes first
        command.parent.mkdir()
        command.touch(mode=0o755)
        assert transformers_command() == str(command)


def test_what_is_dropped_is_counted() -> None:
    _, dropped = parse_attributes("Required:\n- red crown\n- red crown\n- a 3.5 cm beak\nLikely:\n- none")
    assert dropped == Counter({"twice": 1, "size or weight": 1, "none": 1})


@pytest.mark.parametrize(
    "answer",
    ["", "I cannot say.", "Likely:\n- red crown", "- red crown\n- long tail", '{"required": [], "likely": []}'],
)
def test_an_answer_without_required_attributes_is_none(answer: str) -> None:
    with pytest.raises(NoAttributes):
        parse_attributes(answer)


def test_structured_output_is_asked_for_where_the_model_knows_it() -> None:
    settings = load_finer_params().finer.concepts
    body = concept_request("blue tavo", "finch", "It is blue.", settings).body
    schema = body["response_format"]["json_schema"]
    assert schema["strict"] and schema["schema"]["required"] == ["required", "likely"]
    assert body["messages"][1]["content"] == 'Concept: "blue tavo", a kind of finch.\nText: It is blue.'
    plain = concept_request("blue tavo", None, "", settings.model_copy(update={"structured": False})).body
    assert "response_format" not in plain
    assert "There is no text about it" in plain["messages"][1]["content"]


# The stage


@pytest.fixture
def toy(project: Project, monkeypatch: pytest.MonkeyPatch, call: Call) -> Project:
    """Classes with coarse labels, no file of attributes."""
    make_labelled(project)
    (project.folder / TARGET).unlink()
    monkeypatch.chdir(project.folder)
    assert call("ingest", "--dataset", "toy").code == 0
    return project


def answer_of(prompt: str) -> str:
    name = prompt.split('"')[1]
    return json.dumps({"required": [f"crown of {name}", "a 5 cm beak"], "likely": [f"tail of {name}"]})


def entries(path: Path = TARGET) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(path.read_text())
    return found


def test_attributes_are_asked_once_and_become_a_source(toy: Project, call: Call, endpoint: Endpoint) -> None:
    endpoint.answer = answer_of
    (Path("descriptions/toy") / "concepts.jsonl").write_text('{"name": "blue tavo", "text": "It is blue."}\n')
    done = call("finer.concepts", "--dataset", "toy")
    assert (done.code, done.err) == (0, "")
    assert "from 3 answers, 3 of them asked for now, with texts of 1 of 3 concepts" in done.out
    assert "dropped: 3 size or weight; 3 required and 3 likely attributes of 3 classes" in done.out
    assert entries()[0] == {
        "id": 0,
        "name": NAMES[0],
        "attr_binomial": {"required": ["crown of Grey_Heron"], "likely": ["tail of Grey_Heron"]},
    }
    assert list(json.loads(SOURCE.read_text()).values())[1] == ["crown of blue tavo", "tail of blue tavo"]
    first = TARGET.read_bytes(), SOURCE.read_bytes()
    again = call("finer.concepts", "--dataset", "toy")
    assert "0 of them asked for now" in again.out
    assert (TARGET.read_bytes(), SOURCE.read_bytes()) == first
    assert max(endpoint.paid.values()) == 1 and sum(endpoint.paid.values()) == 3
    assert KEY not in LOG.read_text()


def test_a_changed_text_is_asked_about_alone(toy: Project, call: Call, endpoint: Endpoint) -> None:
    endpoint.answer = answer_of
    call("finer.concepts", "--dataset", "toy")
    (Path("descriptions/toy") / "concepts.jsonl").write_text('{"name": "blue tavo", "text": "It is blue."}\n')
    assert "from 3 answers, 1 of them asked for now" in call("finer.concepts", "--dataset", "toy").out


def test_a_file_of_the_user_s_is_never_overwritten(toy: Project, call: Call) -> None:
    given = [{"name": name, "attr_binomial": {"required": ["x"], "likely": []}} for name in NAMES]
    TARGET.write_text(json.dumps(given))
    done = call("finer.concepts", "--dataset", "toy")
    assert (done.code, done.err) == (0, "")
    assert f"{TARGET}: used as it is; 3 required and 0 likely attributes of 3 classes" in done.out
    assert entries() == given


def test_a_source_of_the_user_s_is_left_as_it_is(toy: Project, call: Call) -> None:
    given = [{"name": name, "attr_binomial": {"required": ["x"], "likely": []}} for name in NAMES]
    TARGET.write_text(json.dumps(given))
    SOURCE.write_text('{"blue tavo": ["mine"]}')
    done = call("finer.concepts", "--dataset", "toy")
    assert done.code == 0 and f"warning: {SOURCE} was not written by this stage" in done.err
    assert SOURCE.read_text() == '{"blue tavo": ["mine"]}'
    SOURCE.unlink()
    assert call("finer.concepts", "--dataset", "toy").err == ""
    TARGET.write_text(json.dumps(given).replace('"x"', '"y"'))  # its own is made again
    assert call("finer.concepts", "--dataset", "toy").err == ""
    assert {text for own in json.loads(SOURCE.read_text()).values() for text in own} == {"y"}


def test_a_concept_missing_from_the_file_is_named(toy: Project, call: Call) -> None:
    TARGET.write_text(json.dumps([{"name": n, "attr_binomial": {"required": ["x"], "likely": []}} for n in NAMES[:2]]))
    done = call("finer.concepts", "--dataset", "toy")
    assert done.code == 1
    assert "has no concept of 1 of 3 classes: 'red-crowned tavo'" in done.err


def test_without_a_key_the_line_says_what_to_do(toy: Project, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    done = call("finer.concepts", "--dataset", "toy")
    assert done.code == 1 and done.err.count("\n") == 1
    assert "put a published file there, set OPENAI_API_KEY" in done.err and "the default, wants a key" in done.err


def test_answers_that_cannot_be_used_are_named_and_nothing_is_written(
    toy: Project, call: Call, endpoint: Endpoint
) -> None:
    endpoint.answer = lambda prompt: "I do not know it." if "blue" in prompt else answer_of(prompt)
    done = call("finer.concepts", "--dataset", "toy")
    assert done.code == 1
    assert "1 of 3 answers in" in done.err and "hold no required attribute ('blue tavo')" in done.err
    assert not TARGET.exists() and not SOURCE.exists()


def test_what_was_received_before_a_failure_is_not_paid_again(toy: Project, call: Call, endpoint: Endpoint) -> None:
    endpoint.answer = answer_of
    endpoint.fault = lambda prompt, before: "500" if "blue" in prompt else None
    toy.edit(lambda params: params["describe"].update(max_retries=0))
    done = call("finer.concepts", "--dataset", "toy")
    assert done.code == 1
    assert "1 of 3 answers are missing: 1 x HTTP 500 (concept 'blue tavo'" in done.err
    endpoint.fault = lambda prompt, before: None
    assert call("finer.concepts", "--dataset", "toy").code == 0
    assert sum(endpoint.paid.values()) == 3


def test_classes_may_share_a_concept_and_the_stages_behind_read_one_each(toy: Project, call: Call) -> None:
    """As an aircraft's variants share their family's; the stages behind read what DVC lists, not the user's file."""
    fine = {"red-crowned tavo": ["red-crowned tavo", "tavo"], "blue tavo": ["blue tavo", "tavo"]}
    classes, meta = read_table(common_paths.classes("toy"), CLASSES_TABLE)
    names = [fine.get(name, [name]) for name in classes["name"].to_pylist()]
    write_table(common_paths.classes("toy"), classes.drop(["fine"]).append_column("fine", [names]), meta)
    given = [{"name": name, "attr_binomial": {"required": [name], "likely": []}} for name in ("tavo", "grey heron")]
    TARGET.write_text(json.dumps(given))
    assert call("finer.concepts", "--dataset", "toy").code == 0
    TARGET.unlink()
    by_class = read_by_class(paths.attributes_by_class("toy"), dict(enumerate(NAMES)))
    assert [concept.binomial.required for concept in by_class] == [["grey heron"], ["tavo"], ["tavo"]]
