"""Conversations of the mixture (FINER, arXiv 2402.16315, section 5), and their two forms: LLaVA's JSON, chat messages.

Chat messages are made from LLaVA's form, so that the image is at the same place in both.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stages.common.errors import UserError
from stages.common.jsons import parse_json
from stages.finer.prompts import PHRASINGS
from stages.finer.unified import Sample

IMAGE = "<image>"
ROLES = {"human": "user", "gpt": "assistant"}
SHAPE = '[{"id", "image", "conversations": [{"from": "human" or "gpt", "value"}, ...]}, ...]'

Entry = dict[str, Any]
"""One conversation in LLaVA's form."""


def attribute_conversation(name: str, sample: Sample, required: Sequence[str], rng: np.random.Generator) -> Entry:
    """Three turns: the coarse label, the visible attributes, and the name that follows from them.

    Without a coarse label the first turn is left out, and the other questions name the superordinate label. If there
    are several coarse labels, one is drawn for the whole conversation.

    Args:
        name: the conversation's id.
        required: the concept's required attributes.
    """
    turns = []
    parent = _above(sample, rng)
    if sample.coarse:
        turns.append((_question("coarse", sample.superordinate, rng), _answer(parent)))
    turns.append((_question("attributes", parent, rng), "; ".join(required)))
    turns.append((_question("fine", parent, rng), _answer(sample.fine[0])))
    return _entry(name, sample.img_path, turns, rng)


def direct_conversation(name: str, sample: Sample, rng: np.random.Generator) -> Entry:
    """The baseline's single turn, which asks for the name."""
    parent = _above(sample, rng)
    return _entry(name, sample.img_path, [(_question("direct", parent, rng), _answer(sample.fine[0]))], rng)


def _above(sample: Sample, rng: np.random.Generator) -> str:
    """The label above the fine one: a coarse label, or the superordinate one if there is none."""
    return sample.coarse[int(rng.integers(len(sample.coarse)))] if sample.coarse else sample.superordinate


def _question(slot: str, parent: str, rng: np.random.Generator) -> str:
    options = PHRASINGS[slot]
    return options[int(rng.integers(len(options)))].replace("{parent}", parent)


def _answer(label: str) -> str:
    return f"Answer: {label}"


def _entry(name: str, image: str, turns: Sequence[tuple[str, str]], rng: np.random.Generator) -> Entry:
    """In LLaVA's form. The image comes before or after the first question with equal chance."""
    (question, answer), *rest = turns
    question = f"{IMAGE}\n{question}" if rng.random() < 0.5 else f"{question}\n{IMAGE}"
    said = [text for turn in ((question, answer), *rest) for text in turn]
    roles = ("human", "gpt") * len(turns)
    conversation = [{"from": role, "value": text} for role, text in zip(roles, said, strict=True)]
    return {"id": name, "image": image, "conversations": conversation}


def chat_row(entry: Entry) -> dict[str, Any]:
    """A row of the mixture's table: each image token becomes a part of its own."""
    messages = [{"role": ROLES[turn["from"]], "content": _parts(turn["value"])} for turn in entry["conversations"]]
    return {"id": str(entry.get("id", "")), "images": images_of(entry), "messages": messages}


def _parts(value: str) -> list[dict[str, str | None]]:
    parts: list[dict[str, str | None]] = []
    for place, text in enumerate(value.split(IMAGE)):
        if place:
            parts.append({"type": "image", "text": None})
        # LLaVA puts a line break between token and text, which parts do not need.
        if text.strip():
            parts.append({"type": "text", "text": text.strip()})
    return parts


def images_of(entry: Entry) -> list[str]:
    """The images of a conversation; empty if it is text alone."""
    image = entry.get("image")
    if image is None:
        return []
    return list(image) if isinstance(image, list) else [image]


def read_mix(path: Path) -> list[Entry]:
    """A mix in LLaVA's form, checked; image paths are relative to the project's root.

    Raises:
        UserError: no such file, an entry that is not of the form, an entry with another number of image tokens than
            images, or missing images.
    """
    try:
        entries = parse_json(path.read_bytes(), f"finer.mixture.append '{path}'")
    except FileNotFoundError:
        raise UserError(f"finer.mixture.append '{path}' does not exist; give a LLaVA mix or null") from None
    if not isinstance(entries, list):
        raise UserError(f"finer.mixture.append '{path}' must hold {SHAPE}")
    for place, entry in enumerate(entries):
        problem = _problem(entry)
        if problem:
            raise UserError(f"finer.mixture.append '{path}', entry {place + 1}: {problem}; the file must hold {SHAPE}")
    images = dict.fromkeys(image for entry in entries for image in images_of(entry))
    missing = [image for image in images if not Path(image).is_file()]
    if missing:
        raise UserError(
            f"finer.mixture.append '{path}': {len(missing)} of {len(images)} images are not there, such as "
            f"'{missing[0]}'; paths are relative to the project's folder"
        )
    return entries


def _problem(entry: Any) -> str:
    """What is wrong with an entry of a mix, or an empty text."""
    if not isinstance(entry, dict) or not isinstance(entry.get("conversations"), list) or not entry["conversations"]:
        return "no `conversations`"
    for turn in entry["conversations"]:
        if not isinstance(turn, dict) or turn.get("from") not in ROLES or not isinstance(turn.get("value"), str):
            return f"a turn must be {{from: human or gpt, value: text}}, not {str(turn)[:80]!r}"
    image = entry.get("image")
    if not (image is None or isinstance(image, str) or (isinstance(image, list) and all(map(_is_text, image)))):
        return f"`image` must be a path, not {image!r}"
    tokens = sum(turn["value"].count(IMAGE) for turn in entry["conversations"])
    if tokens != len(images_of(entry)):
        return f"{tokens} image tokens ({IMAGE}) for {len(images_of(entry))} images"
    return ""


def _is_text(value: Any) -> bool:
    return isinstance(value, str)
