"""Captions for training: short texts that name some of what a drawing shows.

The demo's own descriptions (stages/demo/descriptions) are worded from other templates, so that at test time the model
reads sentences it has not been trained on.
"""

import re
from collections.abc import Sequence

import numpy as np

from stages.demo.birds.species import ATTRIBUTES, SPECIES

Facts = dict[str, str]  # attribute -> value, for some of the attributes

SYNONYMS = {
    "red": ("crimson", "scarlet"),
    "orange": ("bright orange", "tangerine"),
    "yellow": ("golden", "bright yellow"),
    "green": ("leaf green", "emerald"),
    "blue": ("deep blue", "azure"),
    "purple": ("violet", "deep purple"),
    "brown": ("earthy brown", "chestnut"),
    "black": ("jet black", "inky black"),
    "white": ("snow white", "pale"),
    "grey": ("gray", "slate grey"),
}

# Noun phrases; {c} is a colour.
COLOURED = {
    "crown": ("a {c} crown", "a {c} cap", "a {c} top of the head", "{c} head feathers"),
    "back": ("a {c} back", "{c} wings", "a {c} back and {c} wings", "{c} upper parts", "{c} plumage above"),
    "belly": (
        "a {c} belly",
        "{c} underparts",
        "a {c} breast",
        "a {c} breast and belly",
        "a {c} underside",
        "{c} plumage below",
    ),
    "tail": ("a {c} tail", "{c} tail feathers"),
    "legs": ("{c} legs", "{c} feet", "{c} legs and feet"),
    "beak": ("a {c} beak", "a {c} bill"),
}
SHAPED = {
    ("wing", "plain"): ("plain wings", "wings without marks", "unmarked wings", "evenly coloured wings"),
    ("wing", "barred"): ("barred wings", "bars on the wings", "wing bars", "wings crossed by bars"),
    ("wing", "spotted"): ("spotted wings", "spots on the wings", "wings with dots", "speckled wings"),
    ("wing", "edged"): ("edged wings", "wings with a contrasting rim", "wings outlined at the edge", "a bordered wing"),
    ("beak_shape", "conical"): ("a conical beak", "a short thick bill", "a cone-shaped bill", "a stubby beak"),
    ("beak_shape", "straight"): ("a straight beak", "a long straight bill", "a thin spear-like bill"),
    ("beak_shape", "hooked"): ("a hooked beak", "a strongly hooked bill", "a hook-tipped beak"),
    ("beak_shape", "curved"): ("a curved beak", "a long down-curved bill", "a bent sickle-like beak", "a bowed bill"),
    ("tail_length", "short"): ("a short tail", "a stubby tail", "a small tail"),
    ("tail_length", "long"): ("a long tail", "a trailing tail", "a very long tail"),
    ("family", "finch"): ("the round body of a finch", "a plump finch body"),
    ("family", "wader"): ("the tall stance of a wader", "a slender wader body"),
    ("family", "parrot"): ("the upright pose of a parrot", "a big-headed parrot body"),
    ("family", "swallow"): ("the slim body of a swallow", "a low swallow body"),
}
# Two attributes of one part in one phrase.
JOINED = {
    ("tail", "tail_length"): ("a {s} {c} tail", "a {c} tail that is {s}"),
    ("beak", "beak_shape"): ("a {s} {c} beak", "a {c} {s} bill"),
    ("back", "wing"): ("{s} {c} wings", "{c} wings that are {s}"),
}
# As in names: "red-crowned".
HINTS = {
    "crown": ("{c}-crowned", "{c}-capped"),
    "back": ("{c}-backed", "{c}-winged"),
    "belly": ("{c}-bellied", "{c}-breasted"),
    "tail": ("{c}-tailed",),
    "legs": ("{c}-legged", "{c}-footed"),
    "beak": ("{c}-billed", "{c}-beaked"),
    ("wing", "plain"): ("plain-winged",),
    ("wing", "barred"): ("bar-winged", "barred-wing"),
    ("wing", "spotted"): ("spot-winged", "spotted-wing"),
    ("wing", "edged"): ("edge-winged",),
    ("beak_shape", "conical"): ("cone-billed", "thick-billed"),
    ("beak_shape", "straight"): ("straight-billed", "spear-billed"),
    ("beak_shape", "hooked"): ("hook-billed",),
    ("beak_shape", "curved"): ("bow-billed", "curve-billed"),
    ("tail_length", "short"): ("short-tailed",),
    ("tail_length", "long"): ("long-tailed",),
}
PART_NOUNS = {
    "crown": ("crown", "cap"),
    "back": ("back", "wings and back", "upper side"),
    "belly": ("belly", "breast", "underside"),
    "tail": ("tail",),
    "legs": ("legs", "feet"),
    "beak": ("beak", "bill"),
}
SUBJECTS = ("a bird", "this bird", "the bird", "a small bird", "it", "one")
NAMED_FRAMES = ("a photo of {n}.", "{n}", "an image of {n}", "a picture of {n}.", "{n}, a bird", "a good photo of {n}")
LIST_FRAMES = (
    "{n} with {list}",
    "{n} has {list}.",
    "{n} showing {list}",
    "a photo of {n} with {list}",
    "a drawing of {n} that has {list}.",
    "{bare}",
    "{n} and its {bare}",
    "the {bare} of {n}",
    "close view of {list}",
    "note {list} on {n}.",
    "{list} can be seen",
    "{n} wears {list}.",
    "with {list}, {n} stands there",
    "{n}: {list}",
)
COPULA_FRAMES = (
    "its {part} is {c}",
    "the {part} of {n} is {c}.",
    "{c} is the colour of the {part}",
    "{n} whose {part} is {c}",
    "{c} on the {part}",
    "{part}: {c}",
)
EMPTY_FRAMES = ("a photo of {n}.", "{n}", "{n} outdoors", "{n} is a kind of bird.", "{n} lives here", "a view of {n}")
FRAMES = (*NAMED_FRAMES, *LIST_FRAMES, *COPULA_FRAMES, *EMPTY_FRAMES)

