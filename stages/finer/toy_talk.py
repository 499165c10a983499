"""The toy's language model learns to answer: several dialogues about one image share one look at it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from stages.finer.toy_data import Dialogue
from stages.finer.toy_model import ASSISTANT, END, IMAGE, USER

IGNORED = -100


@dataclass(frozen=True)
class Rows:
    """A batch of B images with what is said about each, S tokens at most. Each row begins with the image."""

    ids: Tensor
    """[B, S] int64."""
    labels: Tensor
    """[B, S] int64: the next token where it is learnt, else IGNORED."""
    positions: Tensor
    """[B, S] int64."""
    mask: Tensor
    """[B, 1, S, S] bool: what attends to what. No dialogue sees another one, and one in words alone no image."""


class Packer:
    """Tokenizes dialogues as the chat template would have them, and packs those about one image into one row."""

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

    def tokens(self, dialogue: Dialogue) -> tuple[list[int], list[bool]]:
        """Without what precedes the first question where an image does: tokens, and which are learnt."""
        ids: list[int] = []
        learnt: list[bool] = []
        for turn, (question, answer, learn) in enumerate(dialogue.turns):
            opening = [] if turn == 0 and dialogue.image else [self.user]
            asked = [*opening, *self._tokens(question), self.end, self.assistant]
            answered = [*self._tokens(answer), self.end]
            ids += asked + answered
            learnt += [False] * len(asked) + [learn] * len(answered)
        return ids, learnt

    def pack(self, batch: Sequence[Sequence[Dialogue]]) -> Rows:
        """Each image's dialogues, one behind the other behind the image."""
        rows = [self._row(dialogues) for dialogues in batch]
        length = max(len(row[0]) for row in rows)
        ids, learnt, positions, parts, sees = (
            torch.tensor([[*row[column], *[empty] * (length - len(row[column]))] for row in rows])
            for column, empty in enumerate((0, 0, 0, -1, 0))
        )
        following = torch.full_like(ids, IGNORED)
        following[:, :-1] = torch.where(learnt[:, 1:].bool(), ids[:, 1:], following[:, 1:])
        same = parts[:, :, None] == parts[:, None, :]
        shown = sees[:, :, None].bool() & (parts[:, None, :] == 0)
        return Rows(ids, following, positions, ((same | shown) & _before(length))[:, None])

    def _row(self, dialogues: Sequence[Dialogue]) -> tuple[list[int], ...]:
        start = len(self.prefix)
        ids, learnt, parts, sees = list(self.prefix), [0] * start, [0] * start, [0] * start
        positions = list(range(start))
        for part, dialogue in enumerate(dialogues, 1):
            own, which = self.tokens(dialogue)
            first = start if dialogue.image else 0
            ids += own
            learnt += map(int, which)
            positions += range(first, first + len(own))
            parts += [part] * len(own)
            sees += [int(dialogue.image)] * len(own)
        return ids, learnt, positions, parts, sees


def _before(length: int) -> Tensor:
    return torch.ones(length, length, dtype=torch.bool).tril()


def talk_loss(model: Any, features: Tensor, rows: Rows) -> Tensor:
    """Mean cross-entropy of the learnt tokens; `features` [B, P, D] are those of the frozen tower."""
    inner = model.model
    embedded = inner.get_input_embeddings()(rows.ids)
    seen = inner.multi_modal_projector(features)
    patches = seen.shape[1]
    embedded = torch.cat([embedded[:, :1], seen, embedded[:, 1 + patches :]], dim=1)
    hidden = inner.language_model(
        inputs_embeds=embedded, attention_mask=rows.mask, position_ids=rows.positions, use_cache=False
    ).last_hidden_state
    learnt = rows.labels != IGNORED
    return F.cross_entropy(model.lm_head(hidden[learnt]).float(), rows.labels[learnt])
