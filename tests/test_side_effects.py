"""What belongs to the whole process stays as it was: generators, logging, warning filters, environment, threads."""

from __future__ import annotations

import importlib
import json
import logging
import os
import pkgutil
import subprocess
import sys
import threading
import warnings
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from conftest import ROOT, TINY_CONFIG, make_tiny_model
from PIL import PngImagePlugin

import stages
from stages.common.encoders import load_model, weights_hash
from stages.common.images import image_size
from stages.common.overlap import in_order
from stages.common.params import Model

HEAVY = {"torch", "numpy", "pyarrow", "polars", "PIL", "open_clip", "pydantic", "yaml"}


def state() -> dict[str, Any]:
    """What other code in this process would notice."""
    root = logging.getLogger()
    return {
        "generator": torch.get_rng_state().tolist(),
        "logging": (root.level, list(root.handlers), logging.root.manager.disable),
        "warnings": list(warnings.filters),
        "environment": dict(os.environ),
        "threads": torch.get_num_threads(),
        "text of a PNG": (PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY),
        "folder": Path.cwd(),
    }


def threads_elsewhere() -> int:
    """How many cores torch uses in a thread that starts now."""
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    return found[0]


def import_all() -> None:
    """Every module of the project, but for those of the FINER pipeline where its packages are not installed."""
    for found in pkgutil.walk_packages(stages.__path__, "stages."):
        try:
            importlib.import_module(found.name)
        except ModuleNotFoundError as error:
            if (error.name or "").startswith("stages"):
                raise


def ours() -> dict[str, Any]:
    return {name: module for name, module in sys.modules.items() if name.split(".")[0] == "stages"}


def test_importing_every_module_changes_nothing() -> None:
    import_all()  # and with it the libraries, whose own effects are not ours
    there = ours()
    before = state()
    try:
        for name in there:
            if name != "stages":
                del sys.modules[name]
        import_all()
        assert state() == before
    finally:
        for name in ours():
            del sys.modules[name]
        sys.modules.update(there)
        for name, module in there.items():  # a package points at its modules
            package, _, last = name.rpartition(".")
            if package:
                setattr(there[package], last, module)


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = "import sys, stages; print(*{name.split('.')[0] for name in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert set(loaded.stdout.split()) & HEAVY == set()


def test_loading_a_model_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Random weights included, which are the same everywhere."""
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "random-test-vit.json").write_text(json.dumps(TINY_CONFIG))
    monkeypatch.setattr(open_clip.factory, "_MODEL_CONFIGS", dict(open_clip.factory._MODEL_CONFIGS))
    monkeypatch.setattr(open_clip.factory, "_MODEL_CONFIG_PATHS", list(open_clip.factory._MODEL_CONFIG_PATHS))
    open_clip.add_model_config(tmp_path / "configs")
    folder = make_tiny_model(tmp_path / "tiny")
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])  # as in a notebook: open_clip's first line would add one
    before = state()
    random = load_model("models.m", Model(name="random-test-vit"), "cpu", "float32")
    load_model("models.m", Model(name=f"local-dir:{folder}"), "cpu", "float32")
    assert state() == before
    with torch.random.fork_rng():
        torch.manual_seed(0)
        assert random.meta.weights == weights_hash(open_clip.create_model("random-test-vit"))


def test_decoding_an_image_changes_nothing(tmp_path: Path) -> None:
    before = state()
    (tmp_path / "no-image.png").write_text("text")
    with pytest.raises(OSError, match="not an image"):
        image_size(tmp_path / "no-image.png")
    assert state() == before


def test_computing_on_one_core_limits_no_other_thread() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        counts = in_order(lambda _: torch.get_num_threads(), range(20), threads=1)
        assert next(counts) == 1
        assert (torch.get_num_threads(), threads_elsewhere()) == (3, 3), "while others compute"
        assert set(counts) == {1}
        assert (torch.get_num_threads(), threads_elsewhere()) == (3, 3)
    finally:
        torch.set_num_threads(before)
