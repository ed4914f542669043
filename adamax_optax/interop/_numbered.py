"""State dicts, in which parameters have numbers: PyTorch's and the class Adamax's."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from adamax_optax.interop._arrays import to_numpy, whole_number
from adamax_optax.interop._entry import DEFAULT_BETAS, Betas, Entry
from adamax_optax.interop._names import check_distinct, refuse

KEYS = ("step", "exp_avg", "exp_inf")


class StateDict:
    """The state dict of `adamax_optax.Adamax`.

    Its leaves have the names under ``"param_names"``, as those of
    `torch.optim.Adamax` may, or else their numbers.

    Attributes:
      names: The names of the leaves.
      ordered: Whether their order means something; it does.
    """

    ordered = True

    def __init__(self, state_dict: Mapping[str, Any]) -> None:
        """Take a state dict.

        Raises:
          ValueError: If two leaves have the same name.
        """
        self._state_dict = state_dict
        self._keys, names = parameters(state_dict)
        self.names = [names.get(key, str(key)) for key in self._keys]
        check_distinct(self.names)

    def read(self, betas: Mapping[str, Betas]) -> dict[str, Entry]:
        """Return the entries of the leaves that have one.

        Args:
          betas: Not needed: the moments are decoded.

        Raises:
          ValueError: If something is missing or is no step count.
        """
        del betas
        problems: list[str] = []
        entries = read_entries(self._state_dict, str, problems)
        refuse("The state", problems)
        names = zip(self._keys, self.names, strict=True)
        return {name: entries[key] for key, name in names if key in entries}

    def write(
        self, entries: Mapping[str, Entry], what: str, problems: list[str]
    ) -> dict[str, Any]:
        """Return the state dict with other moments and counts, and the same options.

        Shapes are `adamax_optax.Adamax.load_state_dict`'s to check: before its first
        step the class saves no arrays to compare with.

        Args:
          entries: Those of the leaves that took steps.
          what: The subject of the error.
          problems: What did not fit so far.

        Raises:
          ValueError: If there are problems.
        """
        refuse(what, problems)
        state = {
            key: {
                "step": jnp.asarray(entries[name].step, jnp.float32),
                "exp_avg": jnp.array(entries[name].mu),
                "exp_inf": jnp.array(entries[name].nu),
            }
            for key, name in zip(self._keys, self.names, strict=True)
            if name in entries
        }
        return {"state": state, "param_groups": self._state_dict["param_groups"]}


def is_state_dict(x: Any) -> bool:
    """Whether something has the layout of PyTorch's state dicts."""
    return isinstance(x, Mapping) and {"state", "param_groups"} <= set(x)


def require_state_dict(x: Any) -> None:
    """Raise unless something has the layout of PyTorch's state dicts.

    Raises:
      ValueError: If it has not.
    """
    if not is_state_dict(x):
        raise ValueError(
            "A state dict must have the keys 'state' and 'param_groups', got "
            f"{list(x) if isinstance(x, Mapping) else x!r}."
        )


def parameters(
    state_dict: Mapping[str, Any],
) -> tuple[list[Any], dict[Any, str]]:
    """Return the parameters of a state dict, in order, and what names they have.

    PyTorch numbers them, and knows the names of those that came from
    `named_parameters`; what it gathers from several processes has names for numbers.
    """
    keys: list[Any] = []
    names: dict[Any, str] = {}
    for group in state_dict["param_groups"]:
        own = list(map(number_of, group["params"]))
        keys += own
        names.update(zip(own, group.get("param_names", ()), strict=False))
    names.update({key: key for key in keys if isinstance(key, str)})
    return keys, names


def rates(groups: Iterable[Mapping[str, Any]]) -> dict[Any, Betas]:
    """Return the decay rates of the parameters in groups."""
    found = {}
    for group in groups:
        # Each may be an array of one element.
        b1, b2 = (float(np.reshape(b, ())) for b in group.get("betas", DEFAULT_BETAS))
        found.update(dict.fromkeys(map(number_of, group["params"]), (b1, b2)))
    return found


def read_entries(
    state_dict: Mapping[str, Any],
    label: Callable[[Any], str],
    problems: list[str],
) -> dict[Any, Entry]:
    """Return the entries in a state dict, by the keys of their parameters.

    Args:
      state_dict: The dict.
      label: What messages call a parameter.
      problems: What is missing, left over or no step count is added here.
    """
    saved = {number_of(key): entry for key, entry in state_dict["state"].items()}
    betas = rates(state_dict["param_groups"])
    if surplus := [key for key in saved if key not in betas]:
        problems.append(f"the saved state has entries for {surplus}, in no group")
    entries = {}
    for key, entry in saved.items():
        if key not in betas:
            continue
        if missing := [name for name in KEYS if name not in entry]:
            problems.append(
                f"the saved state of {label(key)} lacks {missing}; it has {list(entry)}"
            )
            continue
        try:
            step = whole_number(entry["step"])
        except ValueError as error:
            problems.append(f"the saved step of {label(key)} {error}")
            continue
        mu, nu = (to_numpy(entry[name]) for name in KEYS[1:])
        entries[key] = Entry(step, mu, nu, betas[key])
    return entries


def number_of(key: Any) -> Any:
    """Return the key of a parameter in a state dict as PyTorch has it."""
    # Numbers become strings in JSON, and arrays where all of a tree is made arrays.
    if isinstance(key, str):
        return int(key) if key.isdecimal() else key
    return int(key)
