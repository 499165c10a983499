"""open_clip's models as `models` in params.yaml names them: the right weights, activation and preprocessing."""

from __future__ import annotations

import logging
import pickle
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.pretrained import get_pretrained_cfg, list_pretrained_tags_by_model

from stages.common.errors import UserError, nearest
from stages.common.params import Model
from stages.common.tokenizer import FULL_VOCABULARY, Tokenizer, build_tokenizer
from stages.common.torchscript import NotReadable, is_torchscript, read_torchscript

PREPROCESS_KEYS = ("mean", "std", "interpolation", "resize_mode")
WEIGHTS = (".safetensors", ".bin", ".pt", ".pth")
_OPENAI_EXTRAS = ("input_resolution", "context_length", "vocab_size")


@contextmanager
def quiet() -> Iterator[None]:
    """Silences what open_clip and torch say while they load a model, and puts all settings back.

    open_clip logs its progress on the root logger, and its first line gives that logger a handler.
    """
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    try:
        root.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        root.setLevel(level)
        root.handlers[:] = handlers


def has_schema(entry: Model) -> bool:
    return entry.name.startswith(("local-dir:", "hf-hub:"))


def check_entry(where: str, entry: Model) -> None:
    """What `create_model` refuses before it reads weights. Nothing is downloaded.

    Raises:
        UserError: as `create_model`.
    """
    if not has_schema(entry):
        _check_name(where, entry)
        if entry.pretrained is not None and not _is_tag(entry):
            _check_file(where, entry)
            return
    if has_schema(entry) and entry.pretrained is not None:
        raise UserError(f"{where}.pretrained '{entry.pretrained}' has no effect: {entry.name} has weights of its own")
    quick_gelu = bool(model_config(where, entry).get("quick_gelu")) or _tag_quick_gelu(entry)
    folder = Path(entry.name.removeprefix("local-dir:"))
    if entry.name.startswith("local-dir:") and not any(path.suffix in WEIGHTS for path in folder.glob("*")):
        raise UserError(f"{where}.name '{entry.name}' is a folder without weights; put open_clip's files there")
    if entry.activation not in (None, "quick_gelu" if quick_gelu else "gelu"):
        raise UserError(
            f"{where}.activation is {entry.activation}, but {entry.name} is configured otherwise; "
            "remove it: only a checkpoint file needs it"
        )


def create_model(where: str, entry: Model) -> tuple[Any, str, dict[str, Any]]:
    """The model in float32 on the CPU, its activation ("gelu" or "quick_gelu") and its preprocessing.

    Args:
        where: what an error message calls the entry: "models.<key>".

    Raises:
        UserError: a name or tag that open_clip does not know, weights that cannot be read or do not fit, or a local
            checkpoint whose activation is not stated.
    """
    check_entry(where, entry)
    if entry.pretrained is not None and not has_schema(entry) and not _is_tag(entry):
        return _create_from_file(where, entry)
    quick_gelu = bool(model_config(where, entry).get("quick_gelu")) or _tag_quick_gelu(entry)
    model = _build(where, entry, pretrained=entry.pretrained, quick_gelu=quick_gelu)
    return model, "quick_gelu" if quick_gelu else "gelu", _overlaid(open_clip.get_model_preprocess_cfg(model), entry)


def _create_from_file(where: str, entry: Model) -> tuple[Any, str, dict[str, Any]]:
    """A built-in architecture with the weights of a local file.

    By default, open_clip silently builds the plain GELU for such a file. OpenAI's weights, which
    come as TorchScript archives, were trained with QuickGELU; for other files the entry must state it.
    """
    path = Path(str(entry.pretrained))
    if is_torchscript(path):
        try:
            state = {name: value for name, value in read_torchscript(path).items() if name not in _OPENAI_EXTRAS}
        except NotReadable as error:
            raise UserError(f"{where}: {path} cannot be read as weights: {error}; get OpenAI's file again") from None
        model = _build(where, entry, pretrained=None, quick_gelu=True)
        _fill(where, model, state, path)
        preprocess = open_clip.get_model_preprocess_cfg(model)  # open_clip's default is OpenAI's
        return model, "quick_gelu", _overlaid(preprocess, entry)
    activation = str(entry.activation)
    model = _build(where, entry, pretrained=str(path), quick_gelu=activation == "quick_gelu")
    preprocess = open_clip.get_model_preprocess_cfg(model) | _shared_preprocess(where, entry)
    return model, activation, _overlaid(preprocess, entry)


