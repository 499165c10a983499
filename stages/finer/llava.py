"""Loading and saving checkpoints of the LLaVA architecture: a vision tower, a projector and a language model."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from stages.common.errors import UserError
from stages.common.made_from import folder_digest
from stages.common.optional import import_optional

ARCHITECTURES = ("llava", "llava_next")
"""Each `model_type` that is known to have one tower, one projector and one language model under these names."""

TOWER, PROJECTOR, LANGUAGE_MODEL = "vision_tower", "multi_modal_projector", "language_model"


@dataclass(frozen=True)
class Llava:
    """A `LlavaForConditionalGeneration` (or LLaVA-NeXT's) and its processor, which holds tokenizer and template."""

    model: Any
    processor: Any

    @property
    def config(self) -> Any:
        return self.model.config


def load_llava(name: str, device: torch.device, dtype: torch.dtype, for_what: str) -> Llava:
    """Load a checkpoint by its folder, or by its name on the Hugging Face hub.

    Raises:
        UserError: `transformers` is missing, or there is no such checkpoint, it is not whole, or not of the
            LLaVA architecture.
    """
    transformers = import_optional("transformers", for_what)
    folder = Path(name)
    on_the_hub = len(folder.parts) == 2 and folder.parts[0] not in ("/", "..", "data")
    if not folder.is_dir() and not on_the_hub:
        raise UserError(f"{for_what}: no model folder {name}; make it with `dvc repro`, or name one that exists")
    quietly = _quiet(transformers)
    try:
        config = transformers.AutoConfig.from_pretrained(name, trust_remote_code=False)
        if config.model_type not in ARCHITECTURES:
            raise UserError(
                f"{for_what}: {name} is a model of type '{config.model_type}', not of the LLaVA architecture; "
                f"known are {', '.join(ARCHITECTURES)}"
            )
        processor = transformers.AutoProcessor.from_pretrained(name, trust_remote_code=False)
        model = transformers.AutoModelForImageTextToText.from_pretrained(name, dtype=dtype, trust_remote_code=False)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{for_what}: {name} cannot be loaded as a checkpoint of transformers ({reason})") from None
    finally:
        quietly()
    return Llava(model.to(device).eval(), processor)


def _quiet(transformers: Any) -> Callable[[], None]:
    """Turn off the library's progress bars if there is no terminal; returns a function that turns them on again."""
    bars = transformers.utils.logging
    if os.isatty(2) or not bars.is_progress_bar_enabled():
        return lambda: None
    bars.disable_progress_bar()
    return bars.enable_progress_bar


def save_whole(folder: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary folder, then rename it: an existing folder is whole. An old one is replaced."""
    aside, old = folder.with_name(f".{folder.name}.tmp"), folder.with_name(f".{folder.name}.old")
    for left in (aside, old):
        shutil.rmtree(left, ignore_errors=True)
    aside.mkdir(parents=True)
    write(aside)
    if folder.exists():
        folder.rename(old)
    aside.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def save_checkpoint(folder: Path, model: Any, processor: Any) -> None:
    """Model, generation settings, processor and chat template, in the layout that `transformers` loads and serves.

    Sampling is on in the generation settings, because a server obeys a request's temperature only then. At temperature
    0 it turns sampling off.
    """
    quietly = _quiet(import_optional("transformers", "saving a checkpoint"))
    model.generation_config.do_sample = True
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    quietly()


def weights_digest(name: str) -> str:
    """Hash of a checkpoint folder's files; for a hub name, the name itself."""
    folder = Path(name)
    return folder_digest(folder) if folder.is_dir() else name
