"""A digest of a chain of transforms: another one when a setting of it, or the code that makes frames, is another.

What is kept under it is the caches' part.
"""

from __future__ import annotations

import functools
import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType
from typing import Any

import numpy as np
import torch
from monai.transforms import Compose
from monai.transforms.traits import RandomizableTrait

from monai_chd import __version__, dicom, hu_offset, nifti, scans, streaming, transforms
from monai_chd.errors import UserError
from monai_chd.versions import software_versions

_PLAIN = (type(None), bool, int, float, complex, str, bytes, type(...))
_DECISIVE = ("monai", "torch", "numpy")
"""Distributions whose version may change a frame."""


class _NoKeyError(Exception):
    """A value that cannot be told from another of its kind."""


def transform_key(transform: Compose) -> str:
    """Digest of a chain's transforms, all their settings, and the code that makes frames.

    Equal keys mean the same frames of a file. Settings are all that the transforms hold: numbers, arrays, dictionaries,
    functions (their code, defaults and what they close over) and other objects, however deep.

    Raises:
        UserError: a random transform, or one that holds what cannot be told from another, such as a generator.
    """
    return _hashed(code_key(), _setting_key(transform, ()), *map(_step_key, transform.transforms)).hex()


@functools.cache
def code_key(*packages: ModuleType) -> bytes:
    """Digest of the code that makes frames, and of the versions of what it rests on.

    Args:
        packages: further packages of this one whose code decides what is kept.
    """
    rooms = (transforms, dicom, scans, *packages)
    files = [path for room in rooms for path in sorted(Path(str(room.__file__)).parent.glob("*.py"))]
    files += [Path(str(module.__file__)) for module in (hu_offset, nifti, streaming)]
    versions = software_versions()
    return _hashed(__version__, *(versions[name] for name in _DECISIVE), *map(_file_key, files))


def value_key(value: Any, name: str) -> bytes:
    """Digest of a value by its content.

    Args:
        value: a setting of something.
        name: what to call it in an error.

    Raises:
        UserError: it holds what cannot be told from another of its kind.
    """
    try:
        return _key(value, ())
    except _NoKeyError as error:
        raise UserError(f"cache: {name} {error}; give it plain values, arrays or functions, or take no cache") from None


def _step_key(step: Any) -> bytes:
    return value_key(step, type(step).__name__)


def _hashed(*parts: str | bytes) -> bytes:
    digest = hashlib.sha256()
    for part in parts:
        content = part.encode() if isinstance(part, str) else part
        digest.update(len(content).to_bytes(8, "little") + content)
    return digest.digest()


def _key(value: Any, within: tuple[int, ...]) -> bytes:
    """Digest of a value; `within` are the ids of what holds it."""
    kind = type(value)
    if kind in _PLAIN:
        return _hashed(kind.__name__, repr(value))
    if id(value) in within:
        return _hashed("holder", str(len(within) - within.index(id(value))))
    return _hashed(f"{kind.__module__}.{kind.__qualname__}", *_parts(value, (*within, id(value))))


def _parts(value: Any, within: tuple[int, ...]) -> Iterator[str | bytes]:
    """What tells a value from others of its type."""
    kind = type(value)
    if kind in (list, tuple):
        yield from (_key(item, within) for item in value)
    elif kind is dict:
        yield from (_key(item, within) for pair in value.items() for item in pair)
    elif kind in (set, frozenset):
        yield from sorted(_key(item, within) for item in value)
    elif isinstance(value, np.ndarray):
        yield from (str(value.dtype), str(value.shape))
        yield _key(value.tolist(), within) if value.dtype.hasobject else value.tobytes()
    elif isinstance(value, torch.Tensor):
        yield from (str(value.dtype), str(tuple(value.shape)), _key(vars(value), within))
        yield value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    elif isinstance(value, (type, ModuleType)):
        yield from _named(value)
        yield from (part for parent in getattr(value, "__mro__", ()) for part in _named(parent))
    elif kind is Compose:
        yield _setting_key(value, within)
        yield from (_key(step, within) for step in value.transforms)
    elif isinstance(value, RandomizableTrait):
        raise _NoKeyError("is random, and one draw of it would be kept for ever")
    elif isinstance(value, FunctionType):
        yield from _function_parts(value, within)
    elif isinstance(value, BuiltinFunctionType):
        yield from (f"{value.__module__}.{value.__qualname__}", _key(value.__self__, within))
    else:
        yield from _object_parts(value, within)


def _setting_key(chain: Compose, within: tuple[int, ...]) -> bytes:
    """How a chain applies its transforms; its random state is for random ones, which are refused."""
    return _key([chain.map_items, chain.unpack_items, chain.lazy, chain.overrides], within)


def _object_parts(value: Any, within: tuple[int, ...]) -> Iterator[str | bytes]:
    """Class and state of an object, as `copy` takes them."""
    try:
        made = value.__reduce_ex__(2)
    except TypeError:
        raise _NoKeyError(f"holds a {type(value).__name__}, which cannot be told from another") from None
    if isinstance(made, str):
        yield made
        return
    function, arguments, state, items, pairs = (*made, None, None, None)[:5]
    yield from _named(function)
    yield from (_key(type(value), within), _key(arguments, within))
    # the order in which attributes came to be says nothing
    yield _key(dict(sorted(state.items())) if isinstance(state, dict) else state, within)
    yield from (_key(item, within) for item in (*(items or ()), *(pairs or ())))


def _function_parts(function: FunctionType, within: tuple[int, ...]) -> Iterator[str | bytes]:
    """Name, code, defaults and what is closed over; of what it names outside itself, the files or, in a notebook, the values."""
    yield from _named(function)
    yield from _code_parts(function.__code__, within)
    cells = [cell.cell_contents for cell in function.__closure__ or ()]
    yield _key([function.__defaults__, function.__kwdefaults__, cells], within)
    for name in sorted(_names(function.__code__) & function.__globals__.keys()):
        found = function.__globals__[name]
        if isinstance(found, (FunctionType, type, ModuleType)) and _file_of(found):
            yield from _named(found)
        elif not _file_of(function):
            yield _key(found, within)


def _code_parts(code: CodeType, within: tuple[int, ...]) -> Iterator[str | bytes]:
    yield code.co_code
    yield from (*code.co_names, *code.co_varnames, *code.co_freevars)
    for constant in code.co_consts:
        yield from _code_parts(constant, within) if isinstance(constant, CodeType) else [_key(constant, within)]


def _names(code: CodeType) -> set[str]:
    """Names that a function, or one within it, looks up outside itself."""
    return set(code.co_names).union(*(_names(inner) for inner in code.co_consts if isinstance(inner, CodeType)))


def _named(value: Any) -> Iterator[str | bytes]:
    """Name of a function, class or module, and the digest of the file it is from."""
    yield f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', '') or getattr(value, '__name__', '')}"
    if path := _file_of(value):
        yield _file_key(path)


def _file_of(value: Any) -> Path | None:
    module = value if isinstance(value, ModuleType) else sys.modules.get(getattr(value, "__module__", None) or "")
    path = Path(getattr(module, "__file__", None) or "")
    return path if path.suffix == ".py" and path.is_file() else None


@functools.cache
def _file_key(path: Path) -> bytes:
    return hashlib.sha256(path.read_bytes()).digest()
