"""Building blocks of the sections of `params.yaml`."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Key = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]
"""Keys become folder and DVC stage names, so letters, digits, '_' and '-' only."""

Unit = Annotated[float, Field(ge=0.0, le=1.0)]
Count = Annotated[int, Field(ge=1)]
LogScale = Annotated[float, Field(ge=-100.0, le=100.0)]
"""Logarithm of a factor; beyond these limits its exponential overflows or vanishes."""


class Section(BaseModel):
    """A mapping of `params.yaml`: no unknown keys, no silent type conversion."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, protected_namespaces=())
