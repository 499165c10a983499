"""Builds the toy model and trains it: first to see, then to answer."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from stages.common.errors import UserError
from stages.common.files import replacing
from stages.common.made_from import (
    Record,
    code_digest,
    file_digest,
    images_digest,
    made_from,
    read_result,
    write_result,
)
from stages.common.seeding import generator
from stages.common.tables import read_table, write_json
from stages.demo.toy.data import INDEX, Drawing, Lessons, Species, read_drawings
from stages.demo.toy.model import Size, build_model, build_processor, build_tokenizer
from stages.demo.toy.sight import (
    WHITENED,
    Heads,
    Targets,
    inside,
    load_pixels,
    normalised,
    prepare_tower,
    shaken,
    sight_loss,
)
from stages.demo.toy.talk import Packer, talk_loss
from stages.finer import paths
from stages.finer.artifacts import MIXTURE
from stages.finer.attributes import read_by_class
from stages.finer.classes import read_classes
from stages.finer.llava import save_checkpoint, save_whole
from stages.finer.params import FinerParams, Toy

LOSSES = "training.json"
MADE_FROM = "toy.json"
CODE = (
    *("finer.llava", "finer.options", "finer.promptings", "finer.prompts"),
    *("demo.toy.data", "demo.toy.model", "demo.toy.sight", "demo.toy.talk", "demo.toy.train"),
)
"""Modules that decide what the model becomes."""
UNFINISHED = paths.TUNE / "toy"
"""Folder from which a killed run continues."""

SAVE_EVERY = 200
LOGGED = 50
"""Number of steps over which the loss is averaged and logged."""

SEEING = 2
"""Factor for the batch size when the tower learns to see."""

ANSWERING = 1.5
"""Factor for the learning rate when the model learns to answer."""

WARM_UP = 0.1


def read_species(dataset: str) -> list[Species]:
    """The classes of the demo with their required attributes.

    Raises:
        UserError: a class without family or superordinate; files that are missing or not of their format.
    """
    classes = read_classes(dataset)
    concepts = read_by_class(paths.attributes_by_class(dataset), {n: known.name for n, known in enumerate(classes)})
    found = []
    for known, concept in zip(classes, concepts, strict=True):
        if not known.coarse or not known.superordinate:
            raise UserError(
                f"toy: class '{known.name}' of {dataset} has no coarse or superordinate label, which its questions name"
            )
        found.append(Species(known.name, known.superordinate, known.coarse[0], tuple(concept.binomial.required)))
    return found


def mixture_texts(folder: Path) -> Iterator[str]:
    """The texts of the mixture, for the tokenizer."""
    for path in sorted(folder.glob("*.parquet")):
        for messages in read_table(path, MIXTURE, ["messages"])[0]["messages"].to_pylist():
            yield from (part["text"] for message in messages for part in message["content"] if part["text"])


def rate(step: int, steps: int) -> float:
    """Factor of the learning rate: linearly up to 1, then down to 0 along a cosine."""
    done = (step + 1) / steps
    return done / WARM_UP if done < WARM_UP else 0.5 + 0.5 * math.cos(math.pi * (done - WARM_UP) / (1 - WARM_UP))


def fit(name: str, module: nn.Module, loss_at: Callable[[int], Tensor], steps: int, peak: float, folder: Path) -> None:
    """Train the parameters of `module` that require a gradient.

    `folder` holds the state from which a killed run continues and, at the end, the mean losses in `<name>.json`.
    """
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=peak, betas=(0.9, 0.98), weight_decay=0.05)
    kept = folder / f"{name}.pt"
    first, losses, recent = 0, [], []
    if kept.exists():
        state = torch.load(kept, weights_only=True)
        module.load_state_dict(state["module"])
        optimizer.load_state_dict(state["optimizer"])
        first, losses, recent = state["step"], state["losses"], state["recent"]
    for step in tqdm(range(first, steps), desc=name, initial=first, total=steps, disable=None):
        for group in optimizer.param_groups:
            group["lr"] = peak * rate(step, steps)
        loss = loss_at(step)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        recent.append(loss.item())
        if (step + 1) % LOGGED == 0 or step + 1 == steps:
            losses.append([step + 1, sum(recent) / len(recent)])
            recent = []
        if (step + 1) % SAVE_EVERY == 0 or step + 1 == steps:
            state = {"module": module.state_dict(), "optimizer": optimizer.state_dict()}
            with replacing(kept) as temporary:
                torch.save({**state, "step": step + 1, "losses": losses, "recent": recent}, temporary)
    write_json(
        folder / f"{name}.json", [{"phase": name, "step": step, "loss": round(loss, 5)} for step, loss in losses]
    )


@contextmanager
def as_the_projector_sees(tower: Any) -> Iterator[None]:
    """The tower without its last layer, so that its output is that of the second-to-last layer."""
    layers = tower.encoder.layers
    tower.encoder.layers = layers[:-1]
    try:
        yield
    finally:
        tower.encoder.layers = layers


def learn_to_see(
    model: Any, pixels: np.ndarray, drawings: Sequence[Drawing], toy: Toy, seed: int, folder: Path
) -> None:
    """Train the vision tower. Its last layer, which a LLaVA does not use, keeps its random weights."""
    targets = Targets(drawings)
    tower = model.model.vision_tower
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        heads = Heads(tower.config.hidden_size, targets.values)
    side = tower.config.image_size // tower.config.patch_size

    def loss_at(step: int) -> Tensor:
        rng = generator(seed, "toy", "see", str(step))
        rows = rng.integers(0, len(pixels), SEEING * toy.batch_size)
        images, boxes = shaken(normalised(pixels[rows]), targets.boxes[rows], rng)
        logits, glances = heads(tower(images).last_hidden_state[:, 1:])
        return sight_loss(logits, glances, targets.codes[rows], inside(boxes, side))

    with as_the_projector_sees(tower):
        fit("see", nn.ModuleList([tower, heads]), loss_at, toy.steps, toy.learning_rate, folder)


def tower_features(model: Any, pixels: np.ndarray) -> Tensor:
    """[2, N, P, D] float16: features of each drawing, and of each mirrored drawing."""
    tower = model.model.vision_tower
    with torch.no_grad(), as_the_projector_sees(tower):
        both = [
            torch.cat(
                [
                    tower(normalised(pixels[start : start + 100, :, ::way].copy())).last_hidden_state[:, 1:].half()
                    for start in tqdm(range(0, len(pixels), 100), desc="looking", disable=None)
                ]
            )
            for way in (1, -1)
        ]
    return torch.stack(both)


def learn_to_answer(
    model: Any, tokenizer: Any, features: Tensor, drawings: Sequence[Drawing], lessons: Lessons, toy: Toy, seed: int,
    folder: Path,
) -> None:  # fmt: skip
    """Train the projector and the language model on what the frozen tower sees."""
    packer = Packer(tokenizer, features.shape[2])
    model.model.vision_tower.requires_grad_(False)

    def loss_at(step: int) -> Tensor:
        rng = generator(seed, "toy", "answer", str(step))
        rows = rng.integers(0, len(drawings), toy.batch_size)
        ways = rng.integers(0, 2, toy.batch_size)
        batch = packer.pack([lessons.about(drawings[row], rng) for row in rows])
        return talk_loss(model, features[ways, rows].float(), batch)

    fit("answer", model, loss_at, toy.steps, ANSWERING * toy.learning_rate, folder)
    model.model.vision_tower.requires_grad_(True)


def inputs_of(toy: Toy, seed: int, species: Sequence[Species], texts: Sequence[str]) -> Record:
    """What the model depends on: the drawings, the species and texts that it is taught, parameters, code."""
    return made_from(
        drawings=file_digest(paths.DRAWINGS / INDEX),
        images=images_digest((str(path) for path in paths.DRAWINGS.glob("*.jpg")), "toy"),
        species=[[one.name, one.superordinate, one.family, *one.attributes] for one in species],
        texts=list(texts),
        parameters=toy.model_dump(),
        seed=seed,
        code=code_digest(*CODE),
    )


def build_toy(params: FinerParams, target: Path) -> str:
    """Build and train the model, and write it to `target`; the line to print.

    Raises:
        UserError: the demo is not under `finer.datasets`; input that is missing or not of its format.
    """
    toy, seed = params.finer.toy, params.seed
    demo = [key for key in params.finer.datasets if params.datasets[key].reader == "demo"]
    if not demo:
        raise UserError("toy: no data set under finer.datasets is the demo, whose species the toy knows; add it")
    drawings, species = read_drawings(paths.DRAWINGS)[: toy.drawings], read_species(demo[0])
    lessons = Lessons(drawings, species)
    texts = [*lessons.texts(), *mixture_texts(paths.MIXTURE)]
    inputs = inputs_of(toy, seed, species, texts)
    if read_result(target / MADE_FROM, inputs):
        return f"toy: {target} is made from these drawings, species and parameters already"
    if not read_result(UNFINISHED / MADE_FROM, inputs):
        shutil.rmtree(UNFINISHED, ignore_errors=True)
        write_result(UNFINISHED / MADE_FROM, {}, inputs)
    size = Size()
    tokenizer = build_tokenizer(texts, size.vocabulary, size.context)
    processor = build_processor(tokenizer, size)
    model = build_model(tokenizer, size, seed)
    pixels = load_pixels(drawings, size.image)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        prepare_tower(model.model.vision_tower, normalised(pixels[:WHITENED]), size)
    learn_to_see(model, pixels, drawings, toy, seed, UNFINISHED)
    learn_to_answer(model, tokenizer, tower_features(model, pixels), drawings, lessons, toy, seed, UNFINISHED)
    losses = [json.loads((UNFINISHED / f"{name}.json").read_text(encoding="utf-8")) for name in ("see", "answer")]

    def write(folder: Path) -> None:
        save_checkpoint(folder, model.eval(), processor)
        write_json(folder / LOSSES, [*losses[0], *losses[1]])
        write_result(folder / MADE_FROM, {}, inputs)

    save_whole(target, write)
    shutil.rmtree(UNFINISHED)
    count = sum(parameter.numel() for parameter in model.parameters())
    return f"toy: {count} weights, {len(drawings)} drawings, loss {losses[1][-1]['loss']:.3f}; {target}"
