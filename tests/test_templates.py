"""Templates: `{name}` and the documented fields are filled in, and nothing else, wherever a template is taken."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from conftest import ROOT

import stages
from stages.common.errors import UserError
from stages.common.params import load_params
from stages.common.templates import class_template, fields, fill
from stages.describe.prompts import ClassName, PromptSource, build_requests, load_source
from stages.refine.sources import read_templates

WRONG = [
    "a {name.__class__} {name}", "{name!r} {name}", "{name:>10} {name}", "{name[0]} {name}", "{0} {name}",
    "{ name} {name}",
    "{name} {", "} {name}", "{name}}", "{{name}", "{{name} {name}", "{{{name!s}}} {name}", "{name} {\n}",
    "{name} {name:{name}}", "{colour} {name}", "{name!}{name}", "{__class__} {name}",
]  # fmt: skip
"""Each is refused everywhere."""
WITHOUT = ["a photo", "a {{name}}", "", "{{}}"]
"""Without a place for the name: escaped braces are text."""


def with_param(tmp_path: Path, path: str, value: object) -> Path:
    raw = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    *above, last = path.split(".")
    section = raw
    for key in above:
        section = section.setdefault(key, {})
    section[last] = value
    file = tmp_path / "params.yaml"
    file.write_text(yaml.safe_dump(raw), encoding="utf-8")
    return file


@pytest.mark.parametrize("text", [*WRONG, *WITHOUT])
def test_other_places_are_refused_wherever_a_template_is_taken(text: str, tmp_path: Path) -> None:
    def refusal(*keys: str) -> str:
        message = str(refused.value)
        assert "{name}" in message
        assert "\n" not in message
        assert all(key in message for key in keys)
        return message

    for key in ("refine.label_prompt", "datasets.demo.refine.label_prompt", "datasets.demo.templates"):
        with pytest.raises(UserError) as refused:
            load_params(with_param(tmp_path, key, [text] if key.endswith("templates") else text))
        refusal(*key.split("."))
    file = tmp_path / "clip-e.json"
    file.write_text(json.dumps(["a {}", text]), encoding="utf-8")
    with pytest.raises(UserError) as refused:
        read_templates("clip-e.json", tmp_path)
    refusal(str(file))
    for source in ({"templates": [text]}, {"templates": ["{name}"], "datasets": {"pets": [text]}}):
        (tmp_path / "x.yaml").write_text(yaml.safe_dump(source), encoding="utf-8")
        with pytest.raises(UserError) as refused:
            load_source(tmp_path / "x.yaml")
        refusal("x.yaml", "datasets.pets.0" if "datasets" in source else "templates.0")
    with pytest.raises(ValueError, match="label_prompt"):
        stages.embed_descriptions({"wren": ["a"]}, None, text)  # type: ignore[arg-type]


def test_names_with_braces_are_text() -> None:
    name = "{name} {0} {category.__class__} {{x}} }"
    assert fill("a {{{name}}}, {name}: {{name}} {{}}", name=name) == f"a {{{name}}}, {name}: {{name}} {{}}"
    assert class_template("{} and {{}} or {name}") == "{name} and {{}} or {name}"
    assert fields("{{name}} {name}") == fields("{{{name}") == {"name"}
    source = PromptSource(templates=["the {category} {name}"], categories={"zoo": "{name}"})
    (request,) = build_requests(source, [ClassName(name)], "m", "zoo")
    assert request.prompt == f"the {{name}} {name}"
