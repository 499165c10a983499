"""Class names as different people write them."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence


def spelling(name: str) -> str:
    """A class name without case and separators: "Wheaten_Terrier" and "wheaten terrier" are one."""
    return re.sub(r"[\W_]+", " ", unicodedata.normalize("NFKC", name).casefold()).strip()


def told_apart(names: Sequence[str]) -> list[str]:
    """Class names by label, as people see them: those that several classes share get their label added."""
    count = Counter(names)
    return [f"{name} ({label})" if count[name] > 1 else name for label, name in enumerate(names)]
