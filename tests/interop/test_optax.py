"""Runs that change between this package and Optax's own Adamax in the middle."""

import functools

import chex
import jax
import jax.numpy as jnp
import optax
import pytest
from flax import nnx

import adamax_optax as ao
from adamax_optax.interop import cast_state, from_optax, to_optax
from tests.interop.runs import assert_close, draw, refusal, run, to_flax

RATE = optax.exponential_decay(0.1, 5, 0.8)
MASK = {
    "conv": {"kernel": True, "bias": False},
    "norm": False,
    "emb": True,
    "fc": {"kernel": True, "bias": False},
}


def with_a_schedule(library):
    return library.adamax(RATE)


def adamaxw(library):
    decay = optax.linear_schedule(0.5, 0.0, 15)
    return library.adamaxw(RATE, weight_decay=decay, mask=MASK)


def in_a_chain(library):
    return optax.chain(
        optax.clip_by_global_norm(3.0),
        optax.trace(0.5),
        optax.chain(library.scale_by_adamax(0.85, 0.99), optax.ema(0.9)),
        optax.scale_by_schedule(lambda count: -RATE(count)),
    )


def alone(library):
    return library.scale_by_adamax()


def injected(library):
    return optax.inject_hyperparams(library.adamaxw, static_args="mask")(
        RATE, 0.85, eps=1e-6, weight_decay=0.1, mask=MASK
    )


def accumulating(library):
    tx = optax.apply_if_finite(library.adamax(RATE), 3)
    return optax.MultiSteps(tx, every_k_schedule=3)


def in_parts(library):
    parts = {
        "a": library.adamax(RATE),
        "b": library.adamaxw(0.02, 0.7),
        "c": optax.adam(0.01),
    }
    labels = {"conv": "a", "norm": "b", "emb": "c", "fc": "a"}
    return optax.partition(parts, labels)


MAKERS = [
    with_a_schedule,
    adamaxw,
    in_a_chain,
    alone,
    injected,
    accumulating,
    in_parts,
]


@functools.cache
def straight(make):
    """Return a run of Optax's: its middle, the later gradients, and its end."""
    params, gradients = draw(seed=3, steps=16)
    start, trees = to_flax(params), list(map(to_flax, gradients))
    # 7 is in the middle of what MultiSteps accumulates.
    middle = run(make(optax), start, make(optax).init(start), trees[:7])
    return *middle, trees[7:], *run(make(optax), *middle, trees[7:])


@pytest.mark.usefixtures("lenient_promotion")
@pytest.mark.parametrize("make", MAKERS)
def test_goes_on_here(make):
    middle, their_state, gradients, end, their_end = straight(make)
    tx = make(ao)
    state = from_optax(their_state, tx.init(middle))
    params, state = run(tx, middle, state, gradients)
    assert_close(params, end)
    # All the rest of the state went on as well, the counts among it.
    assert_close(to_optax(state, make(optax).init(middle)), their_end)


@pytest.mark.usefixtures("lenient_promotion")
def test_random_keys_go_on():
    params = jnp.ones(3)

    def make(library):
        noise = optax.add_noise(0.1, 0.5, jax.random.key(1))
        return optax.chain(noise, library.adamax(0.1))

    middle, state = run(make(optax), params, make(optax).init(params), [params])
    ours = from_optax(state, make(ao).init(params))
    expected, _ = run(make(optax), middle, state, [params] * 2)
    end, _ = run(make(ao), middle, ours, [params] * 2)
    assert_close(end, expected)


@pytest.mark.usefixtures("lenient_promotion")
@pytest.mark.parametrize("make", MAKERS)
def test_goes_on_in_optax(make):
    params, gradients = draw(seed=4, steps=10)
    start, trees = to_flax(params), list(map(to_flax, gradients))
    middle, state = run(make(ao), start, make(ao).init(start), trees[:4])
    params, _ = run(make(ao), middle, state, trees[4:])
    theirs = to_optax(state, make(optax).init(middle))
    chex.assert_trees_all_equal_shapes_and_dtypes(theirs, make(optax).init(middle))
    end, _ = run(make(optax), middle, theirs, trees[4:])
    assert_close(params, end)


@pytest.mark.usefixtures("lenient_promotion")
def test_under_jit_and_with_reduced_state():
    params = jnp.linspace(-1, 1, 20)
    _, state = run(optax.adamax(0.1), params, optax.adamax(0.1).init(params), [params])
    fresh = ao.adamax(b1=0.85, b2=0.99, state_dtype=jnp.uint16).init(params)
    small = jax.jit(from_optax)(state, fresh)
    wide = from_optax(state, ao.adamax().init(params))
    chex.assert_trees_all_equal(small, cast_state(wide, jnp.uint16))
    back = jax.jit(to_optax)(small, state)
    chex.assert_trees_all_equal(back, to_optax(cast_state(small, None), state))


@pytest.mark.usefixtures("lenient_promotion")
def test_half_precision_parameters():
    # Optax keeps moments in bfloat16, we in float32.
    params = jnp.ones(4, jnp.bfloat16)
    gradients = jnp.array([1.0, -2.0, 3.0, 1e-3], jnp.bfloat16)
    _, theirs = optax.adamax(0.1).update(
        gradients, optax.adamax(0.1).init(params), params
    )
    ours = from_optax(theirs, ao.adamax(0.1).init(params))
    chex.assert_trees_all_equal_shapes_and_dtypes(ours, ao.adamax(0.1).init(params))
    chex.assert_trees_all_equal(to_optax(ours, theirs), theirs)


