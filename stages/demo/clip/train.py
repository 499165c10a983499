"""Trains the demo's CLIP on drawings of random birds: ``python -m stages.demo.clip.train``.

Neither the names nor the looks of the demo's species are among them (views.random_look, captions.made_up_noun). Several
captions of a batch may be true of one view, so every such pair is a positive (encode_facts tells which are).
"""

import argparse
import json
import math
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from open_clip.tokenizer import SimpleTokenizer
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm import tqdm

from stages.common.errors import run
from stages.common.locks import hold
from stages.common.tokenizer import BYTE_SYMBOLS, SPECIAL_TOKENS, build_tokenizer
from stages.demo.birds.species import ATTRIBUTES
from stages.demo.clip.captions import caption, encode_facts
from stages.demo.clip.views import VIEW_SIDE, Views, render

MODEL_DIR = Path(__file__).parents[1] / "model"
WEIGHTS = "open_clip_model.safetensors"
LOG = "training.jsonl"
CONTEXT_LENGTH = 48
VOCAB_SIZE = 4000
CONFIG: dict[str, Any] = {
    "model_cfg": {
        "embed_dim": 128,
        "vision_cfg": {
            "image_size": VIEW_SIDE,
            "layers": [1, 1, 1, 1],
            "width": 16,
            "head_width": 64,
            "patch_size": None,
        },
        "text_cfg": {
            "context_length": CONTEXT_LENGTH,
            "vocab_size": VOCAB_SIZE,
            "width": 128,
            "heads": 4,
            "layers": 2,
        },
    },
    "preprocess_cfg": {
        "mean": list(OPENAI_DATASET_MEAN),
        "std": list(OPENAI_DATASET_STD),
        "interpolation": "bicubic",
        "resize_mode": "shortest",
    },
}


@dataclass(frozen=True)
class Settings:
    """What a training run depends on."""

    seed: int = 20
    round: int = 1  # a later one starts from another run's weights, with batches of its own
    drawings: int = 12000
    held_out: int = 500  # of the drawings, for the accuracies in the log
    crops: int = 4  # views of a drawing beside the whole frame
    crop_share: float = 0.6  # of the views in a batch
    batch: int = 128
    captions: int = 1  # for each view
    steps: int = 2600
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    first_scale: float = 12.0  # the factor on cosines in the loss ...
    last_scale: float = 35.0  # ... which rises late: text cosines then spread as wide as CLIP's
    rise: tuple[float, float] = (0.5, 0.8)  # shares of the training between which it does
    attribute_weight: float = 1.0  # of the throw-away attribute head's loss; fades to 0 by the end of the rise


def attribute_head(width: int) -> nn.Linear:
    """From embeddings, of views and captions alike, to logits of every attribute's values side by side."""
    return nn.Linear(width, sum(len(values) for values in ATTRIBUTES.values()))


def attribute_loss(logits: Tensor, facts: Tensor) -> Tensor:
    """Mean cross-entropy over what is seen or stated; ``facts`` [n, attributes] int64, -1 where nothing is."""
    parts = logits.float().split([len(values) for values in ATTRIBUTES.values()], dim=1)
    losses = [F.cross_entropy(part, fact, ignore_index=-1) for part, fact in zip(parts, facts.T, strict=True)]
    return torch.stack(losses).nanmean()


def contrastive_loss(images: Tensor, texts: Tensor, seen: Tensor, stated: Tensor, scale: float) -> Tensor:
    """Multi-positive InfoNCE, each row's target spread evenly over its positives.

    ``images`` [n, d] and ``texts`` [m, d] unit norm, ``seen`` [n, attributes] and ``stated`` [m, attributes] codes.
    A view and a caption are a positive if all that the caption states can be seen in the view. Captions that state
    nothing are true of every view: they pull texts to the middle, and are left out of the images' side.
    """
    logits = scale * images.float() @ texts.float().T
    positive = ((stated[None] == seen[:, None]) | (stated[None] < 0)).all(dim=2)
    empty = (stated < 0).all(dim=1)
    of_images = _spread_cross_entropy(logits.masked_fill(empty, -1e4), positive & ~empty)
    return (of_images + _spread_cross_entropy(logits.T, positive.T)) / 2


def _spread_cross_entropy(logits: Tensor, positive: Tensor) -> Tensor:
    counts = positive.sum(dim=1)
    per_row = -(logits.log_softmax(dim=1) * positive).sum(dim=1) / counts.clamp(min=1)
    return per_row.sum() / (counts > 0).sum()


