"""The functional API replays what MindSpore's own Adamax did, step by step.

The trajectories were recorded from MindSpore by `tests/mindspore/record.py`, which says
what the files hold. Nothing here needs MindSpore.

Tolerance: 1e-6, about 8 units in the last place of float32, of

- the element's largest value in the whole run, for parameters: where a trajectory
  crosses zero, the rounding errors of the larger values before remain;
- the element's largest gradient, for m, which is a mean of gradients;
- the value itself, for u, whose maximum does not accumulate errors.

50 steps need it: each rounds the parameter to half a unit, and MindSpore computes
1 - beta1^t in float32, which by itself moves the first updates by 3e-7 at beta1 = 0.9
(2e-6 at 0.99). Measured on x86, compiled and op by op: 5.5e-7 for parameters, 1.5e-7
for m, 7.5e-8 for u, which agrees to the last bit in all cases but one.
"""

import json
from collections.abc import Hashable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adamax_optax as ao

DATA = Path(__file__).parents[1] / "data" / "mindspore"
OVERVIEW = json.loads((DATA / "cases.json").read_text())
STEPS = 50
TOLERANCE = 1e-6

CASES = (
    "defaults",
    "lr",
    "betas",
    "betas_beta1_above_beta2",
    "betas_near_one",
    "beta1_zero",
    "beta2_zero",
    "eps_large",
    "weight_decay",
    "maximize",
    "weight_decay_maximize",
    "two_groups",
    "shapes",
    "sparse_gradients",
    "small_gradients",
    "large_gradients",
    "mixed_gradients",
    "lr_change",
    "lr_scheduler",
    "nn_adamax",
    "nn_adamax_weight_decay",
)


class Recording(NamedTuple):
    """One recorded run. Lists have one entry per leaf, through all groups.

    Attributes:
      optimizer: `Adamax` (experimental) or `AdaMax` (`mindspore.nn`).
      groups: The hyperparameters of each group, and the numbers of its leaves.
      rates: The learning rates that each group used; shape (STEPS,) each.
      params: Initial values and those after every step; shape (STEPS + 1, ...) each.
      grads: The gradients; shape (STEPS, ...) each.
      exp_avg: m after the last step.
      exp_inf: u after the last step.
      step_t: The step count after the last step.
    """

    optimizer: str
    groups: list[dict[str, Any]]
    rates: list[np.ndarray]
    params: list[np.ndarray]
    grads: list[np.ndarray]
    exp_avg: list[np.ndarray]
    exp_inf: list[np.ndarray]
    step_t: int


def load(case: str) -> Recording:
    """Read a recorded run."""
    description = OVERVIEW["cases"][case]
    groups = description["groups"]
    leaves = [i for group in groups for i in group["leaves"]]
    with np.load(DATA / f"{case}.npz") as arrays:
        return Recording(
            optimizer=description["optimizer"],
            groups=groups,
            rates=[arrays[f"lr_{k}"] for k in range(len(groups))],
            params=[arrays[f"params_{i}"] for i in leaves],
            grads=[arrays[f"grads_{i}"] for i in leaves],
            exp_avg=[arrays[f"exp_avg_{i}"] for i in leaves],
            exp_inf=[arrays[f"exp_inf_{i}"] for i in leaves],
            step_t=int(arrays["step_t"]),
        )


def port(recording: Recording) -> optax.GradientTransformation:
    """Build the run's optimizer from ours: one transformation for each group."""
    groups: dict[Hashable, optax.GradientTransformation]
    groups = {str(k): port_group(recording, k) for k in range(len(recording.groups))}
    if len(groups) == 1:
        return groups["0"]
    labels = [str(k) for k, g in enumerate(recording.groups) for _ in g["leaves"]]
    return optax.partition(groups, labels)


def port_group(recording: Recording, k: int) -> optax.GradientTransformation:
    """Build the optimizer of group k."""
    group, rates = recording.groups[k], recording.rates[k]
    rates_by_step = jnp.asarray(rates)
    b1, b2 = group["betas"]
    # `mindspore.nn.AdaMax` has its epsilon outside the maximum.
    inside = recording.optimizer == "Adamax"
    return ao.adamax(
        group["lr"] if np.ptp(rates) == 0 else lambda count: rates_by_step[count],
        b1,
        b2,
        group["eps"] if inside else 0.0,
        group["weight_decay"],
        maximize=group["maximize"],
        eps_outside=0.0 if inside else group["eps"],
    )


