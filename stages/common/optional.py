"""Packages that only the FINER pipeline needs (requirements-finer.txt): imported where they are used."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from stages.common.errors import UserError


def import_optional(module: str, for_what: str) -> ModuleType:
    """Import `module` by name, as `import_optional("rouge_score.rouge_scorer", "the score of generated attributes")`.

    Raises:
        UserError: it, or a package that it needs, is not installed.
    """
    try:
        return import_module(module)
    except ImportError as error:
        package = (error.name or module).split(".")[0].replace("_", "-")
        raise UserError(f"{for_what} needs {package}; pip install -r requirements-finer.txt") from None