def filler_words() -> list[str]:
    """Whole words of the cut vocabulary to pad captions with, without words that state an attribute."""
    telling = " ".join(" ".join(values) for values in ATTRIBUTES.values()).split()
    telling += [
        "gray",
        "golden",
        "snow",
        "pale",
        "violet",
        "dots",
        "spots",
        "bars",
        "edge",
        "beak",
        "bill",
        *ATTRIBUTES,
    ]
    symbols = list(SimpleTokenizer().encoder)[BYTE_SYMBOLS : VOCAB_SIZE - SPECIAL_TOKENS]
    words = [symbol[:-4] for symbol in symbols if symbol.endswith("</w>")]
    return [word for word in words if len(word) > 2 and word.isascii() and word.isalpha() and word not in telling]


def batches(views: Views, settings: Settings) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Endless (images [n, 3, 64, 64] float32 normalised, seen [n, a], token ids [n * captions, 48], stated)."""
    rng = np.random.default_rng([settings.seed, settings.round])
    tokenizer, fillers = build_tokenizer(VOCAB_SIZE, CONTEXT_LENGTH), filler_words()
    names = list(ATTRIBUTES)
    drawings = len(views.images) - settings.held_out
    while True:
        rows = rng.integers(0, drawings, settings.batch)
        crops = rng.integers(1, 1 + settings.crops, settings.batch) * (rng.random(settings.batch) < settings.crop_share)
        seen = views.facts[rows, crops]
        texts, stated = [], []
        for codes in seen.tolist():
            visible = {name: ATTRIBUTES[name][code] for name, code in zip(names, codes, strict=True) if code >= 0}
            for _ in range(settings.captions):
                text, facts = caption(visible, fillers, rng)
                texts.append(text)
                stated.append(encode_facts(facts))
        images = _shaken(normalised(views.images[rows, crops]), rng)
        yield images, torch.from_numpy(seen).long(), tokenizer(texts), torch.from_numpy(np.stack(stated)).long()


def normalised(pixels: np.ndarray) -> Tensor:
    """[n, 64, 64, 3] uint8 -> [n, 3, 64, 64] float32 as open_clip's preprocessing would have it."""
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(values)[:, None, None] for values in (OPENAI_DATASET_MEAN, OPENAI_DATASET_STD))
    return (images - mean) / std


def _shaken(images: Tensor, rng: np.random.Generator) -> Tensor:
    """Mirrored at random, and moved by up to two pixels, a whole batch alike."""
    flip = torch.from_numpy(rng.random(len(images)) < 0.5)
    images[flip] = images[flip].flip(3)
    dx, dy = (int(v) for v in rng.integers(0, 5, 2))
    return F.pad(images, (2, 2, 2, 2), mode="replicate")[:, :, dy : dy + VIEW_SIDE, dx : dx + VIEW_SIDE]


def drawn_views(folder: Path, settings: Settings, workers: int) -> Views:
    """The training set, drawn into ``folder`` unless it is there already."""
    folder.mkdir(parents=True, exist_ok=True)
    made_of = {"seed": settings.seed, "drawings": settings.drawings, "crops": settings.crops}
    note = folder / "views.json"
    if not note.exists() or json.loads(note.read_text()) != made_of:
        render(folder, settings.seed, settings.drawings, settings.crops, workers)
        note.write_text(json.dumps(made_of))
    return Views(np.load(folder / "images.npy"), np.load(folder / "facts.npy"))


def scale_at(step: int, settings: Settings) -> float:
    start, end = (share * settings.steps for share in settings.rise)
    share = min(max((step - start) / (end - start), 0.0), 1.0)
    return settings.first_scale + share * (settings.last_scale - settings.first_scale)


