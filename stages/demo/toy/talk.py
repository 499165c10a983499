"""The toy's language model learns to answer: several dialogues about one image share one look at it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from stages.demo.toy.data import Dialogue
from stages.demo.toy.model import ASSISTANT, END, IMAGE, USER

NAME_WEIGHT = 3.0
"""Of a token of the name after "Answer:"; a list of attributes has many more tokens than the name that follows."""


ANSWER = "Answer:"


@dataclass(frozen=True)
class Rows:
    """A batch of B images with what is said about each, S tokens at most. Each row begins with the image."""

    ids: Tensor
    """[B, S] int64."""
    following: Tensor
    """[B, S] int64: the next token."""
    weights: Tensor
    """[B, S] float32: what the loss of the next token counts; 0 where it is not learnt."""
    positions: Tensor
    """[B, S] int64."""
    mask: Tensor
    """[B, 1, S, S] bool: what attends to what. Dialogues do not see each other, and text-only ones see no image."""


class Packer:
    """Tokenizes dialogues as the chat template does, and packs those about one image into one row."""

    def __init__(self, tokenizer: Any, image_tokens: int) -> None:
        self.tokenizer = tokenizer
        user, assistant, end, image = tokenizer.convert_tokens_to_ids([USER, ASSISTANT, END, IMAGE])
        self.user, self.assistant, self.end = user, assistant, end
        self.prefix = [user] + [image] * image_tokens
        self.known: dict[str, list[int]] = {}

    def _tokens(self, text: str) -> list[int]:
        if text not in self.known:
            self.known[text] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return self.known[text]

    def tokens(self, dialogue: Dialogue) -> tuple[list[int], list[float]]:
        """Tokens and their weights in the loss; with an image, without what precedes the first question."""
        ids: list[int] = []
        weights: list[float] = []
        for turn, (question, answer, learn) in enumerate(dialogue.turns):
            opening = [] if turn == 0 and dialogue.image else [self.user]
            asked = [*opening, *self._tokens(question), self.end, self.assistant]
            answered = [*self._tokens(answer), self.end]
            named = answer[answer.index(ANSWER) :] if ANSWER in answer else ""
            name = len(self._tokens(named)) + 1 if named else 0
            listed = [1.0] * (len(answered) - name) + [NAME_WEIGHT] * name
            ids += asked + answered
            weights += [0.0] * len(asked) + (listed if learn else [0.0] * len(answered))
        return ids, weights

    def pack(self, batch: Sequence[Sequence[Dialogue]]) -> Rows:
        """One row for each image: the image, then its dialogues one after another."""
        rows = [self._row(dialogues) for dialogues in batch]
        length = max(len(row[0]) for row in rows)
        ids, weights, positions, parts, sees = (
            torch.tensor([[*row[column], *[empty] * (length - len(row[column]))] for row in rows])
            for column, empty in enumerate((0, 0, 0, -1, 0))
        )
        weights = F.pad(weights.float()[:, 1:], (0, 1))
        following = F.pad(ids[:, 1:], (0, 1))
        same = parts[:, :, None] == parts[:, None, :]
        shown = sees[:, :, None].bool() & (parts[:, None, :] == 0)
        return Rows(ids, following, weights, positions, ((same | shown) & _before(length))[:, None])

    def _row(self, dialogues: Sequence[Dialogue]) -> tuple[list[int], list[float], list[int], list[int], list[int]]:
        start = len(self.prefix)
        ids, weights, parts, sees = list(self.prefix), [0.0] * start, [0] * start, [0] * start
        positions = list(range(start))
        for part, dialogue in enumerate(dialogues, 1):
            own, which = self.tokens(dialogue)
            first = start if dialogue.image else 0
            ids += own
            weights += which
            positions += range(first, first + len(own))
            parts += [part] * len(own)
            sees += [int(dialogue.image)] * len(own)
        return ids, weights, positions, parts, sees


def _before(length: int) -> Tensor:
    return torch.ones(length, length, dtype=torch.bool).tril()


def talk_loss(model: Any, features: Tensor, rows: Rows) -> Tensor:
    """Weighted mean cross-entropy of the learnt tokens; `features` [B, P, D] are those of the frozen tower."""
    inner = model.model
    embedded = inner.get_input_embeddings()(rows.ids)
    seen = inner.multi_modal_projector(features)
    patches = seen.shape[1]
    embedded = torch.cat([embedded[:, :1], seen, embedded[:, 1 + patches :]], dim=1)
    hidden = inner.language_model(
        inputs_embeds=embedded, attention_mask=rows.mask, position_ids=rows.positions, use_cache=False
    ).last_hidden_state
    learnt = rows.weights > 0
    losses = F.cross_entropy(model.lm_head(hidden[learnt]).float(), rows.following[learnt], reduction="none")
    return (losses * rows.weights[learnt]).sum() / rows.weights.sum()
