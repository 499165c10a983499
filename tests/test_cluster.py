"""embed on a Ray cluster: several nodes on this machine, of which one is lost, and what can be wrong with a cluster."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from conftest import ROOT, Call, Project, make_image, make_project
from embed_project import CROP, EMBED, INGEST, VIEWS, content, in_folder

from stages.common.errors import UserError
from stages.embed.cluster import Cluster
from stages.embed.encode import read_image
from stages.embed.shards import ImageViews

pytest.importorskip("ray", reason="requirements-ray.txt is not installed")


COMMAND = [sys.executable, "-m", "stages.embed", "--dataset", "toy", "--model", "tiny"]
TELLING = """
import time

_load_quietly, _embed_quietly = load_encoder, embed_remotely


def _tell(*words: object) -> None:
    with open(os.environ["TOLD"], "a") as file:
        file.write(" ".join(map(str, [os.getpid(), *words])) + "\\n")


def load_encoder(*arguments):
    _tell("loads")
    return _load_quietly(*arguments)


def embed_remotely(images, *arguments):
    import ray

    _tell("embeds", ray.get_runtime_context().get_assigned_resources().get("GPU", 0))
    until = time.monotonic() + 30
    while len(images) > 1 and time.monotonic() < until:
        told = [line.split() for line in open(os.environ["TOLD"])]
        if len({process for process, word, *_ in told if word == "embeds"}) > 1:
            break
        time.sleep(0.05)
    return _embed_quietly(images, *arguments)
"""
"""Appended to the code that a test sends to the workers: they tell when they load the encoder and embed a shard.

Of several shards none is begun before two workers have one, so that there is work to be lost with either.
"""


class Nodes:
    """A head without cores and two nodes of one core each."""

    def __init__(self, told: Path) -> None:
        from ray import cluster_utils

        self.told = told
        self.cluster = cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
        self.workers = [self.cluster.add_node(num_cpus=1) for _ in range(2)]

    def lose(self, node: Any) -> None:
        """As when the machine dies."""
        self.cluster.remove_node(node, allow_graceful=False)

    def environment(self, project: Project) -> dict[str, str]:
        return {**project.environment(), "RAY_ADDRESS": self.cluster.address}

    def start(self, project: Project) -> subprocess.Popen[str]:
        self.told.write_text("")
        pipe = subprocess.PIPE
        environment = self.environment(project)
        return subprocess.Popen(COMMAND, cwd=project.folder, env=environment, stdout=pipe, stderr=pipe, text=True)

    def run(self, project: Project) -> tuple[int, str, str]:
        process = self.start(project)
        out, err = process.communicate(timeout=120)
        return process.returncode, out, err

    def heard(self, what: str) -> list[list[str]]:
        """What the workers told in the last run: process and details."""
        lines = [line.split() for line in self.told.read_text().splitlines()]
        return [[process, *details] for process, word, *details in lines if word == what]


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    told = tmp_path_factory.mktemp("told") / "lines"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOLD", str(told))
        patch.setenv("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.delenv("PYTHONPATH", raising=False)
        made = Nodes(told)
        yield made
        made.cluster.shutdown()


@pytest.fixture(scope="module")
def computed(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project with its own copy of the code, embedded by the local engine in eleven shards. Not to be changed."""
    made = make_project(tmp_path_factory.mktemp("cluster") / "project")
    shutil.copytree(ROOT / "stages", made.folder / "stages", ignore=shutil.ignore_patterns("__pycache__", "demo"))
    with (made.folder / "stages/embed/cluster.py").open("a") as file:
        file.write(TELLING)
    for number in range(12):  # large enough for a node to be lost before the last
        make_image(made.folder / "toy-images" / "blue tavo" / f"large {number}.jpg", 1500, 1200, number)
    made.edit(lambda params: params["embed"].update(images_per_shard=2))
    in_folder(made.folder, INGEST, CROP, EMBED)
    return made


@pytest.fixture
def project(computed: Project, tmp_path: Path) -> Project:
    """A copy without shards, to be embedded on the cluster."""
    shutil.copytree(computed.folder, tmp_path / "project", ignore=shutil.ignore_patterns("views"))
    made = Project(tmp_path / "project")
    made.edit(lambda params: params["embed"].update(engine="ray"))
    return made


def test_a_node_is_lost_and_nothing_else(nodes: Nodes, project: Project, computed: Project) -> None:
    """The images are read from a URL, too: their folder is not where `ingest` found it."""
    (project.folder / "toy-images").rename(project.folder / "elsewhere")
    url = (project.folder / "elsewhere").as_uri()
    project.edit(lambda params: params["datasets"]["toy"].update(remote_root=url))
    process = nodes.start(project)
    deadline = time.monotonic() + 100
    while not any((project.folder / VIEWS).glob("part-*")) and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    nodes.lose(nodes.workers.pop())
    there = len(list((project.folder / VIEWS).glob("part-*")))
    assert process.poll() is None
    assert 0 < there < 11, "the run was over before a node could be lost"
    out, err = process.communicate(timeout=100)
    nodes.workers.append(nodes.cluster.add_node(num_cpus=1))
    assert (process.returncode, err) == (0, "")
    assert out.splitlines()[1:] == []
    assert out.startswith("embed toy tiny: ")
    assert "of 21 images embedded, 11 shards written" in out
    assert content(project) == content(computed)
    loads = [process for process, *_ in nodes.heard("loads")]
    assert len(set(loads)) == len(loads), "a worker holds the encoder"
    assert len({process for process, *_ in nodes.heard("embeds")}) > 1
    assert len(nodes.heard("embeds")) >= 11
    assert len(loads) < len(nodes.heard("embeds"))


