r"""Pickles of plain data, read without an unpickler, because an unpickler calls what it is told to.

A pickle is a program for a machine with a stack and a memo. Here is that machine with nothing in it
but data: numbers, strings, bytes, lists, tuples, dictionaries, and the few calls that an array of
bytes and a byte string are written as, which are carried out by hand. Everything else is refused
where it stands. Protocols 0 to 5, as Python 2 and 3 write them.

Every list, dictionary and tuple has one place: nothing contains itself, and a short file cannot
stand for a long structure. Claimed lengths allocate nothing: what is longer than the file is cut
short.
"""

import codecs
import io
import math
import pickletools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

_BY_CODE = {operation.code.encode("latin1"): operation for operation in pickletools.opcodes}
_CORE = ("numpy.core", "numpy._core")

# Names that may stand in a pickle, by what they do; none is imported.
_KNOWN: dict[str, str] = {
    **{f"{core}.multiarray _reconstruct": "an array" for core in _CORE},
    **{f"{core}.numeric _frombuffer": "a buffer" for core in _CORE},
    "numpy ndarray": "its type",
    "numpy dtype": "a dtype",
    "_codecs encode": "bytes",  # as Python 3 writes them in the protocols of Python 2
}


class RefusedError(Exception):
    """What the pickle asks for is not plain data."""


class _Name:
    """One of the known names."""

    def __init__(self, role: str) -> None:
        self.role = role


class _Dtype:
    """The dtype of bytes."""


class _Array:
    """An array, whose content comes after it; ``None`` until then."""

    content: np.ndarray | None = None


def plain_pickle(content: bytes, path: Path | str) -> Any:
    """Return what a pickle holds: dictionaries, lists, numbers, strings, bytes, arrays of bytes.

    Tuples come back as tuples, byte strings of Python 2 as bytes.

    Raises:
        ValueError: The pickle is cut short, or asks for anything else; nothing of it was run.
    """
    try:
        return _Machine().run(content)
    except RefusedError as error:
        raise ValueError(f"{path}: refused: {error}.") from None
    except Exception as error:  # a broken pickle raises nearly anything
        what = f"{type(error).__name__}: {str(error)[:200]}"
        raise ValueError(f"{path}: not a whole pickle of plain data: {what}.") from None


def _operations(content: bytes) -> Iterator[tuple[str, Any]]:
    """Yield the name of each operation and its argument."""
    stream = io.BytesIO(content)
    while code := stream.read(1):
        operation = _BY_CODE.get(code)
        if operation is None:
            raise ValueError(f"no pickle has the operation {code!r}")
        if operation.name == "STRING":  # pickletools reads ASCII only
            yield operation.name, _quoted(stream.readline())
        else:
            yield operation.name, operation.arg and operation.arg.reader(stream)
        if operation.name == "STOP":
            return
    raise EOFError("it ends before its end mark")


def _quoted(line: bytes) -> bytes:
    quoted = line.removesuffix(b"\n")
    if len(quoted) < 2 or quoted[:1] not in (b"'", b'"') or quoted[-1:] != quoted[:1]:
        raise ValueError("a string must be quoted")
    return codecs.escape_decode(quoted[1:-1])[0]  # pyright: ignore


