"""tune: LoRA on a LLaVA-architecture model with a mixture -> `data/finer/models/tuned`, a merged, plain checkpoint.

The trainer is that of `transformers`. An interrupted run continues from its last whole checkpoint.
"""

from __future__ import annotations

import json
import math
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch.utils.data import Dataset
from tqdm import tqdm

from stages.common.device import pick_device
from stages.common.errors import UserError, warn
from stages.common.images import UNREADABLE, image_size, open_rgb, reason
from stages.common.made_from import (
    Record,
    code_digest,
    file_digest,
    images_digest,
    made_from,
    read_result,
    write_result,
)
from stages.common.optional import import_optional
from stages.common.tables import read_table, write_json
from stages.common.unpacked import ensure_there
from stages.finer import paths
from stages.finer.artifacts import MIXTURE
from stages.finer.llava import PROJECTOR, Llava, load_llava, save_checkpoint, save_whole, weights_digest
from stages.finer.params import FinerParams, Tune
from stages.finer.tune.lora import Encoded, collate, encode, image_tokens, merged, with_adapters

MADE_FROM = "tune.json"
"""File in the tuned model's folder and beside the checkpoints: what the run was made from."""

WHOLE = "whole.json"
"""File in a checkpoint's folder with the digests of its files; it is written last."""

NAMED = 5
"""How many conversations a warning names."""

Row = dict[str, Any]


def read_mixture(path: Path) -> list[Row]:
    """Rows of the chat-messages Parquet: `id`, `images` (paths) and `messages`.

    Raises:
        UserError: as `read_table`, or the file is empty, or a conversation and its images do not agree.
    """
    rows: list[Row] = read_table(path, MIXTURE, ["id", "images", "messages"])[0].to_pylist()
    if not rows:
        raise UserError(f"{path} holds no conversation; there is nothing to tune on")
    for row in rows:
        parts = [part for message in row["messages"] for part in message["content"]]
        tokens, images = sum(part["type"] == "image" for part in parts), len(row["images"])
        if tokens != images:
            raise UserError(f"{path}: conversation {row['id']} has {tokens} image parts and {images} images")
        if not any(message["role"] == "assistant" for message in row["messages"]):
            raise UserError(f"{path}: conversation {row['id']} has no assistant's turn; there is nothing to learn")
    return rows


def messages_of(row: Row) -> list[dict[str, Any]]:
    """Messages with typed content parts, as chat templates expect them."""

    def typed(part: dict[str, str]) -> dict[str, str]:
        return {"type": "image"} if part["type"] == "image" else {"type": "text", "text": part["text"]}

    return [
        {"role": message["role"], "content": [typed(part) for part in message["content"]]}
        for message in row["messages"]
    ]


class Conversations(Dataset):
    """A mixture, encoded one conversation at a time."""

    def __init__(self, llava: Llava, rows: Sequence[Row]) -> None:
        self.llava, self.rows = llava, rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Encoded:
        row = self.rows[index]
        return encode(self.llava, messages_of(row), [_open(row, path) for path in row["images"]])


def _open(row: Row, path: str) -> Image.Image:
    ensure_there(Path(path))
    try:
        return open_rgb(Path(path))
    except UNREADABLE as error:
        raise UserError(f"tune: image {path} of conversation {row['id']}: {reason(error)}") from None


def drop_too_long(llava: Llava, rows: Sequence[Row]) -> list[Row]:
    """The conversations that fit into the model's context. A warning counts and names the others; none is cut.

    Raises:
        UserError: an image is missing or cannot be read; no conversation fits.
    """
    limit = getattr(llava.config.get_text_config(), "max_position_embeddings", None) or sys.maxsize
    sizes: dict[str, int] = {}
    fit: list[Row] = []
    long: list[Row] = []
    for row in tqdm(rows, desc="checking the mixture", unit="conversation", disable=None):
        for path in row["images"]:
            if path not in sizes:
                sizes[path] = _tokens(llava, row, path)
        text = llava.processor.apply_chat_template(messages_of(row), tokenize=False)
        length = len(llava.processor.tokenizer(text)["input_ids"]) + sum(sizes[path] - 1 for path in row["images"])
        (fit if length <= limit else long).append(row)
    if not fit:
        raise UserError(f"tune: each of the {len(rows)} conversations is longer than the model's {limit} tokens")
    if long:
        named = ", ".join(str(row["id"]) for row in long[:NAMED]) + (", ..." if len(long) > NAMED else "")
        warn(f"{len(long)} of {len(rows)} conversations are longer than the model's {limit} tokens, left out: {named}")
    return fit


def _tokens(llava: Llava, row: Row, path: str) -> int:
    try:
        return image_tokens(llava, image_size(Path(path)))
    except UNREADABLE as error:
        raise UserError(f"tune: image {path} of conversation {row['id']}: {reason(error)}") from None


def accumulation(tune: Tune) -> int:
    """The number of micro-batches in an effective batch.

    Raises:
        UserError: it is not a whole number.
    """
    if tune.batch_size % tune.micro_batch:
        raise UserError(
            f"finer.tune.batch_size {tune.batch_size} is not divisible by finer.tune.micro_batch {tune.micro_batch}"
        )
    return tune.batch_size // tune.micro_batch


