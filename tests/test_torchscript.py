"""common: TorchScript archives are read without running them."""

from __future__ import annotations

import os
import pickle
import shutil
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import make_tiny_model

from stages.common.checkpoints import create_model, load_tokenizer
from stages.common.errors import UserError
from stages.common.params import Model
from stages.common.torchscript import NotReadable, is_torchscript, read_torchscript


@pytest.fixture(autouse=True)
def _no_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated, but what the published files are made with
        yield


class Block(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mlp = torch.nn.Sequential(OrderedDict(c_fc=torch.nn.Linear(6, 8), c_proj=torch.nn.Linear(8, 6)))
        self.ln_1 = torch.nn.LayerNorm(6)
        self.scales = [1.0, 2.0]
        self.cache = {"mask": torch.zeros(3)}
        self.plain = torch.ones(2)  # no buffer, so not of the weights

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.mlp(self.ln_1(x)) * self.scales[0] + self.plain.sum() + self.cache["mask"].sum()


class Clip(torch.nn.Module):
    """Small, with everything that a CLIP's weights have: buffers, batch norm, shared values, odd layouts."""

    def __init__(self) -> None:
        super().__init__()
        self.visual = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 2), torch.nn.BatchNorm2d(4))
        self.transformer = torch.nn.ModuleList([Block(), Block()])
        self.tied = self.transformer.get_submodule("0.mlp.c_fc")
        self.text_projection = torch.nn.Parameter(torch.randn(6, 3).t())
        self.logit_scale = torch.nn.Parameter(torch.randn(()))
        self.empty = torch.nn.Parameter(torch.empty(0, 3))
        self.bias = None
        self.register_buffer("context_length", torch.tensor(77))
        self.register_buffer("part", torch.arange(20, dtype=torch.int32)[3:12:2])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.transformer:
            x = block(x)
        tied: torch.Tensor = self.tied(x)
        return tied


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("archive") / "clip.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(Clip().half()).save(str(path))
    return path


def test_the_weights_are_those_that_running_the_archive_gives(archive: Path) -> None:
    assert is_torchscript(archive)
    found, expected = read_torchscript(archive), torch.jit.load(str(archive)).state_dict()
    assert found.keys() == expected.keys()
    assert {"tied.weight", "context_length", "visual.1.num_batches_tracked"} < found.keys()
    for name, value in expected.items():
        assert found[name].dtype == value.dtype
        assert found[name].shape == value.shape
        assert torch.equal(found[name], value), name


class Writer(torch.nn.Module):
    """Writes a file when it is loaded."""

    def __init__(self, target: str) -> None:
        super().__init__()
        self.target = target

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x

    @torch.jit.export
    def __getstate__(self) -> tuple[str, bool]:
        return self.target, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[str, bool]) -> None:
        self.target = state[0]
        self.training = state[1]
        torch.save(torch.zeros(1), self.target)


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as refused:
        create_model("models.m", Model(name="ViT-B-32", pretrained=str(path)))
    message = str(refused.value)
    assert "\n" not in message
    assert len(message) < 600
    assert str(path) in message
    return message


def test_code_in_an_archive_does_not_run(tmp_path: Path) -> None:
    target, path = tmp_path / "written", tmp_path / "hostile.pt"
    torch.jit.script(Writer(str(target))).save(str(path))
    target.unlink(missing_ok=True)
    torch.jit.load(str(path))
    assert target.exists(), "loading it as torch does would run the code"
    target.unlink()
    assert "__setstate__" in refusal(path)
    assert not target.exists()


def test_a_pickle_with_code_does_not_run(tmp_path: Path) -> None:
    """As a checkpoint that open_clip loads, and one in a folder."""
    path, target = tmp_path / "weights.pt", tmp_path / "written"
    torch.save({"logit_scale": Calls(os.system, f"touch {target}")}, path)
    folder = make_tiny_model(tmp_path / "model")
    (folder / "open_clip_model.safetensors").unlink()
    shutil.copy(path, folder / "open_clip_pytorch_model.bin")
    for entry in (Model(name="ViT-S-16", pretrained=str(path), activation="gelu"), Model(name=f"local-dir:{folder}")):
        with pytest.raises(UserError, match="hold more than tensors and could run code") as refused:
            create_model("models.m", entry)
        assert "\n" not in str(refused.value)
    assert not target.exists()


def test_code_beside_a_tokenizer_does_not_run(tmp_path: Path) -> None:
    """open_clip hands `tokenizer_kwargs` of a folder's configuration to transformers."""
    pytest.importorskip("transformers")
    target = tmp_path / "written"
    text = {"hf_tokenizer_name": "x", "tokenizer_kwargs": {"trust_remote_code": True}}
    config = {"model_cfg": {"embed_dim": 4, "vision_cfg": {}, "text_cfg": text}, "preprocess_cfg": {}}
    (tmp_path / "open_clip_config.json").write_text(str(config).replace("'", '"').replace("True", "true"))
    (tmp_path / "tokenizer_config.json").write_text('{"auto_map": {"AutoTokenizer": ["own.Own", null]}}')
    (tmp_path / "config.json").write_text('{"model_type": "unheard-of", "auto_map": {"AutoConfig": "own.Own"}}')
    (tmp_path / "own.py").write_text(f"open({str(target)!r}, 'w')\nclass Own: pass\n")
    with pytest.raises(UserError, match="tokenizer"):
        load_tokenizer("models.m", Model(name=f"local-dir:{tmp_path}"))
    assert not target.exists()