class _Machine:
    """The stack, and what was put aside to be used again."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marks: list[int] = []  # heights of the stack
        self.memo: dict[int, Any] = {}

    def run(self, content: bytes) -> Any:
        """Return the value that the operations leave on the stack."""
        for name, argument in _operations(content):
            if name in _CONSTANTS:
                self.stack.append(_CONSTANTS[name])
            elif name in _LITERALS:
                self.stack.append(_LITERALS[name](argument))
            elif name in _BUILDERS:
                _BUILDERS[name](self, argument)
            elif name not in ("PROTO", "FRAME", "STOP"):
                raise RefusedError(f"the operation {name} makes no plain data")
        if len(self.stack) != 1 or self.marks:
            raise ValueError(f"one value must be left, got {len(self.stack)}")
        return _finished(self.pop())

    def pop(self) -> Any:
        """Take the value on top, of those since the last mark."""
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise IndexError("the stack is empty")
        return self.stack.pop()

    def top(self, kind: type) -> Any:
        """Return the value on top, which must be of a type."""
        value = self.pop()
        self.stack.append(value)
        if type(value) is not kind:
            raise RefusedError(f"{type(value).__name__} cannot be filled like a {kind.__name__}")
        return value

    def since_mark(self) -> list[Any]:
        """Take all values since the last mark."""
        start = self.marks.pop()
        values = self.stack[start:]
        del self.stack[start:]
        return values

    def take(self, count: int) -> list[Any]:
        """Take so many values, the lowest first."""
        return [self.pop() for _ in range(count)][::-1]

    # Operations.

    def mark(self, _: Any) -> None:
        self.marks.append(len(self.stack))

    def put(self, index: Any) -> None:
        value = self.pop()
        self.stack.append(value)
        self.memo[len(self.memo) if index is None else int(index)] = value

    def get(self, index: Any) -> None:
        value = self.memo[int(index)]
        if isinstance(value, list | dict | tuple):
            raise RefusedError(f"a {type(value).__name__} may stand in one place only")
        self.stack.append(value)

    def extend(self, values: list[Any]) -> None:
        self.top(list).extend(map(_finished, values))

    def fill(self, values: list[Any]) -> None:
        target = self.top(dict)
        for key, value in zip(values[::2], values[1::2], strict=True):
            if type(key) not in (str, bytes):
                raise RefusedError(f"a key must be a string, got {type(key).__name__}")
            target[key] = _finished(value)

    def new_dict(self, values: list[Any]) -> None:
        self.stack.append({})
        self.fill(values)

    def name(self, qualified: str) -> None:
        if qualified not in _KNOWN:
            raise RefusedError(f"the pickle wants {qualified.replace(' ', '.')[:200]}, only "
                               "arrays may be")  # fmt: skip
        self.stack.append(_Name(_KNOWN[qualified]))

    def name_on_stack(self, _: Any) -> None:
        module, name = self.take(2)
        if type(module) is not str or type(name) is not str:
            raise RefusedError("a name must be a string")
        self.name(f"{module} {name}")

    def call(self, _: Any) -> None:
        function, arguments = self.take(2)
        role = function.role if isinstance(function, _Name) else ""
        if role not in _CALLS or type(arguments) is not tuple:
            raise RefusedError(f"{role or type(function).__name__} cannot be called")
        self.stack.append(_CALLS[role](*arguments))

    def build(self, _: Any) -> None:
        target, state = self.take(2)
        self.stack.append(target)
        if isinstance(target, _Dtype):
            return  # byte order and alignment: bytes have none
        if not isinstance(target, _Array) or type(state) is not tuple or len(state) != 5:
            raise RefusedError(f"{type(target).__name__.strip('_').lower()} has no state")
        _, shape, dtype, fortran_order, content = state
        target.content = _filled(content, dtype, shape, fortran_order)


def _finished(value: Any) -> Any:
    """Return a value as it goes into others: an array with its content."""
    if isinstance(value, _Array) and value.content is not None:
        return value.content
    if type(value) is tuple:
        return tuple(map(_finished, value))
    if value is None or type(value) in _PLAIN:
        return value
    raise RefusedError(f"{type(value).__name__.strip('_').lower()} is not plain data")


_PLAIN = frozenset({bytes, bytearray, str, int, float, bool, list, dict})


# The calls.


def _dtype(name: Any = None, *_: Any) -> _Dtype:
    if name not in ("u1", b"u1", "uint8", b"uint8"):
        raise RefusedError(f"arrays must be of u1, got {str(name)[:20]!r}")
    return _Dtype()


def _encoded(text: Any = None, encoding: Any = None) -> bytes:
    if type(text) is not str or encoding not in ("latin1", b"latin1"):
        raise RefusedError(f"text must be encoded as latin1, got {str(encoding)[:20]!r}")
    return text.encode("latin1")


def _filled(content: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray:
    """Return bytes as an array; ``order`` is false or ``C``."""
    if type(content) not in (bytes, bytearray) or not isinstance(dtype, _Dtype):
        raise RefusedError("an array must be bytes")
    if order is not False and order not in ("C", b"C"):
        raise RefusedError("an array must be in C order")
    sizes = shape if type(shape) is tuple and len(shape) <= 4 else ()
    if not all(type(size) is int and 0 <= size < 2**31 for size in sizes) or (
        math.prod(sizes) != len(content)
    ):
        raise RefusedError(f"an array of {len(content)} bytes cannot have the shape that is said")
    return np.frombuffer(bytes(content), np.uint8).reshape(sizes)


def _buffer(content: Any = None, dtype: Any = None, shape: Any = None, order: Any = None) -> _Array:
    array = _Array()
    array.content = _filled(content, dtype, shape, order)
    return array


_CALLS: dict[str, Callable[..., Any]] = {
    "an array": lambda *_: _Array(),
    "a buffer": _buffer,
    "a dtype": _dtype,
    "bytes": _encoded,
}

# The operations by their names in pickletools.

_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_LITERALS: dict[str, Callable[[Any], Any]] = {
    **{
        name: lambda value: value
        for name in (
            *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
            *("STRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
            *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
        )
    },
    **{
        name: lambda value: value.encode("latin1") for name in ("BINSTRING", "SHORT_BINSTRING")
    },  # bytes, which pickletools shows as text
}
_BUILDERS: dict[str, Callable[[_Machine, Any], None]] = {
    "MARK": _Machine.mark,
    **{name: _Machine.put for name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE")},
    **{name: _Machine.get for name in ("GET", "BINGET", "LONG_BINGET")},
    "EMPTY_LIST": lambda machine, _: machine.stack.append([]),
    "LIST": lambda machine, _: machine.stack.append([*map(_finished, machine.since_mark())]),
    "APPEND": lambda machine, _: machine.extend(machine.take(1)),
    "APPENDS": lambda machine, _: machine.extend(machine.since_mark()),
    "EMPTY_DICT": lambda machine, _: machine.stack.append({}),
    "DICT": lambda machine, _: machine.new_dict(machine.since_mark()),
    "SETITEM": lambda machine, _: machine.fill(machine.take(2)),
    "SETITEMS": lambda machine, _: machine.fill(machine.since_mark()),
    "EMPTY_TUPLE": lambda machine, _: machine.stack.append(()),
    "TUPLE": lambda machine, _: machine.stack.append(tuple(machine.since_mark())),
    **{
        f"TUPLE{count}": lambda machine, _, count=count: machine.stack.append(
            tuple(machine.take(count))
        )
        for count in (1, 2, 3)
    },
    "GLOBAL": _Machine.name,
    "STACK_GLOBAL": _Machine.name_on_stack,
    "REDUCE": _Machine.call,
    "BUILD": _Machine.build,
}
