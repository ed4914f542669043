"""The schedules: the classes' values, compiled or not, and Optax's where it has one."""

import inspect
import math

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from adamax_optax import adamax, lr_scheduler, schedules
from tests.lr_scheduler.scheduler_settings import (
    ONE_CYCLE,
    SCHEDULES,
    SETTINGS,
    Groups,
    between,
)

STEPS = 100
CLOSE = dict(rtol=5e-6, atol=1e-8)
COUNTS = jnp.arange(STEPS)
NAMES = sorted(SCHEDULES)
EXAMPLES = {
    "step_lr": schedules.step_lr(0.1, 7, 0.5),
    "multi_step_lr": schedules.multi_step_lr(0.1, [3, 20, 20]),
    "constant_lr": schedules.constant_lr(0.1),
    "linear_lr": schedules.linear_lr(0.1),
    "exponential_lr": schedules.exponential_lr(0.1, 0.9),
    "polynomial_lr": schedules.polynomial_lr(0.1, 20, 0.5),
    "cosine_annealing_lr": schedules.cosine_annealing_lr(0.1, 17, 0.01),
    "cosine_annealing_warm_restarts": (
        schedules.cosine_annealing_warm_restarts(0.1, 5, 2, 0.01)
    ),
    "cyclic_lr": schedules.cyclic_lr(0.1, 0.5, 7, 4.5, "exp_range", 0.99),
    "one_cycle_lr": schedules.one_cycle_lr(0.1, 90),
    "lambda_lr": schedules.lambda_lr(0.1, lambda t: t // 3),
    "multiplicative_lr": schedules.multiplicative_lr(0.1, lambda t: 1 / (1 + t)),
    "sequential_lr": schedules.sequential_lr(
        [schedules.linear_lr(0.1), schedules.cosine_annealing_lr(0.1, 30)], [5]
    ),
    "per_epoch": schedules.per_epoch(schedules.step_lr(0.1, 2, 0.5), 7),
}
SETTINGS_OF = {
    "StepLR": dict(step_size=7),
    "MultiStepLR": dict(milestones=[3, 9, 9]),
    "ExponentialLR": dict(gamma=0.9),
    "CosineAnnealingLR": dict(T_max=7, eta_min=0.01),
    "CosineAnnealingWarmRestarts": dict(T_0=3, T_mult=2),
    "CyclicLR": dict(base_lr=0.1, max_lr=0.5, step_size_up=7, mode="triangular2"),
    "LambdaLR": dict(lr_lambda=lambda t: 1 / (1 + t)),
    "MultiplicativeLR": dict(lr_lambda=lambda t: 1 / (1 + t)),
}


def test_every_schedule_is_here():
    assert sorted(EXAMPLES) == schedules.__all__
    others = ["one_cycle_lr", "per_epoch", "sequential_lr"]
    assert sorted([*SCHEDULES.values(), *others]) == schedules.__all__


def class_values(scheduler, steps=STEPS, steps_per_epoch=1):
    """Return the learning rate of every update, stepping after each epoch."""
    values = []
    for count in range(steps):
        values += scheduler.get_last_lr()
        if (count + 1) % steps_per_epoch == 0:
            scheduler.step()
    return values


def make(name, settings, base_lr, **kwargs):
    """Return the schedule that belongs to a class with these settings."""
    if name == "CyclicLR":
        base_lr, settings = settings["base_lr"], dict(settings)
        del settings["base_lr"]
    return getattr(schedules, SCHEDULES[name])(base_lr, **settings, **kwargs)


@pytest.mark.parametrize("name", [n for n in NAMES if n != "MultiplicativeLR"])
@hypothesis.settings(max_examples=12)
@hypothesis.given(data=st.data())
def test_value_is_the_class_after_as_many_steps(name, data):
    settings, lr = data.draw(SETTINGS[name]), data.draw(between(1e-3, 1))
    expected = class_values(getattr(lr_scheduler, name)(Groups(lr), **settings))
    # The functions that are given are not written for strict promotion.
    with jax.numpy_dtype_promotion("standard"):
        np.testing.assert_allclose(make(name, settings, lr)(COUNTS), expected, **CLOSE)


@pytest.mark.parametrize("fn", [lambda t: 1 / (1 + t), lambda t: 2])
def test_multiplicative_is_the_class_after_as_many_steps(fn):
    expected = class_values(lr_scheduler.MultiplicativeLR(Groups(0.3), fn))
    values = jax.jit(schedules.multiplicative_lr(0.3, fn))(COUNTS)
    np.testing.assert_allclose(values, expected, **CLOSE)


@hypothesis.settings(max_examples=12)
@hypothesis.given(data=st.data())
def test_sequential_is_the_class_after_as_many_steps(data):
    # A class without a closed form continues from the current learning rate, and
    # CyclicLR makes its own lower bound the initial learning rate of all.
    able = [n for n in NAMES if n not in ("MultiplicativeLR", "CyclicLR")]
    names = data.draw(st.lists(st.sampled_from(able), min_size=1, max_size=3))
    milestones = sorted(data.draw(st.integers(0, 60)) for _ in names[1:])
    settings = [data.draw(SETTINGS[name]) for name in names]
    optimizer = Groups(0.3)
    scheduler = lr_scheduler.SequentialLR(
        optimizer,
        [
            getattr(lr_scheduler, name)(optimizer, **kwargs)
            for name, kwargs in zip(names, settings, strict=True)
        ],
        milestones,
    )
    schedule = schedules.sequential_lr(
        [make(n, kwargs, 0.3) for n, kwargs in zip(names, settings, strict=True)],
        milestones,
    )
    expected = class_values(scheduler)
    with jax.numpy_dtype_promotion("standard"):
        np.testing.assert_allclose(schedule(COUNTS), expected, **CLOSE)


@pytest.mark.slow
@hypothesis.settings(max_examples=25)
@hypothesis.given(ONE_CYCLE, between(0.01, 1))
def test_one_cycle_is_the_class_until_the_last_step(settings, max_lr):
    total = settings["total_steps"]
    scheduler = lr_scheduler.OneCycleLR(
        Groups(0.3), max_lr, **settings, cycle_momentum=False
    )
    schedule = jax.jit(schedules.one_cycle_lr(max_lr, **settings))
    values = schedule(jnp.arange(total + 20))
    expected = class_values(scheduler, total)
    np.testing.assert_allclose(values[:total], expected, rtol=2e-5, atol=1e-6 * max_lr)
    np.testing.assert_array_equal(values[total:], values[total - 1])


def test_one_cycle_has_the_class_s_arguments():
    ours = inspect.signature(schedules.one_cycle_lr).parameters
    theirs = inspect.signature(lr_scheduler.OneCycleLR).parameters
    assert [(p.name, p.default) for p in ours.values()] == [
        (p.name, p.default)
        for p in theirs.values()
        if p.name not in ("optimizer", "last_epoch", "verbose")
        and "momentum" not in p.name
    ]


@pytest.mark.parametrize("count", [np.int8, np.int16, float])
def test_counts_may_be_narrow_integers_or_whole_floats(count):
    for name, *arguments in [
        ("step_lr", 100),
        ("constant_lr", 0.5, 100),
        ("linear_lr", 0.5, 1.0, 100),
        ("polynomial_lr", 100),
        ("cosine_annealing_lr", 100),
        ("cyclic_lr", 0.5, 100),
    ]:
        make = getattr(schedules, name)
        converted = [count(n) if n == 100 else n for n in arguments]
        for t in (jnp.int32(99), jnp.int32(100), jnp.int32(299)):
            assert make(0.1, *converted)(t) == make(0.1, *arguments)(t), name
    multi = schedules.multi_step_lr(0.1, [count(100)])
    np.testing.assert_allclose(jax.vmap(multi)(jnp.array([99, 100])), [0.1, 0.01])
    sequential = schedules.sequential_lr([multi, multi], [count(100)])
    np.testing.assert_allclose(sequential(jnp.int32(100)), 0.1)


@pytest.mark.parametrize("integer", [np.int8, np.int16, np.int32])
def test_narrow_integers_do_not_overflow_in_the_restarts(integer):
    make = schedules.cosine_annealing_warm_restarts
    schedule = make(0.1, integer(100), integer(2))
    expected = make(0.1, 100, 2)(COUNTS * 10)
    np.testing.assert_array_equal(schedule(COUNTS * 10), expected)


def test_nested_sequential_is_the_class():
    def parts(module, names, *first):
        return [getattr(module, name)(*first, *rest) for name, *rest in names]

    optimizer = Groups(0.3)
    names = [("ConstantLR", 0.5, 9), ("ExponentialLR", 0.9), ("StepLR", 2)]
    a, b, c = parts(lr_scheduler, names, optimizer)
    inner = lr_scheduler.SequentialLR(optimizer, [b, c], [4])
    scheduler = lr_scheduler.SequentialLR(optimizer, [a, inner], [3])
    names = [("constant_lr", 0.5, 9), ("exponential_lr", 0.9), ("step_lr", 2)]
    a, b, c = parts(schedules, names, 0.3)
    schedule = schedules.sequential_lr([a, schedules.sequential_lr([b, c], [4])], [3])
    expected = class_values(scheduler)
    np.testing.assert_allclose(jax.jit(schedule)(COUNTS), expected, **CLOSE)


def test_warm_restarts_within_epochs_count_updates():
    scheduler = lr_scheduler.CosineAnnealingWarmRestarts(Groups(0.1), 2, 2, 0.01)
    schedule = schedules.cosine_annealing_warm_restarts(0.1, 2 * 3, 2, 0.01)
    expected = []
    for count in range(STEPS):
        scheduler.step(count / 3)
        expected += scheduler.get_last_lr()
    np.testing.assert_allclose(jax.jit(schedule)(COUNTS), expected, **CLOSE)


@pytest.mark.parametrize("name", NAMES)
def test_arguments_and_defaults_are_the_class_s(name):
    ours = inspect.signature(getattr(schedules, SCHEDULES[name])).parameters
    theirs = inspect.signature(getattr(lr_scheduler, name)).parameters
    expected = [
        (parameter.name, parameter.default)
        for parameter in theirs.values()
        if parameter.name not in ("optimizer", "base_lr", "last_epoch", "verbose")
        and "momentum" not in parameter.name
    ]
    base_lr, *rest = ours.values()
    assert [(parameter.name, parameter.default) for parameter in rest] == expected
    assert base_lr.name == "base_lr"


@pytest.mark.parametrize("name", schedules.__all__)
def test_compiled_equals_eager(name):
    schedule = EXAMPLES[name]
    traces = []

    @jax.jit
    def compiled(count):
        traces.append(count)
        return schedule(count)

    values = [compiled(jnp.int32(count)) for count in range(STEPS)]
    assert len(traces) == 1
    assert {(value.shape, str(value.dtype)) for value in values} == {((), "float32")}
    np.testing.assert_allclose(values, schedule(COUNTS), rtol=1e-6, atol=1e-9)


def test_the_count_may_be_a_python_number():
    assert schedules.step_lr(0.5, 2, 0.5)(5) == 0.125


def test_inside_a_scan():
    schedule = EXAMPLES["sequential_lr"]
    values = jax.lax.scan(lambda c, _: (c + 1, schedule(c)), 0, None, length=STEPS)[1]
    np.testing.assert_allclose(values, jax.jit(schedule)(COUNTS), rtol=1e-6, atol=1e-9)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", NAMES)
def test_in_float64_it_is_the_class_to_float64_rounding(name):
    settings = SETTINGS_OF.get(name, {})
    expected = class_values(getattr(lr_scheduler, name)(Groups(0.3), **settings), 50)
    values = jax.jit(make(name, settings, 0.3))(jnp.arange(50))
    assert values.dtype == jnp.float64
    np.testing.assert_allclose(values, expected, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("name", NAMES)
def test_vmap_and_grad_over_the_base_lr(name):
    settings = {
        "StepLR": dict(step_size=2),
        "MultiStepLR": dict(milestones=[2, 4]),
        "ExponentialLR": dict(gamma=0.9),
        "CosineAnnealingLR": dict(T_max=5),
        "CosineAnnealingWarmRestarts": dict(T_0=3),
        "CyclicLR": dict(max_lr=0.5, step_size_up=3),
        "LambdaLR": dict(lr_lambda=lambda t: 1 / (1 + t)),
        "MultiplicativeLR": dict(lr_lambda=lambda t: 1 / (1 + t)),
    }.get(name, {})

    @jax.jit
    def value(base_lr):
        return getattr(schedules, SCHEDULES[name])(base_lr, **settings)(jnp.int32(4))

    base_lrs = jnp.array([0.1, 0.2, 0.3])
    expected = [value(base_lr) for base_lr in base_lrs]
    np.testing.assert_allclose(
        jax.vmap(value)(base_lrs), expected, rtol=1e-6, atol=1e-9
    )
    # The learning rate is linear in base_lr.
    slope = (expected[2] - expected[0]) / 0.2
    gradient = jax.grad(value)(jnp.float32(0.2))
    np.testing.assert_allclose(gradient, slope, rtol=1e-5, atol=1e-6)


def test_other_numbers_may_be_traced():
    def value(gamma):
        return schedules.exponential_lr(0.1, gamma)(3)

    gammas = jnp.array([0.5, 0.9, 0.0])
    np.testing.assert_allclose(jax.vmap(value)(gammas), 0.1 * gammas**3, rtol=1e-6)
    np.testing.assert_allclose(value(np.array([0.5, 0.9])), [0.0125, 0.0729], rtol=1e-6)
    gradient = jax.grad(value)(jnp.float32(0.5))
    np.testing.assert_allclose(gradient, 0.1 * 3 * 0.25, rtol=1e-6)


def test_the_gradient_of_a_sequence_is_finite():
    def value(base_lr, count):
        late = schedules.exponential_lr(base_lr, 0.1)  # 0.1^-1000 overflows
        return schedules.sequential_lr([lambda c: base_lr, late], [1000])(count)

    for count, expected in ((0, 1.0), (1001, 0.1)):
        gradient = jax.grad(value)(jnp.float32(0.5), jnp.int32(count))
        np.testing.assert_allclose(gradient, expected, rtol=1e-6)


def test_as_a_learning_rate_of_optax():
    schedule = EXAMPLES["cosine_annealing_warm_restarts"]
    tx = optax.sgd(schedule)
    params = {"w": jnp.ones(3)}
    traces = []

    @jax.jit
    def step(state):
        traces.append(state)
        return tx.update(params, state)

    state = tx.init(params)
    for count in range(8):
        updates, state = step(state)
        np.testing.assert_allclose(updates["w"], -schedule(count), rtol=1e-6)
    assert len(traces) == 1


# --- per_epoch ------------------------------------------------------------------------


@pytest.mark.parametrize("name", schedules.__all__)
def test_per_epoch_has_the_value_of_the_epoch(name):
    schedule = schedules.per_epoch(EXAMPLES[name], 7)
    np.testing.assert_array_equal(schedule(COUNTS), EXAMPLES[name](COUNTS // 7))
    np.testing.assert_array_equal(
        jax.jit(schedule)(COUNTS), jax.jit(EXAMPLES[name])(COUNTS // 7)
    )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("steps_per_epoch", [1, 3])
def test_per_epoch_is_the_class_stepped_once_per_epoch(name, steps_per_epoch):
    settings = SETTINGS_OF.get(name, {})
    scheduler = getattr(lr_scheduler, name)(Groups(0.3), **settings)
    expected = class_values(scheduler, steps_per_epoch=steps_per_epoch)
    schedule = schedules.per_epoch(make(name, settings, 0.3), steps_per_epoch)
    np.testing.assert_allclose(jax.jit(schedule)(COUNTS), expected, **CLOSE)


def test_per_epoch_of_a_sequence_is_the_class_stepped_once_per_epoch():
    optimizer = Groups(0.3)
    first = lr_scheduler.LinearLR(optimizer)
    second = lr_scheduler.StepLR(optimizer, 2)
    scheduler = lr_scheduler.SequentialLR(optimizer, [first, second], [3])
    parts = [schedules.linear_lr(0.3), schedules.step_lr(0.3, 2)]
    schedule = schedules.per_epoch(schedules.sequential_lr(parts, [3]), 7)
    expected = class_values(scheduler, steps_per_epoch=7)
    np.testing.assert_allclose(jax.jit(schedule)(COUNTS), expected, **CLOSE)


@pytest.mark.usefixtures("lenient_promotion")
@pytest.mark.parametrize(
    "schedule",
    [
        optax.cosine_decay_schedule(0.1, 10),
        optax.warmup_cosine_decay_schedule(0.0, 0.1, 3, 12),
        optax.join_schedules(
            [schedules.linear_lr(0.1), optax.constant_schedule(1)], [4]
        ),
    ],
)
def test_per_epoch_takes_any_schedule_of_optax(schedule):
    wrapped = jax.jit(schedules.per_epoch(schedule, 7))
    np.testing.assert_array_equal(wrapped(COUNTS), jax.jit(schedule)(COUNTS // 7))


@pytest.mark.parametrize("steps_per_epoch", [1, 41, 61, np.int64(41), 2**31 - 1])
def test_per_epoch_divides_in_integers(steps_per_epoch):
    # 41 times the float32 nearest to 1 / 41 is below 1, and 2^31 - 1 is not a float32.
    counts = np.array([0, 40, 41, 61, 41 * 61, 2**24 + 1, 2**31 - 1], np.int32)
    schedule = schedules.per_epoch(lambda epoch: epoch, steps_per_epoch)
    epochs = jax.jit(schedule)(counts)
    assert epochs.dtype == jnp.int32
    np.testing.assert_array_equal(epochs, counts // int(steps_per_epoch))
    assert schedule(123) == 123 // steps_per_epoch


def test_per_epoch_as_the_learning_rate_of_adamax():
    tx = adamax(schedules.per_epoch(schedules.exponential_lr(0.1, 0.5), 2))
    params = {"w": jnp.ones(3)}
    traces = []

    @jax.jit
    def step(state):
        traces.append(state)
        return tx.update(params, state, params)

    state = tx.init(params)
    for expected in (0.1, 0.1, 0.05, 0.05, 0.025):
        updates, state = step(state)
        np.testing.assert_allclose(updates["w"], -expected, rtol=1e-5)
    assert len(traces) == 1


@pytest.mark.parametrize("count", [2.0, jnp.float32(2), jnp.arange(3.0), True])
def test_per_epoch_refuses_a_count_that_is_not_an_integer(count):
    schedule = schedules.per_epoch(schedules.step_lr(0.1, 2), 3)
    for evaluate in (schedule, jax.jit(schedule)):
        with pytest.raises(TypeError, match="count must be an integer.* got .*int32"):
            evaluate(count)


@pytest.mark.parametrize(
    ("arguments", "exception", "match"),
    [
        ((0.1, 3), TypeError, "schedule must be a function .*, got 0.1"),
        ((None, 3), TypeError, "schedule must be a function .*, got None"),
        ((abs, 0), ValueError, "steps_per_epoch must be an int >= 1, got 0"),
        ((abs, -7), ValueError, "steps_per_epoch must be an int >= 1, got -7"),
        ((abs, 2.5), TypeError, "steps_per_epoch must be an int, got 2.5"),
        ((abs, True), TypeError, "steps_per_epoch must be an int, got True"),
        ((abs, None), TypeError, "steps_per_epoch must be an int, got None"),
    ],
)
def test_per_epoch_refuses(arguments, exception, match):
    with pytest.raises(exception, match=match):
        schedules.per_epoch(*arguments)


# --- Rounding -------------------------------------------------------------------------


@pytest.mark.parametrize("size", [41, 61])
def test_compiled_steps_come_in_time(size):
    # 1 / 41 is rounded down, and so is 41 times it.
    counts = jnp.array([0, size - 1, size, 3 * size - 1, 3 * size, 7 * size])
    step = jax.jit(schedules.step_lr(1.0, size, 0.5))
    np.testing.assert_array_equal(step(counts), 0.5 ** (np.asarray(counts) // size))
    restart = jax.jit(schedules.cosine_annealing_warm_restarts(1.0, size))
    np.testing.assert_array_equal(restart(counts[jnp.array([0, 2, 4, 5])]), 1.0)
    cycle = jax.jit(schedules.cyclic_lr(0.0, 1.0, size, 0, "triangular2"))
    np.testing.assert_array_equal(cycle(counts[jnp.array([0, 2, 4, 5])]), 0.0)
    np.testing.assert_allclose(cycle(jnp.array(size - 1)), (size - 1) / size, rtol=1e-6)


@pytest.mark.parametrize("total", [3, 5, 6, 7, 9, 41])
def test_compiled_polynomials_end_at_zero(total):
    schedule = jax.jit(schedules.polynomial_lr(1.0, total, 0.5))
    np.testing.assert_allclose(schedule(jnp.int32(0)), 1.0, rtol=1e-7)
    assert schedule(jnp.int32(total)) == schedule(jnp.int32(10**6)) == 0.0


def test_high_counts_are_as_exact_as_low_ones():
    count = jnp.int32(100_003)
    for schedule, expected in [
        (schedules.exponential_lr(1.0, 0.9999), 0.9999**100_003),
        (schedules.step_lr(1.0, 3, 0.9999), 0.9999**33_334),
        (
            schedules.cosine_annealing_lr(1.0, 7),
            (1 + math.cos(math.pi * (100_003 % 14) / 7)) / 2,
        ),
    ]:
        np.testing.assert_allclose(jax.jit(schedule)(count), expected, rtol=1e-6)
    # Beyond 2^24, where float32 no longer holds every integer.
    cycle = jax.jit(schedules.cyclic_lr(0.0, 1.0, 10))
    np.testing.assert_allclose(cycle(jnp.int32(100_000_003)), 0.3, rtol=1e-6)


# --- Optax ----------------------------------------------------------------------------


def test_equals_optax_where_it_has_the_same_curve():
    scales = {3: 0.5, 20: 0.25}
    for ours, theirs in [
        (
            schedules.linear_lr(0.1, 0.2, 0.7, 30),
            optax.linear_schedule(0.1 * 0.2, 0.1 * 0.7, 30),
        ),
        (
            schedules.multi_step_lr(0.1, [3, 20, 20], 0.5),
            optax.piecewise_constant_schedule(0.1, scales),
        ),
        (schedules.exponential_lr(0.1, 0.9), optax.exponential_decay(0.1, 1, 0.9)),
    ]:
        with jax.numpy_dtype_promotion("standard"):
            expected = jax.jit(theirs)(COUNTS)
        np.testing.assert_allclose(jax.jit(ours)(COUNTS), expected, **CLOSE)
    cosine = optax.cosine_decay_schedule(0.1, 30, alpha=0.1)
    with jax.numpy_dtype_promotion("standard"):
        expected = jax.jit(cosine)(COUNTS)[:31]
    ours = schedules.cosine_annealing_lr(0.1, 30, 0.1 * 0.1)
    np.testing.assert_allclose(jax.jit(ours)(COUNTS)[:31], expected, **CLOSE)


# --- Refusals -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "arguments", "exception", "match"),
    [
        ("step_lr", (-0.1, 2), ValueError, r"base_lr .*\[0, inf\), got -0.1"),
        ("step_lr", ("0.1", 2), TypeError, "base_lr must be a number, got '0.1'"),
        ("step_lr", (0.1, 0), ValueError, "step_size .*got 0"),
        ("step_lr", (0.1, 2, -1), ValueError, "gamma .*got -1"),
        ("step_lr", (0.1, 2, jnp.array([0.1, -1])), ValueError, "gamma"),
        ("multi_step_lr", (0.1, [2.5]), TypeError, r"milestones\[0\]"),
        ("multi_step_lr", (0.1, [2], math.nan), ValueError, "gamma .*got nan"),
        ("constant_lr", (0.1, 2), ValueError, "factor .*got 2"),
        ("linear_lr", (0.1, 0), ValueError, "start_factor .*got 0"),
        ("exponential_lr", (0.1, None), TypeError, "gamma must be a number"),
        ("polynomial_lr", (0.1, 0), ValueError, "total_iters .*got 0"),
        ("cosine_annealing_lr", (-0.1, 3), ValueError, "base_lr .*got -0.1"),
        ("cosine_annealing_lr", (0.1, 0), ValueError, "T_max .*got 0"),
        ("cosine_annealing_warm_restarts", (-0.1, 3), ValueError, "base_lr"),
        ("cosine_annealing_warm_restarts", (0.1, 2.5), ValueError, "T_0 must be an"),
        ("cyclic_lr", (0.1, -0.2), ValueError, "max_lr .*got -0.2"),
        ("cyclic_lr", (0.1, 0.2, 3, 4, "x"), ValueError, "mode must be one of"),
        ("lambda_lr", (0.1, 0.5), TypeError, "lr_lambda must be a function"),
        ("multiplicative_lr", (0.1, 0.5), TypeError, "lr_lambda must be a function"),
        ("multiplicative_lr", (-0.1, abs), ValueError, "base_lr .*got -0.1"),
        ("sequential_lr", ([], []), ValueError, "schedules must hold at least one"),
        (
            "sequential_lr",
            ([abs], [1]),
            ValueError,
            "length 0, one less than schedules",
        ),
        ("sequential_lr", ([abs] * 3, [2, 1]), ValueError, "must not decrease"),
        ("sequential_lr", ([abs, 0.1], [2]), TypeError, r"schedules\[1\] must be a fu"),
    ],
)
def test_refused(name, arguments, exception, match):
    with pytest.raises(exception, match=match):
        getattr(schedules, name)(*arguments)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32"])
@pytest.mark.parametrize("steps", [100, 300, 2**40])
def test_per_epoch_in_narrow_counts(dtype, steps):
    schedule = schedules.per_epoch(schedules.step_lr(0.1, 1), steps)
    count = np.asarray(120, dtype)
    assert schedule(count) == pytest.approx(0.01 if steps == 100 else 0.1)
