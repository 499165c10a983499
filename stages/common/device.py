"""Where to compute and in which precision."""

from __future__ import annotations

import torch

from stages.common.errors import UserError


def pick_device(device: str) -> torch.device:
    """`auto` is the GPU if there is one.

    Raises:
        UserError: `cuda` was asked for and there is none.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("device is cuda, but torch sees no GPU here; set device: auto or cpu")
    return torch.device("cuda" if device == "auto" and torch.cuda.is_available() else device.replace("auto", "cpu"))


def pick_precision(precision: str, device: torch.device) -> str:
    """`auto` is bfloat16 if the hardware supports it, otherwise float16 on a GPU and float32 on a CPU."""
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported() else "float16"
    capabilities = torch.cpu.get_capabilities()
    fast = capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") or capabilities.get("bf16")
    return "bfloat16" if fast else "float32"
