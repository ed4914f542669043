"""Collections of arrays in which the moments have names: MindSpore's and Keras'."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from adamax_optax.interop._arrays import to_numpy, whole_number
from adamax_optax.interop._entry import Betas, Entry


class Words(NamedTuple):
    """What an optimizer calls its arrays.

    Attributes:
      step: The step count.
      mu: m; ``{}`` stands for the parameter's name.
      nu: u, in the same way.
    """

    step: str
    mu: str
    nu: str


def parameters(names: Iterable[str], words: Words) -> list[str]:
    """Return the names of the parameters that have moments, in order."""
    found = []
    for word in (words.mu, words.nu):
        prefix, suffix = word.split("{}")
        found += [
            name.removeprefix(prefix).removesuffix(suffix)
            for name in names
            if name.startswith(prefix) and name.endswith(suffix)
        ]
    return list(dict.fromkeys(found))


def read_named(
    values: Mapping[str, Any], words: Words, betas: Betas, problems: list[str]
) -> dict[str, Entry]:
    """Return the entries in a collection of arrays, by the parameters' names.

    Args:
      values: The collection; there may be other things in it.
      words: What is what.
      betas: The decay rates.
      problems: What is missing or is no step count is added here.
    """
    names = parameters(values, words)
    arrays = {name: [word.format(name) for word in words[1:]] for name in names}
    wanted = [words.step, *(array for pair in arrays.values() for array in pair)]
    problems += [f"there is no {array!r}" for array in wanted if array not in values]
    if not names:
        problems.append(f"there are no arrays {words.mu!r} and {words.nu!r}")
    step = 0
    try:
        step = whole_number(values.get(words.step, step))
    except ValueError as error:
        problems.append(f"{words.step!r} {error}")
    return {
        name: Entry(step, to_numpy(values[mu]), to_numpy(values[nu]), betas)
        for name, (mu, nu) in arrays.items()
        if mu in values and nu in values
    }
