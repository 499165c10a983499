"""Texts that only baselines use: descriptors joined to the name (CLIP-D) and random ones (WaffleCLIP)."""

from __future__ import annotations

import math
import string
from collections.abc import Sequence

import numpy as np
from open_clip.tokenizer import SimpleTokenizer

from stages.common.seeding import generator

FEWEST_LETTERS = 4
"""At least, for a random word: shorter entries of CLIP's vocabulary are mostly function words."""
CHARACTERS = string.ascii_letters + string.digits + "!?#&*+-=%@"


def join_descriptor(subject: str, descriptor: str) -> str:
    """A descriptor as a clause: "tavo" and "a red crown" are "tavo, which is a red crown".

    This is the rule of Menon & Vondrick's code (arXiv 2210.07183), which WCA's and BiFTA's code share. It looks only
    at the
    first letters, so "a seabird" and "antlers" are both joined by "which is". A full stop stays where it is, in a
    name ("Mt. St.") or at the end of a descriptor.
    """
    words = " ".join(descriptor.split())
    if words.startswith(("a", "used")):
        clause = f"which is {words}"
    elif words.startswith(("has", "often", "typically", "may", "can")):
        clause = f"which {words}"
    else:
        clause = f"which has {words}"
    return f"{subject}, {clause}"


def join_to_prompt(prompt: str, descriptor: str) -> str:
    """As `join_descriptor`, with the full stop of the prompt at the end: "a photo of a tavo, which has red legs."."""
    stop = "." if prompt.endswith(".") else ""
    return join_descriptor(prompt.removesuffix("."), descriptor) + stop


def waffle_descriptors(seed: int, pairs: int, names: Sequence[str]) -> list[str]:
    """`pairs` descriptors of random words and as many of random characters (arXiv 2306.07282, section 3.2).

    As in the paper's code, the class names set the shape: as many words as a name has on average, cut to the average
    length of a name's words; and groups of characters, as many as a name's words, as long together as a name's longest
    word on average. Words are entries of CLIP's vocabulary. The same descriptors serve every class.

    Args:
        names: of all classes, at least one.
    """
    rng = generator(seed, "waffle")
    words, letters, groups, characters = _shape([name.split() or [name] for name in names])
    tokens = (token.removesuffix("</w>") for token in SimpleTokenizer().encoder if token.endswith("</w>"))
    known = sorted(t[:letters] for t in tokens if t.isascii() and t.isalpha() and len(t) >= FEWEST_LETTERS)
    found = []
    for _ in range(pairs):
        found.append(" ".join(rng.choice(known, words)))
        found.append(", ".join("".join(rng.choice(list(CHARACTERS), characters)) for _ in range(groups)))
    return found


def _shape(names: Sequence[Sequence[str]]) -> tuple[int, int, int, int]:
    """For names split into words: words, letters per word, groups of characters, and characters per group."""
    words = max(1, round(float(np.mean([len(name) for name in names]))))
    letters = max(1, round(float(np.mean([np.mean([len(word) for word in name]) for name in names]))))
    groups = round(float(np.mean([len(name) - 1 for name in names]))) + 1
    longest = math.ceil(np.mean([max(map(len, name)) for name in names]))
    # As in the paper's code, which rounds up even from a multiple: 9 characters in 3 groups become 4 per group.
    return words, letters, groups, (longest + groups - longest % groups) // groups