_TEST_NOUNS = frozenset(species.name.split()[-1] for species in SPECIES)
_COUNTS, _COUNT_SHARES = (1, 2, 3, 4, 5), (0.34, 0.30, 0.2, 0.1, 0.06)


def made_up_noun(rng: np.random.Generator) -> str:
    """A noun that no species of the demo is named with."""
    while True:
        syllables = [
            "".join(rng.choice(list(part)) for part in ("bdfgklmnprstvz", "aeiou")) for _ in range(rng.integers(2, 4))
        ]
        noun = "".join(syllables) + str(rng.choice(["", "l", "n", "r", "k"]))
        if noun not in _TEST_NOUNS:
            return noun


def caption(visible: Facts, fillers: Sequence[str], rng: np.random.Generator) -> tuple[str, Facts]:
    """A text about a view in which ``visible`` can be seen, and the facts that it states (none in a few texts).

    ``fillers`` are words that say nothing; some captions begin or end with a few, for sentences in the wild do.
    """
    attributes = list(visible)
    if not attributes or rng.random() < 0.04:
        text, stated = _pick(EMPTY_FRAMES, rng).format(n=_noun_phrase(None, rng)), Facts()
    elif rng.random() < 0.16:
        text, stated = _named(visible, rng)
    else:
        count = min(len(attributes), int(rng.choice(_COUNTS, p=_COUNT_SHARES)))
        stated = {name: visible[name] for name in rng.permutation(attributes)[:count].tolist()}
        text = _statement(stated, rng)
    if fillers and rng.random() < 0.3:
        words = rng.choice(fillers, int(rng.integers(1, 6))).tolist()
        text = f"{' '.join(words)} {text}" if rng.random() < 0.6 else f"{text} {' '.join(words)}"
    text = re.sub(r"\ba (?=[aeiou])", "an ", text)
    return (text[0].upper() + text[1:] if rng.random() < 0.5 else text), stated


