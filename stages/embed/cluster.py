"""`embed.engine: ray`: shards as tasks on a Ray cluster.

The driver plans and writes; workers read images, embed their views and send the embeddings back. So the workers
need access only to the images and to the weights if these are a file. Ray runs a task again if its node is lost.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from stages.common.artifacts import EncoderMeta
from stages.common.cli import Job
from stages.common.encoders import Encoder, load_encoder
from stages.common.errors import UserError, pillow_warnings_ignored, warn
from stages.common.params import Params
from stages.embed.dataset import local_root
from stages.embed.encode import Embedded, embed_images, fetch
from stages.embed.reuse import Work
from stages.embed.shards import ImageViews

CPUS_A_WORKER = 8
"""At most this many cores for a worker. A node with more cores has several workers, each with its own encoder."""
SHARDS_AHEAD = 2
"""Shards submitted for each worker: one in progress and one waiting."""

ANSWERS_WITHIN = 10.0
LOOKS_EVERY = 30.0
"""Seconds."""


class Cluster:
    """A connection to the Ray cluster of RAY_ADDRESS, or to one started on this machine.

    Attributes:
        model: `Encoder.meta` of the workers' encoder.
    """

    def __init__(self, job: Job) -> None:
        """
        Raises:
            UserError: Ray is not installed, no cluster is at the address, or a worker cannot load the encoder.
        """
        self._job, self._ray, self._waits = job, _import_ray(), False
        entry = job.params.datasets[job.dataset]
        self._root = entry.remote_root or str(Path(local_root(job)).resolve())
        # The code is sent along, so that all nodes run this version. Nothing else is sent.
        others = [f"/{path.name}" for path in Path.cwd().iterdir() if path.name != "stages"]
        check_address(os.environ.get("RAY_ADDRESS", ""), self._ray.util.get_node_ip_address)
        try:
            self._ray.init(
                log_to_driver=False,
                logging_level="ERROR",
                runtime_env={"working_dir": ".", "excludes": [*others, "__pycache__"]},
            )
        except (ConnectionError, ValueError) as error:
            raise UserError(f"no Ray cluster at RAY_ADDRESS: {str(error).splitlines()[0]}") from None
        self._options = self._resources()
        self.model: EncoderMeta = self._get(self._task(encoder_meta).remote(*self._encoder()))

    def __enter__(self) -> Cluster:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ray.shutdown()

    def embed(self, works: Iterable[Work], advance: Callable[[int], object]) -> Iterator[tuple[Work, list[Embedded]]]:
        """Embed what is missing from each shard, one task for each shard. Shards are yielded as they finish."""
        task = self._task(embed_remotely)
        pending: dict[Any, Work] = {}
        for work in works:
            reference = task.remote(work.missing, self._root, self.model, *self._encoder())
            pending[reference] = work
            while len(pending) >= SHARDS_AHEAD * self._workers():
                yield from self._collect(pending, advance)
        while pending:
            yield from self._collect(pending, advance)

    def _collect(
        self, pending: dict[Any, Work], advance: Callable[[int], object]
    ) -> Iterator[tuple[Work, list[Embedded]]]:
        """Wait for a shard."""
        done: list[Any] = []
        while not done:
            done, _ = self._ray.wait(list(pending), num_returns=1, timeout=LOOKS_EVERY)
            self._say_where_it_waits(bool(done))
        reference = done[0]
        work = pending.pop(reference)
        # Copied, because arrays in Ray's memory are read-only, and so that Ray can free them.
        pairs = ((embeddings.copy(), similarity.copy()) for embeddings, similarity in self._get(reference))
        embedded = [Embedded(*map(torch.from_numpy, pair)) for pair in pairs]
        advance(len(embedded))
        yield work, embedded

    def _encoder(self) -> tuple[str, str, Params]:
        # An encoder does not read the data sets' entries, which may not fit the sections of one data set.
        return str(Path.cwd()), self._job.model, self._job.params.model_copy(update={"datasets": {}})

    def _resources(self) -> dict[str, float]:
        """What a worker uses: a GPU if the cluster has any, and its share of the cores."""
        alive = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        nodes = [node for node in alive if node.get("CPU")]
        gpus = [node for node in nodes if node.get("GPU")] if self._job.params.device != "cpu" else []
        # A cluster that has no nodes yet will at least have nodes with a core.
        shares = [node["CPU"] / node["GPU"] for node in gpus] or [node["CPU"] for node in nodes] or [1]
        return {"num_cpus": max(1, min(CPUS_A_WORKER, *map(int, shares))), "num_gpus": 1 if gpus else 0}

    def _say_where_it_waits(self, done: bool) -> None:
        """Warn once if no node is left that could do the work. Ray then waits for one to join."""
        waits = not done and self._room() == 0
        if waits and not self._waits:
            each = ", ".join(f"{count:g} {name.removeprefix('num_')}" for name, count in self._options.items() if count)
            warn(f"no node of the Ray cluster has room for a worker ({each}); waiting for one to join")
        self._waits = waits

    def _workers(self) -> int:
        """How many workers to keep busy."""
        return max(1, self._room())

    def _room(self) -> int:
        """How many workers the cluster now has room for."""
        there, each = self._ray.cluster_resources(), self._options
        rooms = [there.get("CPU", 0) // each["num_cpus"]]
        if each["num_gpus"]:
            rooms.append(there.get("GPU", 0))
        return int(min(rooms))

    def _task(self, function: Callable[..., Any]) -> Any:
        # max_calls=0 keeps a worker and its encoder alive, also on a GPU. max_retries=-1 retries tasks whose worker
        # or node was lost; an error of the task itself is not retried.
        return self._ray.remote(max_calls=0, max_retries=-1, **self._options)(function)

    def _get(self, reference: Any) -> Any:
        """A task's result. If a worker found a user's mistake, it is raised here, in one line."""
        try:
            return self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, UserError):
                raise UserError(str(error.cause)) from None
            raise


def check_address(address: str, own_address: Callable[[], str]) -> None:
    """Check that something answers at a cluster's address: Ray itself would try for minutes and print warnings.

    Args:
        address: RAY_ADDRESS. Only addresses with a host and a port are checked, not "auto" and "local".
        own_address: this machine's address on the network. A cluster that is given by a loopback address listens there.

    Raises:
        UserError: nothing answers.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not (host and port.isdigit()):
        return
    hosts = [host, own_address()] if host in ("127.0.0.1", "localhost") else [host]
    for one in hosts:
        with suppress(OSError), socket.create_connection((one.strip("[]"), int(port)), timeout=ANSWERS_WITHIN):
            return
    raise UserError(f"no Ray cluster at RAY_ADDRESS: nothing answers at {address}; start one with `ray start --head`")


