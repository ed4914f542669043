"""Read from XLA's text of a compiled step what it runs and what it moves."""

import re
from collections import Counter
from typing import NamedTuple

# No operations: they name, or wait for, what another one makes.
_NAMES = {
    *("parameter", "constant", "bitcast", "tuple", "get-tuple-element"),
    *("partition-id", "replica-id", "after-all", "opt-barrier"),
}
_COLLECTIVE = re.compile("all-|reduce-scatter|collective-|ragged-")
# Their bytes are those of programs that they call.
_UNREADABLE = {"call", "while", "conditional", "async-start", "custom-call"}

# A TPU's parts of an array, side by side on the chip, are the array.
_JOINS = 'custom_call_target="ConcatBitcast"'

_INSTRUCTION = re.compile(r"(?:ROOT )?%(\S+) = (\(.*?\)|\S+) ([a-z][\w-]*)\((.*)")
_ARRAY = re.compile(r"([a-z]+)(\d*)\w*\[([\d,]*)\](?:\{([^}]*)\})?")


class Program(NamedTuple):
    """What one device does in a step.

    Attributes:
      kernels: Operations on arrays, except asynchronous copies and collectives.
      small: Operations on single numbers, such as the step count.
      bytes: Bytes of main memory that all of them and copies read and write.
      collectives: The number of each kind of communication between devices.
      received: Bytes that a device has from them.
    """

    kernels: int
    small: int
    bytes: int
    collectives: dict[str, int]
    received: int


class _Array(NamedTuple):
    size: int
    width: int
    on_chip: bool

    @property
    def bytes(self) -> int:
        """Bytes of main memory."""
        return 0 if self.on_chip else self.size * self.width


class _Instruction(NamedTuple):
    name: str
    result: list[_Array]
    operation: str
    operands: list[str]
    line: str


def read(text: str, small: int = 1) -> Program:
    """Return what a program does.

    Args:
      text: The optimized module: `compiled.as_text()`.
      small: Arrays of up to this many elements count as single numbers.

    Raises:
      ValueError: If it has an operation whose bytes this cannot tell.
    """
    computations = _computations(text)
    arrays: dict[str, list[_Array]] = {}
    kernels = numbers = moved = received = 0
    collectives: Counter[str] = Counter()
    for instruction in computations["ENTRY"]:
        name, result, operation, operands, line = instruction
        arrays[name] = result
        if operation in _NAMES or operation.endswith("-done") or _JOINS in line:
            continue
        if operation in _UNREADABLE:
            raise ValueError(f"Cannot tell how many bytes this moves: {line}")
        if operation == "copy-start":
            target, source, _ = result
            moved += source.bytes + target.bytes
            continue
        if operation == "slice-start":
            source, target, _ = result
            moved += _slice_bytes(source, target) + target.bytes
            continue
        if _COLLECTIVE.match(operation):
            collectives[operation.removesuffix("-start")] += 1
            if operation.endswith("-start"):
                result = result[len(result) // 2 :]  # after the operands
            received += sum(array.size * array.width for array in result)
            continue
        sources = [array for operand in operands for array in arrays[operand]]
        moved += sum(array.bytes for array in result)
        called = re.search(r"calls=%([\w.-]+)", line)
        inner = computations[called[1]] if called else []
        moved += sum(_bytes_read(x, k, inner) for k, x in enumerate(sources))
        large = max(array.size for array in (*sources, *result)) > small
        kernels, numbers = kernels + large, numbers + (not large)
    return Program(kernels, numbers, moved, dict(collectives), received)


def _computations(text: str) -> dict[str, list[_Instruction]]:
    """Return the instructions of each computation, by its name or "ENTRY"."""
    found = {}
    for block in re.finditer(r"^(ENTRY )?%(\S+) .*\{\n((?:  .*\n)*)\}", text, re.M):
        name = "ENTRY" if block[1] else block[2]
        found[name] = [_instruction(line.strip()) for line in block[3].splitlines()]
    return found


def _instruction(line: str) -> _Instruction:
    match = _INSTRUCTION.match(line)
    if not match:
        raise ValueError(f"Cannot read the instruction: {line}")
    name, result, operation, rest = match.groups()
    operands = re.findall(r"%([\w.-]+)", rest.partition(")")[0])
    arrays = [_array(*parts) for parts in _ARRAY.findall(result)]
    return _Instruction(name, arrays, operation, operands, line)


def _array(kind: str, bits: str, shape: str, layout: str) -> _Array:
    size = 1
    for length in filter(None, shape.split(",")):
        size *= int(length)
    width = 1 if kind == "pred" else int(bits) // 8
    # S(1) and so on are memories on the chip, such as the vector memory of a TPU.
    return _Array(size, width, "S(" in layout)


def _bytes_read(source: _Array, number: int, fusion: list[_Instruction]) -> int:
    """Return how much of an operand a fusion reads: of some, only slices."""
    names = [x.name for x in fusion if f" parameter({number})" in x.line]
    users = [x for x in fusion if set(names) & set(x.operands)]
    if not names or not all(_slices(x, names[0]) for x in users):
        return source.bytes
    return sum(_slice_bytes(source, x.result[0]) for x in users)


def _slices(user: _Instruction, name: str) -> bool:
    return user.operation in ("slice", "dynamic-slice") and user.operands[0] == name


def _slice_bytes(source: _Array, part: _Array) -> int:
    return 0 if source.on_chip else part.size * part.width
