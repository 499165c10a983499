"""Class names as different people write them."""

from __future__ import annotations

import re
import unicodedata


def spelling(name: str) -> str:
    """A class name without case and separators: "Wheaten_Terrier" and "wheaten terrier" are one."""
    return re.sub(r"[\W_]+", " ", unicodedata.normalize("NFKC", name).casefold()).strip()
