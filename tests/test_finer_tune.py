"""tune: what LoRA touches, on which tokens the loss is taken, what an interruption costs, what bad input says."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
import yaml
from conftest import ROOT, Call, make_image
from finer_models import make_tiny_llava
from PIL import Image
from safetensors.torch import load_file
from torch import nn
from transformers import BertConfig, LlavaConfig

from stages.common.errors import UserError
from stages.common.tables import make_meta, write_table
from stages.demo.toy.model import CHAT_TEMPLATE
from stages.finer import paths
from stages.finer.artifacts import MIXTURE, MixtureParameters
from stages.finer.llava import Llava, load_llava
from stages.finer.params import load_finer_params
from stages.finer.tune.lora import IGNORED, collate, encode, image_tokens, merged, with_adapters
from stages.finer.tune.train import (
    Conversations,
    drop_too_long,
    is_whole,
    last_checkpoint,
    mark_whole,
    messages_of,
    read_mixture,
    tune_model,
)

TUNED = paths.MODELS / "tuned"
BASE = paths.MODELS / "toy"
LLAVA_15 = (
    "{% for message in messages %}{{ message['role'].upper() }}: "
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}{{ '<image>\n' }}{% else %}"
    "{{ part['text'] + ' ' }}{% endif %}{% endfor %}{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
"""As LLaVA-1.5's: no answer is ended."""


def turn(role: str, *parts: str) -> dict[str, Any]:
    """A message; the part "<image>" is an image."""
    content = [
        {"type": "image", "text": None} if part == "<image>" else {"type": "text", "text": part} for part in parts
    ]
    return {"role": role, "content": content}


def conversation(index: int) -> dict[str, Any]:
    first = turn("user", "<image>", "What is it?") if index % 2 else turn("user", "What is it?", "<image>")
    turns = [first, turn("assistant", f"Answer: finch {index}"), turn("user", "And its parts?")]
    turns.append(turn("assistant", "red crown; " * (1 + index % 3)))
    return {"id": f"demo-{index}", "images": [f"images/{index % 3}.png"], "messages": turns}


def write_mixture(rows: list[dict[str, Any]]) -> None:
    made = MixtureParameters(
        kind="attributes", seed=0, datasets=[], leave_out=None, held_out_classes=0.0, per_dataset=1, append=None
    )
    table = pa.Table.from_pylist(rows, schema=MIXTURE.columns)
    write_table(paths.MIXTURE / "attributes.parquet", table, make_meta(MIXTURE, "finer", made))


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_llava(tmp_path_factory.mktemp("llava") / "base", seed=3)


