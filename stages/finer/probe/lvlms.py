"""probe: what the projector of a LLaVA loses -> `data/finer/probe/<lvlm>/<dataset>.json` (FINER, section 5)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stages.common.device import pick_device
from stages.common.errors import UserError
from stages.common.made_from import Record, code_digest, file_digest, made_from, read_result, write_result
from stages.finer import paths
from stages.finer.cli import FinerJob
from stages.finer.llava import ARCHITECTURES, Llava, load_llava, weights_digest
from stages.finer.params import Probe
from stages.finer.probe.features import extract
from stages.finer.probe.mlp import probe_features
from stages.finer.unified import read_unified


def probe_lvlms(job: FinerJob, lvlm: str | None) -> Iterator[str]:
    """Probe one LVLM, or every checkpoint of the LLaVA architecture where `lvlm` is None; the lines to print.

    Figures of LVLMs and data sets that params.yaml no longer names are removed.

    Raises:
        UserError: as `probe_lvlm`.
    """
    paths.PROBE.mkdir(parents=True, exist_ok=True)
    for stale in paths.PROBE.glob("*/*.json"):
        if stale.parent.name not in job.finer.served or stale.stem not in job.finer.datasets:
            stale.unlink()
    for name in [lvlm] if lvlm else job.finer.served:
        if lvlm is None and not is_llava(Path(job.finer.served[name])):
            yield f"probe: {name} is left out, which is not of the LLaVA architecture"
            continue
        yield from probe_lvlm(job, name)


def probe_dataset(llava: Llava, dataset: str, probe: Probe, seed: int) -> dict[str, Any]:
    """Extract features of the unified files' images and train the probes on them.

    Raises:
        UserError: a unified file that is missing or not of the format, a split without images, an unreadable image.
    """
    images: list[Path] = []
    labels: list[int] = []
    counts = []
    for split in (paths.TRAIN, paths.TEST):
        path = paths.unified(dataset, split)
        samples = read_unified(path, dataset)
        if not samples:
            raise UserError(f"{path} has no image; the probe trains on one half and is tested on the other")
        images += [Path(sample.img_path) for sample in samples]
        labels += [sample.label for sample in samples]
        counts.append(len(samples))
    sides = extract(llava, images)
    is_train = np.arange(len(images)) < counts[0]
    return probe_features(sides, np.array(labels), is_train, probe, seed, dataset)


def probe_lvlm(job: FinerJob, lvlm: str) -> list[str]:
    """Probe a checkpoint on every data set; one line for each. Figures that were made from the same inputs are kept.

    Raises:
        UserError: the LVLM is an endpoint, which does not show its features; as `load_llava` and `probe_dataset`.
    """
    served = job.finer.served
    if lvlm not in served:
        raise UserError(f"probe: {lvlm} is an endpoint; a probe needs a checkpoint, a key of finer.served")
    device = pick_device(job.params.device)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    llava = None
    lines = []
    for dataset in job.finer.datasets:
        path = paths.PROBE / lvlm / f"{dataset}.json"
        empty = [split for split in (paths.TRAIN, paths.TEST) if not _has_images(paths.unified(dataset, split))]
        if empty:
            path.unlink(missing_ok=True)
            lines.append(f"probe {lvlm} {dataset}: left out, it has no images to {empty[0]} on")
            continue
        inputs = inputs_of(job, lvlm, dataset)
        found = read_result(path, inputs)
        if found is None:
            llava = llava or load_llava(served[lvlm], device, dtype, "probe")
            found = probe_dataset(llava, dataset, job.finer.probe, job.params.seed)
            write_result(path, {"model": lvlm, "dataset": dataset, **found}, inputs)
        before, after, gap = found["before"], found["after"], found["difference"]
        lines.append(
            f"probe {lvlm} {dataset}: accuracy {before['mean']:.1f} before the projector, {after['mean']:.1f} "
            f"after it, difference {gap['mean']:+.1f} [{gap['low']:+.1f}, {gap['high']:+.1f}], "
            f"chance {found['chance']:.1f}"
        )
    return lines


def _has_images(path: Path) -> bool:
    """Whether a unified file has images. A missing file counts as yes: `inputs_of` reports it."""
    return not path.exists() or bool(path.read_text(encoding="utf-8").strip())


def inputs_of(job: FinerJob, lvlm: str, dataset: str) -> Record:
    """What the figures depend on: weights, images with their labels, parameters, code.

    Raises:
        UserError: a unified file is missing.
    """
    files = [paths.unified(dataset, split) for split in (paths.TRAIN, paths.TEST)]
    missing = [path for path in files if not path.exists()]
    if missing:
        raise UserError(f"{missing[0]} is missing; make it with `make finer`")
    return made_from(
        model=weights_digest(job.finer.served[lvlm]),
        unified=[file_digest(path) for path in files],
        parameters=job.finer.probe.model_dump(),
        seed=job.params.seed,
        device=job.params.device,
        code=code_digest("finer.llava", "finer.probe.features", "finer.probe.mlp", "finer.probe.lvlms"),
    )


def is_llava(folder: Path) -> bool:
    """Whether a checkpoint is of a known LLaVA architecture."""
    try:
        return json.loads((folder / "config.json").read_text(encoding="utf-8"))["model_type"] in ARCHITECTURES
    except (OSError, ValueError, KeyError, TypeError):
        return True  # `load_llava` will say what is wrong
