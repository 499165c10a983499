"""CLIP-like encoders from open_clip: the right weights, the right activation, the model's own preprocessing."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
import open_clip
import torch
from open_clip.model import CLIPTextCfg, CLIPVisionCfg
from tqdm import tqdm

from stages.common.artifacts import UNTRAINED, EncoderMeta
from stages.common.checkpoints import (
    PREPROCESS_KEYS,
    create_model,
    has_schema,
    load_tokenizer,
    model_config,
    quiet,
)
from stages.common.device import pick_device, pick_precision
from stages.common.errors import UserError
from stages.common.overlap import in_order
from stages.common.params import Model, Params
from stages.common.tokenizer import Tokenizer, count_tokens

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
CONTEXT_STEP = 8
"""Texts are embedded in contexts of this many tokens, or a multiple of it."""


@dataclass(frozen=True)
class Encoder:
    """A loaded model. The text tower always computes in float32, because de-duplication thresholds are close to 1.

    Attributes:
        where: what error messages call it: "models.<key>".
        meta: what goes into an artifact's metadata: name, pretrained, weights (hash), activation, image_size,
            embedding_dim, precision, and the preprocessing.
    """

    where: str
    model: Any
    tokenizer: Tokenizer
    device: torch.device
    dtype: torch.dtype
    meta: EncoderMeta

    @property
    def image_size(self) -> int:
        return self.meta.image_size

    @cached_property
    def _mean_and_std(self) -> tuple[torch.Tensor, torch.Tensor]:
        """[3, 1, 1] each, in grey levels, on the device."""
        preprocess = self.meta.preprocess
        mean, std = (torch.tensor(preprocess[key], device=self.device).view(3, 1, 1) * 255 for key in ("mean", "std"))
        return mean, std

    @torch.inference_mode()
    def encode_images(self, pixels: torch.Tensor) -> torch.Tensor:
        """[N, 3, S, S] uint8 pixels -> [N, D] float32 embeddings of unit norm, on the encoder's device."""
        mean, std = self._mean_and_std
        pixels = pixels.to(self.device, non_blocking=True)
        normalized = ((pixels.float() - mean) / std).to(self.dtype, memory_format=torch.channels_last)
        return torch.nn.functional.normalize(self.model.encode_image(normalized).float(), dim=-1)

    def encode_texts(self, texts: Sequence[str], batch_size: int, progress: str | None = None) -> torch.Tensor:
        """N texts -> [N, D] float32 embeddings of unit norm, on the CPU. `progress` labels a progress bar.

        Batches have `batch_size` rows, filled up where needed, and hold texts of about the same number of tokens: in
        batches of one shape, each on one core, a text's embedding does not depend, to the last bit, on the texts
        beside it.

        Raises:
            UserError: an embedding is not finite, or is zero.
        """
        rows = torch.zeros(len(texts), self.meta.embedding_dim)
        if not texts:
            return rows
        tokens = self.tokenizer(list(texts))
        lengths = self._contexts(tokens)
        batches = [
            (length, places)
            for length in lengths.unique().tolist()
            for places in torch.nonzero(lengths == length)[:, 0].split(batch_size)
        ]

        @torch.inference_mode()
        def encode(batch: tuple[int, torch.Tensor]) -> torch.Tensor:
            length, places = batch
            filled = torch.cat([places, places[:1].expand(batch_size - len(places))])
            model = _with_context(self.model, length)
            encoded = model.encode_text(tokens[filled, :length].to(self.device))[: len(places)]
            return torch.nn.functional.normalize(encoded.float(), dim=-1).cpu()

        threads = torch.get_num_threads() if self.device.type == "cpu" else 1
        with tqdm(total=len(texts), desc=progress, unit="text", disable=None) as bar:
            for (_, places), encoded in zip(batches, in_order(encode, batches, threads), strict=True):
                rows[places] = encoded
                bar.update(len(places))
        require_unit(has_unit_norm(rows), lambda row: f"the text '{texts[row]}'", self.where, "float32")
        return rows

    def token_counts(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, with the special ones; the text tower sees the first `context_length` of them."""
        return count_tokens(self.tokenizer, texts)

    @cached_property
    def context_length(self) -> int:
        """Tokens that the text tower takes."""
        return int(self.tokenizer(["a"]).shape[1])

    def _contexts(self, tokens: torch.Tensor) -> torch.Tensor:
        """How many of a text's tokens its embedding depends on, in steps of CONTEXT_STEP: [N, L] -> [N].

        CLIP's causal text tower reads the embedding at the end token, so the padding after it changes nothing.
        """
        context = tokens.shape[1]
        causal = isinstance(self.model, open_clip.CLIP) and self.model.attn_mask is not None
        if not causal or self.model.text_pool_type != "argmax":
            return torch.full((len(tokens),), context)
        ends = tokens.argmax(dim=1) + 1
        return (-(-ends // CONTEXT_STEP) * CONTEXT_STEP).clamp(max=context)


def has_unit_norm(embeddings: torch.Tensor) -> np.ndarray:
    """Which of N embeddings have unit norm within rounding: [N, D] float -> [N] bool. False if one is not finite, or
    if its
    values were too small or too large to be squared, so that it became zero.
    """
    return (embeddings.float().norm(dim=1) > 0.5).cpu().numpy()


def require_unit(unit: np.ndarray, named: Callable[[int], str], where: str, precision: str) -> None:
    """Refuse embeddings that are not finite or are zero, because results from them would look valid.

    Args:
        unit: [N] bool, of N embeddings.
        named: names what the row with a number shows.
        where: what to call the model: "models.<key>".

    Raises:
        UserError: names the first of them.
    """
    if not unit.all():
        other = "" if precision == "float32" else ", or set `precision: float32`"
        raise UserError(
            f"{where}: the embedding of {named(int(np.argmin(unit)))} is not finite or is zero. The weights hold "
            f"NaN or zeros, or values that are too large or too small for {precision}; fetch the weights again{other}"
        )


def _with_context(model: Any, length: int) -> Any:
    """A CLIP with a shorter context that shares the weights of `model`; other models are returned unchanged."""
    if not isinstance(model, open_clip.CLIP) or length == len(model.positional_embedding):
        return model
    shorter = copy(model)
    # Its own dictionaries, because the copy would share those of the module.
    shorter._parameters = {**model._parameters, "positional_embedding": model.positional_embedding[:length]}
    shorter._buffers = {**model._buffers, "attn_mask": model.attn_mask[:length, :length]}
    return shorter


def load_encoder(key: str, params: Params) -> Encoder:
    """Load the model `key` of params.yaml.

    Raises:
        UserError: as `load_model`.
    """
    return load_model(f"models.{key}", params.models[key], params.device, params.precision)


@quiet()
def load_model(where: str, entry: Model, device: str, precision: str) -> Encoder:
    """Load a model. Torch's generators, the logging and the warning filters stay as they are.

    Args:
        where: what error messages call it: "models.<key>".
        device: auto, cpu or cuda.
        precision: of the image tower: auto, float32, bfloat16 or float16.

    Raises:
        UserError: a name or tag that open_clip does not know, weights that cannot be read or do not fit, a local
            checkpoint whose activation is not stated, or a GPU that is not there.
    """
    place = pick_device(device)
    precision = pick_precision(precision, place)
    model, activation, preprocess = create_model(where, entry)
    weights = weights_hash(model)
    tokenizer = load_tokenizer(where, entry)
    model.to(place).eval().visual.to(DTYPES[precision])
    size = preprocess["size"]
    meta = EncoderMeta(
        weights=weights,
        architecture=architecture(model_config(where, entry)),
        activation=activation,
        image_size=size if isinstance(size, int) else size[0],
        preprocess={name: preprocess[name] for name in PREPROCESS_KEYS},
        embedding_dim=_embedding_dim(model, tokenizer, place),
        precision=precision,
        name=entry.name,
        pretrained=entry.pretrained if entry.pretrained or has_schema(entry) else UNTRAINED,
    )
    return Encoder(where, model, tokenizer, place, DTYPES[precision], meta.shareable())


def weights_hash(model: torch.nn.Module) -> str:
    """SHA-256 (first 16 hex digits) over names, shapes and float32 values of the parameters and buffers."""
    state = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        state.update(f"{name}{tuple(tensor.shape)}".encode())
        state.update(tensor.detach().float().contiguous().cpu().numpy().tobytes())
    return state.hexdigest()[:16]


def architecture(config: dict[str, Any]) -> dict[str, Any]:
    """open_clip's model configuration without its defaults and without what other fields of the identity say.

    A configuration that spells out the defaults is the same as one that leaves them out.
    """
    defaults = {"vision_cfg": asdict(CLIPVisionCfg()), "text_cfg": asdict(CLIPTextCfg())}
    found: dict[str, Any] = {}
    for key, value in config.items():
        if key in defaults:
            value = {k: v for k, v in value.items() if defaults[key].get(k) != v and not k.endswith("_pretrained")}
        if key != "quick_gelu":
            found[key] = value
    return found


@torch.inference_mode()
def _embedding_dim(model: Any, tokenizer: Tokenizer, device: torch.device) -> int:
    return int(model.encode_text(tokenizer(["a"]).to(device)).shape[-1])
