"""Reading the weights of a TorchScript archive, as OpenAI published its models, without running the archive.

`torch.jit.load` runs code that stands in the archive. Here only its tensors are read: from `data.pkl`, by an unpickler
that knows tensors, plain containers and stand-ins for the modules, and from the storages beside it.
"""

from __future__ import annotations

import io
import math
import pickle
import re
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch

MAX_TEXT = 64 << 20
"""Bytes of `data.pkl`, or of one file of code; OpenAI's have less than 1 MB."""
MAX_NAMES = 100_000
"""Modules and tensors, each counted wherever it is named; a small archive can name one module a billion times."""
MARKER = "constants.pkl"
"""A file that only TorchScript archives have."""

DTYPES = {
    "BFloat16Storage": torch.bfloat16,
    "BoolStorage": torch.bool,
    "ByteStorage": torch.uint8,
    "CharStorage": torch.int8,
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "IntStorage": torch.int32,
    "LongStorage": torch.int64,
    "ShortStorage": torch.int16,
}
_OPCODES = (
    pickle.PROTO, pickle.STOP, pickle.MARK, pickle.GLOBAL, pickle.NEWOBJ, pickle.REDUCE, pickle.BUILD,
    pickle.BINPERSID, pickle.BINPUT, pickle.LONG_BINPUT, pickle.BINGET, pickle.LONG_BINGET, pickle.NONE,
    pickle.NEWTRUE, pickle.NEWFALSE, pickle.BININT, pickle.BININT1, pickle.BININT2, pickle.LONG1, pickle.BINFLOAT,
    pickle.BINUNICODE, pickle.EMPTY_TUPLE, pickle.TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3,
    pickle.EMPTY_LIST, pickle.APPEND, pickle.APPENDS, pickle.EMPTY_DICT, pickle.SETITEMS,
)  # fmt: skip
"""What torch writes into `data.pkl`."""

_DECLARED = re.compile(r"^class (\w+)\(Module\):\n  __parameters__ = \[(.*)\]\n(?:  __buffers__ = \[(.*)\]\n)?", re.M)
OWN_STATE = "a module in it has a state of its own (`__setstate__`), which only its code can read"


class NotReadable(ValueError):
    """An archive that is damaged, or that holds more than weights; its text says what."""


@dataclass(frozen=True)
class _Storage:
    key: str
    dtype: torch.dtype
    values: int


@dataclass(frozen=True)
class _Tensor:
    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


class _Module:
    """Stands in for a module of the archive: keeps its attributes and does nothing."""

    name: ClassVar[str] = ""
    attributes: dict[str, Any]


def _rebuild_tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> _Tensor:
    """A tensor's place in its storage.

    Raises:
        NotReadable: the storage has fewer values than the tensor, or these are no sizes.
    """
    numbers = (offset, *size, *stride)
    if not isinstance(storage, _Storage) or not all(type(number) is int and number >= 0 for number in numbers):
        raise NotReadable("a tensor in it has impossible sizes")
    last = offset + sum((count - 1) * step for count, step in zip(size, stride, strict=True))
    if math.prod(size) and (last >= storage.values or math.prod(size) > storage.values):
        raise NotReadable(f"a tensor of shape {list(size)} is larger than its storage of {storage.values} values")
    return _Tensor(storage, offset, tuple(size), tuple(stride))


def _plain(value: Any, *_: Any) -> Any:
    """A list or dictionary without the note of its type."""
    return value


_ALLOWED = {
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _plain,
    ("collections", "OrderedDict"): OrderedDict,
    **{("torch", name): dtype for name, dtype in DTYPES.items()},
    **{
        ("torch.jit._pickle", name): _plain
        for name in ("restore_type_tag", "build_intlist", "build_doublelist", "build_boollist", "build_tensorlist")
    },
}


class _Unpickler(pickle._Unpickler):
    """Python's own unpickler in Python, with torch's opcodes alone; nothing that it can call does anything."""

    stack: list[Any]
    pop_mark: Callable[[], list[Any]]
    dispatch: ClassVar[dict[int, Any]] = {code[0]: pickle._Unpickler.dispatch[code[0]] for code in _OPCODES}

    def find_class(self, module: str, name: str) -> Any:
        if module == "__torch__" or module.startswith("__torch__."):
            return type("Module", (_Module,), {"name": f"{module}.{name}"})
        if (module, name) not in _ALLOWED:
            raise NotReadable(f"it names {module}.{name}, which weights do not need")
        return _ALLOWED[module, name]

    def persistent_load(self, pid: Any) -> _Storage:
        kind, dtype, key, _, values = pid
        if kind != "storage" or not isinstance(dtype, torch.dtype) or type(key) is not str or type(values) is not int:
            raise NotReadable("it names a storage of an unknown kind")
        return _Storage(key, dtype, values)

    def load_build(self) -> None:
        attributes = self.stack.pop()
        module = self.stack[-1]
        if not isinstance(module, _Module) or type(attributes) is not dict:
            raise NotReadable(OWN_STATE)
        module.attributes = attributes

    def load_setitems(self) -> None:
        items = self.pop_mark()
        # Other keys are not needed, and a tuple of tuples can take forever to hash.
        if not all(type(key) in (str, int, float, bool) for key in items[::2]):
            raise NotReadable("a dictionary in it has keys that are neither text nor numbers")
        self.stack[-1].update(zip(items[::2], items[1::2], strict=True))

    dispatch[pickle.BUILD[0]] = load_build
    dispatch[pickle.SETITEMS[0]] = load_setitems


