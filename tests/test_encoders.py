"""common: encoders with the right weights, the right activation and the right preprocessing, or none at all."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
import yaml
from conftest import ROOT, TINY_CONFIG, make_tiny_model
from open_clip.model import CLIPTextCfg, CLIPVisionCfg
from safetensors.torch import save_file

from stages.common.artifacts import EncoderMeta
from stages.common.checkpoints import is_torchscript, load_tokenizer
from stages.common.encoders import (
    UNTRAINED,
    Encoder,
    architecture,
    load_encoder,
    pick_device,
    pick_precision,
    weights_hash,
)
from stages.common.errors import UserError
from stages.common.params import Model, Params

NAME = "tiny-test-vit"
DEEP = "deep-test-vit"
DEEP_CONFIG = {
    "embed_dim": 64,
    "vision_cfg": {"image_size": 64, "layers": 12, "width": 192, "patch_size": 16, "head_width": 32},
    "text_cfg": {"context_length": 16, "vocab_size": 1000, "width": 32, "heads": 2, "layers": 1},
}


@pytest.fixture(scope="module", autouse=True)
def architectures(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Two small architectures that open_clip knows by name."""
    folder = tmp_path_factory.mktemp("configs")
    for name, config in (
        (NAME, TINY_CONFIG),
        (f"{NAME}-quickgelu", {**TINY_CONFIG, "quick_gelu": True}),
        (DEEP, DEEP_CONFIG),
    ):
        (folder / f"{name}.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder)
    yield
    for path in folder.iterdir():
        path.unlink()
    for name in (NAME, f"{NAME}-quickgelu", DEEP):
        open_clip.factory._MODEL_CONFIGS.pop(name, None)


def params_with(precision: str = "float32", device: str = "cpu", **entry: Any) -> Params:
    raw = yaml.safe_load((ROOT / "params.yaml").read_text())
    raw |= {"precision": precision, "device": device, "models": {"m": entry}}
    return Params.model_validate(raw)


def load(precision: str = "float32", **entry: Any) -> Encoder:
    return load_encoder("m", params_with(precision, **entry))


def refusal(**entry: Any) -> str:
    with pytest.raises(UserError) as refused:
        load(**entry)
    message = str(refused.value)
    assert "\n" not in message
    assert "models.m" in message
    return message


def random_state(seed: int = 0) -> dict[str, torch.Tensor]:
    """Weights of the tiny architecture, large enough for the activation to matter, exact in float16."""
    torch.manual_seed(seed)
    model = open_clip.CLIP(**TINY_CONFIG)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    return {name: value.detach().half().float().contiguous() for name, value in model.state_dict().items()}


class Holder(torch.nn.Module):
    """A module that holds weights under given names."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def make_archive(path: Path, state: dict[str, torch.Tensor]) -> Path:
    """A TorchScript archive laid out as OpenAI published its weights: float16, with three numbers as buffers."""
    root = Holder()
    sizes = {"input_resolution": 32, "context_length": 24, "vocab_size": 1000}
    for name, size in sizes.items():
        root.register_buffer(name, torch.tensor(size))
    for name, value in state.items():
        *folders, leaf = name.split(".")
        module: torch.nn.Module = root
        for folder in folders:
            if folder not in module._modules:
                module.add_module(folder, Holder())
            module = module.get_submodule(folder)
        module.register_parameter(leaf, torch.nn.Parameter(value.half(), requires_grad=False))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated, but what the published files are
        torch.jit.save(torch.jit.trace(root, torch.zeros(1)), str(path))
        assert set(torch.jit.load(str(path)).state_dict()) == {*state, *sizes}
    return path


def make_pixels(count: int, size: int, seed: int = 0) -> torch.Tensor:
    """Random coloured patches, uint8."""
    rng = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 5, 5, generator=rng)
    return (torch.nn.functional.interpolate(coarse, (size, size), mode="bilinear") * 255).to(torch.uint8)


def reference(state: dict[str, torch.Tensor], pixels: torch.Tensor, quick_gelu: bool) -> torch.Tensor:
    """Embeddings by open_clip's model class with OpenAI's mean and deviation, computed apart."""
    model = open_clip.CLIP(**TINY_CONFIG, quick_gelu=quick_gelu).eval()
    model.load_state_dict(state)
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073])[:, None, None]
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711])[:, None, None]
    with torch.inference_mode():
        rows = model.encode_image((pixels.float() / 255 - mean) / std)
    return rows / rows.norm(dim=1, keepdim=True)


def test_an_openai_archive_is_loaded_with_quick_gelu(tmp_path: Path) -> None:
    state, pixels = random_state(), make_pixels(4, 32)
    path = make_archive(tmp_path / "ViT.pt", state)
    assert is_torchscript(path)
    encoder = load(name=NAME, pretrained=str(path))
    assert encoder.meta.activation == "quick_gelu"
    assert encoder.meta.pretrained == "ViT.pt", "no folder of this machine"
    found = encoder.encode_images(pixels)
    torch.testing.assert_close(found, reference(state, pixels, quick_gelu=True), atol=1e-5, rtol=0)
    assert (found - reference(state, pixels, quick_gelu=False)).abs().max() > 1e-3
    assert load(name=NAME, pretrained=str(path), activation="quick_gelu").meta == encoder.meta
    assert "remove activation: gelu" in refusal(name=NAME, pretrained=str(path), activation="gelu")


def test_an_archive_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    state = random_state()
    lacking = make_archive(tmp_path / "lacking.pt", {k: v for k, v in state.items() if k != "text_projection"})
    assert "text_projection" in refusal(name=NAME, pretrained=str(lacking))
    other = make_archive(tmp_path / "other.pt", {**state, "visual.proj": torch.zeros(32, 17)})
    message = refusal(name=NAME, pretrained=str(other))
    assert "do not fit the named model" in message
    assert str(other) in message


@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
def test_other_files_must_state_their_activation(tmp_path: Path, suffix: str) -> None:
    state, pixels = random_state(), make_pixels(4, 32)
    path = tmp_path / f"weights.{suffix}"
    if suffix == "pt":
        torch.save(state, path)
    else:
        save_file(state, path)
    assert not is_torchscript(path)
    message = refusal(name=NAME, pretrained=str(path))
    assert str(path) in message
    assert "activation: gelu" in message
    assert "activation: quick_gelu" in message
    found = {}
    for activation in ("gelu", "quick_gelu"):
        encoder = load(name=NAME, pretrained=str(path), activation=activation)
        assert encoder.meta.activation == activation
        found[activation] = encoder.encode_images(pixels)
        expected = reference(state, pixels, quick_gelu=activation == "quick_gelu")
        torch.testing.assert_close(found[activation], expected, atol=1e-5, rtol=0)
    assert (found["gelu"] - found["quick_gelu"]).abs().max() > 1e-3
    plain = load(name=f"{NAME}-quickgelu", pretrained=str(path), activation="gelu")
    assert torch.equal(plain.encode_images(pixels), found["gelu"]), "the stated activation counts, whatever the name"


def test_weights_that_do_not_fit_are_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_file({**random_state(), "visual.proj": torch.zeros(32, 17)}, path)
    assert "cannot load" in refusal(name=NAME, pretrained=str(path), activation="gelu")
    path.write_bytes(path.read_bytes()[:100])
    assert str(path) in refusal(name=NAME, pretrained=str(path), activation="gelu")
    make_tiny_model(tmp_path / "model")
    save_file({"logit_scale": torch.zeros(())}, tmp_path / "model" / "open_clip_model.safetensors")
    assert "cannot load" in refusal(name=f"local-dir:{tmp_path / 'model'}")


def test_random_weights_are_the_same_every_time_and_marked() -> None:
    torch.manual_seed(1)
    one = load(name=NAME, pretrained=None)
    torch.manual_seed(2)
    two = load(name=NAME, pretrained=None)
    assert one.meta.pretrained == UNTRAINED == "UNTRAINED"
    assert one.meta == two.meta
    pixels = make_pixels(2, 32)
    assert torch.equal(one.encode_images(pixels), two.encode_images(pixels))
    assert load(name=f"{NAME}-quickgelu", pretrained=None).meta.activation == "quick_gelu"
    assert one.meta.activation == "gelu"


def test_unknown_names_are_refused_with_a_suggestion() -> None:
    assert "did you mean 'ViT-B-32'" in refusal(name="ViT-B32", pretrained="openai")
    message = refusal(name="ViT-B-32", pretrained="laion2b_s34b_b79")
    assert "did you mean 'laion2b_s34b_b79k'" in message
    assert "neither a file nor a tag of ViT-B-32" in message


def test_a_folder_without_model_is_refused(tmp_path: Path) -> None:
    message = refusal(name=f"local-dir:{tmp_path / 'nowhere'}")
    assert "open_clip_config.json" in message
    assert str(tmp_path / "nowhere") in message
    (tmp_path / "empty").mkdir()
    assert "open_clip_config.json" in refusal(name=f"local-dir:{tmp_path / 'empty'}")
    folder = make_tiny_model(tmp_path / "model")
    (folder / "open_clip_model.safetensors").unlink()
    assert str(folder) in refusal(name=f"local-dir:{folder}")


def test_what_open_clip_would_ignore_is_refused(tmp_path: Path) -> None:
    """A folder brings its own weights and activation: an entry that states others must not be believed."""
    folder = make_tiny_model(tmp_path / "model")
    assert "pretrained" in refusal(name=f"local-dir:{folder}", pretrained="laion2b_s34b_b79k")
    assert "activation" in refusal(name=f"local-dir:{folder}", activation="quick_gelu")
    assert load(name=f"local-dir:{folder}", activation="gelu").meta.activation == "gelu"
    assert "activation" in refusal(name=NAME, pretrained=None, activation="quick_gelu")


def test_the_architecture_is_open_clips_configuration_without_its_defaults(tmp_path: Path) -> None:
    built_in = open_clip.get_model_config(NAME)
    spelled_out = {
        "quick_gelu": True,
        "embed_dim": built_in["embed_dim"],
        "vision_cfg": asdict(CLIPVisionCfg(**built_in["vision_cfg"])),
        "text_cfg": asdict(CLIPTextCfg(**built_in["text_cfg"])),
    }
    assert architecture(spelled_out) == architecture(built_in)
    more_heads = {**built_in, "text_cfg": {**built_in["text_cfg"], "heads": 16}}
    assert architecture(more_heads) != architecture(built_in), "though the weights have the same shapes"
    assert load(name=NAME, pretrained=None).meta.architecture == architecture(built_in)


def test_the_hash_is_of_the_weights(tmp_path: Path) -> None:
    one = make_tiny_model(tmp_path / "one", seed=0)
    two = make_tiny_model(tmp_path / "two", seed=0)
    other = make_tiny_model(tmp_path / "other", seed=1)
    hashes = [load(name=f"local-dir:{folder}").meta.weights for folder in (one, two, other)]
    assert hashes[0] == hashes[1] != hashes[2]
    assert load("bfloat16", name=f"local-dir:{one}").meta.weights == hashes[0], "of the weights, not of a precision"
    model = torch.nn.Linear(3, 2)
    before = weights_hash(model)
    with torch.no_grad():
        model.bias[0] += 1e-6
    assert weights_hash(model) != before
    assert len(before) == 16


def test_metadata_says_what_was_loaded(tmp_path: Path) -> None:
    folder = make_tiny_model(tmp_path / "model")
    meta = load(name=f"local-dir:{folder}").meta
    assert meta.name == "local-dir:model", "no folder of this machine"
    assert (meta.image_size, meta.embedding_dim, meta.precision) == (32, 16, "float32")
    assert meta.preprocess["interpolation"] == "bicubic"
    assert meta == EncoderMeta.model_validate_json(meta.model_dump_json()), "equal to what a file gives back"
    changed = load(name=f"local-dir:{folder}", preprocess={"mean": [0.5, 0.5, 0.5], "resize_mode": "squash"}).meta
    assert changed.preprocess["mean"] == [0.5, 0.5, 0.5]
    assert changed.preprocess["resize_mode"] == "squash"
    assert changed.preprocess["std"] == meta.preprocess["std"]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_embeddings_are_float32_rows_of_unit_norm(tmp_path: Path, precision: str) -> None:
    encoder = load(precision, name=f"local-dir:{make_tiny_model(tmp_path / 'model')}")
    images = encoder.encode_images(make_pixels(5, 32))
    texts = encoder.encode_texts(["a tavo.", "a heron.", "a"], batch_size=2)
    for rows, count in ((images, 5), (texts, 3)):
        assert rows.shape == (count, 16)
        assert rows.dtype == torch.float32
        torch.testing.assert_close(rows.norm(dim=1), torch.ones(count), atol=1e-5, rtol=0)
    assert encoder.encode_texts([], batch_size=2).shape == (0, 16)
    alone = torch.cat([encoder.encode_texts([text], batch_size=1) for text in ("a tavo.", "a heron.", "a")])
    torch.testing.assert_close(texts, alone, atol=1e-5, rtol=0)


def test_a_short_text_is_embedded_as_in_the_whole_context(tmp_path: Path) -> None:
    """The tower is causal, so that padding behind the end token changes nothing; an overlong text is cut."""
    encoder = load(name=f"local-dir:{make_tiny_model(tmp_path / 'model')}")
    texts = ["", "a tavo.", "a heron with a long beak, seen from below.", "heron " * 100]
    with torch.inference_mode():
        whole = torch.nn.functional.normalize(encoder.model.encode_text(encoder.tokenizer(texts)), dim=-1)
    torch.testing.assert_close(encoder.encode_texts(texts, 2), whole, atol=1e-6, rtol=0)


def test_texts_are_float32_whatever_the_precision_of_views(tmp_path: Path) -> None:
    folder = make_tiny_model(tmp_path / "model")
    one, two = (load(precision, name=f"local-dir:{folder}") for precision in ("float32", "bfloat16"))
    assert torch.equal(one.encode_texts(["a tavo."], 8), two.encode_texts(["a tavo."], 8))
    assert not torch.equal(one.encode_images(make_pixels(1, 32)), two.encode_images(make_pixels(1, 32)))


@pytest.mark.parametrize("name", [DEEP, "ViT-B-32"])
def test_bfloat16_holds_the_embedding_of_every_view(name: str) -> None:
    rows = {}
    for precision in ("float32", "bfloat16"):
        encoder = load(precision, name=name, pretrained=None)
        assert encoder.meta.precision == precision
        pixels = torch.cat([make_pixels(8, encoder.image_size), noise(4, encoder.image_size)])
        rows[precision] = encoder.encode_images(pixels).double()
        del encoder
    cosine = (rows["float32"] * rows["bfloat16"]).sum(dim=1)
    assert cosine.min() >= 0.999
    assert not torch.equal(rows["float32"], rows["bfloat16"])


def noise(count: int, size: int) -> torch.Tensor:
    rng = np.random.default_rng(0)
    return torch.from_numpy(rng.integers(0, 256, (count, 3, size, size), dtype=np.uint8))


def test_a_gpu_that_is_not_there_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match=r"device is cuda, but torch sees no GPU") as refused:
        load_encoder("m", params_with(device="cuda", name=NAME))
    assert "\n" not in str(refused.value)
    assert pick_device("auto") == torch.device("cpu")
    assert pick_device("cpu") == torch.device("cpu")


def test_precision_follows_the_hardware(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    for able, expected in (({"avx512_bf16": True}, "bfloat16"), ({"amx_bf16": True}, "bfloat16"), ({}, "float32")):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda able=able: able)
        assert pick_precision("auto", cpu) == expected
        assert pick_precision("float16", cpu) == "float16"
    for able_gpu, expected in ((True, "bfloat16"), (False, "float16")):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda able_gpu=able_gpu: able_gpu)
        assert pick_precision("auto", cuda) == expected
        assert pick_precision("float32", cuda) == "float32"


def test_a_package_that_only_some_models_need_is_named_with_the_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    entry = Model(name="ViT-B-16-SigLIP", pretrained=None)
    with pytest.raises(UserError, match=r"models\.m: ViT-B-16-SigLIP needs .* `pip install transformers`"):
        load_tokenizer("models.m", entry)