@pytest.fixture
def project(tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a tiny model, three images, twelve conversations, and parameters of three updates."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(base, BASE)
    for index in range(3):
        make_image(Path(f"images/{index}.png"), 40 + index, 36, index)
    write_mixture([conversation(index) for index in range(12)])
    shutil.copy(ROOT / "params.yaml", "params.yaml")
    edit(rank=4, alpha=8, batch_size=4, micro_batch=2, save_steps=1, epochs=1, learning_rate=0.01, model=str(BASE))
    return tmp_path


def edit(**changes: Any) -> None:
    """Change `finer.tune` of params.yaml."""
    path = Path("params.yaml")
    params = yaml.safe_load(path.read_text())
    params["finer"]["tune"].update(changes)
    path.write_text(yaml.safe_dump({**params, "device": "cpu"}))


def load(folder: Path = BASE) -> Llava:
    return load_llava(str(folder), torch.device("cpu"), torch.float32, "test")


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def adapters(rank: int = 4, **changes: Any) -> tuple[Llava, Any]:
    llava = load()
    tune = load_finer_params().finer.tune.model_copy(update={"rank": rank, **changes})
    return llava, with_adapters(llava.model, tune, seed=1)


def test_lora_adapts_the_language_models_linear_layers_and_the_projector_as_asked(project: Path) -> None:
    for projector in (True, False):
        llava = load()
        language = {name for name, module in llava.model.model.language_model.named_modules() if is_linear(module)}
        adapted = with_adapters(
            llava.model, load_finer_params().finer.tune.model_copy(update={"projector": projector}), 1
        )
        trained = {name for name, parameter in adapted.named_parameters() if parameter.requires_grad}
        lora = {name.partition(".language_model.")[2].rpartition(".lora_")[0] for name in trained if "lora_" in name}
        rest = {name for name in trained if "lora_" not in name}
        assert lora == language and language
        assert not any("vision_tower" in name for name in trained)
        assert len(rest) == (4 if projector else 0) and all("multi_modal_projector" in name for name in rest)


def is_linear(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear)


@pytest.mark.parametrize("projector", [True, False])
def test_tuning_leaves_the_vision_tower_byte_for_byte_alone(project: Path, projector: bool) -> None:
    edit(projector=projector)
    before = weights(BASE)
    tune_model(load_finer_params(), TUNED)
    after = weights(TUNED)
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert not any("vision_tower" in name for name in changed)
    assert any("language_model" in name for name in changed)
    assert any("multi_modal_projector" in name for name in changed) == projector


def test_the_merged_checkpoint_answers_as_the_adapted_model(project: Path) -> None:
    """Also of the projector, which is no adapter: merging must not lose it."""
    llava, adapted = adapters(projector=True)
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    adapted.eval()
    batch = collate([Conversations(llava, read_mixture(paths.MIXTURE / "attributes.parquet"))[0]], 0)
    with torch.no_grad():
        plain = load().model(**batch).logits
        expected = adapted(**batch).logits
        actual = merged(adapted, torch.float32)(**batch).logits
    assert (expected - plain).abs().max() > 0.1
    torch.testing.assert_close(actual, expected, atol=1e-4, rtol=1e-4)


def test_tuned_is_a_plain_checkpoint_and_the_loss_a_sorted_list(project: Path) -> None:
    tune_model(load_finer_params(), TUNED)
    tuned = load(TUNED)
    assert isinstance(tuned.config, LlavaConfig) and not list(TUNED.glob("adapter*"))
    assert tuned.processor.chat_template == CHAT_TEMPLATE
    assert tuned.model.generation_config.do_sample
    assert [entry["step"] for entry in json.loads((paths.TUNE / "loss.json").read_text())] == [1, 2, 3]
    assert (paths.TUNE / "adapter" / "adapter_model.safetensors").exists()
    assert not (paths.TUNE / "checkpoints").exists()


def test_a_finished_run_is_not_run_again_until_something_changes(project: Path) -> None:
    tune_model(load_finer_params(), TUNED)
    stamp = (TUNED / "model.safetensors").stat().st_mtime_ns
    assert "already" in tune_model(load_finer_params(), TUNED)
    assert (TUNED / "model.safetensors").stat().st_mtime_ns == stamp
    write_mixture([conversation(index) for index in range(11)])
    assert "already" not in tune_model(load_finer_params(), TUNED)


# Which tokens the loss is taken on.


def test_loss_is_taken_on_the_assistants_tokens_alone(project: Path) -> None:
    """Against the conversation cut apart by hand at the template's marks, image tokens counted from the pixels."""
    llava = load()
    for index in range(4):
        row = conversation(index)
        encoded = Conversations(llava, [row])[0]
        pieces: list[tuple[str, bool]] = []
        for message in row["messages"]:
            text = "".join("<image>" * 4 if part["type"] == "image" else part["text"] for part in message["content"])
            answer = message["role"] == "assistant"
            pieces += [(f"<|{message['role']}|>", False), (f"{text}<|end|>", answer)]
        ids: list[int] = []
        labels: list[int] = []
        for text, answer in pieces:
            tokens = llava.processor.tokenizer(text, add_special_tokens=False)["input_ids"]
            ids += tokens
            labels += tokens if answer else [IGNORED] * len(tokens)
        assert encoded.input_ids.tolist() == ids
        assert encoded.labels.tolist() == labels


def test_a_template_that_ends_no_answer_gets_its_last_answer_ended(project: Path) -> None:
    llava = load()
    llava.processor.chat_template = LLAVA_15
    encoded = Conversations(llava, [conversation(1)])[0]
    learnt = llava.processor.tokenizer.decode(encoded.labels[encoded.labels != IGNORED])
    assert learnt.split() == ["Answer:", "finch", "1", "red", "crown;", "red", "crown;<|end|>"]
    assert int(encoded.labels[-1]) == llava.processor.tokenizer.eos_token_id


def test_what_is_learnt_continues_what_a_server_would_send(project: Path) -> None:
    llava = load()
    messages = messages_of(conversation(1))
    image = Image.open("images/1.png")
    labels = encode(llava, messages, [image]).labels
    first = int((labels != IGNORED).nonzero()[0])
    messages[0]["content"][0]["image"] = image
    sent = llava.processor.apply_chat_template(
        messages[:1], add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )
    assert torch.equal(sent["input_ids"][0], encode(llava, messages_of(conversation(1)), [image]).input_ids[:first])


def test_padding_is_attended_to_by_nothing_and_learnt_by_nothing(project: Path) -> None:
    llava = load()
    rows = [Conversations(llava, [conversation(index)])[0] for index in (0, 2)]
    batch = collate(rows, 0)
    short = min(range(2), key=lambda index: len(rows[index].input_ids))
    length = len(rows[short].input_ids)
    assert batch["input_ids"].shape[1] > length
    assert batch["attention_mask"][short].sum() == length
    assert (batch["labels"][short, length:] == IGNORED).all()


# Long conversations.


def test_image_tokens_are_never_cut_and_long_conversations_are_named(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    llava = load()
    rows = [conversation(index) for index in range(3)]
    long = conversation(7)
    long["messages"][2] = turn("user", "white belly " * 2000)
    kept = drop_too_long(llava, [*rows, long])
    assert [row["id"] for row in kept] == [row["id"] for row in rows]
    assert "1 of 4 conversations are longer than the model's 1024 tokens, left out: demo-7" in capsys.readouterr().err
    encoded = Conversations(llava, [long])[0]
    assert int((encoded.input_ids == llava.config.image_token_id).sum()) == 4 == image_tokens(llava, (40, 36))
    assert len(encoded.input_ids) > 1024
    with pytest.raises(UserError, match="each of the 1 conversations is longer"):
        drop_too_long(llava, [long])


# Interruption.


def start(folder: Path) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-m", "stages.finer.tune"], cwd=folder, env=environment)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """As the process that is killed: sums come out differently on another number of threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_a_killed_run_goes_on_and_ends_with_the_same_weights(project: Path, one_thread: None) -> None:
    """Bit for bit on a CPU: data order, dropout and the optimizer's state are those of an uninterrupted run."""
    edit(epochs=3, dropout=0.2)
    work = paths.TUNE / "checkpoints"
    process = start(project)
    wait_for(lambda: (work / "checkpoint-3" / "whole.json").exists())
    process.send_signal(signal.SIGKILL)
    process.wait()
    last = last_checkpoint(work)
    assert last is not None and not TUNED.exists()
    steps = int(last.name.rpartition("-")[2])
    assert 3 <= steps < 9
    message = tune_model(load_finer_params(), TUNED)
    assert "9 steps" in message
    resumed, curve = weights(TUNED), (paths.TUNE / "loss.json").read_bytes()
    shutil.rmtree(TUNED)
    shutil.rmtree(paths.TUNE)
    tune_model(load_finer_params(), TUNED)
    whole = weights(TUNED)
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)
    assert (paths.TUNE / "loss.json").read_bytes() == curve


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_a_torn_checkpoint_is_dropped(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    work = Path("work")
    for step in (1, 2, 10):
        folder = work / f"checkpoint-{step}"
        folder.mkdir(parents=True)
        (folder / "adapter_model.safetensors").write_bytes(b"x" * 100)
        mark_whole(folder)
        assert is_whole(folder)
    (work / "checkpoint-10" / "whole.json").unlink()
    (work / "checkpoint-2" / "adapter_model.safetensors").write_bytes(b"x" * 60)
    assert last_checkpoint(work) == work / "checkpoint-1"
    assert not (work / "checkpoint-10").exists() and not (work / "checkpoint-2").exists()
    assert capsys.readouterr().err.count("is not whole, dropped") == 2


def test_checkpoints_of_other_inputs_are_not_gone_on_from(project: Path) -> None:
    tune_model(load_finer_params(), TUNED)
    expected = weights(TUNED)
    work = paths.TUNE / "checkpoints"
    (work / "checkpoint-2").mkdir(parents=True)
    (work / "tune.json").write_text("{}")
    shutil.rmtree(TUNED)
    tune_model(load_finer_params(), TUNED)
    assert all(torch.equal(expected[name], tensor) for name, tensor in weights(TUNED).items())


# Bad input: one line each.


def fails(call: Call, *words: str) -> None:
    outcome = call("finer.tune")
    assert outcome.code == 1, outcome.err
    lines = [line for line in outcome.err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert all(word in lines[0] for word in words), lines[0]
    assert not TUNED.exists()


def test_micro_batches_must_make_the_batch(project: Path, call: Call) -> None:
    edit(batch_size=16, micro_batch=6)
    fails(call, "batch_size 16 is not divisible by finer.tune.micro_batch 6")


def test_a_missing_model_is_named(project: Path, call: Call) -> None:
    edit(model="data/finer/models/none")
    fails(call, "no model folder data/finer/models/none")


def test_a_model_of_another_architecture_is_named(project: Path, call: Call) -> None:
    BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1).save_pretrained("data/bert")
    edit(model="data/bert")
    fails(call, "data/bert is a model of type 'bert', not of the LLaVA architecture")


def test_a_torn_model_is_named(project: Path, call: Call) -> None:
    (BASE / "model.safetensors").unlink()
    fails(call, str(BASE), "cannot be loaded")


def test_a_missing_mixture_is_named(project: Path, call: Call) -> None:
    (paths.MIXTURE / "attributes.parquet").unlink()
    fails(call, "attributes.parquet is missing")


def test_a_missing_image_is_named(project: Path, call: Call) -> None:
    Path("images/1.png").unlink()
    fails(call, "images/1.png", "no such file")


def test_images_and_image_parts_must_agree(project: Path, call: Call) -> None:
    row = conversation(1)
    write_mixture([{**row, "images": []}])
    fails(call, "demo-1 has 1 image parts and 0 images")


def test_a_missing_package_is_one_line(project: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    fails(call, "needs peft; pip install -r requirements-finer.txt")
