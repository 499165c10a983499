"""A LLaVA-architecture checkpoint from configuration: CLIP's vision tower, a projector, Llama, a byte-level BPE.

`transformers` loads and serves it by the folder's path; nothing is downloaded.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    GenerationConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

PAD, IMAGE, USER, ASSISTANT, SYSTEM, END = "<pad>", "<image>", "<|user|>", "<|assistant|>", "<|system|>", "<|end|>"
SPECIAL = (PAD, IMAGE, USER, ASSISTANT, SYSTEM, END)
MAX_NEW_TOKENS = 160

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' }}"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{{ '<image>' }}{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}{{ '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
"""Turns of typed content parts in their order. An answer ends with the end-of-sequence token."""


@dataclass(frozen=True)
class Size:
    """Sizes of a model; sides in pixels."""

    image: int = 96
    patch: int = 12
    vision_width: int = 96
    vision_layers: int = 4
    """The projector sees all but the last, as in LLaVA."""
    text_width: int = 96
    text_layers: int = 3
    vision_head: int = 32
    text_head: int = 16
    """Widths of the attention heads. The language model looks for one attribute with each of its heads."""
    vocabulary: int = 1200
    """Upper limit: byte symbols, special tokens and merges."""
    context: int = 1024


def build_tokenizer(texts: Iterable[str], vocabulary: int, context: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE trained on `texts`: any text can be written, and the same texts give the same merges."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Punctuation("isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        pad_token=PAD,
        eos_token=END,
        additional_special_tokens=[IMAGE, USER, ASSISTANT, SYSTEM],
        model_max_length=context,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def build_processor(tokenizer: PreTrainedTokenizerFast, size: Size) -> LlavaProcessor:
    """Images to [3, side, side] float32, and as many image tokens in the text as the vision tower has patches."""
    images = CLIPImageProcessor(
        size={"shortest_edge": size.image}, crop_size={"height": size.image, "width": size.image}
    )
    return LlavaProcessor(
        image_processor=images,
        tokenizer=tokenizer,
        patch_size=size.patch,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,  # the class token, which "default" removes again
        chat_template=CHAT_TEMPLATE,
        image_token=IMAGE,
    )


def build_model(tokenizer: PreTrainedTokenizerFast, size: Size, seed: int) -> LlavaForConditionalGeneration:
    """Random weights from `seed`; the global generator is left as it is."""
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=size.vision_width,
            intermediate_size=4 * size.vision_width,
            num_hidden_layers=size.vision_layers,
            num_attention_heads=size.vision_width // size.vision_head,
            image_size=size.image,
            patch_size=size.patch,
            projection_dim=size.vision_width,
        ),
        text_config=LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=size.text_width,
            intermediate_size=3 * size.text_width,
            num_hidden_layers=size.text_layers,
            num_attention_heads=size.text_width // size.text_head,
            num_key_value_heads=size.text_width // size.text_head,
            max_position_embeddings=size.context,
            initializer_range=0.04,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        ),
        image_token_index=tokenizer.get_vocab()[IMAGE],
        image_seq_length=(size.image // size.patch) ** 2,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlavaForConditionalGeneration(config)
    model.generation_config = GenerationConfig(
        # Sampling must be on for a server to obey a temperature; temperature 0 turns it off.
        do_sample=True,
        temperature=1.0,
        max_new_tokens=MAX_NEW_TOKENS,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return model.eval()
