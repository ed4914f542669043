"""Sequences: nested, saved, and with groups added later."""

import copy
import math
import pickle

import numpy as np

from adamax_optax import lr_scheduler
from tests.lr_scheduler.scheduler_settings import Groups, Rate, run


def test_nested_sequential_is_the_flat_one():
    def parts(optimizer):
        return [
            lr_scheduler.ConstantLR(optimizer, 0.5, 100),
            lr_scheduler.CosineAnnealingLR(optimizer, T_max=4),
            lr_scheduler.CosineAnnealingWarmRestarts(optimizer, T_0=2),
            lr_scheduler.ExponentialLR(optimizer, gamma=0.9),
        ]

    optimizer = Groups(1.0)
    expected = run(
        lr_scheduler.SequentialLR(optimizer, parts(optimizer), [3, 7, 10]), 14
    )

    def nest(optimizer, shape):
        a, b, c, d = parts(optimizer)

        def sequence(schedulers, milestones):
            return lr_scheduler.SequentialLR(optimizer, schedulers, milestones)

        if shape == "first":
            return sequence([sequence([a, b], [3]), c, d], [7, 10])
        if shape == "last":
            return sequence([a, b, sequence([c, d], [3])], [3, 7])
        return sequence([a, sequence([sequence([b, c], [4]), d], [7])], [3])

    for shape in ("first", "last", "twice"):
        scheduler = nest(Groups(1.0), shape)
        np.testing.assert_allclose(run(scheduler, 14), expected, rtol=1e-12)


def test_a_saved_sequence_with_a_plateau_continues_bit_for_bit():
    def build(optimizer):
        inner = lr_scheduler.SequentialLR(
            optimizer,
            [
                lr_scheduler.LambdaLR(optimizer, Rate(0.9)),
                lr_scheduler.CosineAnnealingWarmRestarts(optimizer, 3, 2),
            ],
            [4],
        )
        outer = lr_scheduler.SequentialLR(
            optimizer, [lr_scheduler.LinearLR(optimizer), inner], [3]
        )
        return outer, lr_scheduler.ReduceLROnPlateau(optimizer, patience=1, cooldown=2)

    def advance(schedulers, steps):
        for step in steps:
            schedulers[0].step()
            schedulers[1].step(math.cos(step))

    for pause in (1, 5, 9):
        optimizer = Groups(0.1, 0.2)
        schedulers = build(optimizer)
        advance(schedulers, range(pause))
        states = pickle.dumps([scheduler.state_dict() for scheduler in schedulers])
        restored = Groups(0.1, 0.2)
        loaded = build(restored)
        for scheduler, state in zip(loaded, pickle.loads(states), strict=True):
            scheduler.load_state_dict(state)
        restored.param_groups = copy.deepcopy(optimizer.param_groups)
        advance(schedulers, range(pause, 25))
        advance(loaded, range(pause, 25))
        assert restored.lrs() == optimizer.lrs()


def test_a_group_added_later_in_a_sequence_and_at_a_plateau():
    optimizer = Groups(0.1)
    sequential = lr_scheduler.SequentialLR(
        optimizer,
        [
            lr_scheduler.ExponentialLR(optimizer, gamma=0.5),
            lr_scheduler.LambdaLR(optimizer, Rate(0.5)),
        ],
        [2],
    )
    plateau = lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, min_lr=0.01)
    optimizer.param_groups.append({"lr": 0.8})
    sequential.step()
    np.testing.assert_allclose(optimizer.lrs(), [0.05, 0.4])
    sequential.step()
    np.testing.assert_allclose(optimizer.lrs(), [0.1, 0.8])
    plateau.step(1.0)
    plateau.step(2.0)
    np.testing.assert_allclose(optimizer.lrs(), [0.01, 0.08])
    assert plateau.min_lrs == [0.01, 0.01]