def _import_ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # no usage statistics
    try:
        import ray
    except ImportError:
        raise UserError("embed.engine is ray; install it with `pip install -r requirements-ray.txt`") from None
    return ray


@lru_cache(maxsize=1)
def _load(model: str, params: str) -> Encoder:
    return load_encoder(model, Params.model_validate_json(params))


def encoder_here(project: str, model: str, params: Params) -> Encoder:
    """This worker's encoder, loaded once. Relative paths are the project's if this node can read its folder."""
    with suppress(OSError):
        os.chdir(project)
    return _load(model, params.model_dump_json())


def encoder_meta(project: str, model: str, params: Params) -> EncoderMeta:
    return encoder_here(project, model, params).meta


def embed_remotely(
    images: list[ImageViews], root: str, meta: EncoderMeta, project: str, model: str, params: Params
) -> list[tuple[Any, Any]]:
    """The embeddings ([1 + V, D] float16) and similarities ([1 + V] float32) of each image, as arrays.

    Raises:
        UserError: this node's encoder differs from the one that makes the shards.
    """
    encoder = encoder_here(project, model, params)
    if encoder.meta != meta:
        wanted, here = meta.model_dump(), encoder.meta.model_dump()
        differ = [f"{key} {wanted[key]} and {here[key]}" for key in wanted if wanted[key] != here[key]]
        raise UserError(
            f"the nodes of the cluster would embed differently ({'; '.join(differ)}); set `precision` in params.yaml, "
            "and give all nodes the same weights"
        )
    with pillow_warnings_ignored():
        made = fetch(list(embed_images(images, root, encoder, params.embed.batch_size)))
    return [(one.embeddings.numpy(), one.similarity.numpy()) for one in made]
