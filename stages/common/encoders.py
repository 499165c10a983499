"""CLIP-like encoders from open_clip: the right weights, the right activation, the model's own preprocessing."""

from __future__ import annotations

import hashlib
import logging
import warnings
import zipfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from open_clip.model import CLIPTextCfg, CLIPVisionCfg
from open_clip.pretrained import get_pretrained_cfg, list_pretrained_tags_by_model
from tqdm import tqdm

from stages.common.artifacts import UNTRAINED, EncoderMeta
from stages.common.device import pick_device, pick_precision
from stages.common.errors import UserError, nearest
from stages.common.params import Model, Params
from stages.common.tokenizer import FULL_VOCABULARY, Tokenizer, build_tokenizer, count_tokens

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
PREPROCESS_KEYS = ("mean", "std", "interpolation", "resize_mode")
CONTEXT_STEP = 8
"""Texts are embedded in contexts of this many tokens, or a multiple of it."""
_OPENAI_EXTRAS = ("input_resolution", "context_length", "vocab_size")


@dataclass(frozen=True)
class Encoder:
    """A loaded model. The text tower computes in float32 whatever `precision` is: de-duplication thresholds are fine.

    Attributes:
        key: of `models` in params.yaml.
        meta: what goes into an artifact's metadata: name, pretrained, weights (hash), activation, image_size,
            embedding_dim, precision, and the preprocessing.
    """

    key: str
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
        with (
            tqdm(total=len(texts), desc=progress, unit="text", disable=None) as bar,
            ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool,
        ):
            for (_, places), encoded in zip(batches, pool.map(encode, batches), strict=True):
                rows[places] = encoded
                bar.update(len(places))
        require_unit(has_unit_norm(rows), lambda row: f"the text '{texts[row]}'", self.key, "float32")
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

        What CLIP's causal text tower says of a text stands at its end token; the padding behind it changes nothing.
        """
        context = tokens.shape[1]
        causal = isinstance(self.model, open_clip.CLIP) and self.model.attn_mask is not None
        if not causal or self.model.text_pool_type != "argmax":
            return torch.full((len(tokens),), context)
        ends = tokens.argmax(dim=1) + 1
        return (-(-ends // CONTEXT_STEP) * CONTEXT_STEP).clamp(max=context)


def has_unit_norm(embeddings: torch.Tensor) -> np.ndarray:
    """Which of N embeddings are of unit norm but for rounding: [N, D] float -> [N] bool.

    One that is not finite is not, nor one whose values were too small or too large to be squared: it becomes zero.
    """
    return (embeddings.float().norm(dim=1) > 0.5).cpu().numpy()


def require_unit(unit: np.ndarray, named: Callable[[int], str], key: str, precision: str) -> None:
    """Refuse embeddings that are not finite or are zero: what is computed from them would look like a result.

    Args:
        unit: [N] bool, of N embeddings.
        named: what the row of that number shows.
        key: of the model in params.yaml.

    Raises:
        UserError: names the first of them.
    """
    if not unit.all():
        other = "" if precision == "float32" else ", or set `precision: float32` in params.yaml"
        raise UserError(
            f"models.{key}: the embedding of {named(int(np.argmin(unit)))} is not finite or is zero. The weights hold "
            f"NaN or zeros, or values that are too large or too small for {precision}; fetch the weights again{other}"
        )


def _with_context(model: Any, length: int) -> Any:
    """A CLIP of fewer tokens that shares the weights of `model`; any other model as it is."""
    if not isinstance(model, open_clip.CLIP) or length == len(model.positional_embedding):
        return model
    shorter = copy(model)
    # Dictionaries of its own, where the copy would share those of the module.
    shorter._parameters = {**model._parameters, "positional_embedding": model.positional_embedding[:length]}
    shorter._buffers = {**model._buffers, "attn_mask": model.attn_mask[:length, :length]}
    return shorter


def load_encoder(key: str, params: Params) -> Encoder:
    """Load the model `key` of params.yaml.

    Raises:
        UserError: a name or tag that open_clip does not know, weights that cannot be read or do not fit, or a local
            checkpoint whose activation is not stated.
    """
    entry = params.models[key]
    device = pick_device(params.device)
    precision = pick_precision(params.precision, device)
    model, activation, preprocess = _create(key, entry)
    weights = weights_hash(model)
    tokenizer = _tokenizer(key, entry)
    model.to(device).eval().visual.to(DTYPES[precision])
    size = preprocess["size"]
    meta = EncoderMeta(
        weights=weights,
        architecture=architecture(_config(f"models.{key}", entry)),
        activation=activation,
        image_size=size if isinstance(size, int) else size[0],
        preprocess={name: preprocess[name] for name in PREPROCESS_KEYS},
        embedding_dim=_embedding_dim(model, tokenizer, device),
        precision=precision,
        name=entry.name,
        pretrained=entry.pretrained if entry.pretrained or _has_schema(entry) else UNTRAINED,
    )
    return Encoder(key, model, tokenizer, device, DTYPES[precision], meta)


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


def _has_schema(entry: Model) -> bool:
    return entry.name.startswith(("local-dir:", "hf-hub:"))


def _create(key: str, entry: Model) -> tuple[Any, str, dict[str, Any]]:
    """The model in float32 on the CPU, its activation ("gelu" or "quick_gelu") and its preprocessing."""
    where = f"models.{key}"
    if not _has_schema(entry):
        _check_name(where, entry)
    if entry.pretrained is not None and not _has_schema(entry) and not _is_tag(entry):
        return _create_from_file(where, entry)
    if _has_schema(entry) and entry.pretrained is not None:
        raise UserError(f"{where}.pretrained '{entry.pretrained}' has no effect: {entry.name} has weights of its own")
    quick_gelu = bool(_config(where, entry).get("quick_gelu")) or _tag_quick_gelu(entry)
    if entry.activation not in (None, "quick_gelu" if quick_gelu else "gelu"):
        raise UserError(
            f"{where}.activation is {entry.activation}, but {entry.name} is configured otherwise; "
            "remove it: only a checkpoint file needs it"
        )
    model = _build(where, entry, pretrained=entry.pretrained, quick_gelu=quick_gelu)
    return model, "quick_gelu" if quick_gelu else "gelu", _overlaid(open_clip.get_model_preprocess_cfg(model), entry)


def _create_from_file(where: str, entry: Model) -> tuple[Any, str, dict[str, Any]]:
    """A built-in architecture with the weights of a local file.

    open_clip builds the plain GELU for such a file unless told otherwise, and says nothing. OpenAI's weights, which
    come as TorchScript archives, were trained with QuickGELU; for any other file the entry must say.
    """
    path = Path(str(entry.pretrained))
    if not path.is_file():
        tags = list_pretrained_tags_by_model(entry.name)
        raise UserError(
            f"{where}.pretrained '{path}' is neither a file nor a tag of {entry.name}{nearest(str(path), tags)}; "
            f"tags: {', '.join(tags)}"
        )
    if is_torchscript(path):
        if entry.activation == "gelu":
            raise UserError(f"{where}: {path} is an OpenAI archive, trained with quick_gelu; remove activation: gelu")
        model = _build(where, entry, pretrained=None, quick_gelu=True)
        _load_torchscript(where, model, path)
        preprocess = open_clip.get_model_preprocess_cfg(model)  # open_clip's default is OpenAI's
        return model, "quick_gelu", _overlaid(preprocess, entry)
    if entry.activation is None:
        raise UserError(
            f"{where}: {path} does not say which activation it was trained with; add `activation: gelu` or "
            "`activation: quick_gelu` to the entry (OpenAI's, MetaCLIP's and DFN's weights are quick_gelu)"
        )
    model = _build(where, entry, pretrained=str(path), quick_gelu=entry.activation == "quick_gelu")
    preprocess = open_clip.get_model_preprocess_cfg(model) | _shared_preprocess(where, entry)
    return model, entry.activation, _overlaid(preprocess, entry)


def _build(where: str, entry: Model, *, pretrained: str | None, quick_gelu: bool) -> torch.nn.Module:
    """open_clip's `create_model`, seeded so that random weights are the same everywhere."""
    torch.manual_seed(0)
    logging.getLogger().setLevel(logging.ERROR)  # open_clip logs its progress on the root logger
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return open_clip.create_model(
                entry.name,
                pretrained=pretrained,
                pretrained_text=False,
                require_pretrained=_has_schema(entry),
                quick_gelu=quick_gelu,
            )
        except ImportError as error:
            raise UserError(_not_installed(where, entry, error)) from None
        except Exception as error:
            reason = " ".join(str(error).split())[:300]
            raise UserError(
                f"{where}: open_clip cannot load name '{entry.name}', pretrained '{pretrained}': {reason}"
            ) from None


