"""The benchmark's images -> questions to an LVLM (FINER, arXiv 2402.16315, sections 3 and 4)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from stages.common.digests import digest
from stages.common.requests import Api
from stages.common.seeding import generator
from stages.finer import matching, prompts
from stages.finer.ask.picture import Picture, find_picture
from stages.finer.attributes import Concept
from stages.finer.options import coarse_list, one_right, superordinate_list
from stages.finer.params import Ask
from stages.finer.promptings import PROMPTINGS, Granularity, Modality, combinations
from stages.finer.unified import Sample


@dataclass(frozen=True)
class Turn:
    """The text of one turn. The user's first turn may show the picture."""

    role: str
    text: str
    picture: Picture | None = None

    def message(self) -> dict[str, Any]:
        """As it is sent. Text alone is a string, because many servers take nothing else from an assistant."""
        if self.picture is None:
            return {"role": self.role, "content": self.text}
        return {"role": self.role, "content": [self.picture.part(), {"type": "text", "text": self.text}]}

    def identity(self) -> list[str | None]:
        return [self.role, self.text, self.picture.content if self.picture else None]


@dataclass(frozen=True)
class ChatRequest:
    """A conversation to be continued. Images are read when it is sent; its digest contains their content digests."""

    name: str
    model: str
    turns: tuple[Turn, ...]
    settings: Mapping[str, Any] = field(hash=False)
    weights: str | None = None
    """Hash of a checkpoint that is served here, because other weights under the same name are another model."""
    folder: str | None = None
    """Of such a checkpoint, which its server is asked for. It is a path of this machine, so it is not logged."""
    api: Api = "chat"

    @property
    def body(self) -> dict[str, Any]:
        return {
            "model": self.folder or self.model,
            "messages": [turn.message() for turn in self.turns],
            **self.settings,
        }

    @cached_property
    def digest(self) -> str:
        said = [turn.identity() for turn in self.turns]
        named = self.weights or self.model
        return digest({"model": named, "turns": said, "settings": dict(self.settings)})

    @property
    def about(self) -> dict[str, Any]:
        return {"image": self.name, "question": self.turns[-1].text}


@dataclass(frozen=True)
class Lvlm:
    """An LVLM: its key in params.yaml, its name, and the settings sent with every question.

    `weights` and `folder` are those of a checkpoint that is served here.
    """

    key: str
    model: str
    weights: str | None
    settings: Mapping[str, Any]
    folder: str | None = None

    def request(self, name: str, turns: Sequence[Turn]) -> ChatRequest:
        return ChatRequest(name, self.model, tuple(turns), self.settings, self.weights, self.folder)


@dataclass(frozen=True)
class Question:
    """One row of the table of answers: an image, a granularity, a prompting style, a modality."""

    sample: Sample
    picture: Picture
    granularity: Granularity
    prompting: str
    modality: Modality
    parent_label: str | None
    """The label above the one asked for, which the question names."""
    text: str
    """The last turn's text."""
    seek: str | None = None
    """The first turn of a style that seeks attributes."""

    def first(self, lvlm: Lvlm) -> ChatRequest:
        """The first request. Text-only questions about all images of a class are one request."""
        shown = None if self.modality == "text" else self.picture
        name = self.sample.fine[0] if self.modality == "text" else self.sample.image_id
        return lvlm.request(name, [Turn("user", self.seek or self.text, shown)])

    def second(self, lvlm: Lvlm, attributes: str) -> ChatRequest:
        """ATTRSEEK's second request, in the same conversation."""
        turns = [
            Turn("user", self.seek or "", self.picture),
            Turn("assistant", attributes),
            Turn("user", self.text),
        ]
        return lvlm.request(self.sample.image_id, turns)


def choose(samples: Sequence[Sample], limit: int | None, seed: int) -> list[int]:
    """Rows of at most `limit` samples for each class: the first ones in a seeded order, in the order of the file.

    The seeded order depends on the image ids alone, not on folders or other images.
    """
    if limit is None:
        return list(range(len(samples)))
    by_class: defaultdict[int, list[tuple[str, int]]] = defaultdict(list)
    for row, sample in enumerate(samples):
        by_class[sample.label].append((digest([seed, sample.image_id]), row))
    return sorted(row for ranked in by_class.values() for _, row in sorted(ranked)[:limit])


def build_questions(
    samples: Sequence[Sample], concepts: Sequence[Concept], ask: Ask, seed: int, dataset: str
) -> list[Question]:
    """Every question about the chosen images, image by image.

    Args:
        concepts: by label.

    Raises:
        UserError: an image that cannot be read.
    """
    lists = Lists(dataset, samples)
    questions = []
    for row in choose(samples, ask.images_per_class, seed):
        sample = samples[row]
        picture = find_picture(sample)
        for granularity, prompting, modality in combinations(ask.granularities, ask.prompting, ask.inputs):
            if granularity == "coarse" and not sample.coarse:
                continue  # no answer would be right; `unify` has warned about it
            parent = _parent_label(sample, granularity, seed, dataset)
            options = lists.options(sample, granularity)
            seek = prompts.seek(parent) if PROMPTINGS[prompting].seeks else None
            if seek:
                text = prompts.decide(granularity, parent, options, lists.level)
            else:
                known = sample.superordinate, concepts[sample.label].binomial.required
                text = prompts.question(granularity, prompting, modality, parent, options, *known, lists.level)
            questions.append(Question(sample, picture, granularity, prompting, modality, parent, text, seek))
    return questions


class Lists:
    """The closed lists of a data set's questions, each with one right option for the image in question."""

    def __init__(self, dataset: str, samples: Sequence[Sample]) -> None:
        superordinates = {sample.superordinate for sample in samples}
        self._superordinates = superordinate_list(superordinates)
        closed = coarse_list(dataset, superordinates, {label for sample in samples for label in sample.coarse})
        self.level = closed.level if closed else prompts.LEVEL
        self._coarse = closed.options if closed else ()

    def options(self, sample: Sample, granularity: Granularity) -> list[str]:
        """The options of a question; empty if the question is open."""
        golds = matching.accepted_golds(granularity, sample.superordinate, sample.coarse, sample.fine)
        if granularity == "superordinate":
            return one_right(self._superordinates, [sample.superordinate], golds)
        return one_right(self._coarse, sample.coarse, golds) if granularity == "coarse" else []


def _parent_label(sample: Sample, granularity: Granularity, seed: int, dataset: str) -> str | None:
    """The label above the one asked for; a seeded choice where the image has several coarse labels."""
    if granularity == "superordinate":
        return None
    if granularity == "coarse" or not sample.coarse:
        return sample.superordinate
    return sample.coarse[int(generator(seed, "told", dataset, str(sample.idx)).integers(len(sample.coarse)))]
