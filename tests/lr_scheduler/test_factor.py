"""The factor classes where PyTorch and MindSpore are not the reference."""

import collections
import json

import numpy as np

from adamax_optax import lr_scheduler
from tests.lr_scheduler.scheduler_settings import Groups, run


def test_zero_iterations_are_over_at_once():
    assert run(lr_scheduler.ConstantLR(Groups(0.3), total_iters=0), 2) == [0.3] * 3
    linear = lr_scheduler.LinearLR(Groups(0.3), 0.1, 0.5, total_iters=0)
    assert run(linear, 2) == [0.15] * 3


def test_constant_factor_zero_is_restored():
    scheduler = lr_scheduler.ConstantLR(Groups(0.3), factor=0, total_iters=2)
    assert run(scheduler, 3) == [0.0, 0.0, 0.3, 0.3]


def test_a_learning_rate_set_after_the_end_stays():
    optimizer = Groups(0.3)
    scheduler = lr_scheduler.PolynomialLR(optimizer, total_iters=2)
    run(scheduler, 4)
    assert optimizer.lrs() == [0.0]
    optimizer.param_groups[0]["lr"] = 0.2
    assert run(scheduler, 2)[1:] == [0.2, 0.2]


def test_a_decay_continues_after_its_power_underflows():
    optimizer = Groups(0.3)
    scheduler = lr_scheduler.ExponentialLR(optimizer, gamma=0.1)
    scheduler.step(400)
    assert optimizer.lrs() == [0.0]
    optimizer.param_groups[0]["lr"] = 0.2
    np.testing.assert_allclose(run(scheduler, 2)[1:], [0.02, 0.002])


def test_milestones_are_a_counter_as_in_pytorch():
    scheduler = lr_scheduler.MultiStepLR(Groups(0.3), [4, 2, 4])
    assert scheduler.milestones == collections.Counter({4: 2, 2: 1})
    # A state of PyTorch that went through JSON.
    state = scheduler.state_dict() | {"milestones": {"3": 1, "5": 2}}
    scheduler.load_state_dict(json.loads(json.dumps(state)))
    assert scheduler.milestones == collections.Counter({5: 2, 3: 1})
