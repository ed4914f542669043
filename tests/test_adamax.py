"""adamax, adamaxw and scale_by_adamax: what the chains mean and where they run."""

import inspect

import chex
import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adamax_optax as ao
from tests.running import random_gradients, trajectory

OPTIMIZERS = [ao.adamax, ao.adamaxw]


def one_update(tx, gradient, params):
    """Return the first update, inside jit."""
    state = tx.init(params)
    return jax.jit(tx.update)(gradient, state, params)[0]


def moment(state, name):
    """Return a field of the chain's state by its name."""
    return optax.tree_utils.tree_get(state, name)


# --- The order of the links -----------------------------------------------------------


def test_maximize_negates_before_the_decay():
    # g = -1 + 0.5 · 4 = 1. Negating last would give -(1 + 2) = -3.
    tx = ao.adamax(0.1, b1=0.0, eps=0.0, weight_decay=0.5, maximize=True)
    p = jnp.array([4.0])
    _, state = tx.update(jnp.array([1.0]), tx.init(p), p)
    np.testing.assert_allclose(moment(state, "mu"), [1.0])


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_maximize_ascends_and_parameters_still_shrink(optimizer):
    tx = optimizer(0.1, weight_decay=0.1, maximize=True)
    assert one_update(tx, jnp.array([1.0]), jnp.array([0.0]))[0] > 0
    assert one_update(tx, jnp.array([0.0]), jnp.array([1.0]))[0] < 0


def test_coupled_decay_enters_both_moments():
    tx = ao.adamax(0.1, b1=0.5, eps=0.0, weight_decay=0.25)
    p = jnp.array([8.0])
    _, state = tx.update(jnp.array([1.0]), tx.init(p), p)
    np.testing.assert_allclose(moment(state, "mu"), [0.5 * 3.0])
    np.testing.assert_allclose(moment(state, "nu"), [3.0])


def test_decoupled_decay_enters_neither():
    tx = ao.adamaxw(0.1, b1=0.5, eps=0.0, weight_decay=0.25)
    p = jnp.array([8.0])
    update, state = tx.update(jnp.array([1.0]), tx.init(p), p)
    np.testing.assert_allclose(moment(state, "mu"), [0.5])
    np.testing.assert_allclose(moment(state, "nu"), [1.0])
    np.testing.assert_allclose(update, [-0.1 * (1.0 + 0.25 * 8.0)], rtol=1e-6)


def test_adamax_is_the_chain_of_its_links():
    gradients = random_gradients((5,)).astype(np.float32)
    params = np.ones(5, np.float32)
    links = optax.chain(
        optax.scale(-1.0),
        optax.add_decayed_weights(0.1),
        ao.scale_by_infinity_norm(0.8, 0.99, 1e-4),
        ao.scale_by_bias_correction(0.8),
        optax.scale_by_learning_rate(0.01),
    )
    tx = ao.adamax(0.01, 0.8, 0.99, 1e-4, 0.1, maximize=True)
    chex.assert_trees_all_equal(
        trajectory(tx, params, gradients), trajectory(links, params, gradients)
    )


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_state_structure_does_not_depend_on_decay_and_direction(optimizer):
    # So that a checkpoint survives a change of these options.
    params = {"a": jnp.ones(2)}
    chex.assert_trees_all_equal_structs(
        optimizer(weight_decay=0.0).init(params),
        optimizer(weight_decay=0.1, maximize=True).init(params),
        optimizer(weight_decay=jnp.zeros(()), maximize=jnp.array(False)).init(params),
    )


def test_scale_by_adamax_corrects_the_bias():
    tx = ao.scale_by_adamax(b1=0.9, eps=0.0)
    update = one_update(tx, jnp.array([3.0, -2.0]), jnp.zeros(2))
    np.testing.assert_allclose(update, [1.0, -1.0], rtol=1e-6)


# --- Learning rates and masks ---------------------------------------------------------


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_schedule_is_asked_for_the_count_before_the_step(optimizer):
    tx = optimizer(lambda count: 10.0 ** -count.astype(jnp.float32), weight_decay=0)
    params = jnp.zeros(1)
    state = tx.init(params)
    for rate in [1.0, 0.1, 0.01]:
        update, state = tx.update(jnp.ones(1), state, params)
        np.testing.assert_allclose(update, [-rate], rtol=1e-5)


