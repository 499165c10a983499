"""Writes the descriptions and concept attributes shipped for the demo: ``python -m stages.demo.descriptions``.

They stand in for what a language model would answer, and repeat themselves as its answers do: paraphrases, the same
fact in several sentences, exact duplicates now and then, and sentences that say nothing. The concept attributes,
``attributes.json``, are those that the drawings have.
"""

import argparse
import json
import zlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from stages.common.errors import run
from stages.common.locks import hold
from stages.demo.birds.attributes import concepts
from stages.demo.birds.species import ATTRIBUTES, SPECIES, Species
from stages.demo.descriptions import wording

SEED = 7
SOURCES = ("cupl", "attrvr_des", "attrvr_dist", "clip-d")
_DUPLICATES = 0.05  # share of sentences that are given twice
_VAGUE = 0.12  # share of sentences that tell nothing


def descriptions(source: str, seed: int = SEED) -> dict[str, list[str]]:
    """{class name: sentences} of one source; each class depends on (seed, source, its name) only."""
    write = {"cupl": _cupl, "attrvr_des": _appearance, "attrvr_dist": _distinction, "clip-d": _descriptors}[source]
    texts = {}
    for species in SPECIES:
        rng = np.random.default_rng([seed, zlib.crc32(source.encode()), zlib.crc32(species.name.encode())])
        texts[species.name] = write(species, rng)
    return texts


def _pick(options: Sequence[str], rng: np.random.Generator) -> str:
    return options[int(rng.integers(len(options)))]


def _fact(species: Species, attribute: str, rng: np.random.Generator) -> str:
    """A sentence about one attribute."""
    value = getattr(species, attribute)
    shape = wording.SHAPE_SENTENCES.get((attribute, value))
    return _pick(shape or wording.COLOUR_SENTENCES[attribute], rng).format(n=species.name, c=value)


def _list(species: Species, attributes: Sequence[str], rng: np.random.Generator) -> str:
    phrases = []
    for attribute in attributes:
        value = getattr(species, attribute)
        shape = wording.SHAPE_PHRASES.get((attribute, value))
        phrases.append(shape or _pick(wording.COLOUR_PHRASES[attribute], rng).format(c=value))
    return " and ".join([", ".join(phrases[:-1]), phrases[-1]] if len(phrases) > 1 else phrases)


def _some(count: int, rng: np.random.Generator, weights: Sequence[float] | None = None) -> list[str]:
    """Attributes that phrases exist for, drawn without replacement."""
    names = [name for name in ATTRIBUTES if name != "family"]
    shares = None if weights is None else np.array(weights) / np.sum(weights)
    return [str(name) for name in rng.choice(names, count, replace=False, p=shares)]


def _as_a_model_would(sentences: list[str], species: Species, rng: np.random.Generator) -> list[str]:
    """With vague sentences in place of some, and a few given twice."""
    texts = []
    for sentence in sentences:
        vague = rng.random() < _VAGUE
        texts.append(_pick(wording.VAGUE_SENTENCES, rng).format(n=species.name) if vague else sentence)
        if rng.random() < _DUPLICATES:
            texts.append(texts[int(rng.integers(len(texts)))])
    return texts


def _cupl(species: Species, rng: np.random.Generator) -> list[str]:
    """About 30 answers to "What does a ... look like?"."""
    sentences = []
    for _ in range(28):
        kind = rng.random()
        if kind < 0.3:
            sentences.append(_pick(wording.LOOK_SENTENCES, rng).format(n=species.name, **_attributes(species)))
        elif kind < 0.5:
            listed = _list(species, _some(int(rng.integers(2, 5)), rng), rng)
            sentences.append(_pick(wording.LIST_SENTENCES, rng).format(n=species.name, list=listed))
        else:
            sentences.append(_fact(species, str(rng.choice(list(ATTRIBUTES))), rng))
    return _as_a_model_would(sentences, species, rng)


def _attributes(species: Species) -> dict[str, str]:
    return {name: getattr(species, name) for name in ATTRIBUTES}


def _appearance(species: Species, rng: np.random.Generator) -> list[str]:
    """About 22 sentences on how it looks, part by part, twice over."""
    order = [*rng.permutation(list(ATTRIBUTES)), *rng.permutation(list(ATTRIBUTES))]
    return _as_a_model_would([_fact(species, str(attribute), rng) for attribute in [*order, "belly"]], species, rng)


def _distinction(species: Species, rng: np.random.Generator) -> list[str]:
    """About 22 sentences on what sets it apart: attributes weigh more the fewer of its family share them."""
    family = [other for other in SPECIES if other.family == species.family]
    weights = []
    for name in [name for name in ATTRIBUTES if name != "family"]:
        shared = Counter(getattr(other, name) for other in family)[getattr(species, name)]
        weights.append(len(family) / shared)
    sentences = []
    for _ in range(21):
        listed = _list(species, _some(int(rng.choice([1, 1, 2, 2, 3])), rng, weights), rng)
        template = _pick(wording.DISTINCT_SENTENCES, rng)
        sentences.append(template.format(n=species.name, family=species.family, list=listed))
    return _as_a_model_would(sentences, species, rng)


def _descriptors(species: Species, rng: np.random.Generator) -> list[str]:
    """Five or six short phrases."""
    phrases = []
    for attribute in rng.permutation(list(ATTRIBUTES))[: int(rng.integers(5, 7))].tolist():
        value = getattr(species, attribute)
        shape = wording.SHAPE_DESCRIPTORS.get((attribute, value))
        phrases.append(shape or wording.COLOUR_DESCRIPTORS[attribute].format(c=value))
    return phrases


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the demo's descriptions.")
    parser.add_argument("--output", type=Path, default=Path("descriptions/demo"), help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=SEED)
    options = parser.parse_args()
    hold("demo.descriptions", str(options.output))
    options.output.mkdir(parents=True, exist_ok=True)
    for source in SOURCES:
        text = json.dumps(descriptions(source, options.seed), indent=2) + "\n"
        (options.output / f"{source}.json").write_text(text)
    (options.output / "attributes.json").write_text(json.dumps(concepts(), indent=2) + "\n")


if __name__ == "__main__":
    run(main)
