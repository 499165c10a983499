"""probe: what the projector of a LLaVA loses -> `data/finer/probe/<lvlm>/<dataset>.json` (FINER, section 5).

An MLP on frozen features before the projector, another one after it, trained alike; both are given the features
standardised by the mean and deviation of the training images.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy import stats  # type: ignore[import-untyped]
from torch import nn
from tqdm import tqdm

from stages.common.device import pick_device
from stages.common.errors import UserError
from stages.common.seeding import generator
from stages.common.tables import digest, write_json
from stages.finer import paths
from stages.finer.classes import read_classes
from stages.finer.cli import FinerJob
from stages.finer.llava import ARCHITECTURES, Llava, load_llava, weights_digest
from stages.finer.made import code_digest
from stages.finer.params import Probe
from stages.finer.probe.features import extract
from stages.finer.unified import read_unified

CONFIDENCE = 0.95


def standardised(train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both [n, D] by mean and deviation of `train`; what does not vary there becomes 0."""
    mean, deviation = train.mean(axis=0), train.std(axis=0)
    scale = np.where(deviation > 1e-6 * (np.abs(mean) + 1e-6), deviation, np.inf)
    return ((train - mean) / scale).astype(np.float32), ((test - mean) / scale).astype(np.float32)


def accuracy(
    train: np.ndarray, train_labels: np.ndarray, test: np.ndarray, test_labels: np.ndarray,
    probe: Probe, seed: int, names: Sequence[str],
) -> float:  # fmt: skip
    """Percent of the test images of which an MLP, trained on the others, gives the class.

    Args:
        train, test: [n, D] and [m, D] float32, standardised.
        train_labels, test_labels: [n] and [m] int64.
        names: with `seed`, of the run: what the first weights and the order of the images are drawn by, so that
            probes of the same run see the same batches, whatever their features are.
    """
    classes = int(max(train_labels.max(), test_labels.max())) + 1
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(generator(seed, "probe", *names).integers(2**31)))
        mlp = nn.Sequential(nn.Linear(train.shape[1], probe.hidden), nn.ReLU(), nn.Linear(probe.hidden, classes))
    optimizer = torch.optim.Adam(mlp.parameters(), lr=probe.learning_rate)
    features, targets = torch.from_numpy(train), torch.from_numpy(train_labels)
    for epoch in range(probe.epochs):
        order = generator(seed, "probe", *names, str(epoch)).permutation(len(train))
        for rows in torch.from_numpy(order).split(probe.batch_size):
            optimizer.zero_grad()
            F.cross_entropy(mlp(features[rows]), targets[rows]).backward()
            optimizer.step()
    with torch.no_grad():
        guessed = mlp(torch.from_numpy(test)).argmax(dim=1).numpy()
    return float(100 * np.mean(guessed == test_labels))


def summary(runs: Sequence[float]) -> dict[str, Any]:
    return {"mean": round(float(np.mean(runs)), 4), "std": _deviation(runs), "runs": [round(run, 4) for run in runs]}


def difference(before: Sequence[float], after: Sequence[float]) -> dict[str, float]:
    """After minus before, in points: mean and deviation over runs, and the 95 % interval of the paired t statistic.

    The interval is about the probe's randomness alone, the images being the same; of one run it is the mean itself.
    """
    gains = [b - a for a, b in zip(before, after, strict=True)]
    mean, deviation = float(np.mean(gains)), _deviation(gains)
    half = 0.0
    if len(gains) > 1:
        half = float(stats.t.ppf(0.5 + CONFIDENCE / 2, len(gains) - 1)) * deviation / math.sqrt(len(gains))
    return {
        "mean": round(mean, 4),
        "std": deviation,
        "low": round(mean - half, 4),
        "high": round(mean + half, 4),
    }


def _deviation(values: Sequence[float]) -> float:
    return round(float(np.std(values, ddof=1)), 4) if len(values) > 1 else 0.0