def is_torchscript(path: Path) -> bool:
    """Whether a checkpoint is a TorchScript archive, as OpenAI published its weights."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith(f"/{MARKER}") for name in archive.namelist())
    except (zipfile.BadZipFile, NotImplementedError, ValueError, EOFError):
        return False


def read_torchscript(path: Path) -> dict[str, torch.Tensor]:
    """The parameters and buffers of a TorchScript archive by name, as `torch.jit.load(path).state_dict()` has them.

    Nothing in the archive is run. All tensors are on the CPU.

    Raises:
        NotReadable: the archive is damaged, holds more than weights, or its tensors do not fit their storages.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return _Archive(archive, path.stat().st_size).state_dict()
    except NotReadable:
        raise
    except Exception as error:  # readers of pickles and zips raise many kinds of errors
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise NotReadable(f"it is damaged, or not written by torch ({reason})") from None


class _Archive:
    """An open archive."""

    def __init__(self, archive: zipfile.ZipFile, size: int) -> None:
        self.archive = archive
        roots = [name.removesuffix(MARKER) for name in archive.namelist() if name.endswith(f"/{MARKER}")]
        self.root = min(roots, key=len)
        self.storages: dict[_Storage, torch.Tensor] = {}
        self.names = 0
        data = [info for info in archive.infolist() if info.filename.startswith(f"{self.root}data/")]
        if sum(info.file_size for info in data) > size or any(info.compress_type for info in data):
            raise NotReadable("its storages unpack to more than the file, which torch never writes")
        if f"{self.root}byteorder" in archive.namelist() and self._text("byteorder") != sys.byteorder.encode():
            raise NotReadable(f"its numbers are not stored in this machine's byte order ({sys.byteorder})")

    def _text(self, name: str) -> bytes:
        info = self.archive.getinfo(self.root + name)
        if info.file_size > MAX_TEXT:
            raise NotReadable(f"{name} has {info.file_size:,} bytes; at most {MAX_TEXT:,} are read")
        return self.archive.read(info)

    def state_dict(self) -> dict[str, torch.Tensor]:
        root = _Unpickler(io.BytesIO(self._text("data.pkl"))).load()
        found: dict[str, torch.Tensor] = {}
        for name, tensor in self._tensors(root, ""):
            storage = self._storage(tensor.storage)
            found[name] = storage.as_strided(tensor.size, tensor.stride, tensor.offset)
        return found

    def _tensors(self, module: Any, prefix: str) -> Iterator[tuple[str, _Tensor]]:
        """Names and tensors of a module and those below it; a module below itself ends in a RecursionError."""
        if not isinstance(module, _Module):
            raise NotReadable("it holds no module")
        declared = self._declared(module.name)
        self.names += len(module.attributes)
        if self.names > MAX_NAMES:
            raise NotReadable(f"it has more than {MAX_NAMES:,} modules and values")
        for name, value in module.attributes.items():
            if isinstance(value, _Module):
                yield from self._tensors(value, f"{prefix}{name}.")
            elif isinstance(value, _Tensor) and (declared is None or name in declared):
                yield prefix + name, value

    def _declared(self, module: str) -> set[str] | None:
        """Names of a module's parameters and buffers; other tensors are attributes. None where the code is silent."""
        file, _, own = module.rpartition(".")
        name = f"code/{file.replace('.', '/')}.py"
        if self.root + name not in self.archive.namelist():
            return None
        code = self._text(name).decode()
        if "def __setstate__" in code:
            raise NotReadable(OWN_STATE)
        for found, parameters, buffers in _DECLARED.findall(code):
            if found == own:
                return set(re.findall(r'"([^"]*)"', f"{parameters} {buffers}"))
        return None

    def _storage(self, wanted: _Storage) -> torch.Tensor:
        """The values of a storage, [N]; each is read once."""
        if wanted not in self.storages:
            info = self.archive.getinfo(f"{self.root}data/{wanted.key}")
            if info.file_size != wanted.values * wanted.dtype.itemsize:
                raise NotReadable(
                    f"storage {wanted.key} has {info.file_size:,} bytes, not those of its {wanted.values:,} values"
                )
            values = bytearray(self.archive.read(info))
            self.storages[wanted] = (
                torch.frombuffer(values, dtype=wanted.dtype) if values else torch.empty(0, dtype=wanted.dtype)
            )
        return self.storages[wanted]