def test_new_images_alone_are_embedded_and_on_a_gpu_where_there_is_one(
    nodes: Nodes, project: Project, computed: Project
) -> None:
    """A node that only says it has a GPU, so that the results are those of a CPU."""
    shutil.copytree(computed.folder / VIEWS, project.folder / VIEWS)
    make_image(project.folder / "toy-images" / "Grey_Heron" / "+.jpg", 60, 70, seed=50)
    in_folder(project.folder, INGEST, CROP)
    extra = nodes.cluster.add_node(num_cpus=1, num_gpus=1)
    code, out, err = nodes.run(project)
    nodes.cluster.remove_node(extra, allow_graceful=True)
    assert (code, err) == (0, "")
    assert "of 1 images embedded, 11 shards written" in out
    assert [gpus for _, gpus in nodes.heard("embeds")] == ["1.0"]
    assert len(nodes.heard("loads")) == 1
    found = content(project)
    shutil.rmtree(project.folder / VIEWS)
    project.edit(lambda params: params["embed"].update(engine="local"))
    in_folder(project.folder, EMBED)
    assert found == content(project)


CPU_NODE = {"Alive": True, "Resources": {"CPU": 32.0}}
GPU_NODE = {"Alive": True, "Resources": {"CPU": 12.0, "GPU": 4.0}}


@pytest.mark.parametrize(
    ("device", "nodes", "cpus", "gpus"),
    [
        ("auto", [CPU_NODE, GPU_NODE], 3, 1),
        ("cuda", [CPU_NODE, GPU_NODE], 3, 1),
        ("cpu", [CPU_NODE, GPU_NODE], 8, 0),
        ("auto", [CPU_NODE, {**GPU_NODE, "Alive": False}], 8, 0),
        ("auto", [{"Alive": True, "Resources": {"CPU": 2.0}}, CPU_NODE], 2, 0),
        ("auto", [CPU_NODE, {"Alive": True, "Resources": {"GPU": 1.0}}], 8, 0),
        ("auto", [{"Alive": True, "Resources": {"memory": 1.0}}], 1, 0),
    ],
    ids=["a GPU", "a GPU asked for", "no GPU asked for", "a GPU lost", "the smaller node", "no cores", "nothing yet"],
)
def test_a_worker_takes_a_gpu_where_there_is_any_and_its_share_of_the_cores(
    device: str, nodes: list[dict[str, Any]], cpus: int, gpus: int
) -> None:
    cluster = object.__new__(Cluster)
    cluster._ray = SimpleNamespace(nodes=lambda: nodes)
    cluster._job = SimpleNamespace(params=SimpleNamespace(device=device))  # type: ignore[assignment]
    assert cluster._resources() == {"num_cpus": cpus, "num_gpus": gpus}


def test_a_broken_image_is_one_line_as_without_a_cluster(
    nodes: Nodes, project: Project, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = project.folder / "toy-images/blue tavo/1.jpg"
    path.write_bytes(path.read_bytes()[:300])
    code, out, err = nodes.run(project)
    assert (code, out) == (1, "")
    assert err.startswith("error: image 'blue tavo/1.jpg' under '")
    assert err.count("\n") == 1
    monkeypatch.chdir(project.folder)
    project.edit(lambda params: params["embed"].update(engine="local"))
    local = call("embed", "--dataset", "toy", "--model", "tiny")
    assert local.code == 1
    assert err.replace(f"{project.folder}/", "") == local.err


@pytest.mark.parametrize(("url", "lacking"), [("sftp://nowhere/birds", "paramiko"), ("nosuch://birds", "nosuch")])
def test_a_url_that_cannot_be_read_here_is_one_line(url: str, lacking: str) -> None:
    image = ImageViews("a.jpg", "", "", np.zeros(0, np.int32), np.zeros((0, 4), np.int32))
    with pytest.raises(UserError, match=lacking) as refused:
        read_image(url, image)
    assert url in str(refused.value)
    assert "\n" not in str(refused.value)


def test_no_cluster_at_the_address_is_one_line(project: Project) -> None:
    environment = {**project.environment(), "RAY_ADDRESS": "127.0.0.1:1"}
    done = subprocess.run(COMMAND, cwd=project.folder, env=environment, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: no Ray cluster at RAY_ADDRESS")
    assert done.stderr.count("\n") == 1


def test_without_ray_one_line_says_how_to_get_it(project: Project, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project.folder)
    monkeypatch.setitem(sys.modules, "ray", None)
    done = call("embed", "--dataset", "toy", "--model", "tiny")
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("error: ")
    assert "`pip install -r requirements-ray.txt`" in done.err
    assert done.err.count("\n") == 1
    assert os.path.exists(ROOT / "requirements-ray.txt")


def test_it_says_once_that_no_node_is_left_for_a_worker(capsys: pytest.CaptureFixture[str]) -> None:
    there: dict[str, float] = {"CPU": 8.0, "GPU": 1.0}
    cluster = object.__new__(Cluster)
    cluster._ray = SimpleNamespace(cluster_resources=lambda: there)
    cluster._options, cluster._waits = {"num_cpus": 4, "num_gpus": 1}, False
    cluster._say_where_it_waits(done=False)
    assert capsys.readouterr().err == "", "a worker is merely slow"
    there.pop("GPU")
    for _ in range(3):
        cluster._say_where_it_waits(done=False)
    line = "no node of the Ray cluster has room for a worker (4 cpus, 1 gpus); waiting for one to join"
    assert capsys.readouterr().err == f"warning: {line}\n"
    there["GPU"] = 1.0
    cluster._say_where_it_waits(done=True)
    assert capsys.readouterr().err == ""