def probe_features(
    sides: tuple[np.ndarray, np.ndarray], labels: np.ndarray, is_train: np.ndarray, probe: Probe, seed: int, name: str
) -> dict[str, Any]:
    """Accuracies of the probes, in percent.

    Args:
        sides: features before and after the projector, [N, D] and [N, H].
        labels: [N] int64.
        is_train: [N] bool; the rest is tested on.
        name: of the data set.
    """
    before: list[float] = []
    after: list[float] = []
    scaled = [standardised(side[is_train], side[~is_train]) for side in sides]
    for number in tqdm(range(probe.seeds), desc="probes", disable=None):
        for runs, (train, test) in zip((before, after), scaled, strict=True):
            given = (train, labels[is_train], test, labels[~is_train])
            runs.append(accuracy(*given, probe, seed, (name, str(number))))
    tested = np.bincount(labels[~is_train])
    return {
        "before": summary(before),
        "after": summary(after),
        "difference": difference(before, after),
        "chance": round(100 * float(tested.max() / tested.sum()), 4),
        "images": {"train": int(is_train.sum()), "test": int((~is_train).sum())},
    }


def probe_dataset(llava: Llava, dataset: str, probe: Probe, seed: int) -> dict[str, Any]:
    """Features of the unified files' images, and the probes on them.

    Raises:
        UserError: a unified file that is missing or not of the format, a split without images, an unreadable image.
    """
    names = [known.fine for known in read_classes(dataset)]
    images: list[Path] = []
    labels: list[int] = []
    counts = []
    for split in (paths.TRAIN, paths.TEST):
        path = paths.unified(dataset, split)
        samples = read_unified(path, dataset, names)
        if not samples:
            raise UserError(f"{path} has no image; the probe trains on one half and is tested on the other")
        images += [Path(sample.img_path) for sample in samples]
        labels += [sample.label for sample in samples]
        counts.append(len(samples))
    sides = extract(llava, images)
    is_train = np.arange(len(images)) < counts[0]
    return probe_features(sides, np.array(labels), is_train, probe, seed, dataset)


def probe_lvlm(job: FinerJob, lvlm: str) -> list[str]:
    """Probe a checkpoint on every data set; a line each. What is there of the same inputs stays.

    Raises:
        UserError: the LVLM is an endpoint, whose features nobody is shown; what `load_llava` and `probe_dataset` say.
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
        inputs = made_from(job, lvlm, dataset)
        found = _made_before(path, inputs)
        if found is None:
            llava = llava or load_llava(served[lvlm], device, dtype, "probe")
            found = probe_dataset(llava, dataset, job.finer.probe, job.params.seed)
            write_json(path, {"model": lvlm, "dataset": dataset, **found, "made_from": inputs})
        before, after, gap = found["before"], found["after"], found["difference"]
        lines.append(
            f"probe {lvlm} {dataset}: accuracy {before['mean']:.1f} before the projector, {after['mean']:.1f} "
            f"after it, difference {gap['mean']:+.1f} [{gap['low']:+.1f}, {gap['high']:+.1f}], "
            f"chance {found['chance']:.1f}"
        )
    return lines


def _has_images(path: Path) -> bool:
    """Whether a unified file holds anything; one that is missing is somebody else's to complain of."""
    return not path.exists() or bool(path.read_text(encoding="utf-8").strip())


def made_from(job: FinerJob, lvlm: str, dataset: str) -> str:
    """Digest of what the figures depend on: weights, images with their labels, parameters, code.

    Raises:
        UserError: files that are missing.
    """
    files = [paths.unified(dataset, split) for split in (paths.TRAIN, paths.TEST)]
    missing = [path for path in files if not path.exists()]
    if missing:
        raise UserError(f"{missing[0]} is missing; make it with `dvc repro stages/finer/dvc.yaml`")
    weights = weights_digest(job.finer.served[lvlm])
    unified = [path.read_text(encoding="utf-8") for path in files]
    code = code_digest("finer.llava", "finer.probe.features", "finer.probe.measure")
    return digest([weights, unified, code, job.finer.probe.model_dump(), job.params.seed, job.params.device])


def _made_before(path: Path, inputs: str) -> dict[str, Any] | None:
    """The figures at `path` where they were made from `inputs`."""
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return found if found["made_from"] == inputs else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def is_llava(folder: Path) -> bool:
    """Whether a checkpoint is of an architecture with a tower and a projector that are known here."""
    try:
        return json.loads((folder / "config.json").read_text(encoding="utf-8"))["model_type"] in ARCHITECTURES
    except (OSError, ValueError, KeyError, TypeError):
        return True  # `load_llava` says what is wrong