def _pick(options: Sequence[str], rng: np.random.Generator) -> str:
    return options[int(rng.integers(len(options)))]


def _colour(value: str, rng: np.random.Generator) -> str:
    return _pick(SYNONYMS[value], rng) if rng.random() < 0.15 else value


def _hint(attribute: str, value: str, rng: np.random.Generator) -> str:
    """An attribute as a compound adjective; family has none."""
    options = HINTS[attribute] if attribute in HINTS else HINTS[attribute, value]
    return _pick(options, rng).format(c=value)


def _noun_phrase(adjective: str | None, rng: np.random.Generator) -> str:
    """A made-up bird with an adjective ("a red-crowned gomil"); without one also "a bird" and the like."""
    if adjective:
        noun = made_up_noun(rng) if rng.random() < 0.7 else "bird"
        return f"a {adjective} {noun}"
    return f"a {made_up_noun(rng)}" if rng.random() < 0.4 else _pick(SUBJECTS, rng)


def _named(visible: Facts, rng: np.random.Generator) -> tuple[str, Facts]:
    """A name with at most one attribute in it, or the family's."""
    attribute = str(rng.choice(list(visible)))
    value = visible[attribute]
    name = f"a {value}" if attribute == "family" else _noun_phrase(_hint(attribute, value, rng), rng)
    return _pick(NAMED_FRAMES, rng).format(n=name), {attribute: value}


def _statement(stated: Facts, rng: np.random.Generator) -> str:
    """A sentence that states all of ``stated``; now and then one fact moves into the subject."""
    rest = dict(stated)
    subject = _noun_phrase(None, rng)
    if "family" in rest and rng.random() < 0.7:
        subject = f"a {rest.pop('family')}"
    elif len(rest) > 1 and rng.random() < 0.2:
        moved = next(iter(rest))
        if moved != "family":
            subject = _noun_phrase(_hint(moved, rest.pop(moved), rng), rng)
    if not rest:
        return _pick(NAMED_FRAMES, rng).format(n=subject)
    if len(rest) == 1 and next(iter(rest)) in COLOURED and rng.random() < 0.4:
        ((attribute, value),) = rest.items()
        part = _pick(PART_NOUNS[attribute], rng)
        return _pick(COPULA_FRAMES, rng).format(n=subject, part=part, c=_colour(value, rng))
    phrases = _phrases(rest, rng)
    bare = [phrase.removeprefix("a ").removeprefix("the ") for phrase in phrases]
    return _pick(LIST_FRAMES, rng).format(n=subject, list=_enumerate(phrases, rng), bare=_enumerate(bare, rng))


def _phrases(facts: Facts, rng: np.random.Generator) -> list[str]:
    left, phrases = dict(facts), []
    for (coloured, shaped), options in JOINED.items():
        if coloured in left and shaped in left and rng.random() < 0.6:
            phrases.append(_pick(options, rng).format(c=_colour(left.pop(coloured), rng), s=left.pop(shaped)))
    for attribute, value in left.items():
        if attribute in COLOURED:
            phrases.append(_pick(COLOURED[attribute], rng).format(c=_colour(value, rng)))
        else:
            phrases.append(_pick(SHAPED[attribute, value], rng))
    return [phrases[i] for i in rng.permutation(len(phrases))]


def _enumerate(phrases: list[str], rng: np.random.Generator) -> str:
    if len(phrases) == 1:
        return phrases[0]
    style = rng.random()
    if style < 0.2:
        return ", ".join(phrases)
    if style < 0.35:
        return " and ".join(phrases)
    return f"{', '.join(phrases[:-1])} and {phrases[-1]}"


def encode_facts(facts: Facts) -> np.ndarray:
    """[attributes] int8: each stated value's position in ATTRIBUTES, -1 where nothing is said."""
    codes = [values.index(facts[name]) if name in facts else -1 for name, values in ATTRIBUTES.items()]
    return np.array(codes, np.int8)
