"""Flax and Equinox with every form of the state: the numbers of a plain loop."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx
from flax.training.train_state import TrainState

import adamax_optax as ao
from tests.running import FORMS

pytestmark = pytest.mark.parametrize("form", FORMS)

RNG = np.random.default_rng(0)
BATCHES = jnp.asarray(RNG.normal(size=(12, 8, 3)), jnp.float32)
KERNEL = jnp.asarray(RNG.normal(size=(3, 2)), jnp.float32)
BIAS = jnp.asarray([0.5, -0.5], jnp.float32)
# Programs are compiled each on its own; a code that fell elsewhere would move a
# parameter by 1e-4 at least.
ONE_ROUNDING = dict(rtol=2e-6, atol=1e-6)
BYTES = {None: 8, "bfloat16": 4, "float16": 4, "uint16": 2}


def adamax(form):
    schedule = optax.linear_schedule(0.1, 0.05, 12)
    return ao.adamax(schedule, weight_decay=0.01, state_dtype=form)


def loss_of(outputs, x):
    return jnp.mean((outputs - jnp.sum(x, axis=1, keepdims=True)) ** 2)


def plain_loop(form, params, forward):
    """Train a tree of parameters without any framework, and return them.

    The noise of the reduced forms goes by a leaf's path and an element's place, so the
    tree must be the framework's.
    """
    tx = adamax(form)

    @jax.jit
    def step(params, state, x):
        gradients = jax.grad(lambda params: loss_of(forward(params, x), x))(params)
        updates, state = tx.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    state = tx.init(params)
    for x in BATCHES:
        params, state = step(params, state, x)
    return params


def dense(params, x):
    return x @ params["kernel"] + params["bias"]


DENSE = {"kernel": KERNEL, "bias": BIAS}


def check(form, got, opt_state, start=DENSE, forward=dense):
    """Assert that a framework's training gave the plain loop's numbers and bytes."""
    treedef = jax.tree.structure(start)
    tree = jax.tree.unflatten(jax.tree.structure(got), jax.tree.leaves(start))
    expected = plain_loop(
        form, tree, lambda p, x: forward(treedef.unflatten(jax.tree.leaves(p)), x)
    )
    for new, same, old in zip(
        *map(jax.tree.leaves, (got, expected, start)), strict=True
    ):
        np.testing.assert_allclose(new, same, **ONE_ROUNDING)
        assert np.abs(new - old).max() > 0.3
    held = sum(x.nbytes for x in jax.tree.leaves(opt_state) if x.shape)
    # For each of the two leaves a scale, in the word a bound too.
    scales = {"bfloat16": 8, "float16": 8, "uint16": 16}.get(form, 0)
    assert held == BYTES[form] * (KERNEL.size + BIAS.size) + scales


def test_linen_train_state(form):
    model = linen.Dense(2)
    state = TrainState.create(apply_fn=model.apply, params=DENSE, tx=adamax(form))

    @jax.jit
    def step(state, x):
        def loss_fn(params):
            return loss_of(state.apply_fn({"params": params}, x), x)

        return state.apply_gradients(grads=jax.grad(loss_fn)(state.params))

    for x in BATCHES:
        state = step(state, x)
    assert (
        state.step
        == optax.tree_utils.tree_get(
            state.opt_state, "ScaleByBiasCorrectionState"
        ).count
    )
    check(form, state.params, state.opt_state)


def nnx_linear():
    model = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
    nnx.update(model, nnx.State(DENSE))
    return model


def test_nnx_optimizer(form):
    model = nnx_linear()
    optimizer = nnx.Optimizer(model, adamax(form), wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer, x):
        optimizer.update(model, nnx.grad(lambda model: loss_of(model(x), x))(model))

    for x in BATCHES:
        step(model, optimizer, x)
    params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    check(form, params, nnx.state(optimizer.opt_state))


@pytest.mark.slow
def test_nnx_model_and_optimizer(form):
    optimizer = nnx.ModelAndOptimizer(nnx_linear(), adamax(form), wrt=nnx.Param)

    @nnx.jit
    def step(optimizer, x):
        optimizer.update(nnx.grad(lambda model: loss_of(model(x), x))(optimizer.model))

    for x in BATCHES:
        step(optimizer, x)
    params = nnx.to_pure_dict(nnx.state(optimizer.model, nnx.Param))
    check(form, params, nnx.state(optimizer.opt_state))


def test_equinox(form):
    model = eqx.nn.Linear(3, 2, key=jax.random.key(0))
    model = eqx.tree_at(lambda m: (m.weight, m.bias), model, (KERNEL.T, BIAS))
    tx = adamax(form)

    @eqx.filter_jit
    def step(model, opt_state, x):
        gradients = eqx.filter_grad(lambda model: loss_of(jax.vmap(model)(x), x))(model)
        params = eqx.filter(model, eqx.is_inexact_array)
        updates, opt_state = tx.update(gradients, opt_state, params)
        return eqx.apply_updates(model, updates), opt_state

    opt_state = tx.init(eqx.filter(model, eqx.is_inexact_array))
    for x in BATCHES:
        model, opt_state = step(model, opt_state, x)
    # Equinox has the weight transposed, and in front of the bias.
    check(
        form,
        eqx.filter(model, eqx.is_inexact_array),
        opt_state,
        start=[KERNEL.T, BIAS],
        forward=lambda params, x: x @ params[0].T + params[1],
    )


def test_scan_over_an_epoch(form):
    tx = adamax(form)

    def step(carry, x):
        params, state = carry
        gradients = jax.grad(lambda params: loss_of(dense(params, x), x))(params)
        updates, state = tx.update(gradients, state, params)
        return (optax.apply_updates(params, updates), state), None

    @jax.jit
    def epoch(params, state):
        return jax.lax.scan(step, (params, state), BATCHES)[0]

    params, state = epoch(DENSE, tx.init(DENSE))
    check(form, params, state)
