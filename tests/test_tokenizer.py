"""The tokenizer: CLIP's own at full size, its first merges below."""

import pytest
import torch
from open_clip.tokenizer import SimpleTokenizer

from stages.common.tokenizer import FULL_VOCABULARY, build_tokenizer

TEXTS = ["a photo of a red-crowned tavo.", "It has a YELLOW belly & a long tail!", "", "naïve ☂ 42", "bird " * 90]


@pytest.mark.parametrize("vocab_size", [514, 515, 1000, 4000, 49407])
def test_ids_are_within_the_vocabulary_and_end_of_text_is_the_largest(vocab_size: int) -> None:
    ids = build_tokenizer(vocab_size, 48)(TEXTS)
    assert ids.shape == (len(TEXTS), 48) and ids.dtype == torch.int64
    assert int(ids.min()) >= 0
    assert (ids.amax(dim=1) == vocab_size - 1).all(), "open_clip pools at the largest id, the end of text"
    assert (ids[:, 0] == vocab_size - 2).all()
    assert ((ids == vocab_size - 1).sum(dim=1) == 1).all()


@pytest.mark.parametrize("context_length", [16, 77])
def test_full_size_is_open_clips(context_length: int) -> None:
    ours = build_tokenizer(FULL_VOCABULARY, context_length)(TEXTS)
    assert torch.equal(ours, SimpleTokenizer(context_length=context_length)(TEXTS))


@pytest.mark.parametrize("vocab_size", [514, 4000])
def test_lower_case_words_survive_a_round_trip(vocab_size: int) -> None:
    text = "a small bird with barred wings and a hooked beak"
    tokenizer = build_tokenizer(vocab_size, 128)
    ids = tokenizer([text])[0].tolist()
    words = ids[1 : ids.index(vocab_size - 1)]
    assert tokenizer.decode(words).strip() == text  # type: ignore[attr-defined]


def test_a_cut_vocabulary_keeps_the_ids_of_what_it_knows() -> None:
    full, cut = build_tokenizer(FULL_VOCABULARY, 16), build_tokenizer(4000, 16)
    assert torch.equal(full(["the bird"])[0, 1:3], cut(["the bird"])[0, 1:3])


def test_a_long_text_is_cut_but_still_ends() -> None:
    ids = build_tokenizer(4000, 12)(["bird " * 50])[0]
    assert int(ids[-1]) == 3999


@pytest.mark.parametrize(("vocab_size", "context_length"), [(513, 48), (49409, 48), (4000, 2)])
def test_impossible_sizes_are_refused(vocab_size: int, context_length: int) -> None:
    with pytest.raises(ValueError, match=str(vocab_size if context_length == 48 else context_length)):
        build_tokenizer(vocab_size, context_length)