class Calls:
    """Is pickled as the call of a function."""

    def __init__(self, function: Callable[..., Any], *given: Any) -> None:
        self.call = function, given

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


def changed(archive: Path, path: Path, **files: bytes | None) -> Path:
    """A copy of an archive with other content for some files; None leaves one out. "__" stands for "/"."""
    with zipfile.ZipFile(archive) as old, zipfile.ZipFile(path, "w") as new:
        for info in old.infolist():
            own = info.filename.split("/", 1)[1].replace("/", "__").replace(".pkl", "")
            content = files.get(own, old.read(info))
            if content is not None:
                new.writestr(info, content)
    return path


def data_of(archive: Path) -> bytes:
    with zipfile.ZipFile(archive) as opened:
        return opened.read(next(name for name in opened.namelist() if name.endswith("/data.pkl")))


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (Calls(os.system, "touch written"), "it names posix.system"),
        (Calls(eval, "open('written', 'w')"), "it names __builtin__.eval"),
        (Calls(getattr, "a", "b"), "it names __builtin__.getattr"),
        (Calls(torch.load, "x"), "it names torch.serialization.load"),
        ([], "it holds no module"),
        ({(1, 2): 3, 4: 5}, "neither text nor numbers"),
        (b"bytes", "_codecs.encode"),
    ],
)
def test_other_pickles_are_refused(archive: Path, tmp_path: Path, value: Any, reason: str) -> None:
    path = changed(archive, tmp_path / "hostile.pt", data=pickle.dumps(value, protocol=2))
    assert reason in refusal(path)


def test_other_opcodes_are_refused(archive: Path, tmp_path: Path) -> None:
    """A memo's place of 2**32 would take 64 GB in C; `INST` and `STACK_GLOBAL` are other ways to name a function."""
    for number, data in enumerate((b"(S'true'\nios\nsystem\n.", pickle.dumps(os.system, protocol=4), b"", b"garbage")):
        assert "cannot be read as weights" in refusal(changed(archive, tmp_path / f"{number}.pt", data=data))
    with pytest.raises(NotReadable, match="it holds no module"):
        read_torchscript(changed(archive, tmp_path / "memo.pt", data=b"\x80\x02Nr\xff\xff\xff\xff."))


def test_tensors_must_fit_their_storages(archive: Path, tmp_path: Path) -> None:
    data = data_of(archive)
    shape = b"(K\x03K\x06t"  # of text_projection
    assert data.count(shape) == 1
    tall = data.replace(shape, b"(K\x0bK\x06t")
    assert "larger than its storage of 18 values" in refusal(changed(archive, tmp_path / "a.pt", data=tall))
    negative = data.replace(shape, b"(K\x03J\xff\xff\xff\xfft")
    assert "impossible sizes" in refusal(changed(archive, tmp_path / "b.pt", data=negative))
    assert "storage 0 has 4 bytes" in refusal(changed(archive, tmp_path / "c.pt", data__0=b"1234"))
    assert "data/0" in refusal(changed(archive, tmp_path / "d.pt", data__0=None))
    assert "byte order" in refusal(changed(archive, tmp_path / "e.pt", byteorder=b"big"))


def test_archives_that_unpack_to_more_are_refused(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "bomb.pt"
    shutil.copy(archive, path)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr("clip/data/999", bytes(10 << 20))
    assert "unpack to more than the file" in refusal(path)
    monkeypatch.setattr("stages.common.torchscript.MAX_TEXT", 100)
    assert "data.pkl has" in refusal(archive)


def test_modules_that_are_named_a_billion_times_are_refused(archive: Path, tmp_path: Path) -> None:
    module = b"c__torch__\nM\n)\x81}(%sub"
    inner = b"X\x01\x00\x00\x00aN"
    # Each level names the one below it twice.
    for level in range(40):
        place = bytes([level])
        inner = b"X\x01\x00\x00\x00a" + module % inner + b"q" + place + b"X\x01\x00\x00\x00bh" + place
    path = changed(archive, tmp_path / "many.pt", data=b"\x80\x02" + module % inner + b".")
    assert "more than 100,000 modules" in refusal(path)
    # A module below itself.
    path = changed(archive, tmp_path / "ring.pt", data=b"\x80\x02c__torch__\nM\n)\x81q\x00}(X\x01\x00\x00\x00ah\x00ub.")
    assert "cannot be read as weights" in refusal(path)