@pytest.mark.usefixtures("lenient_promotion")
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_decay_schedule(optimizer):
    # Optax 0.2.6 never counted on.
    decay = optax.piecewise_constant_schedule(0.5, {1: 0.0})
    tx = optimizer(0.1, b1=0.0, b2=0.0, weight_decay=decay)
    params = jnp.ones(1)
    first, state = tx.update(jnp.zeros(1), tx.init(params), params)
    second, state = tx.update(jnp.zeros(1), state, params)
    assert first[0] < 0 and second[0] == 0


@pytest.mark.parametrize(
    "mask",
    [
        {"kernel": {"a": True, "b": True}, "bias": False},
        {"kernel": True, "bias": False},
        lambda params: {"kernel": True, "bias": False},
    ],
    ids=["tree", "prefix", "function"],
)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_mask_chooses_what_decays(optimizer, mask):
    params = {"kernel": {"a": jnp.ones(2), "b": jnp.ones(3)}, "bias": jnp.ones(2)}
    zeros = jax.tree.map(jnp.zeros_like, params)
    update = one_update(optimizer(0.1, weight_decay=0.1, mask=mask), zeros, params)
    assert np.all(update["kernel"]["a"] < 0) and np.all(update["kernel"]["b"] < 0)
    np.testing.assert_array_equal(update["bias"], 0)


# --- Precision ------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_float32_rounded_once(optimizer, dtype):
    # A decay of 1e-4 is lost when it is added to a gradient in bfloat16.
    hyper = dict(learning_rate=0.1, b1=0.0, eps=0.0, weight_decay=1e-4)
    gradient, params = jnp.array([1.0, -3.0], dtype), jnp.array([2.0, 5.0], dtype)
    update = one_update(optimizer(**hyper), gradient, params)
    wide = one_update(
        optimizer(**hyper), gradient.astype(jnp.float32), params.astype(jnp.float32)
    )
    chex.assert_trees_all_equal(update, wide.astype(dtype))


def test_small_decay_reaches_the_moments_of_bfloat16_parameters():
    tx = ao.adamax(b1=0.0, eps=0.0, weight_decay=1e-4)
    p = jnp.array([2.0], jnp.bfloat16)
    _, state = tx.update(jnp.ones(1, jnp.bfloat16), tx.init(p), p)
    np.testing.assert_allclose(moment(state, "mu"), [1.0002], rtol=1e-7)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize(
    "dtype", ["float16", "bfloat16", "float32", "float64", "complex64", "complex128"]
)
def test_updates_and_state_keep_their_dtypes(optimizer, decay, dtype):
    params = jnp.ones(3, dtype)
    tx = optimizer(lambda count: 0.1, weight_decay=decay)
    first = tx.init(params)
    update, state = jax.eval_shape(tx.update, params, first, params)
    assert update.dtype == params.dtype
    chex.assert_trees_all_equal_shapes_and_dtypes(state, first)


@pytest.mark.usefixtures("x64", "lenient_promotion")
def test_gradients_of_another_dtype_keep_it():
    params = {"a": jnp.ones(2, "float64"), "b": jnp.ones(2, "bfloat16")}
    gradients = {"a": jnp.ones(2, "float32"), "b": jnp.ones(2, "float32")}
    update = one_update(ao.adamax(weight_decay=0.1), gradients, params)
    chex.assert_trees_all_equal_dtypes(update, gradients)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_zero_gradients_never_move_anything(optimizer, dtype):
    # optax 0.2.8 adamax gives NaN in float16: its epsilon rounds to 0.
    params = jnp.ones(3, dtype)
    gradients = np.zeros((5, 3), dtype)
    history, _ = trajectory(optimizer(weight_decay=0.0), params, gradients)
    np.testing.assert_array_equal(history.astype(np.float32), 1.0)


# --- Traced hyperparameters -----------------------------------------------------------

HYPERPARAMETERS = dict(
    learning_rate=0.01, b1=0.8, b2=0.95, eps=1e-3, weight_decay=0.1, eps_outside=1e-3
)


