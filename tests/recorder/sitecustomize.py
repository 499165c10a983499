"""Records what a stage really reads: files and parameters. Active where RECORD_TO names a folder.

Python imports this module at start-up when its folder is on PYTHONPATH. So the stages that `dvc repro` runs are
recorded as they are, and so are the processes that they start. Each writes lines `kind<tab>name` to a file of its own.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any


class Record:
    """The record of this process, of the stage whose command is in RECORD_STAGE."""

    def __init__(self, folder: str) -> None:
        self.seen: set[tuple[str, str]] = set()
        self.quiet = False
        path = os.path.join(folder, f"{os.getpid()}.tsv")
        self.file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self.add("stage", os.environ["RECORD_STAGE"])

    def add_param(self, key: str) -> None:
        if not self.quiet:
            self.add("param", key)

    def quietly(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """`function`, which validates: parameters that it reads are not recorded."""

        def run(*arguments: Any, **named: Any) -> Any:
            before, self.quiet = self.quiet, True
            try:
                return function(*arguments, **named)
            finally:
                self.quiet = before

        return run

    def add(self, kind: str, name: object) -> None:
        line = (kind, os.fsdecode(name) if isinstance(name, str | bytes | os.PathLike) else str(name))
        if line not in self.seen:
            self.seen.add(line)
            os.write(self.file, "\t".join(line).encode("utf-8", "surrogateescape") + b"\n")


def start() -> None:
    folder, here = os.environ.get("RECORD_TO"), sys.orig_argv[1:]
    if not folder:
        return
    if here[:1] == ["-m"] and here[1].startswith("stages.") and "RECORD_STAGE" not in os.environ:
        os.environ["RECORD_STAGE"] = " ".join(["python", *here])
    if "RECORD_STAGE" not in os.environ:
        return
    record = Record(folder)

    def on_event(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(arguments[0], str | bytes):
            flags = arguments[2] if isinstance(arguments[2], int) else 0
            path = os.path.abspath(os.fsdecode(arguments[0]))
            if flags & (os.O_WRONLY | os.O_RDWR):
                record.add("write", path)
            elif os.path.isfile(path):  # neither a folder nor a name relative to an open one
                record.add("read", path)
        elif event == "os.rename":
            record.add("write", os.path.abspath(os.fsdecode(arguments[1])))

    sys.addaudithook(on_event)
    sys.meta_path.insert(0, AfterImport(record))


def reading(record: Record, function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, whose first argument is a path, or some, that code outside of Python opens."""

    def recorded(first: Any, *arguments: Any, **named: Any) -> Any:
        for path in first if isinstance(first, list | tuple) else [first]:
            if isinstance(path, str | os.PathLike):
                record.add("read", os.path.abspath(os.fspath(path)))
        return function(first, *arguments, **named)

    return recorded


def watch_arrow(record: Record, module: ModuleType) -> None:
    for name in ("read_table", "read_schema", "read_metadata"):
        setattr(module, name, reading(record, getattr(module, name)))
    opened = module.ParquetFile.__init__

    def recorded(self: Any, source: Any, *arguments: Any, **named: Any) -> None:
        if isinstance(source, str | os.PathLike):
            record.add("read", os.path.abspath(os.fspath(source)))
        opened(self, source, *arguments, **named)

    module.ParquetFile.__init__ = recorded


def watch_polars(record: Record, module: ModuleType) -> None:
    for name in [name for name in vars(module) if name.startswith(("read_", "scan_"))]:
        setattr(module, name, reading(record, getattr(module, name)))


def watch_safetensors(record: Record, module: ModuleType) -> None:
    for name in ("load_file", "safe_open"):
        if hasattr(module, name):
            setattr(module, name, reading(record, getattr(module, name)))


