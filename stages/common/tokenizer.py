"""CLIP's byte-pair tokenizer, also for models that know only its first merges."""

import gzip
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from open_clip.tokenizer import SimpleTokenizer, default_bpe

FULL_VOCABULARY = 49408
BYTE_SYMBOLS = 512  # every byte, alone and at the end of a word
SPECIAL_TOKENS = 2  # start and end of text, always the last two ids

Tokenizer = Callable[[list[str]], torch.LongTensor]


def build_tokenizer(vocab_size: int, context_length: int) -> Tokenizer:
    """A function from n texts to token ids [n, context_length] int64, zero-padded, truncated where too long.

    At the full vocabulary (49408) this is open_clip's own tokenizer. A smaller vocabulary is CLIP's byte symbols,
    its first ``vocab_size - 514`` merges and the two special tokens; the end of text keeps the largest id, on which
    open_clip's argmax pooling relies.

    Raises ValueError for a vocabulary that is no part of CLIP's, or a context without room for a word.
    """
    smallest = BYTE_SYMBOLS + SPECIAL_TOKENS
    if not smallest <= vocab_size <= FULL_VOCABULARY:
        raise ValueError(f"vocab_size {vocab_size} is outside {smallest}..{FULL_VOCABULARY}")
    if context_length < 3:
        raise ValueError(f"context_length {context_length} leaves no room between start and end of text")
    if vocab_size == FULL_VOCABULARY:
        return SimpleTokenizer(context_length=context_length)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "merges.txt.gz"
        _write_first_merges(path, vocab_size - smallest)
        return SimpleTokenizer(bpe_path=str(path), context_length=context_length)


def count_tokens(tokenizer: Any, texts: Sequence[str]) -> list[int]:
    """How many tokens each text has, with the special ones. It may be more than the context, which cuts the text.

    Args:
        tokenizer: one of open_clip's: CLIP's own, or a wrapper of one from `transformers` (SigLIP).
    """
    wrapped = getattr(tokenizer, "tokenizer", None)
    if wrapped is None:
        return [len(tokenizer.encode(text)) + SPECIAL_TOKENS for text in texts]
    return [len(ids) for ids in wrapped([tokenizer.clean_fn(text) for text in texts])["input_ids"]] if texts else []


def _write_first_merges(path: Path, count: int) -> None:
    """Cut the installed package's merge list to a header and its first ``count`` merges."""
    with gzip.open(default_bpe(), "rt", encoding="utf-8") as source:
        lines = [next(source).rstrip("\n") for _ in range(count + 1)]
    with gzip.open(path, "wt", encoding="utf-8") as target:
        # No newline at the end: the tokenizer splits on newlines and would take an empty last line for a merge.
        target.write("\n".join(lines))
