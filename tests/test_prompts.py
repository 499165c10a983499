"""Prompt sources and the requests that they make."""

from __future__ import annotations

from pathlib import Path

import pytest
from describe_project import (
    ROOT,
)

from stages.common.errors import UserError
from stages.describe.prompts import ClassName, PromptSource, build_requests, load_source

ASKING = [path for path in sorted((ROOT / "descriptions/prompts").glob("*.yaml")) if "templates:" in path.read_text()]


@pytest.mark.parametrize("path", ASKING, ids=lambda path: path.stem)
def test_shipped_prompt_source(path: Path) -> None:
    source = load_source(path)
    assert source.paper
    requests = build_requests(source, [ClassName("Abyssinian", "cat"), ClassName("wren")], "m", "demo")
    assert len(requests) == 2 * len(source.templates) * source.samples
    assert "cat" in requests[0].prompt
    assert "object" in requests[-1].prompt


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("templates: ['{name}']\nsample: 3", "sample: unknown key .did you mean 'samples'"),
        ("paper: x", "templates: missing"),
        ("templates: []", "templates: List should have at least 1 item"),
        ("templates: ['a bird']", r"templates.0: must contain \{name\}"),
        ("templates: ['{name} {kind}']", "placeholder {kind}"),
        ("templates: ['{name']", "templates.0: .*brace"),
        ("templates: ['{name}']\nparse: words", "parse: Input should be 'sentences' or 'list', not 'words'"),
        ("templates: ['{name}']\nextra: {n: 2}", "extra: must not hold 'n'"),
        ("- a", "must be a mapping"),
        ("a: [", "not valid YAML"),
        (
            "templates: ['{name}']\nparse: list\ntemplates: ['a {name}']",
            "'templates' is there twice, at line 1 and line 3",
        ),
        ('templates:\n- "{name} \\ud83d"', "line 2 has half of a character; write the character itself"),
    ],
)
def test_wrong_prompt_source_is_refused_in_one_line(text: str, complaint: str, tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=complaint) as error:
        load_source(path)
    assert "\n" not in str(error.value)


def test_requests_know_kinds_and_each_is_made_once() -> None:
    source = PromptSource(templates=["the {category} {name}"], categories={"zoo": "animal"})
    crane = [ClassName("crane", "bird"), ClassName("crane", "machine"), ClassName("wren"), ClassName("wren")]
    prompts = [request.prompt for request in build_requests(source, crane, "m", "demo")]
    assert prompts == ["the bird crane", "the machine crane", "the object wren"]
    assert [request.prompt for request in build_requests(source, crane[:1], "m", "zoo")] == ["the animal crane"]


def test_data_set_has_questions_of_its_own() -> None:
    source = PromptSource(templates=["{name}?"], datasets={"oxford_pets": ["pet {name}?", "coat of {name}?"]})
    for dataset, prompts in (("Oxford-Pets", ["pet wren?", "coat of wren?"]), ("pets", ["wren?"])):
        assert [request.prompt for request in build_requests(source, [ClassName("wren")], "m", dataset)] == prompts


def test_cupl_has_the_families_of_its_paper() -> None:
    source = load_source(ROOT / "descriptions/prompts/cupl.yaml")
    asked = {"dtd": "texture", "fgvc-aircraft": "aircraft", "Stanford_Cars": "car", "birdsnap": "bird", "ucf101": "act"}
    for dataset, word in asked.items():
        requests = build_requests(source, [ClassName("wren")], "m", dataset)
        assert all(word in request.prompt for request in requests)
        assert len(requests) >= 3 * source.samples


def test_digest_depends_on_everything_that_is_sent() -> None:
    def digest(model: str = "m", **settings: object) -> str:
        source = PromptSource.model_validate({"templates": ["{name}"]} | settings)
        return build_requests(source, [ClassName("wren")], model, "demo")[-1].digest

    changes: list[dict] = [
        {},
        {"model": "n"},
        {"system": "s"},
        {"temperature": 0.5},
        {"max_tokens": 5},
        {"api": "completions"},
        {"samples": 2},
        {"extra": {"top_p": 0.5}},
    ]
    assert len({digest(**change) for change in changes}) == len(changes)
    assert digest(paper="x", parse="list", temperature=1) == digest()
