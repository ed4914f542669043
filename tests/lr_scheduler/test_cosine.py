"""Warm restarts, at every restart."""

import numpy as np
import pytest

from adamax_optax import lr_scheduler
from tests.lr_scheduler.scheduler_settings import Groups


@pytest.mark.parametrize("T_mult", [1, 2, 3, 10])
def test_warm_restarts_hit_every_restart(T_mult):
    optimizer = Groups(1.0)
    scheduler = lr_scheduler.CosineAnnealingWarmRestarts(optimizer, 3, T_mult)
    start = 0
    for cycle in range(7):
        scheduler.step(start)
        assert optimizer.lrs() == [1.0]
        assert scheduler.T_cur == 0
        assert scheduler.T_i == 3 * T_mult**cycle
        resumed = Groups(1.0)
        resumed.param_groups[0]["initial_lr"] = 1.0
        lr_scheduler.CosineAnnealingWarmRestarts(resumed, 3, T_mult, last_epoch=start)
        scheduler.step()
        np.testing.assert_allclose(resumed.lrs(), optimizer.lrs(), rtol=1e-12)
        start += 3 * T_mult**cycle


def test_rounding_does_not_lead_below_zero():
    groups = Groups(0.0)
    scheduler = lr_scheduler.CosineAnnealingLR(groups, 3, eta_min=1e-4)
    lrs = []
    for _ in range(12):
        scheduler.step()
        lrs += groups.lrs()
    assert min(lrs) == 0.0 and max(lrs) > 9e-5