@pytest.mark.usefixtures("lenient_promotion")
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("maximize", [False, True])
def test_injected_hyperparameters_give_the_same_numbers(optimizer, maximize):
    gradients = random_gradients((4,)).astype(np.float32)
    params = np.linspace(-1, 1, 4, dtype=np.float32)
    hyper = dict(HYPERPARAMETERS, maximize=maximize)
    plain, _ = trajectory(optimizer(**hyper), params, gradients)
    injected, state = trajectory(
        optax.inject_hyperparams(optimizer)(**hyper), params, gradients
    )
    np.testing.assert_allclose(injected, plain, rtol=1e-5, atol=1e-7)
    assert set(HYPERPARAMETERS) == set(state.hyperparams)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_traced_maximize(optimizer):
    gradient, params = jnp.array([1.0, -2.0]), jnp.array([3.0, 4.0])

    @jax.jit
    def update(maximize):
        tx = optimizer(0.1, weight_decay=0.1, maximize=maximize)
        return tx.update(gradient, tx.init(params), params)[0]

    for maximize in [True, False]:
        tx = optimizer(0.1, weight_decay=0.1, maximize=maximize)
        np.testing.assert_allclose(
            update(maximize), one_update(tx, gradient, params), rtol=1e-6
        )


def test_injected_learning_rate_is_live():
    tx = optax.inject_hyperparams(ao.adamax)(learning_rate=0.1)
    params = jnp.zeros(1)
    state = tx.init(params)
    update_fn = jax.jit(chex.assert_max_traces(tx.update, n=1))
    for rate in [0.1, 0.5, 0.0]:
        state.hyperparams["learning_rate"] = jnp.asarray(rate)
        update, state = update_fn(jnp.ones(1), state, params)
        np.testing.assert_allclose(update, [-rate], rtol=1e-5)
    chex.clear_trace_counter()


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("name", HYPERPARAMETERS)
def test_vmap_over_a_hyperparameter(optimizer, name):
    gradients = random_gradients((4,), steps=5).astype(np.float32)
    params = np.linspace(-1, 1, 4, dtype=np.float32)
    values = np.array([0.0, 0.3, 0.9], np.float32)

    def last(value):
        hyper = {**HYPERPARAMETERS, name: value}
        return trajectory_end(optimizer(**hyper), params, gradients)

    swept = jax.jit(jax.vmap(last))(values)
    for value, got in zip(values, swept, strict=True):
        hyper = {**HYPERPARAMETERS, name: float(value)}
        expected = trajectory_end(optimizer(**hyper), params, gradients)
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_derivatives_through_training(optimizer):
    gradients = random_gradients((4,), steps=5)
    params = np.linspace(-1, 1, 4)

    @jax.jit
    def loss(hyper):
        return jnp.sum(trajectory_end(optimizer(**hyper), params, gradients) ** 2)

    derivatives = jax.jit(jax.grad(loss))(HYPERPARAMETERS)
    for name, value in HYPERPARAMETERS.items():
        step = 1e-6
        more, less = (loss({**HYPERPARAMETERS, name: value + s}) for s in (step, -step))
        difference = (more - less) / (2 * step)
        np.testing.assert_allclose(
            derivatives[name], difference, rtol=1e-5, err_msg=name
        )


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("mode", [jax.jacrev, jax.jacfwd])
@pytest.mark.parametrize("zero", ["b1", "b2", "weight_decay", "learning_rate"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_derivatives_where_a_hyperparameter_is_zero(optimizer, zero, mode):
    gradients = random_gradients((4,), steps=5)
    hyper = {**HYPERPARAMETERS, zero: 0.0}

    @jax.jit
    def loss(hyper):
        tx = optimizer(**hyper)
        return jnp.sum(trajectory_end(tx, np.linspace(-1, 1, 4), gradients) ** 2)

    derivatives = jax.jit(mode(loss))(hyper)
    for name, value in hyper.items():
        difference = (loss({**hyper, name: value + 1e-7}) - loss(hyper)) / 1e-7
        np.testing.assert_allclose(
            derivatives[name], difference, rtol=1e-4, atol=1e-7, err_msg=name
        )


def test_derivative_is_finite_where_nothing_moved():
    def loss(eps):
        tx = ao.adamax(0.1, eps=eps)
        return jnp.sum(trajectory_end(tx, np.ones(2), np.zeros((3, 2))))

    assert np.isfinite(jax.grad(loss)(jnp.zeros(())))


def trajectory_end(tx, params, gradients):
    """Return the last parameters of a run, differentiable and traceable."""

    def step(carry, gradient):
        params, state = carry
        updates, state = tx.update(gradient, state, params)
        return (optax.apply_updates(params, updates), state), None

    params = jnp.asarray(params)
    (params, _), _ = jax.lax.scan(
        step, (params, tx.init(params)), jnp.asarray(gradients)
    )
    return params


# --- Compilation ----------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_one_compilation_for_any_number_of_steps(optimizer):
    tx = optimizer(optax.linear_schedule(0.1, 0.0, 5))
    params = {"a": jnp.ones((3, 2)), "b": jnp.ones((), jnp.bfloat16)}
    state = tx.init(params)
    update_fn = jax.jit(chex.assert_max_traces(tx.update, n=1))
    for _ in range(5):
        updates, state = update_fn(params, state, params)
        params = optax.apply_updates(params, updates)
    assert update_fn._cache_size() == 1
    chex.clear_trace_counter()


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_state_stays_as_the_carry_of_cond_and_while(optimizer):
    tx = optimizer()
    params = {"a": jnp.ones(3), "none": None}

    def step(state):
        return tx.update(params, state, params)[1]

    @jax.jit
    def run(flag):
        state = jax.lax.cond(flag, step, lambda state: state, tx.init(params))
        return jax.lax.fori_loop(0, 3, lambda _, state: step(state), state)

    assert moment(run(True), "count") == 4
    assert moment(run(False), "count") == 3


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_step_exports_for_every_platform(optimizer):
    tx = optimizer(weight_decay=0.1)
    params = {"a": jnp.ones((4, 2)), "b": jnp.ones(2, jnp.bfloat16)}
    state = tx.init(params)
    leaves, treedef = jax.tree.flatten((params, state))

    @jax.jit
    def step(*leaves):
        params, state = jax.tree.unflatten(treedef, leaves)
        return jax.tree.leaves(tx.update(params, state, params))

    exported = jax.export.export(step, platforms=("cpu", "cuda", "tpu"))(*leaves)
    assert exported.platforms == ("cpu", "cuda", "tpu")
    chex.assert_trees_all_equal(exported.call(*leaves), step(*leaves))


def test_donated_state_is_reused():
    tx = ao.adamax()
    params = jnp.ones(1000)
    step = jax.jit(tx.update, donate_argnums=1)
    compiled = step.lower(params, tx.init(params)).compile()
    analysis = compiled.memory_analysis()
    # m, u and the count live where they lived.
    assert analysis.alias_size_in_bytes >= 2 * params.nbytes


# --- Trees ----------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_none_masked_empty_scalar_and_zero_size_leaves(optimizer, decay):
    params = {
        "none": None,
        "masked": optax.MaskedNode(),
        "scalar": jnp.ones(()),
        "empty": jnp.zeros((0, 4)),
    }
    update = one_update(optimizer(weight_decay=decay), params, params)
    chex.assert_trees_all_equal_shapes_and_dtypes(update, params)
    empty = optimizer()
    assert empty.update({}, empty.init({}), {})[0] == {}


def test_infinite_gradient_under_apply_if_finite():
    tx = optax.apply_if_finite(ao.adamax(0.1), max_consecutive_errors=5)
    params = jnp.ones(2)
    state = tx.init(params)
    update_fn = jax.jit(tx.update)
    update, state = update_fn(jnp.array([jnp.inf, 1.0]), state, params)
    np.testing.assert_array_equal(update, 0.0)
    update, state = update_fn(jnp.ones(2), state, params)
    np.testing.assert_allclose(update, -0.1, rtol=1e-5)


# --- Signatures -----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["adamax", "adamaxw", "scale_by_adamax"])
def test_signature_starts_as_in_optax(name):
    ours = list(inspect.signature(getattr(ao, name)).parameters.values())
    theirs = list(inspect.signature(getattr(optax, name)).parameters.values())
    for our, their in zip(ours[: len(theirs)], theirs, strict=True):
        assert our.name == their.name
        assert their.default in (our.default, inspect.Parameter.empty)


@pytest.mark.parametrize(
    "function", [ao.adamaxw, ao.scale_by_adamax, ao.scale_by_infinity_norm]
)
def test_defaults_are_the_same_everywhere(function):
    reference = inspect.signature(ao.adamax).parameters
    for name, parameter in inspect.signature(function).parameters.items():
        expected = 1e-4 if name == "weight_decay" else reference[name].default
        assert parameter.default == expected
        assert parameter.kind == reference[name].kind
