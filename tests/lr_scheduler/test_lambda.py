"""Schedulers given as functions."""

import functools
import math
import pickle

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adamax_optax import lr_scheduler
from tests.lr_scheduler.scheduler_settings import LAMBDAS, Groups, Rate


def test_callable_objects_are_saved_and_functions_are_not():
    fns = [Rate(0.5), lambda t: 0.5**t, math.exp, jax.jit(jnp.exp)]
    fns.append(functools.partial(pow, 0.5))
    scheduler = lr_scheduler.LambdaLR(Groups(*[1.0] * 5), fns)
    state = scheduler.state_dict()
    assert state["lr_lambdas"] == [{"rate": 0.5}, None, None, None, {}]
    state = pickle.loads(pickle.dumps(state))
    fns = [Rate(0.1), *fns[1:]]
    other = lr_scheduler.LambdaLR(Groups(*[1.0] * 5), fns)
    other.load_state_dict(state)
    assert other.lr_lambdas == fns
    assert fns[0].rate == 0.5

    cyclic = lr_scheduler.CyclicLR(Groups(1.0), 0.1, 0.2, scale_fn=Rate(0.5))
    state = pickle.loads(pickle.dumps(cyclic.state_dict()))
    assert state["_scale_fn_custom"] == {"rate": 0.5}
    rate = Rate(0.1)
    lr_scheduler.CyclicLR(Groups(1.0), 0.1, 0.2, scale_fn=rate).load_state_dict(state)
    assert rate.rate == 0.5


def test_a_group_added_later_starts_from_its_own_lr():
    optimizer = Groups(0.1)
    scheduler = lr_scheduler.LambdaLR(optimizer, Rate(0.5))
    optimizer.param_groups.append({"lr": 0.8})
    scheduler.step()
    assert optimizer.lrs() == [0.05, 0.4]
    optimizer.param_groups.append({"lr": 0.1, "initial_lr": 0.4})
    scheduler.step()
    assert optimizer.lrs() == [0.025, 0.2, 0.1]


def test_lambdas_are_called_with_python_numbers():
    seen = []

    def note(t):
        seen.append(t)
        return 1.0

    scheduler = lr_scheduler.LambdaLR(Groups(0.5), note)
    scheduler.step()
    scheduler.step(np.int32(7))
    assert seen == [0, 1, 7]
    assert {type(t) for t in seen} == {int}


@hypothesis.settings(max_examples=5)
@hypothesis.given(LAMBDAS)
def test_one_function_per_group(fn):
    scheduler = lr_scheduler.LambdaLR(Groups(0.5, 0.25), [fn, lambda t: 1.0])
    scheduler.step()
    assert scheduler.get_last_lr() == [0.5 * fn(1), 0.25]


@pytest.mark.parametrize("kind", ["LambdaLR", "MultiplicativeLR"])
def test_a_late_group_is_restored(kind):
    def made(*lrs):
        optimizer = Groups(0.1)
        scheduler = getattr(lr_scheduler, kind)(optimizer, lambda t: 0.9)
        optimizer.param_groups += [{"lr": lr} for lr in lrs]
        return optimizer, scheduler

    optimizer, scheduler = made(0.2)
    scheduler.step()
    again, other = made(optimizer.param_groups[1]["lr"])
    other.load_state_dict(scheduler.state_dict())
    assert other.state_dict() | {"_group_lrs": []} == (
        scheduler.state_dict() | {"_group_lrs": []}
    )
    again.param_groups[:] = map(dict, optimizer.param_groups)
    scheduler.step()
    other.step()
    assert again.param_groups == optimizer.param_groups
    with pytest.raises(ValueError, match="must have at most 1 entries"):
        made()[1].load_state_dict(scheduler.state_dict())
