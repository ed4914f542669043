"""Runs that change between this package and PaddlePaddle 3.3 in the middle.

What PaddlePaddle did was recorded by `tests/paddle/record_interop.py`, and what it was
given of ours saved by `tests/paddle/save_interop.py`. Nothing here needs PaddlePaddle.
Tolerance: see `runs.assert_close`.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adamax_optax as ao
from adamax_optax.interop import from_paddle, to_paddle
from tests.interop.runs import assert_close, refusal, run
from tests.paddle.save_interop import (
    convert_from_flax,
    convert_to_flax,
    in_flax,
    in_paddle,
    load,
    names,
    ours,
    steps_of,
    transformation,
)


def test_goes_on_here():
    recorded = load("interop_from")
    tx, params = transformation(), in_flax(recorded["params"])
    state = from_paddle(
        recorded["state"],
        tx.init(jax.tree.map(jnp.asarray, params)),
        order=names(),
        convert=convert_to_flax,
        b1=0.85,
    )
    assert optax.tree_utils.tree_get(state, "count") == 10
    params, _ = run(tx, params, state, steps_of(recorded["gradients"]))
    assert_close(params, in_flax(recorded["end"]))


def test_goes_on_in_paddle():
    params, state, later = ours()
    # It is the run that PaddlePaddle was given …
    saved = to_paddle(state, order=names(), convert=convert_from_flax, b1=0.85)
    assert_close(saved, load("interop_ours")["state"])
    # … and PaddlePaddle ended where ours does.
    params, _ = run(transformation(), params, state, steps_of(later))
    assert_close(in_paddle(params), load("interop_to")["end"])


def saved_after(steps, b1=0.9):
    """Return a state dict whose power is what float32 makes of it."""
    power = np.float32(b1)
    for _ in range(steps):
        power = power * np.float32(b1)
    arrays = {"w_moment_3": np.ones(2), "w_inf_norm_3": np.ones(2)}
    return {**arrays, "w_beta1_pow_acc_3": np.float32([power]), "LR_Scheduler": {}}


@pytest.mark.parametrize(
    ("steps", "b1"),
    [(0, 0.9), (1, 0.9), (500, 0.9), (828, 0.9), (50_000, 0.999), (0, 0.0)],
)
def test_steps_follow_from_the_power(steps, b1):
    fresh = ao.adamax().init({"w": jnp.ones(2)})
    state = from_paddle(saved_after(steps, b1), fresh, b1=b1)
    assert optax.tree_utils.tree_get(state, "count") == steps
    again = from_paddle(to_paddle(state, b1=b1), fresh, b1=b1)
    assert optax.tree_utils.tree_get(again, "count") == steps


def test_steps_stay_where_the_power_is_0():
    fresh = ao.adamax().init({"w": jnp.ones(2)})
    state = from_paddle(saved_after(2000), fresh)
    assert optax.tree_utils.tree_get(state, "count") == 828


def test_steps_of_each_parameter_in_the_class():
    optimizer = ao.Adamax([jnp.ones(2), jnp.ones(3), jnp.ones(1)])
    optimizer([jnp.ones(2), jnp.ones(3), None])
    optimizer([jnp.ones(2), None, None])
    saved = to_paddle(optimizer.state_dict())
    assert "2_moment_0" not in saved  # it took no step
    np.testing.assert_allclose(saved["0_beta1_pow_acc_0"], [0.9**3], rtol=1e-6)
    fresh = ao.Adamax([jnp.ones(2), jnp.ones(3), jnp.ones(1)]).state_dict()
    message = refusal(lambda: from_paddle(saved, fresh, order=["0", "1"]))
    assert "there is nothing for the leaves ['2']" in message
    order = {name: name for name in "012"}
    state = from_paddle(saved, fresh, order=order)["state"]
    assert {key: int(entry["step"]) for key, entry in state.items()} == {0: 2, 1: 1}


def test_what_does_not_fit():
    fresh = ao.adamax().init({"w": jnp.ones(2)})
    for power in (saved_after(3, 0.95), saved_after(3, 0.8)):
        message = refusal(lambda power=power: from_paddle(power, fresh))
        assert "'w_beta1_pow_acc' must be a power of b1=0.9" in message
    for power in (np.nan, -1.0, 1.0):
        saved = {**saved_after(3), "w_beta1_pow_acc_3": np.float32([power])}
        assert "must be a power of b1=0.9" in refusal(
            lambda saved=saved: from_paddle(saved, fresh)
        )
    saved = {key: v for key, v in saved_after(3).items() if "pow" not in key}
    assert "there is no 'w_beta1_pow_acc'" in refusal(lambda: from_paddle(saved, fresh))
    saved = {"w_moment_0": np.ones(2)}
    assert "there is no 'w_inf_norm'" in refusal(lambda: from_paddle(saved, fresh))
    assert "b1 must be" in refusal(lambda: from_paddle(saved, fresh, b1=1.0))
    assert "b1 must be" in refusal(lambda: to_paddle(fresh, b1=-1.0))
