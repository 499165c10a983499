"""What tests share: a tiny model, small data sets, a project folder to run stages in."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
import yaml
from openai_server import KEY, Endpoint
from PIL import Image
from safetensors.torch import save_file

from stages.common import errors

ROOT = Path(__file__).resolve().parent.parent
REAL = ROOT.parent / "shared" / "real"
TINY_CONFIG = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "patch_size": 16, "head_width": 16},
    "text_cfg": {"context_length": 24, "vocab_size": 1000, "width": 32, "heads": 2, "layers": 1},
}
CLASSES = ("red-crowned tavo", "blue tavo", "Grey_Heron")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files that take longest first, so that no worker is left with one of them in the end."""
    items.sort(key=lambda item: item.get_closest_marker("pipeline") is None)


def make_tiny_model(folder: Path, seed: int = 0) -> Path:
    """A CLIP of a few thousand random weights in open_clip's `local-dir:` layout."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": TINY_CONFIG, "preprocess_cfg": {}}))
    torch.manual_seed(seed)
    model = open_clip.CLIP(**TINY_CONFIG)
    for parameter in model.parameters():  # the default initialisation leaves embeddings almost equal
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, folder / "open_clip_model.safetensors")
    return folder


def make_image(path: Path, width: int, height: int, seed: int) -> None:
    """A picture of random coloured patches."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    patches = rng.integers(0, 255, (4, 5, 3), dtype=np.uint8)
    Image.fromarray(patches).resize((width, height), Image.Resampling.BICUBIC).save(path, quality=95)


def make_folder_data(root: Path, images_per_class: int = 3) -> Path:
    """An image folder of three classes with images of different sizes."""
    for label, name in enumerate(CLASSES):
        for index in range(images_per_class):
            number = label * images_per_class + index
            make_image(root / name / f"{index}.jpg", 48 + 7 * number, 80 - 3 * number, number)
    return root


def descriptions_for(names: tuple[str, ...], count: int = 4) -> dict[str, list[str]]:
    """Sentences with an exact duplicate in each class."""
    sentences = ["The {} has a long tail.", "A {} is small and round.", "Look for the dark crown of the {}."]
    parts = ["tail", "belly", "crown", "wing", "beak", "leg"]
    return {
        name: [
            *(sentence.format(name) for sentence in sentences),
            *(f"Its {part} is unlike that of class {index}." for part in parts[:count]),
            sentences[0].format(name),
        ]
        for index, name in enumerate(names)
    }


class Project:
    """A folder with params.yaml and inputs, in which stages are run as a user runs them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.records: Path | None = None
        """Where given, stages record there what they read; see tests/recorder."""

    def edit(self, change: Callable[[dict[str, Any]], None]) -> None:
        """Change params.yaml."""
        path = self.folder / "params.yaml"
        params = yaml.safe_load(path.read_text())
        change(params)
        path.write_text(yaml.safe_dump(params, sort_keys=False))

    def environment(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("OPENAI_", "MAKE", "MFLAGS"))}
        binaries = str(Path(sys.executable).parent)
        search = [str(self.folder if (self.folder / "stages").exists() else ROOT)]
        if self.records:
            kept["RECORD_TO"] = str(self.records)
            search.insert(0, str(ROOT / "tests" / "recorder"))
        return {
            **kept,
            "PYTHONPATH": os.pathsep.join(search),
            "PATH": f"{binaries}:{kept.get('PATH', '')}",
            "OMP_NUM_THREADS": "1",
        }

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command in the folder; `python` and `dvc` are those of this environment."""
        done = subprocess.run(command, cwd=self.folder, env=self.environment(), capture_output=True, text=True)
        assert not check or done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
        return done

    def stage(self, name: str, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self.run("python", "-m", f"stages.{name}", *arguments, check=check)


def small_params(params: dict[str, Any]) -> None:
    """Parameters of a project with the folder data set `toy`, the model `tiny` and two sources."""
    params["datasets"] = {"toy": {"reader": "folder", "root": "toy-images"}}
    params["models"] = {"tiny": {"name": "local-dir:tiny-model"}}
    params["sources"] = {"cupl": "sentences", "clip-d": "descriptors"}
    params["crop"].update(candidates=30, max_views=10, iou_thresholds=[0.6, 0.8])
    params["refine"].update(top_k=5, waffle_pairs=2)
    params["score"].update(views_per_run=6, runs=3)
    params["embed"].update(batch_size=16, images_per_shard=4)
    params["demo"].update(images_per_class=1)
    params["report"].update(pictures=1)


def make_project(folder: Path) -> Project:
    """A small project in a new folder, with its inputs and nothing computed."""
    folder.mkdir()
    shutil.copy(ROOT / "params.yaml", folder)
    made = Project(folder)
    made.edit(small_params)
    make_folder_data(folder / "toy-images")
    make_tiny_model(folder / "tiny-model")
    for source in ("cupl", "clip-d"):
        path = folder / "descriptions" / "toy" / f"{source}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(descriptions_for(CLASSES)))
    return made


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A small project whose stages are run directly, without DVC."""
    return make_project(tmp_path / "project")


def run_stages(*lines: str) -> None:
    """Run stages in this process, one a line: `<name> <arguments>`."""
    for line in lines:
        name, *arguments = line.split()
        sys.argv = [name, *arguments]
        importlib.import_module(f"stages.{name}.__main__").main()


@dataclass(frozen=True)
class Outcome:
    """What a stage left behind: its exit code and what it printed."""

    code: int
    out: str
    err: str


Call = Callable[..., Outcome]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Runs a stage in this process and the present folder, as `python -m stages.<name>` does without its imports."""

    def run_stage(name: str, *arguments: str) -> Outcome:
        module = importlib.import_module(f"stages.{name}")
        if hasattr(module, "__path__"):
            module = importlib.import_module(f"stages.{name}.__main__")
        monkeypatch.setattr(sys, "argv", [f"stages/{name}/__main__.py", *arguments])
        code = 0
        capsys.readouterr()
        try:
            errors.run(module.main)
        except SystemExit as end:
            code = int(end.code or 0)
        printed = capsys.readouterr()
        return Outcome(code, printed.out, printed.err)

    return run_stage


@pytest.fixture
def real() -> Path:
    """The folder of real photos and published descriptions; tests that need it skip where it is absent."""
    if not REAL.is_dir():
        pytest.skip("no real material beside the project")
    return REAL


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    """A local endpoint in place of an LLM, and the environment of a user of it."""
    with Endpoint() as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield server