def inputs_of(tune: Tune, seed: int, mixture: Path, rows: Sequence[Row]) -> Record:
    """What the tuned model depends on: weights, the mixture with its images, parameters, code.

    Raises:
        UserError: an image is missing.
    """
    return made_from(
        model=weights_digest(tune.model),
        mixture=file_digest(mixture),
        images=images_digest((path for row in rows for path in row["images"]), "tune"),
        parameters=tune.model_dump(exclude={"save_steps"}),
        seed=seed,
        code=code_digest("finer.llava", "finer.tune.lora", "finer.tune.train"),
    )


def mark_whole(checkpoint: Path) -> None:
    """Write the digests of a checkpoint's files, which show later that it is whole."""
    write_json(checkpoint / WHOLE, _files(checkpoint))


def is_whole(checkpoint: Path) -> bool:
    try:
        return bool(json.loads((checkpoint / WHOLE).read_text(encoding="utf-8")) == _files(checkpoint))
    except (OSError, ValueError):
        return False


def _files(folder: Path) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != WHOLE)
    return {path.relative_to(folder).as_posix(): file_digest(path) for path in files}


def last_checkpoint(folder: Path) -> Path | None:
    """The last whole checkpoint of a run. Incomplete ones, of a run that was killed, are removed."""
    found = {int(path.name.rpartition("-")[2]): path for path in folder.glob("checkpoint-*") if path.is_dir()}
    for step in sorted(found, reverse=True):
        if is_whole(found[step]):
            return found[step]
        warn(f"{found[step]} is not whole, dropped")
        shutil.rmtree(found[step])
    return None


def resumable(folder: Path, inputs: Record) -> Path | None:
    """The checkpoint to continue from. What a run with other inputs left is removed."""
    if read_result(folder / MADE_FROM, inputs) is None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        write_result(folder / MADE_FROM, {}, inputs)
    return last_checkpoint(folder)


def make_trainer(llava: Llava, adapted: Any, rows: Sequence[Row], tune: Tune, seed: int, folder: Path) -> Any:
    """A `transformers.Trainer` that saves every `save_steps` to `folder` and logs each step's loss."""
    transformers = import_optional("transformers", "tune")
    import_optional("accelerate", "tune")
    gpu = llava.model.device.type == "cuda"
    quiet = not sys.stderr.isatty()
    arguments = transformers.TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=tune.micro_batch,
        gradient_accumulation_steps=accumulation(tune),
        num_train_epochs=tune.epochs,
        learning_rate=tune.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=math.ceil(tune.warmup * _updates(len(rows), tune)),
        weight_decay=0.0,
        bf16=gpu,
        use_cpu=not gpu,
        seed=seed,
        data_seed=seed,
        logging_steps=1,
        save_steps=tune.save_steps,
        save_total_limit=2,
        remove_unused_columns=False,
        dataloader_pin_memory=gpu,
        report_to="none",
        disable_tqdm=quiet,
        log_level="error",
    )

    class MarkWhole(transformers.TrainerCallback):  # type: ignore[name-defined]
        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            mark_whole(folder / f"checkpoint-{state.global_step}")

    pad = llava.processor.tokenizer.pad_token_id
    trainer = transformers.Trainer(
        model=adapted,
        args=arguments,
        train_dataset=Conversations(llava, rows),
        data_collator=lambda batch: collate(batch, 0 if pad is None else pad),
        callbacks=[MarkWhole()],
    )
    trainer.remove_callback(transformers.PrinterCallback)  # it prints a line for each step; the losses are in loss.json
    return trainer


def _updates(conversations: int, tune: Tune) -> int:
    """Optimizer steps of the whole run."""
    return math.ceil(math.ceil(conversations / tune.micro_batch) / accumulation(tune)) * tune.epochs


def tune_model(params: FinerParams, target: Path) -> str:
    """Tune `finer.tune.model` and write the merged model to `target`; the line to print.

    Raises:
        UserError: bad input, as `read_mixture`, `drop_too_long`, `accumulation` and `load_llava` say.
    """
    tune = params.finer.tune
    mixture = paths.MIXTURE / f"{tune.mixture}.parquet"
    accumulation(tune)
    rows = read_mixture(mixture)
    inputs = inputs_of(tune, params.seed, mixture, rows)
    adapter, losses_path = paths.TUNE / "adapter", paths.TUNE / "loss.json"
    if read_result(target / MADE_FROM, inputs) and adapter.is_dir() and losses_path.is_file():
        return f"tune: {target} is made from this model, mixture and these parameters already"
    import_optional("peft", "tune")
    device = pick_device(params.device)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    llava = load_llava(tune.model, device, dtype, "tune")
    rows = drop_too_long(llava, rows)
    adapted = with_adapters(llava.model, tune, params.seed)
    work = paths.TUNE / "checkpoints"
    start = resumable(work, inputs)
    trainer = make_trainer(llava, adapted, rows, tune, params.seed, work)
    trainer.train(resume_from_checkpoint=str(start) if start else None)
    losses = [{"step": entry["step"], "loss": entry["loss"]} for entry in trainer.state.log_history if "loss" in entry]
    save_whole(adapter, adapted.save_pretrained)
    write_json(losses_path, sorted(losses, key=lambda entry: entry["step"]))
    model = merged(adapted, dtype)

    def write(folder: Path) -> None:
        save_checkpoint(folder, model, llava.processor)
        write_result(folder / MADE_FROM, {}, inputs)

    save_whole(target, write)
    shutil.rmtree(work)
    what = f"language model{' and ' + PROJECTOR if tune.projector else ''}"
    return (
        f"tune: {what} of {tune.model} on {len(rows)} conversations, {len(losses)} steps, "
        f"loss {losses[0]['loss']:.3f} -> {losses[-1]['loss']:.3f}; {target}"
    )
