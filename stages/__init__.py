"""The pipeline, one package a stage, and its functions for use from Python (docs/python.md).

Nothing is loaded until a name is used, so that stages start fast.
"""

from __future__ import annotations

from stages.common.interrupts import install_if_stage

install_if_stage()  # before anything else takes time

from typing import TYPE_CHECKING, Any  # noqa: E402

if TYPE_CHECKING:
    from stages.api import (
        Encoder,
        Selection,
        Texts,
        UserError,
        Views,
        align,
        draw_crops,
        embed_descriptions,
        embed_views,
        filter_crops,
        load_encoder,
        open_image,
        select_descriptions,
    )
    from stages.classify import Classifier, Prediction, load_classifier

__all__ = [
    "Classifier",
    "Encoder",
    "Prediction",
    "Selection",
    "Texts",
    "UserError",
    "Views",
    "align",
    "draw_crops",
    "embed_descriptions",
    "embed_views",
    "filter_crops",
    "load_classifier",
    "load_encoder",
    "open_image",
    "select_descriptions",
]


CLASSIFY = ("Classifier", "Prediction", "load_classifier")
"""Those of `stages.classify`; the others are in `stages.api`."""


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from stages import api, classify

    return getattr(classify if name in CLASSIFY else api, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
