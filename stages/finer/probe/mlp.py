"""The probe itself: an MLP trained on frozen features, and its accuracy over several runs (FINER, section 5)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy import stats  # type: ignore[import-untyped]
from torch import nn
from tqdm import tqdm

from stages.common.seeding import generator
from stages.finer.params import Probe

CONFIDENCE = 0.95


def standardised(train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both [n, D], standardised by mean and deviation of `train`. Features that do not vary there become 0."""
    mean, deviation = train.mean(axis=0), train.std(axis=0)
    scale = np.where(deviation > 1e-6 * (np.abs(mean) + 1e-6), deviation, np.inf)
    return ((train - mean) / scale).astype(np.float32), ((test - mean) / scale).astype(np.float32)


def accuracy(
    train: np.ndarray, train_labels: np.ndarray, test: np.ndarray, test_labels: np.ndarray,
    probe: Probe, seed: int, names: Sequence[str],
) -> float:  # fmt: skip
    """Percent of the test images whose class an MLP gives that was trained on the training images.

    Args:
        train, test: [n, D] and [m, D] float32, standardised.
        train_labels, test_labels: [n] and [m] int64.
        names: of the run. They and `seed` determine the first weights and the order of the images, so that all probes
            of a run see the same batches.
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

    The interval covers only the randomness of the probe, because the images are the same. For one run it is the mean
    itself.
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
            data = (train, labels[is_train], test, labels[~is_train])
            runs.append(accuracy(*data, probe, seed, (name, str(number))))
    tested = np.bincount(labels[~is_train])
    return {
        "before": summary(before),
        "after": summary(after),
        "difference": difference(before, after),
        "chance": round(100 * float(tested.max() / tested.sum()), 4),
        "images": {"train": int(is_train.sum()), "test": int((~is_train).sum())},
    }
