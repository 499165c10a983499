"""Texts that only baselines use: descriptors joined to the name (CLIP-D) and random ones (WaffleCLIP)."""

from __future__ import annotations

import string

import numpy as np
from open_clip.tokenizer import SimpleTokenizer

from stages.common.seeding import generator

# A descriptor that begins so is a clause of its own; any other is a thing that the class has.
_CLAUSE_STARTS = {"has", "have", "is", "are", "can", "may", "might", "often", "usually", "typically", "used"}
WAFFLE_PARTS = 2
WORD_LETTERS = (4, 10)
CHARACTERS = string.ascii_letters + string.digits + "!?#&*+-=%@"


def join_descriptor(prompt: str, descriptor: str) -> str:
    """`prompt` with a descriptor: "a photo of a tavo, which has a red crown." (Menon & Vondrick, arXiv 2210.07183)."""
    words = descriptor.strip().rstrip(".").split()
    verb = "" if words and words[0].lower() in _CLAUSE_STARTS else "has "
    return f"{prompt.rstrip('. ')}, which {verb}{' '.join(words)}."


def waffle_descriptors(seed: int, pairs: int) -> list[str]:
    """`pairs` descriptors of two random words and as many of two random strings (arXiv 2306.07282, Section 3.2).

    Words are whole-word entries of CLIP's vocabulary. The same descriptors serve every class.
    """
    rng = generator(seed, "waffle")
    shortest, longest = WORD_LETTERS
    tokens = (token.removesuffix("</w>") for token in SimpleTokenizer().encoder if token.endswith("</w>"))
    words = sorted(t for t in tokens if t.isascii() and t.isalpha() and shortest <= len(t) <= longest)
    found = []
    for _ in range(pairs):
        found.append(" ".join(rng.choice(words, WAFFLE_PARTS)))
        found.append(", ".join(_random_string(rng) for _ in range(WAFFLE_PARTS)))
    return found


def _random_string(rng: np.random.Generator) -> str:
    length = rng.integers(*WORD_LETTERS, endpoint=True)
    return "".join(rng.choice(list(CHARACTERS), length))