def watch_params(record: Record, module: ModuleType) -> None:
    """Record the parameters that are read after validation, which itself reads all of them."""
    section = module.Section
    paths: dict[int, tuple[Any, str]] = {}

    class Keys(dict[str, Any]):
        """A mapping of keys to sections: to go through it is to read which keys there are."""

        place = ""

        def __contains__(self, key: object) -> bool:
            record.add_param(f"{self.place}.{key}")
            return super().__contains__(key)

        def __iter__(self) -> Any:
            record.add_param(self.place)
            return super().__iter__()

        def keys(self) -> Any:
            record.add_param(self.place)
            return super().keys()

        def items(self) -> Any:
            record.add_param(self.place)
            return super().items()

        def values(self) -> Any:
            record.add_param(self.place)
            return super().values()

    def walk(value: Any, place: str) -> None:
        """Note where each section stands."""
        paths[id(value)] = (value, place)
        for name in type(value).model_fields:
            child = value.__dict__[name]
            where = f"{place}.{name}" if place else name
            if isinstance(child, section):
                walk(child, where)
            elif isinstance(child, dict) and child and all(isinstance(own, section) for own in child.values()):
                keys = child if isinstance(child, Keys) else Keys(child)
                keys.place = where
                value.__dict__[name] = keys
                for key, own in dict.items(keys):
                    walk(own, f"{where}.{key}")

    get = section.__getattribute__

    def recorded(self: Any, name: str) -> Any:
        value = get(self, name)
        if id(self) in paths and name in type(self).model_fields and not isinstance(value, section | Keys):
            record.add_param(f"{paths[id(self)][1]}.{name}".lstrip("."))
        return value

    def whole(function: Callable[..., Any]) -> Callable[..., Any]:
        """`function`, which reads all fields of a section."""

        def run(self: Any, **named: Any) -> Any:
            if id(self) in paths:
                for name in set(type(self).model_fields) - set(named.get("exclude") or ()):
                    record.add_param(f"{paths[id(self)][1]}.{name}".lstrip("."))
            return function(self, **named)

        return run

    section.__getattribute__ = recorded
    for name in ("model_dump", "model_dump_json", "__iter__"):
        setattr(section, name, whole(getattr(section, name)))

    def walked(function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any, **named: Any) -> Any:
            found = record.quietly(function)(*arguments, **named)
            record.quietly(walk)(found, "")
            return found

        return run

    names = vars(module)
    names["load_model"] = walked(names["load_model"])
    module.Params.for_dataset = walked(module.Params.for_dataset)


def watch_command_line(record: Record, module: ModuleType) -> None:
    """Whether a key of the command line is there is no reading of all keys."""
    names = vars(module)
    names["check_key"] = record.quietly(names["check_key"])


def watch_finer_params(record: Record, module: ModuleType) -> None:
    names = vars(module)
    names["_check_names"] = record.quietly(names["_check_names"])


WATCHED: dict[str, Callable[[Record, ModuleType], None]] = {
    "pyarrow.parquet": watch_arrow,
    "polars": watch_polars,
    "safetensors": watch_safetensors,
    "safetensors.torch": watch_safetensors,
    "stages.common.params": watch_params,
    "stages.common.cli": watch_command_line,
    "stages.finer.params": watch_finer_params,
}


class AfterImport(MetaPathFinder):
    """Calls what is in WATCHED once a module is loaded."""

    def __init__(self, record: Record) -> None:
        self.record, self.busy = record, set[str]()

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if name not in WATCHED or name in self.busy:
            return None
        self.busy.add(name)
        spec = find_spec(name)
        assert spec is not None and spec.loader is not None
        spec.loader = Watching(self.record, spec.loader, WATCHED[name])
        return spec


class Watching(Loader):
    def __init__(self, record: Record, loader: Any, watch: Callable[[Record, ModuleType], None]) -> None:
        self.record, self.loader, self.watch = record, loader, watch

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        found: ModuleType | None = self.loader.create_module(spec)
        return found

    def exec_module(self, module: ModuleType) -> None:
        self.loader.exec_module(module)
        self.watch(self.record, module)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loader, name)


start()