@pytest.mark.usefixtures("lenient_promotion")
def test_complex_parameters():
    params = jnp.ones(3, jnp.complex64)
    gradients = [jnp.array([3 + 4j, 1j, -1.0]), jnp.array([1j, 2.0, -3.0 + 4j])]
    tx, theirs = ao.adamax(0.1), optax.adamax(0.1)
    middle, state = run(theirs, params, theirs.init(params), gradients[:1])
    ours = from_optax(state, tx.init(params))
    chex.assert_trees_all_equal_shapes_and_dtypes(ours, tx.init(params))
    end, ours = run(tx, middle, ours, gradients[1:])
    expected, state = run(theirs, middle, state, gradients[1:])
    assert_close(end, expected)
    assert_close(to_optax(ours, theirs.init(params)), state)


@pytest.mark.usefixtures("lenient_promotion")
def test_schedules_that_are_new_take_the_step_count():
    params = jnp.ones(2)
    _, state = run(ao.adamax(), params, ao.adamax().init(params), [params] * 3)
    theirs = to_optax(state, optax.adamax(RATE).init(params))
    assert {int(x.count) for x in theirs} == {3}
    ours = from_optax(theirs, ao.adamaxw(RATE, weight_decay=RATE).init(params))
    counts = optax.tree_utils.tree_get_all_with_path(ours, "count")
    assert [int(count) for _, count in counts] == [3, 3, 3]


@pytest.mark.usefixtures("lenient_promotion")
def test_parameters_in_tuples_and_lists():
    params = ({"count": jnp.ones(2)}, [jnp.ones(3), jnp.ones(4)], (jnp.ones(5),))
    gradients = jax.tree.map(lambda p: 0.1 * len(p) * p, params)
    _, theirs = run(
        optax.adamax(1.0), params, optax.adamax(1.0).init(params), [gradients]
    )
    ours = from_optax(theirs, ao.adamax(1.0).init(params))
    nu = optax.tree_utils.tree_get(ours, "nu")
    assert_close(nu, gradients)
    chex.assert_trees_all_equal(to_optax(ours, theirs), theirs)


@pytest.mark.usefixtures("lenient_promotion")
def test_nnx_optimizer():
    modules = [nnx.Linear(2, 3, rngs=nnx.Rngs(0)) for _ in range(2)]
    x = jax.random.normal(jax.random.key(0), (5, 2))
    before, after = (
        nnx.Optimizer(module, library.adamax(RATE), wrt=nnx.Param)
        for module, library in zip(modules, [optax, ao], strict=True)
    )

    @nnx.jit
    def step(module, optimizer):
        loss, gradients = nnx.value_and_grad(lambda m: jnp.mean(m(x) ** 2))(module)
        optimizer.update(module, gradients)

    for _ in range(3):
        step(modules[0], before)
    nnx.update(modules[1], nnx.state(modules[0]))
    after.opt_state = from_optax(before.opt_state, after.opt_state)
    for _ in range(3):
        step(modules[0], before)
        step(modules[1], after)
    assert_close(*(nnx.state(module, nnx.Param) for module in reversed(modules)))


def test_what_does_not_fit():
    params = {"a": jnp.ones(2), "b": jnp.ones(3), "c": jnp.ones(1)}
    others = {"a": jnp.ones(4), "b": jnp.ones(3, jnp.complex64), "new": jnp.ones(1)}
    ours = ao.adamax(0.1).init(params)
    theirs = optax.chain(optax.adamax(RATE), optax.ema(0.9)).init(others)
    assert refusal(lambda: from_optax(theirs, ours)).splitlines() == [
        "The state does not fit:",
        "- adamax#1.mu.new has no counterpart",
        "- adamax#1.nu.new has no counterpart",
        "- ScaleByScheduleState#1.count has no counterpart",
        "- EmaState#1.count has no counterpart",
        "- EmaState#1.ema.a has no counterpart",
        "- EmaState#1.ema.b has no counterpart",
        "- EmaState#1.ema.new has no counterpart",
        "- adamax#1.mu.a must have the shape (2,) and a dtype like float32, got (4,) "
        "and float32",
        "- adamax#1.mu.b must have the shape (3,) and a dtype like float32, got (3,) "
        "and complex64",
        "- adamax#1.mu.c is missing",
        "- adamax#1.nu.a must have the shape (2,) and a dtype like float32, got (4,) "
        "and float32",
        "- adamax#1.nu.c is missing",
    ]


@pytest.mark.usefixtures("lenient_promotion")
def test_hyperparameters_that_optax_does_not_have():
    params = jnp.ones(2)
    injected = optax.inject_hyperparams(ao.adamax)
    theirs = optax.inject_hyperparams(optax.adamax)(0.1).init(params)
    to_optax(injected(0.5).init(params), theirs)
    state = injected(0.5, weight_decay=0.1).init(params)
    message = refusal(lambda: to_optax(state, theirs))
    assert "hyperparams.weight_decay has no counterpart" in message


def test_the_other_way_round():
    params = jnp.ones(2)
    ours, theirs = ao.adamax().init(params), optax.adamax(0.1).init(params)
    with pytest.raises(ValueError, match="holds no moments of adamax_optax"):
        from_optax(ours, theirs)
    with pytest.raises(ValueError, match="holds no moments of adamax_optax"):
        to_optax(theirs, ours)
    with pytest.raises(ValueError, match="holds no optax.ScaleByAdamState"):
        from_optax(ours, ours)
