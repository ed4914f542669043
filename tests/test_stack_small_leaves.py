"""stack_small_leaves: the same steps with fewer arrays, and the way back."""

import functools
import pickle
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import adamax_optax as ao
from adamax_optax import interop
from adamax_optax._stacks import LEAVES, SMALL
from tests.running import FORMS

REDUCED = [jnp.bfloat16, jnp.float16, jnp.uint16]


def tree(seed=0):
    """Return leaves of every kind that a tree may have, most of them several times."""
    rng = np.random.default_rng(seed)

    def array(*shape, dtype=np.float32):
        return jnp.asarray(rng.normal(size=shape), dtype)

    return {
        "biases": [array(5) for _ in range(LEAVES + 3)],
        "kernels": {f"k{i}": array(3, 4) for i in range(3)},
        "scalars": (array(), array()),
        "empty": [array(0, 2), array(0, 2)],
        "complex": [jax.lax.complex(array(5), array(5)) for _ in range(2)],
        "half": [array(5, dtype=jnp.bfloat16) for _ in range(2)],
        "alone": array(7),
        "large": [array(SMALL + 1), array(SMALL + 1)],
        "none": [None, None, optax.MaskedNode()],
    }


def real(seed=0):
    return {k: v for k, v in tree(seed).items() if k != "complex"}


def run(tx, params, steps=4, first=1, state=None, **extra_args):
    """Return parameters and state after some compiled steps."""

    @jax.jit
    def step(params, state, gradients):
        updates, state = tx.update(gradients, state, params, **extra_args)
        return optax.apply_updates(params, updates), state

    state = tx.init(params) if state is None else state
    make = tree if "complex" in params else real
    for seed in range(first, first + steps):
        gradients = make(seed)
        params, state = step(params, state, {k: gradients[k] for k in params})
    return params, state


def assert_same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert (x.shape, x.dtype) == (y.shape, y.dtype)
        np.testing.assert_array_equal(x, y)