def _check_file(where: str, entry: Model) -> None:
    """Refuse a checkpoint that is not there, or whose activation is not known."""
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
        return
    if entry.activation is None:
        raise UserError(
            f"{where}: {path} does not say which activation it was trained with; add `activation: gelu` or "
            "`activation: quick_gelu` to the entry (OpenAI's, MetaCLIP's and DFN's weights are quick_gelu)"
        )
    _shared_preprocess(where, entry)


def _build(where: str, entry: Model, *, pretrained: str | None, quick_gelu: bool) -> torch.nn.Module:
    """open_clip's `create_model`, seeded so that random weights are the same everywhere."""
    try:
        # Only the CPU's generator: torch.manual_seed would also seed those of the GPUs.
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            return open_clip.create_model(
                entry.name,
                pretrained=pretrained,
                pretrained_text=False,
                require_pretrained=has_schema(entry),
                quick_gelu=quick_gelu,
                weights_only=True,
            )
    except ImportError as error:
        raise UserError(_not_installed(where, entry, error)) from None
    except pickle.UnpicklingError:
        raise UserError(
            f"{where}: the weights of name '{entry.name}', pretrained '{pretrained}' are damaged, or hold more than "
            "tensors and could run code; get them again, as *.safetensors if there is such a file"
        ) from None
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"{where}: open_clip cannot load name '{entry.name}', pretrained '{pretrained}': {reason}"
        ) from None


def _fill(where: str, model: torch.nn.Module, state: dict[str, torch.Tensor], path: Path) -> None:
    """Copy the weights of a TorchScript archive into `model`; all must fit."""
    try:
        model.load_state_dict({name: value.float() for name, value in state.items()}, strict=True)
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
    if has_schema(entry) or entry.pretrained is None:
        return False
    return bool(get_pretrained_cfg(entry.name, entry.pretrained).get("quick_gelu", False))


def model_config(where: str, entry: Model) -> dict[str, Any]:
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
    """The preprocessing with the entry's overrides."""
    given = entry.preprocess.model_dump(exclude_none=True) if entry.preprocess else {}
    return {name: list(v) if isinstance(v, tuple) else v for name, v in {**preprocess, **given}.items()}


def _not_installed(where: str, entry: Model, error: ImportError) -> str:
    """SigLIP's tokenizer and a few text towers come from transformers, which the others do without."""
    package = error.name or str(error)
    return f"{where}: {entry.name} needs the package {package}, which is not installed; run `pip install {package}`"


def load_tokenizer(where: str, entry: Model) -> Tokenizer:
    """The model's own tokenizer, or one of fewer words where its vocabulary is smaller than CLIP's.

    Raises:
        UserError: it cannot be loaded, or needs a package that is not installed.
    """
    text = model_config(where, entry).get("text_cfg", {})
    vocabulary = text.get("vocab_size", FULL_VOCABULARY)
    if vocabulary < FULL_VOCABULARY and not text.get("hf_tokenizer_name"):
        return build_tokenizer(vocabulary, text.get("context_length", 77))
    try:
        # A model's configuration must not allow its tokenizer to bring code of its own.
        code = {"trust_remote_code": False} if text.get("hf_tokenizer_name") else {}
        tokenizer: Tokenizer = open_clip.get_tokenizer(entry.name, **code)
    except ImportError as error:
        raise UserError(_not_installed(where, entry, error)) from None
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{where}: the tokenizer of {entry.name} cannot be loaded ({reason})") from None
    return tokenizer
