"""Building blocks of the sections of `params.yaml`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from stages.common.templates import class_template, fields

Key = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]
"""Keys become folder and DVC stage names, so letters, digits, '_' and '-' only."""

Unit = Annotated[float, Field(ge=0.0, le=1.0)]
Count = Annotated[int, Field(ge=1)]
LogScale = Annotated[float, Field(ge=-100.0, le=100.0)]
"""Logarithm of a factor; beyond these limits its exponential overflows or vanishes."""


def _only_names_the_class(text: str) -> str:
    fields(text)
    return text


PromptText = Annotated[str, AfterValidator(_only_names_the_class)]

TEMPLATE_SETS = ("imagenet7", "imagenet80")
"""open_clip's sets of templates, by their number."""


def _set_or_file(text: str) -> str:
    if Path(text).is_absolute():
        raise ValueError(
            f"'{text}' is a path of one machine; put the file into descriptions/<dataset>/ and give its name"
        )
    if text not in TEMPLATE_SETS and not text.endswith(".json"):
        raise ValueError(f"'{text}' is neither {' nor '.join(TEMPLATE_SETS)} nor a JSON file of templates")
    return text


def _not_absolute(text: str) -> str:
    if Path(text).is_absolute():
        raise ValueError(f"'{text}' is a path of one machine; give it relative to the root")
    return text


RelativePath = Annotated[str, AfterValidator(_not_absolute)]


Templates = (
    Annotated[str, AfterValidator(_set_or_file)]
    | Annotated[list[Annotated[str, AfterValidator(class_template)]], Field(min_length=1)]
)


def _numbers_or_names(mapping: dict[int | str, str]) -> dict[int | str, str]:
    if len({type(key) for key in mapping}) > 1:
        number = next(key for key in mapping if isinstance(key, int))
        raise ValueError(f'DVC cannot sort numbers and names in one mapping; write {number} as "{number}"')
    return mapping


ByClass = Annotated[dict[int | str, str], AfterValidator(_numbers_or_names)]
"""A value for each class, by name or number."""


class Section(BaseModel):
    """A mapping of `params.yaml`: no unknown keys, no silent type conversion."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, protected_namespaces=())
