"""A LLaVA-architecture checkpoint of random weights, for tests: made in less than a second, served by its folder."""

from __future__ import annotations

from pathlib import Path

from stages.demo.toy.model import Size, build_model, build_processor, build_tokenizer
from stages.finer.llava import save_checkpoint

TINY = Size(
    image=32, patch=16, vision_width=16, vision_layers=3, vision_head=16, text_width=32, text_layers=2, vocabulary=400
)
"""Four image tokens an image; the tower's second-to-last layer is its second."""

TEXTS = (
    "Which visible attributes does the bird in the image have? red crown; white belly; long tail",
    'What is the exact name of the finch in the image? Reply with "Answer:" and the name alone. Answer: finch',
)


def make_tiny_llava(folder: Path, seed: int = 0, size: Size = TINY) -> Path:
    """A folder that `transformers` loads and `transformers serve` serves; every seed its own weights."""
    tokenizer = build_tokenizer(TEXTS, size.vocabulary, size.context)
    folder.mkdir(parents=True, exist_ok=True)
    save_checkpoint(folder, build_model(tokenizer, size, seed), build_processor(tokenizer, size))
    return folder


def make_tiny_language_model(folder: Path) -> Path:
    """A language model without vision, whose chat template leaves images out as those of such models do."""
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = build_tokenizer(TEXTS, TINY.vocabulary, TINY.context)
    tokenizer.chat_template = (
        "{% for message in messages %}{{ message['role'] }}: {% if message['content'] is string %}"
        "{{ message['content'] }}{% else %}{% for part in message['content'] %}{% if part['type'] == 'text' %}"
        "{{ part['text'] }}{% endif %}{% endfor %}{% endif %}\n{% endfor %}"
    )
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    folder.mkdir(parents=True, exist_ok=True)
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