def replay(
    optimizer: optax.GradientTransformation, recording: Recording
) -> tuple[list[jax.Array], optax.OptState]:
    """Run the optimizer over the recorded gradients.

    Args:
      optimizer: The transformation to run.
      recording: Whose initial values and gradients to use.

    Returns:
      The parameters after every step, shape (STEPS, ...) for each leaf, and the final
      state.
    """

    def step(carry, gradients):
        params, state = carry
        updates, state = optimizer.update(gradients, state, params)
        params = optax.apply_updates(params, updates)
        return (params, state), params

    initial = [jnp.asarray(values[0]) for values in recording.params]
    carry = (initial, optimizer.init(initial))
    (_, state), trajectory = jax.lax.scan(
        step, carry, [jnp.asarray(values) for values in recording.grads]
    )
    return trajectory, state


def fields(state: optax.OptState, name: str) -> list[jax.Array]:
    """Return the leaves of all fields of this name in the state, group by group."""
    found = optax.tree_utils.tree_get_all_with_path(state, name)
    return jax.tree.leaves([value for _, value in found])


def largest(values: np.ndarray) -> np.ndarray:
    """Return each element's largest modulus over the steps; shape (...) of (n, ...)."""
    return np.abs(values).max(axis=0)


def assert_within(
    actual: list[jax.Array], expected: list[np.ndarray], scale: list[np.ndarray]
) -> None:
    """Assert that the leaves agree, within TOLERANCE times the scale of the element.

    Args:
      actual: Our leaves.
      expected: MindSpore's.
      scale: For each leaf what rounding is relative to; broadcasts to the leaf.
    """
    for i, (ours, theirs, size) in enumerate(zip(actual, expected, scale, strict=True)):
        assert ours.shape == theirs.shape
        assert ours.dtype == theirs.dtype
        # In float64, so that the comparison itself neither rounds nor overflows.
        error = np.abs(np.asarray(ours, np.float64) - np.asarray(theirs, np.float64))
        excess = error - TOLERANCE * np.asarray(size, np.float64)
        worst = tuple(map(int, np.unravel_index(np.argmax(excess), excess.shape)))
        assert excess[worst] <= 0, (
            f"leaf {i}, index {worst}: {ours[worst]} instead of {theirs[worst]}"
        )


@pytest.mark.parametrize("case", CASES)
def test_replays_mindspore(case):
    recording = load(case)
    trajectory, state = replay(port(recording), recording)

    assert_within(
        trajectory,
        [values[1:] for values in recording.params],
        [largest(values) for values in recording.params],
    )
    assert_within(
        fields(state, "mu"), recording.exp_avg, [largest(g) for g in recording.grads]
    )
    assert_within(fields(state, "nu"), recording.exp_inf, recording.exp_inf)
    # A schedule has a count as well.
    assert {int(count) for count in fields(state, "count")} == {recording.step_t}


def test_recordings_are_all_there():
    assert OVERVIEW["mindspore"] == "2.10.0"
    assert OVERVIEW["steps"] == STEPS
    assert set(OVERVIEW["cases"]) == set(CASES)
    assert {path.stem for path in DATA.glob("*.npz")} == set(CASES)


@pytest.mark.parametrize("case", CASES)
def test_recording_is_whole(case):
    recording = load(case)
    assert recording.step_t == STEPS
    assert [rates.shape for rates in recording.rates] == [(STEPS,)] * len(
        recording.groups
    )
    for params, grads, exp_avg, exp_inf in zip(
        recording.params,
        recording.grads,
        recording.exp_avg,
        recording.exp_inf,
        strict=True,
    ):
        assert params.shape == (STEPS + 1, *exp_avg.shape)
        assert grads.shape == (STEPS, *exp_avg.shape)
        assert exp_inf.shape == exp_avg.shape
        for values in (params, grads, exp_avg, exp_inf):
            assert values.dtype == np.float32
            assert np.isfinite(values).all()