def assert_close(a, b):
    """XLA compiles the two forms differently: the last bits may differ."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert (x.shape, x.dtype) == (y.shape, y.dtype)
        bits = jnp.finfo(x.dtype).nmant if jnp.issubdtype(x.dtype, jnp.inexact) else 31
        np.testing.assert_allclose(
            np.asarray(x, complex),
            np.asarray(y, complex),
            rtol=8 * 2.0**-bits,
            atol=1e-7,
        )


@functools.cache
def schedule():
    return optax.warmup_cosine_decay_schedule(0.0, 0.1, 2, 9)


# Each updates an element by itself.
ELEMENTWISE = {
    "adamax": lambda: ao.adamax(0.01),
    "decay": lambda: ao.adamax(0.01, weight_decay=0.1, maximize=True),
    "adamaxw": lambda: ao.adamaxw(schedule()),
    "infinity norm": lambda: ao.scale_by_infinity_norm(),
    "optax.adamax": lambda: optax.adamax(0.01),
    "optax.adamw": lambda: optax.adamw(0.01),
    "nadam": lambda: optax.nadam(0.01),
    "amsgrad": lambda: optax.amsgrad(0.01),
    "adabelief": lambda: optax.adabelief(0.01),
    "lion": lambda: optax.lion(0.01),
    "momentum": lambda: optax.sgd(0.01, momentum=0.9, nesterov=True),
    "no state": lambda: optax.sgd(0.01),
    "clip": lambda: optax.chain(optax.clip(0.1), ao.adamax(0.01)),
    "ema": lambda: optax.chain(optax.adam(0.1), optax.ema(0.9)),
    "injected": lambda: optax.inject_hyperparams(ao.adamax)(learning_rate=0.01),
    "several steps": lambda: optax.MultiSteps(
        ao.adamax(0.01), 3
    ).gradient_transformation(),
}


REAL_ONLY = "clip", "injected", "several steps"  # in Optax
QUICK = "adamax", "decay", "injected", "optax.adamax", "lion"


@pytest.mark.usefixtures("lenient_promotion")
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow)
        for name in ELEMENTWISE
    ],
)
def test_same_steps_and_state(name):
    make = ELEMENTWISE[name]
    params = real() if name in REAL_ONLY else tree()
    exact, exact_state = run(make(), params)
    stacked = ao.stack_small_leaves(make())
    new, state = run(stacked, params)
    assert_close(new, exact)
    mirrored = ao.unstack_state(state, params)
    assert_close(mirrored, exact_state)
    assert_same(ao.stack_state(stacked, mirrored, params), state)


@pytest.mark.usefixtures("lenient_promotion")
@pytest.mark.parametrize("make", [ao.adamax, optax.adamax])
def test_moments_have_the_same_bits(make):
    # Those of gradients that do not depend on the parameters.
    params = {k: real()[k] for k in ("biases", "kernels", "scalars", "large")}
    _, expected = run(make(0.1), params, steps=20)
    _, state = run(ao.stack_small_leaves(make(0.1)), params, steps=20)
    assert_same(ao.unstack_state(state, params), expected)


def test_state_has_few_arrays():
    params = tree()
    _, _, moments, *_ = ao.stack_small_leaves(ao.adamax()).init(params)
    # 32 and 3 biases, kernels, scalars, empty, complex and half ones.
    sizes = [stack.shape[0] for stack in moments.mu.stacks]
    assert sorted(sizes) == sorted([32, 3, 3, 2, 2, 2, 2])
    rest = moments.mu.rest
    assert rest["alone"].shape == (7,)
    assert [x.shape for x in rest["large"]] == [(SMALL + 1,)] * 2
    assert rest["scalars"] == (ao.InStack(), ao.InStack())
    assert rest["none"] == [None, None, optax.MaskedNode()]


@pytest.mark.parametrize("params", [{}, None, [jnp.ones(3)], [jnp.ones(3), None]])
def test_nothing_to_stack(params):
    tx = ao.adamax(0.1)
    stacked = ao.stack_small_leaves(tx)
    state = stacked.init(params)
    assert_same(state, tx.init(params))
    updates, state = stacked.update(params, state, params)
    assert_same((updates, state), tx.update(params, tx.init(params), params))
    assert_same(ao.unstack_state(state, params), state)
    assert_same(ao.stack_state(stacked, state, params), state)


def test_without_params_and_with_extra_args():
    seen = {}

    def update(updates, state, params=None, *, factor):
        seen["params"] = params
        return jax.tree.map(lambda g: factor * g, updates), state

    tx = ao.stack_small_leaves(
        optax.GradientTransformationExtraArgs(lambda _: optax.EmptyState(), update)
    )
    gradients = [jnp.ones(3), jnp.full(3, 2.0)]
    updates, _ = tx.update(gradients, tx.init(gradients), factor=jnp.float32(3))
    np.testing.assert_array_equal(updates, [[3.0] * 3, [6.0] * 3])
    assert seen["params"] is None


@pytest.mark.parametrize("state_dtype", REDUCED)
def test_each_leaf_has_its_own_noise(state_dtype):
    params = [jnp.zeros(1000) for _ in range(20)]
    gradients = [jnp.full(1000, 0.3)] * 20
    tx = ao.stack_small_leaves(ao.adamax(state_dtype=state_dtype, b1=0.5))
    state = tx.init(params)
    for _ in range(3):
        _, state = tx.update(gradients, state, params)
    state = ao.unstack_state(state, params)
    codes = optax.tree_utils.tree_get(state, "codes")[0]
    assert len({np.asarray(leaf).tobytes() for leaf in codes}) == 20
    # Without bias: the mean of the first moments is that of float32.
    mu = optax.tree_utils.tree_get(ao.interop.cast_state(state, None), "mu")
    means = np.mean(np.asarray(mu, np.float64), axis=1)
    exact = 0.3 * (1 - 0.5**3)
    error = np.std(np.asarray(mu, np.float64)) / np.sqrt(1000)
    assert np.all(np.abs(means - exact) < 5 * error)


@pytest.mark.parametrize("state_dtype", FORMS[1:])
def test_reduced_state_goes_both_ways(state_dtype):
    params = real()
    plain = ao.adamaxw(0.01, state_dtype=state_dtype)
    tx = ao.stack_small_leaves(plain)
    _, state = run(tx, params, steps=3)
    mirrored = ao.unstack_state(state, params)
    like = jax.eval_shape(plain.init, params)
    assert jax.tree.structure(mirrored) == jax.tree.structure(like)
    for x, y in zip(jax.tree.leaves(mirrored), jax.tree.leaves(like), strict=True):
        assert (x.shape, x.dtype) == (y.shape, y.dtype)
    assert_same(ao.stack_state(tx, mirrored, params), state)
    # It means what it meant.
    cast = ao.interop.cast_state
    assert_same(cast(mirrored, None), ao.unstack_state(cast(state, None), params))
    # Either continues.
    run(plain, params, state=mirrored)
    run(tx, params, state=cast(cast(state, None), state_dtype))


def test_state_is_a_tree_like_any_other():
    params = real()
    tx = ao.stack_small_leaves(ao.adamax(0.01, state_dtype=jnp.uint16))
    state = tx.init(params)
    assert_same(pickle.loads(pickle.dumps(jax.device_get(state))), state)
    serialization = pytest.importorskip("flax.serialization")
    _, later = run(tx, params, steps=2)
    assert_same(serialization.from_bytes(state, serialization.to_bytes(later)), later)
    # Optax finds the moments in it.
    doubled = optax.tree_utils.tree_map_params(tx, lambda x: 2 * x, later)
    codes = optax.tree_utils.tree_get
    assert_same(
        codes(doubled, "codes"), jax.tree.map(lambda x: 2 * x, codes(later, "codes"))
    )
    assert jax.tree.structure(jax.eval_shape(tx.init, params)) == jax.tree.structure(
        state
    )


def test_different_scales_cannot_share_a_stack():
    params = [jnp.ones(3), jnp.ones(3)]
    plain = ao.adamax(state_dtype=jnp.uint16)
    state = plain.init(params)
    _, state = plain.update([jnp.ones(3), None], state, params)
    tx = ao.stack_small_leaves(plain)
    with pytest.raises(ValueError, match="scale for each leaf.*cast_state"):
        ao.stack_state(tx, state, params)
    # As the message says:
    wide = ao.interop.cast_state(state, None)
    wide = ao.stack_state(ao.stack_small_leaves(ao.adamax()), wide, params)
    state = ao.interop.cast_state(wide, jnp.uint16)
    tx.update(params, state, params)


MASK = {"a": True, "b": True, "c": False, "d": False, "e": True}


def masked_tree(seed=0):
    rng = np.random.default_rng(seed)
    return {k: jnp.asarray(rng.normal(size=4), jnp.float32) for k in MASK}


OUTSIDE = {
    "masked": lambda wrap: optax.masked(wrap(ao.adamax(0.1)), MASK),
    "masked prefix": lambda wrap: optax.chain(
        optax.masked(wrap(ao.adamax(0.1)), lambda _: MASK), optax.scale(2.0)
    ),
    "partition": lambda wrap: optax.partition(
        {True: wrap(ao.adamax(0.1)), False: wrap(optax.adam(0.1))}, MASK
    ),
    "param_groups": lambda wrap: ao.param_groups(
        {"[abc]": wrap(ao.adamaxw(0.1)), ".*": wrap(ao.adamax(0.1, weight_decay=0.1))}
    ),
    "clipped": lambda wrap: optax.chain(
        optax.clip_by_global_norm(1.0), wrap(ao.adamax(0.1))
    ),
    "guarded": lambda wrap: optax.apply_if_finite(wrap(ao.adamax(0.1)), 3),
    "several steps": lambda wrap: optax.MultiSteps(
        wrap(ao.adamax(0.1)), 2
    ).gradient_transformation(),
    "injected": lambda wrap: optax.inject_hyperparams(
        lambda learning_rate, b1: wrap(ao.adamax(learning_rate, b1))
    )(learning_rate=0.1, b1=0.8),
    "averaged": lambda wrap: optax.contrib.schedule_free(
        wrap(optax.sgd(0.1)), learning_rate=0.1
    ),
}


@pytest.mark.usefixtures("lenient_promotion")
@pytest.mark.parametrize("make", OUTSIDE.values(), ids=OUTSIDE)
def test_wrappers_go_outside(make):
    def steps(tx):
        @jax.jit
        def step(params, state, gradients):
            updates, state = tx.update(gradients, state, params)
            return optax.apply_updates(params, updates), state

        params = masked_tree()
        state = tx.init(params)
        for seed in range(4):
            params, state = step(params, state, masked_tree(seed))
        return params, state

    params, state = steps(make(ao.stack_small_leaves))
    expected, expected_state = steps(make(lambda tx: tx))
    assert_close(params, expected)
    mirrored = ao.unstack_state(state, params)
    assert_close(mirrored, expected_state)
    stacked = ao.stack_state(make(ao.stack_small_leaves), mirrored, params)
    assert_same(stacked, state)


def test_a_subtree_may_be_masked():
    params = {"a": [jnp.ones(3)] * 3, "b": {"c": jnp.ones(3), "d": jnp.ones(3)}}
    tx = optax.masked(ao.stack_small_leaves(ao.adamax(0.1)), {"a": True, "b": False})
    state = tx.init(params)
    mirrored = ao.unstack_state(state, params)
    plain = optax.masked(ao.adamax(0.1), {"a": True, "b": False})
    assert_same(mirrored, plain.init(params))
    assert_same(ao.stack_state(tx, mirrored, params), state)


def test_scan_and_vmap_and_gradients():
    params = [jnp.ones(3), jnp.arange(3.0), jnp.ones(())]
    gradients = jax.tree.map(lambda p: jnp.sin(jnp.arange(6.0) + p[..., None]), params)

    def train(wrap, rate):
        tx = wrap(ao.adamax(rate))

        def step(carry, i):
            params, state = carry
            own = jax.tree.map(lambda g: g[..., i], gradients)
            updates, state = tx.update(own, state, params)
            return (optax.apply_updates(params, updates), state), None

        carry = params, tx.init(params)
        return jax.lax.scan(step, carry, jnp.arange(6))[0][0]

    def loss(rate, wrap):
        return sum(jnp.sum(p**2) for p in train(wrap, rate))

    plain, stack = (lambda tx: tx), ao.stack_small_leaves
    rates = jnp.array([0.1, 0.01])
    got = jax.jit(jax.vmap(lambda r: train(stack, r)))(rates)
    assert_close(got, jax.jit(jax.vmap(lambda r: train(plain, r)))(rates))
    derivatives = [
        jax.jit(jax.grad(loss), static_argnums=1)(0.1, w) for w in (plain, stack)
    ]
    np.testing.assert_allclose(*derivatives, rtol=1e-5)


REFUSED = {
    "global norm": lambda: optax.clip_by_global_norm(1.0),
    "block norm": lambda: optax.clip_by_block_rms(1.0),
    "adaptive": lambda: optax.adaptive_grad_clip(0.1),
    "trust ratio": lambda: optax.lamb(0.1),
    "lars": lambda: optax.scale_by_trust_ratio(),
    "factored": lambda: optax.adafactor(0.1),
    "finite": lambda: optax.apply_if_finite(ao.adamax(), 3),
    "zero_nans": lambda: optax.zero_nans(),
    "centralized": lambda: optax.centralize(),
    "normalized": lambda: optax.normalize_by_update_norm(),
}


@pytest.mark.usefixtures("lenient_promotion")
@pytest.mark.parametrize("make", REFUSED.values(), ids=REFUSED)
@pytest.mark.parametrize("jitted", [False, True])
def test_what_mixes_elements_is_refused(make, jitted):
    tx = ao.stack_small_leaves(optax.chain(make(), ao.adamax(0.1)))
    params = [jnp.ones((4, 4)), jnp.ones((4, 4))]
    update = jax.jit(tx.update) if jitted else tx.update
    with pytest.raises(ValueError, match="does not update each element by itself"):
        update(params, tx.init(params), params)


@pytest.mark.parametrize(
    "tx",
    [
        ao.adamax(weight_decay=0.1, mask=[True, False]),
        ao.adamax(
            weight_decay=0.1, mask=lambda p: jax.tree.map(lambda x: x.ndim > 1, p)
        ),
        ao.adamaxw(mask=lambda p: jax.tree.map(lambda x: x.ndim > 1, p)),
        optax.masked(ao.adamax(), [True, False]),
        optax.adamw(0.1, mask=lambda p: jax.tree.map(lambda x: x.ndim > 1, p)),
        optax.partition({"a": ao.adamax(), "b": optax.sgd(0.1)}, ["a", "b"]),
        ao.param_groups({"0": {}, "1": {}}),
    ],
)
def test_masks_and_groups_inside_are_refused(tx):
    params = [jnp.ones(3), jnp.ones(3)]
    with pytest.raises(ValueError, match=r"optax.masked\(ao.stack_small_leaves"):
        ao.stack_small_leaves(tx).init(params)


def test_tx_must_be_one():
    with pytest.raises(ValueError, match="tx must be an Optax transformation.*adamax"):
        ao.stack_small_leaves(ao.adamax)
    with pytest.raises(ValueError, match="tx must be an Optax transformation.*got 3"):
        ao.stack_state(3, None, [jnp.ones(3)])


def test_an_error_of_tx_names_the_parameter():
    params = [jnp.ones(3), jnp.ones(3, int), jnp.ones(3, int)]
    with pytest.raises(ValueError, match=r"parameter at \[1\] has dtype int"):
        ao.stack_small_leaves(ao.adamax()).init(params)


def test_lazy_rows_do_not_combine():
    params = [jnp.ones((3, 2)), jnp.ones((3, 2))]
    with pytest.raises(ValueError, match="cannot wrap ao.stack_small_leaves"):
        ao.lazy_rows(ao.stack_small_leaves(ao.adamax())).init(params)
    with pytest.raises(ValueError, match="masks, groups or lazy_rows inside"):
        ao.stack_small_leaves(ao.lazy_rows(ao.adamax())).init(params)


@pytest.mark.parametrize("old", [None, *REDUCED])
@pytest.mark.parametrize("new", [None, *REDUCED])
def test_states_of_another_dtype_are_not_stacked(old, new):
    params = [jnp.ones(3), jnp.ones(3)]
    state = ao.adamax(state_dtype=old).init(params)
    tx = ao.stack_small_leaves(ao.adamax(state_dtype=new))
    if old == new:
        assert jax.tree.structure(ao.stack_state(tx, state, params)) == (
            jax.tree.structure(tx.init(params))
        )
    else:
        with pytest.raises(ValueError, match="state_dtype=.*cast_state"):
            ao.stack_state(tx, state, params)


def test_shapes_of_other_parameters():
    params = [jnp.ones(3), jnp.ones(3), jnp.ones(5), jnp.ones(5)]
    others = [jnp.ones(5), jnp.ones(5), jnp.ones(3), jnp.ones(3)]
    tx = ao.stack_small_leaves(ao.adamax())
    with pytest.raises(ValueError, match=r"the shapes \[\(2, 3\), \(2, 5\)\]"):
        ao.unstack_state(tx.init(params), others)
    with pytest.raises(ValueError, match="opt_state does not fit params"):
        ao.stack_state(tx, ao.adamax().init(params), others)


@pytest.mark.parametrize("state_dtype", [None, jnp.uint16])
def test_other_libraries_take_no_stacks(state_dtype):
    params = [jnp.ones(3), jnp.ones(3)]
    tx = ao.stack_small_leaves(ao.adamax(state_dtype=state_dtype))
    state = tx.init(params)
    for convert in (
        lambda: interop.to_mindspore(state),
        lambda: interop.from_mindspore({}, state),
    ):
        with pytest.raises(ValueError, match="Pass ao.unstack_state"):
            convert()


@pytest.mark.parametrize(
    ("gradients", "message"),
    [
        ([jnp.ones(3), None], r"\[1\] is None.*Pass zeros"),
        (None, "the root is None"),
        ([jnp.ones(3)], "do not have the structure of the parameters"),
        ([jnp.ones(3), jnp.ones(4)], r"\[1\] has shape \(4,\)"),
        ([jnp.ones(3), jnp.ones(3, complex)], "both must be real"),
        ([jnp.ones(3), jnp.ones(3, jnp.bfloat16)], "dtypes .'bfloat16', 'float32'."),
    ],
)
def test_gradients_that_do_not_fit(gradients, message):
    tx = ao.stack_small_leaves(ao.adamax())
    params = [jnp.ones(3), jnp.ones(3)]
    state = tx.init(params)
    with pytest.raises(ValueError, match=message):
        tx.update(gradients, state, params)


@pytest.mark.parametrize(
    "params",
    [[jnp.ones(3)], [jnp.ones(3), jnp.ones(4)], {"a": jnp.ones(3), "b": jnp.ones(3)}],
)
def test_states_of_other_parameters(params):
    tx = ao.stack_small_leaves(ao.adamax())
    state = tx.init([jnp.ones(3), jnp.ones(3)])
    with pytest.raises(ValueError, match="made for other parameters"):
        ao.unstack_state(state, params)


@functools.cache
def mesh(mode):
    return jax.make_mesh((2, 4), ("data", "model"), axis_types=(mode,) * 2)


def placed(mode, *spec):
    return NamedSharding(mesh(mode), PartitionSpec(*spec))


def sharded(mode) -> Any:
    return {
        **{
            f"b{i}": jax.device_put(jnp.ones(16), placed(mode, "model"))
            for i in range(4)
        },
        **{f"k{i}": jax.device_put(jnp.ones((8, 8)), placed(mode)) for i in range(3)},
        "large": jax.device_put(jnp.ones((128, 64)), placed(mode, None, "model")),
    }


def collectives(compiled):
    return re.findall(r" (all-\w+|reduce-scatter|collective-\w+)\(", compiled.as_text())


@pytest.mark.parametrize("state_dtype", [None, *REDUCED])
@pytest.mark.parametrize("mode", [AxisType.Auto, AxisType.Explicit])
def test_sharded_parameters_need_no_communication(mode, state_dtype):
    params = sharded(mode)
    tx = ao.stack_small_leaves(ao.adamaxw(0.1, state_dtype=state_dtype))
    state = tx.init(params)
    shardings = ao.state_shardings(tx, params)
    for x, sharding in zip(
        jax.tree.leaves(state), jax.tree.leaves(shardings), strict=True
    ):
        assert x.sharding.is_equivalent_to(sharding, x.ndim)

    @jax.jit
    def step(params, state, gradients):
        updates, state = tx.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    before = params, jax.jit(tx.init, out_shardings=shardings)(params)
    compiled = step.lower(*before, params).compile()
    assert not collectives(compiled)
    after = compiled(*before, params)
    for x, y in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
        assert x.sharding.is_equivalent_to(y.sharding, x.ndim)


def test_zero_communicates_as_without_stacks():
    params = {k: v for k, v in sharded(AxisType.Auto).items()}
    places = jax.tree.map(lambda p: p.sharding, params)

    def compiled(tx):
        shardings = ao.state_shardings(tx, params, "data")
        state = jax.jit(tx.init, out_shardings=shardings)(params)

        def step(params, state, gradients):
            updates, state = tx.update(gradients, state, params)
            return optax.apply_updates(params, updates), state

        step = jax.jit(step, out_shardings=(places, shardings))
        return step.lower(params, state, params).compile(), shardings

    stacked, shardings = compiled(ao.stack_small_leaves(ao.adamax()))
    plain, _ = compiled(ao.adamax())
    assert collectives(stacked) == collectives(plain) == ["all-gather"] * 8
    mu = optax.tree_utils.tree_get(shardings, "mu")
    assert {x.spec for x in mu.stacks} == {
        PartitionSpec(None, ("model", "data")),
        PartitionSpec(None, "data"),
    }


def test_shardings_of_groups():
    params = sharded(AxisType.Auto)
    tx = optax.masked(
        ao.stack_small_leaves(ao.adamax()), {k: k != "b0" for k in params}
    )
    shardings = ao.state_shardings(tx, params)
    state = tx.init(params)
    for x, sharding in zip(
        jax.tree.leaves(state), jax.tree.leaves(shardings), strict=True
    ):
        assert x.sharding.is_equivalent_to(sharding, x.ndim)


def test_leaves_sharded_differently():
    tx = ao.stack_small_leaves(ao.adamax())
    params = {
        "a": jax.device_put(jnp.ones(16), placed(AxisType.Auto, "model")),
        "b": jax.device_put(jnp.ones(16), placed(AxisType.Auto)),
        "c": jnp.ones(16),  # not placed yet
    }
    with pytest.raises(ValueError, match=r"\['a'\] and \['b'\] have one shape"):
        tx.init(params)
    del params["c"]
    with pytest.raises(ValueError, match=r"\['a'\] and \['b'\] have one shape"):
        ao.state_shardings(tx, params)
    # With explicit axes, types tell: these are not stacked.
    params = {
        "a": jax.device_put(jnp.ones(16), placed(AxisType.Explicit, "model")),
        "b": jax.device_put(jnp.ones(16), placed(AxisType.Explicit)),
    }
    state = tx.init(params)
    assert_same(state, ao.adamax().init(params))
    jax.jit(tx.update)(params, state, params)
    tx.init([jnp.ones(16), np.ones(16, np.float32), 1.0, 2.0])
