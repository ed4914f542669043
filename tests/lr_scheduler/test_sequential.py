"""Sequences: nested, saved, and with groups added later."""

import copy
import math
import pickle

import numpy as np
import pytest

from adamax_optax import lr_scheduler
from tests.lr_scheduler.scheduler_settings import Groups, Rate, run
from tests.lr_scheduler.test_torch import quiet


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


@pytest.mark.parametrize("route", ["flat", "nested"])
def test_it_resumes_at_a_last_epoch(route):
    def build(optimizer, last_epoch=-1):
        first = lr_scheduler.LinearLR(optimizer, total_iters=3)
        second = lr_scheduler.MultiplicativeLR(optimizer, Rate(0.9))
        third = lr_scheduler.CosineAnnealingWarmRestarts(optimizer, 2, 2)
        parts, milestones = [first, second, third], [3, 7]
        if route == "nested":
            inner = lr_scheduler.SequentialLR(optimizer, parts[1:], [4])
            parts, milestones = [first, inner], [3]
        return lr_scheduler.SequentialLR(optimizer, parts, milestones, last_epoch)

    whole = run(build(Groups(0.1)), 25)
    optimizer = Groups(0.1)
    scheduler = build(optimizer)
    for epoch in range(18):
        # From the groups of an optimizer that was saved at that epoch.
        resumed = Groups(0.1)
        resumed.param_groups = copy.deepcopy(optimizer.param_groups)
        again = build(resumed, last_epoch=epoch - 1)
        assert again.last_epoch == epoch
        assert run(again, 7) == whole[epoch : epoch + 8]
        scheduler.step()


def test_resuming_equals_an_uninterrupted_run_of_torch():
    torch = pytest.importorskip("torch")

    def build(module, optimizer, *last_epoch):
        first = module.LinearLR(optimizer, total_iters=3)
        second = module.CosineAnnealingLR(optimizer, T_max=9)
        return module.SequentialLR(optimizer, [first, second], [3], *last_epoch)

    theirs = torch.optim.Adamax([torch.zeros(1, requires_grad=True)], lr=0.1)
    reference = build(torch.optim.lr_scheduler, theirs)
    theirs.step()
    for epoch in range(9):
        scheduler = build(lr_scheduler, Groups(0.1), epoch - 1)
        np.testing.assert_allclose(scheduler.get_last_lr(), reference.get_last_lr())
        with quiet():
            reference.step()


# --- ChainedScheduler -----------------------------------------------------------------


def test_one_chained_is_refused():
    optimizer = Groups(0.5)
    part = lr_scheduler.ConstantLR(optimizer)
    plateau = lr_scheduler.ReduceLROnPlateau(optimizer)
    for schedulers, other, exception, match in [
        ([], None, ValueError, "schedulers must hold at least one"),
        ([3], None, TypeError, r"schedulers\[0\] must be a scheduler"),
        ([part, 3], None, TypeError, r"schedulers\[1\] must be a scheduler"),
        ([part, plateau], None, ValueError, r"after the ChainedScheduler\."),
        ([part], Groups(0.5), ValueError, r"schedulers\[0\], a ConstantLR, has ano"),
    ]:
        with pytest.raises(exception, match=match):
            lr_scheduler.ChainedScheduler(schedulers, other)


def test_a_refused_step_of_a_chain_changes_nothing():
    def fails_later(t):
        if t == 3:
            raise RuntimeError("no factor")
        return 0.9

    optimizer = Groups(0.5)
    rate = Rate(0.5)
    chain = lr_scheduler.ChainedScheduler(
        [
            lr_scheduler.ExponentialLR(optimizer, 0.5),
            lr_scheduler.LambdaLR(optimizer, rate),
            lr_scheduler.MultiplicativeLR(optimizer, fails_later),
        ]
    )
    sequence = lr_scheduler.SequentialLR(optimizer, [chain], [])
    for _ in range(2):
        sequence.step()
    before = copy.deepcopy((optimizer.param_groups, sequence.state_dict()))
    with pytest.raises(RuntimeError, match="no factor"):
        sequence.step()
    assert (optimizer.param_groups, sequence.state_dict()) == before


def test_a_chain_in_a_sequence_is_the_product_from_its_start():
    def build(optimizer, *order):
        chain = lr_scheduler.ChainedScheduler(
            [
                lr_scheduler.ConstantLR(optimizer, 0.5, 3),
                lr_scheduler.ExponentialLR(optimizer, 0.9),
                lr_scheduler.SequentialLR(
                    optimizer, [lr_scheduler.LinearLR(optimizer, 0.5, 1.0, 4)], []
                ),
            ]
        )
        alone = lr_scheduler.StepLR(optimizer, 2, 0.7)
        parts = {"chain": chain, "alone": alone}
        return lr_scheduler.SequentialLR(optimizer, [parts[x] for x in order], [5])

    t = np.arange(12)
    factors = np.where(t < 3, 0.5, 1) * 0.9**t * (0.5 + np.minimum(t, 4) / 8)
    steps = 0.7 ** (t // 2)
    for order, expected in [
        (("chain", "alone"), [*factors[:5], *steps[:7]]),
        (("alone", "chain"), [*steps[:5], *factors[:7]]),
    ]:
        values = run(build(Groups(1.0), *order), 11)
        np.testing.assert_allclose(values, expected, rtol=1e-12)