def train(model: Any, views: Views, settings: Settings, log: Path) -> nn.Module:
    """Train ``model``; writes one JSON object every 100 steps to ``log``. Returns the model in float32."""
    head = attribute_head(CONFIG["model_cfg"]["embed_dim"])
    parameters = [*model.parameters(), *head.parameters()]
    decayed = [p for p in parameters if p.ndim > 1]
    groups = [
        {"params": decayed, "weight_decay": settings.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=settings.learning_rate, betas=(0.9, 0.98), fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, settings.learning_rate, settings.steps, pct_start=0.06)
    began = time.monotonic()
    model.train()
    progress = tqdm(range(1, settings.steps + 1), desc="training", unit="step", disable=None)
    for step, (images, seen, tokens, stated) in zip(progress, batches(views, settings), strict=False):
        scale = scale_at(step, settings)
        with torch.autocast("cpu", torch.bfloat16):
            image_features = model.encode_image(images.contiguous(memory_format=torch.channels_last), normalize=True)
            text_features = encode_captions(model, tokens)
            guesses = head(8 * torch.cat([image_features, text_features]))
        contrast = contrastive_loss(image_features, text_features, seen, stated, scale)
        help_weight = settings.attribute_weight * max(0.0, 1 - step / (settings.rise[1] * settings.steps))
        attributes = attribute_loss(guesses, torch.cat([seen, stated]))
        optimizer.zero_grad()
        (contrast + help_weight * attributes).backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        if step % 100 == 0 or step == 1:
            figures = {"loss": contrast.item(), "attribute_loss": attributes.item(), "logit_scale": scale}
            record(
                log, step=step, seconds=round(time.monotonic() - began), **{k: round(v, 4) for k, v in figures.items()}
            )
    with torch.no_grad():
        model.logit_scale.fill_(math.log(settings.last_scale))
    return model.eval()


def encode_captions(model: Any, tokens: Tensor, chunks: int = 4) -> Tensor:
    """As open_clip's encode_text, unit norm, but in chunks of like length without the padding: half the time."""
    order = tokens.count_nonzero(dim=1).argsort()
    features = []
    for part in tokens[order].chunk(chunks):
        length = int(part.count_nonzero(dim=1).max())
        hidden = model.token_embedding(part[:, :length]) + model.positional_embedding[:length]
        hidden = model.ln_final(model.transformer(hidden, attn_mask=model.attn_mask[:length, :length]))
        ends = hidden[torch.arange(len(part)), part.argmax(dim=1)]
        features.append(F.normalize(ends @ model.text_projection, dim=-1))
    return torch.cat(features)[order.argsort()]


def new_model(start: Path | None = None) -> Any:
    """The model in float32: untrained, or with the weights in the folder ``start``."""
    model = open_clip.CLIP(**CONFIG["model_cfg"])
    if start:
        model.load_state_dict(load_file(start / WEIGHTS))
    return model


def record(log: Path, **fields: Any) -> None:
    with log.open("a") as file:
        file.write(json.dumps(fields) + "\n")


@torch.inference_mode()
def held_out_accuracies(model: Any, views: Views, settings: Settings) -> dict[str, float]:
    """Percent of held-out whole frames whose attribute is recognised by captions of one fact."""
    tokenizer, rng = build_tokenizer(VOCAB_SIZE, CONTEXT_LENGTH), np.random.default_rng([settings.seed, 0])
    images = model.encode_image(normalised(views.images[-settings.held_out :, 0]), normalize=True)
    truth = torch.from_numpy(views.facts[-settings.held_out :, 0]).long()
    accuracies = {}
    for column, (name, values) in enumerate(ATTRIBUTES.items()):
        texts = []
        for value in values:
            drawn = [caption({name: value}, (), rng) for _ in range(24)]
            ids = tokenizer([text for text, stated in drawn if stated])
            texts.append(F.normalize(model.encode_text(ids, normalize=True).mean(dim=0), dim=0))
        right = (images @ torch.stack(texts).T).argmax(dim=1) == truth[:, column]
        accuracies[name] = round(100 * right.float().mean().item(), 1)
    return accuracies


def save(model: nn.Module, folder: Path) -> int:
    """Write open_clip's local-dir layout with float16 weights; returns the weights' size in bytes."""
    (folder / "open_clip_config.json").write_text(json.dumps(CONFIG, indent=2) + "\n")
    weights = {name: _stored(tensor) for name, tensor in model.state_dict().items()}
    save_file(weights, folder / WEIGHTS)
    return (folder / WEIGHTS).stat().st_size


def _stored(tensor: Tensor) -> Tensor:
    return (tensor.half() if tensor.is_floating_point() else tensor).contiguous()


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the demo's CLIP on drawn birds.")
    parser.add_argument("--output", type=Path, default=MODEL_DIR, help="folder of the model (default: %(default)s)")
    parser.add_argument("--start-from", type=Path, help="folder of a model whose weights to start from")
    parser.add_argument("--views", type=Path, help="folder that keeps the drawn views for other runs")
    parser.add_argument("--threads", type=int, default=2)
    knobs = [field for field in fields(Settings) if field.name != "rise"]
    for knob in knobs:
        option = f"--{knob.name.replace('_', '-')}"
        parser.add_argument(option, type=type(knob.default), default=knob.default, help="default: %(default)s")
    options = parser.parse_args()
    settings = Settings(**{knob.name: getattr(options, knob.name) for knob in knobs})
    for written in filter(None, (options.output, options.views)):
        hold("demo.clip.train", str(written))
    torch.set_num_threads(options.threads)
    options.output.mkdir(parents=True, exist_ok=True)
    log = options.output / LOG
    log.write_text((options.start_from / LOG).read_text() if options.start_from else "")
    began = time.monotonic()
    record(log, torch=torch.__version__, open_clip=open_clip.__version__, threads=options.threads, **asdict(settings))
    with tempfile.TemporaryDirectory() as folder:
        views = drawn_views(options.views or Path(folder), settings, options.threads)
    record(log, drawn=list(views.images.shape), seconds=round(time.monotonic() - began))
    torch.manual_seed(settings.seed)
    model = train(new_model(options.start_from), views, settings, log)
    accuracies = held_out_accuracies(model, views, settings)
    size = save(model, options.output)
    record(log, held_out_accuracy=accuracies, bytes=size, seconds=round(time.monotonic() - began))


if __name__ == "__main__":
    run(main)
