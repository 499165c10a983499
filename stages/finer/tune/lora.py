"""LoRA on a LLaVA-architecture model: the trained weights and the learnt tokens (FINER, arXiv 2402.16315)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from torch import nn

from stages.common.errors import UserError
from stages.common.optional import import_optional
from stages.finer.llava import LANGUAGE_MODEL, PROJECTOR, Llava
from stages.finer.params import Tune

IGNORED = -100
"""Label of a token without loss."""

Messages = list[dict[str, Any]]


def language_model_linears(model: nn.Module) -> str:
    """A regular expression that matches the linear layers of the language model, and of nothing else.

    Raises:
        UserError: there is none.
    """
    inside = re.compile(rf"(?:.*\.)?{LANGUAGE_MODEL}\.(?:.*\.)?([^.]+)")
    matches = (inside.fullmatch(name) for name, module in model.named_modules() if isinstance(module, nn.Linear))
    leaves = sorted({match[1] for match in matches if match})
    if not leaves:
        raise UserError(f"tune: the model has no linear layer under '{LANGUAGE_MODEL}'; LoRA has nothing to adapt")
    return rf"(?:.*\.)?{LANGUAGE_MODEL}\.(?:.*\.)?(?:{'|'.join(map(re.escape, leaves))})"


def with_adapters(model: nn.Module, tune: Tune, seed: int) -> Any:
    """A `PeftModel` whose adapters, and with `tune.projector` the projector, are trained, in float32.

    The adapters' first weights are drawn from `seed`. The projector is trained in full, as a copy that replaces the
    original when the model is merged.
    """
    peft = import_optional("peft", "tune")
    config = peft.LoraConfig(
        r=tune.rank,
        lora_alpha=tune.alpha,
        lora_dropout=tune.dropout,
        target_modules=language_model_linears(model),
        modules_to_save=[PROJECTOR] if tune.projector else None,
        task_type="CAUSAL_LM",
        bias="none",
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        adapted = peft.get_peft_model(model, config)
    for parameter in adapted.parameters():
        if parameter.requires_grad:  # bfloat16 would round steps of this size away
            parameter.data = parameter.data.float()
    return adapted


def merged(adapted: Any, dtype: torch.dtype) -> Any:
    """The plain model with the adapters added to its weights."""
    return adapted.merge_and_unload().to(dtype).eval()


@dataclass(frozen=True)
class Encoded:
    """A conversation as the model sees it, batch axis included where the processor gives one."""

    input_ids: torch.Tensor
    """[T] int64."""
    labels: torch.Tensor
    """[T] int64: the token itself in the assistant's turns, IGNORED elsewhere."""
    images: dict[str, torch.Tensor]
    """What the processor makes of the images: `pixel_values`, of some models `image_sizes`."""


def encode(llava: Llava, messages: Messages, images: Sequence[Any]) -> Encoded:
    """Tokenize a conversation by the model's chat template, without truncation.

    The assistant's tokens are found by rendering the conversation up to each turn, which works with any template. Some
    templates (LLaVA-1.5's) do not end answers, which would teach the model never to stop. With these, the
    end-of-sequence token is added after the last answer.

    Raises:
        UserError: the template leaves out the assistant's turns.
    """
    tokenizer = llava.processor.tokenizer
    text = _render(llava, messages)
    if messages[-1]["role"] == "assistant" and tokenizer.eos_token and not text.rstrip().endswith(tokenizer.eos_token):
        text = text.rstrip() + tokenizer.eos_token
    special = not (tokenizer.bos_token and text.startswith(tokenizer.bos_token))
    shown = {"images": [list(images)]} if images else {}
    batch = llava.processor(text=[text], add_special_tokens=special, return_tensors="pt", **shown)
    ids = batch["input_ids"][0]
    short = tokenizer(text, add_special_tokens=special)["input_ids"]
    marks = [False] * len(short)
    for start, end in _answers(llava, messages, short, special):
        marks[start:end] = [True] * (end - start)
    answered = _stretched(short, marks, ids.tolist(), llava.config.image_token_id)
    labels = torch.where(torch.tensor(answered), ids, torch.full_like(ids, IGNORED))
    known = ("pixel_values", "image_sizes")
    return Encoded(ids, labels, {key: batch[key] for key in known if key in batch})


def _render(llava: Llava, messages: Messages, **options: Any) -> str:
    return llava.processor.apply_chat_template(messages, tokenize=False, **options)


def _answers(llava: Llava, messages: Messages, ids: list[int], special: bool) -> list[tuple[int, int]]:
    """Where the assistant's turns, with the template's mark of their end, are among `ids`: half-open ranges."""
    spans = []
    for turn, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        before = _render(llava, messages[:turn], add_generation_prompt=True)
        upto = _render(llava, messages[: turn + 1])
        tokens = [llava.processor.tokenizer(part, add_special_tokens=special)["input_ids"] for part in (before, upto)]
        start, end = (_common(part, ids) for part in tokens)
        if turn == len(messages) - 1:
            end = len(ids)
        if end <= start:
            raise UserError("tune: the model's chat template leaves out the assistant's turns; nothing to learn from")
        spans.append((start, end))
    return spans


def _common(a: Sequence[int], b: Sequence[int]) -> int:
    """Length of the common prefix."""
    return next((at for at, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _stretched(short: list[int], marks: list[bool], full: list[int], image_token: int) -> list[bool]:
    """`marks` of tokens `short`, in which an image is one token, for `full`, in which it is as many as it has.

    Raises:
        UserError: the two differ in other ways too, so the processor does something that is not supported.
    """
    is_image = image_token.__eq__
    pieces, runs = [], [list(run) for _, run in groupby(full, key=is_image)]
    groups = [list(group) for _, group in groupby(zip(short, marks, strict=True), key=lambda pair: is_image(pair[0]))]
    for group, run in zip(groups, runs, strict=False):
        same = [token for token, _ in group] == run
        if not same and not (group[0][0] == run[0] == image_token):
            break
        pieces += [mark for _, mark in group] if same else [False] * len(run)
    if len(pieces) != len(full):
        raise UserError("tune: the model's processor tokenizes a text with images in a way of its own; not supported")
    return pieces


def image_tokens(llava: Llava, size: tuple[int, int]) -> int:
    """How many tokens an image of this width and height becomes."""
    return int(llava.processor._get_num_multimodal_tokens([[size[1], size[0]]])["num_image_tokens"][0])


def collate(batch: Sequence[Encoded], pad: int) -> dict[str, torch.Tensor]:
    """Pad on the right to the longest: `input_ids`, `attention_mask`, `labels` [B, T], and the images of all."""

    def padded(rows: list[torch.Tensor], value: int) -> torch.Tensor:
        return nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=value)

    ids = [row.input_ids for row in batch]
    out = {
        "input_ids": padded(ids, pad),
        "attention_mask": padded([torch.ones_like(row) for row in ids], 0),
        "labels": padded([row.labels for row in batch], IGNORED),
    }
    for key in ("pixel_values", "image_sizes"):
        parts = [row.images[key] for row in batch if key in row.images]
        if parts:
            out[key] = _stack(parts)
    return out


def _stack(parts: list[torch.Tensor]) -> torch.Tensor:
    """Concatenate by image; LLaVA-NeXT's images have tiles, padded to the most with zeros."""
    if parts[0].ndim == 5:
        most = max(part.shape[1] for part in parts)
        parts = [nn.functional.pad(part, (0, 0) * 3 + (0, most - part.shape[1])) for part in parts]
    return torch.cat(parts)
