"""How the toy's vision tower learns to see the attributes of drawings. The heads of this training are not kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from stages.common.errors import UserError
from stages.common.images import UNREADABLE, open_rgb, reason
from stages.demo.toy.data import Drawing
from stages.demo.toy.model import Size

SHIFT = 6
"""Largest shift of a batch in pixels, so that positions are not learnt by heart."""

WHITENED = 600
"""Drawings whose patches the first layer is fitted to."""


def load_pixels(drawings: Sequence[Drawing], side: int) -> np.ndarray:
    """[N, side, side, 3] uint8.

    Raises:
        UserError: a drawing is missing or cannot be read.
    """
    pixels = np.empty((len(drawings), side, side, 3), dtype=np.uint8)
    for row, drawing in enumerate(drawings):
        try:
            image = open_rgb(drawing.image)
        except UNREADABLE as error:
            raise UserError(f"toy: drawing {drawing.image}: {reason(error)}; make the drawings again") from None
        pixels[row] = np.asarray(image.resize((side, side), Image.Resampling.BICUBIC))
    return pixels


def normalised(pixels: np.ndarray) -> Tensor:
    """[n, side, side, 3] uint8 -> [n, 3, side, side] float32, as the processor gives it."""
    mean, std = (torch.tensor(values)[:, None, None] for values in (OPENAI_CLIP_MEAN, OPENAI_CLIP_STD))
    return (torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255 - mean) / std


class Targets:
    """Targets of the heads: family and attributes of each drawing as codes, and where they are."""

    def __init__(self, drawings: Sequence[Drawing]) -> None:
        facts = [(drawing.family, *drawing.attributes) for drawing in drawings]
        self.values = [sorted({fact[place] for fact in facts}) for place in range(len(facts[0]))]
        codes = [[values.index(value) for values, value in zip(self.values, fact, strict=True)] for fact in facts]
        self.codes = torch.tensor(codes)
        """[N, A] int64."""
        whole = (0.0, 0.0, 1.0, 1.0)
        self.boxes = torch.tensor(
            [(whole, *(drawing.boxes or [whole] * len(drawing.attributes))) for drawing in drawings]
        )
        """[N, A, 4] float32, shares of the sides; the whole image where it is not known."""


class Heads(nn.Module):
    """For each attribute a glance over the patches, and a guess by what is seen there."""

    def __init__(self, width: int, values: Sequence[Sequence[str]]) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.glance = nn.Linear(width, len(values))
        self.value = nn.Linear(width, width)
        self.guess = nn.ModuleList(nn.Linear(width, len(own)) for own in values)

    def forward(self, patches: Tensor) -> tuple[list[Tensor], Tensor]:
        """[B, P, D] -> of each attribute its logits [B, V], and where it was looked for [B, P, A]."""
        patches = self.norm(patches)
        weights = self.glance(patches).softmax(dim=1)
        seen = weights.transpose(1, 2) @ self.value(patches)
        return [guess(seen[:, place]) for place, guess in enumerate(self.guess)], weights


def prepare_tower(tower: Any, images: Tensor, size: Size) -> None:
    """Start from what patches look like, rather than from noise: a ViT of this size has no time to find that out.

    The first layer becomes the whitened principal components of the patches of `images` [n, 3, side, side], positions
    become waves along both sides, and the layers are drawn as large as their inputs want.
    """
    width, patch, side = size.vision_width, size.patch, size.image // size.patch
    patches = F.unfold(images, patch, stride=patch).transpose(1, 2).reshape(-1, 3 * patch * patch)
    values, vectors = torch.linalg.eigh(patches.T @ patches / len(patches))
    components = (vectors / (values + 0.01 * values.mean()).sqrt()).flip(1)[:, :width].T
    rate = 100.0 ** -(torch.arange(width // 4) / (width // 4))
    places = torch.arange(side).float()
    rows, columns = places.repeat_interleave(side)[:, None] * rate, places.repeat(side)[:, None] * rate
    waves = torch.cat([rows.sin(), rows.cos(), columns.sin(), columns.cos()], dim=1)
    turn = torch.linalg.qr(torch.randn(width, width)).Q  # no position has a channel of its own
    with torch.no_grad():
        first = tower.embeddings.patch_embedding.weight
        first[: len(components)] = 0.5 * components.view(-1, *first.shape[1:])
        tower.embeddings.position_embedding.weight[1:] = 0.5 * waves @ turn
        for name, parameter in tower.named_parameters():
            if "layers" in name and parameter.ndim == 2:
                keeps = any(part in name for part in ("q_proj", "k_proj", "fc1"))
                nn.init.xavier_uniform_(parameter, gain=1.0 if keeps else 0.5)


def shaken(images: Tensor, boxes: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Mirrored at random, and moved, a whole batch alike; boxes [B, A, 4] with them."""
    side = images.shape[-1]
    flip = torch.from_numpy(rng.random(len(images)) < 0.5)
    images[flip] = images[flip].flip(3)
    mirrored = torch.stack([1 - boxes[..., 2], boxes[..., 1], 1 - boxes[..., 0], boxes[..., 3]], dim=-1)
    boxes = torch.where(flip[:, None, None], mirrored, boxes)
    dx, dy = (int(value) for value in rng.integers(0, 2 * SHIFT + 1, 2))
    moved = F.pad(images, (SHIFT,) * 4, mode="replicate")[:, :, dy : dy + side, dx : dx + side]
    return moved, boxes + torch.tensor([SHIFT - dx, SHIFT - dy] * 2) / side


def inside(boxes: Tensor, side: int) -> Tensor:
    """Which of `side` by `side` patches touch a box: [B, A, 4] -> [B, side * side, A] bool."""
    centre, half = (torch.arange(side) + 0.5) / side, 0.5 / side
    across = (centre >= boxes[..., 0:1] - half) & (centre <= boxes[..., 2:3] + half)
    down = (centre >= boxes[..., 1:2] - half) & (centre <= boxes[..., 3:4] + half)
    return (down[..., :, None] & across[..., None, :]).flatten(2).transpose(1, 2)


def sight_loss(logits: Sequence[Tensor], glances: Tensor, codes: Tensor, where: Tensor) -> Tensor:
    """Cross-entropy of each attribute, and of having looked for it where it is; summed over attributes."""
    guessed = [F.cross_entropy(own, codes[:, place]) for place, own in enumerate(logits)]
    looked = ((glances * where).sum(dim=1) + 1e-4).log().sum(dim=1).mean()
    return torch.stack(guessed).sum() - looked