def is_torchscript(path: Path) -> bool:
    """Whether a checkpoint is a TorchScript archive, as OpenAI published its weights."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _load_torchscript(where: str, model: torch.nn.Module, path: Path) -> None:
    """Copy the weights of a TorchScript archive into `model`; every one must find its place."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch.jit is deprecated; the published files are what they are
            state = torch.jit.load(str(path), map_location="cpu").state_dict()
        state = {name: value.float() for name, value in state.items() if name not in _OPENAI_EXTRAS}
        model.load_state_dict(state, strict=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{where}: the weights in {path} do not fit the named model: {reason}") from None


def _check_name(where: str, entry: Model) -> None:
    known = open_clip.list_models()
    if entry.name not in known:
        raise UserError(
            f"{where}.name '{entry.name}' is not a model of open_clip{nearest(entry.name, known)}; "
            "`open_clip.list_models()` names them all"
        )


def _is_tag(entry: Model) -> bool:
    return bool(entry.pretrained) and bool(get_pretrained_cfg(entry.name, entry.pretrained))


def _tag_quick_gelu(entry: Model) -> bool:
    """Whether the tag's weights were trained with QuickGELU (open_clip only warns when its model differs)."""
    if _has_schema(entry) or entry.pretrained is None:
        return False
    return bool(get_pretrained_cfg(entry.name, entry.pretrained).get("quick_gelu", False))


def _config(where: str, entry: Model) -> dict[str, Any]:
    """open_clip's model configuration: towers, embedding dimension, activation."""
    try:
        return dict(open_clip.get_model_config(entry.name) or {})
    except Exception as error:
        raise UserError(f"{where}: no open_clip_config.json could be read for '{entry.name}' ({error})") from None


def _shared_preprocess(where: str, entry: Model) -> dict[str, Any]:
    """The preprocessing that all published tags of a model share; a local file does not carry its own.

    Raises:
        UserError: the tags differ and the entry does not say which is right.
    """
    configs = [get_pretrained_cfg(entry.name, tag) for tag in list_pretrained_tags_by_model(entry.name)]
    given = entry.preprocess.model_dump(exclude_none=True) if entry.preprocess else {}
    shared: dict[str, Any] = {}
    for name in PREPROCESS_KEYS:
        values = {config.get(name) for config in configs} - {None}
        if len(values) > 1 and name not in given:
            raise UserError(
                f"{where}: weights of {entry.name} were published with different preprocessing; state "
                f"`preprocess: {{{name}: ...}}` in the entry, one of {sorted(map(str, values))}"
            )
        if len(values) == 1:
            shared[name] = values.pop()
    return shared


def _overlaid(preprocess: dict[str, Any], entry: Model) -> dict[str, Any]:
    """The preprocessing with what the entry states on top."""
    given = entry.preprocess.model_dump(exclude_none=True) if entry.preprocess else {}
    return {name: list(v) if isinstance(v, tuple) else v for name, v in {**preprocess, **given}.items()}


def _not_installed(where: str, entry: Model, error: ImportError) -> str:
    """SigLIP's tokenizer and a few text towers come from transformers, which the others do without."""
    package = error.name or str(error)
    return f"{where}: {entry.name} needs the package {package}, which is not installed; run `pip install {package}`"


def _tokenizer(key: str, entry: Model) -> Tokenizer:
    text = _config(f"models.{key}", entry).get("text_cfg", {})
    vocabulary = text.get("vocab_size", FULL_VOCABULARY)
    if vocabulary < FULL_VOCABULARY and not text.get("hf_tokenizer_name"):
        return build_tokenizer(vocabulary, text.get("context_length", 77))
    try:
        tokenizer: Tokenizer = open_clip.get_tokenizer(entry.name)
    except ImportError as error:
        raise UserError(_not_installed(f"models.{key}", entry, error)) from None
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"models.{key}: the tokenizer of {entry.name} cannot be loaded ({reason})") from None
    return tokenizer


@torch.inference_mode()
def _embedding_dim(model: Any, tokenizer: Tokenizer, device: torch.device) -> int:
    return int(model.encode_text(tokenizer(["a"]).to(device)).shape[-1])
