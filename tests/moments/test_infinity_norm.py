"""scale_by_infinity_norm: m / u, its state, its dtypes, its edges."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adamax_optax as ao

# A parameter's dtype, its moments' dtypes, and the bytes of state per parameter.
STATE = {
    "float16": ("float32", "float32", 8),
    "bfloat16": ("float32", "float32", 8),
    "float32": ("float32", "float32", 8),
    "float64": ("float64", "float64", 16),
    "complex64": ("complex64", "float32", 12),
    "complex128": ("complex128", "float64", 24),
}


class InfinityNormTest(chex.TestCase):
    @chex.variants(with_jit=True, without_jit=True)
    def test_two_steps_by_hand(self):
        link = ao.scale_by_infinity_norm(b1=0.5, b2=0.75, eps=0.25)
        update_fn = self.variant(link.update)
        state = link.init(jnp.zeros(2))

        update, state = update_fn(jnp.array([3.0, -1.0]), state)
        chex.assert_trees_all_equal(state.mu, jnp.array([1.5, -0.5]))
        # ε is inside the max: |g| + ε, not max(…) + ε.
        chex.assert_trees_all_equal(state.nu, jnp.array([3.25, 1.25]))
        chex.assert_trees_all_close(update, jnp.array([1.5 / 3.25, -0.5 / 1.25]))

        update, state = update_fn(jnp.array([1.0, 4.0]), state)
        chex.assert_trees_all_equal(state.mu, jnp.array([1.25, 1.75]))
        chex.assert_trees_all_equal(state.nu, jnp.array([0.75 * 3.25, 4.25]))
        chex.assert_trees_all_close(update, state.mu / state.nu)

    @chex.variants(with_jit=True, without_jit=True)
    def test_epsilon_outside_divides_only(self):
        link = ao.scale_by_infinity_norm(b1=0.5, eps=0.0, eps_outside=1.0)
        update, state = self.variant(link.update)(
            jnp.array([3.0, 0.0]), link.init(jnp.zeros(2))
        )
        chex.assert_trees_all_equal(state.nu, jnp.array([3.0, 0.0]))
        chex.assert_trees_all_close(update, jnp.array([1.5 / 4.0, 0.0]))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("param_dtype", "gradient_dtype"),
    [
        (param, gradient)
        for param in STATE
        for gradient in STATE
        if ("complex" in param) == ("complex" in gradient)
    ],
)
def test_dtypes_and_shapes_stay(param_dtype, gradient_dtype):
    link = ao.scale_by_infinity_norm()
    params = jnp.ones((2, 3), param_dtype)
    gradient = jnp.full((2, 3), 0.5, gradient_dtype)
    first = link.init(params)

    update, state = jax.eval_shape(link.update, gradient, first)

    chex.assert_trees_all_equal_shapes_and_dtypes(state, first)
    chex.assert_trees_all_equal_shapes_and_dtypes(update, gradient)
    state_bytes = sum(leaf.nbytes for leaf in jax.tree.leaves(first)) / params.size
    assert (state.mu.dtype, state.nu.dtype, state_bytes) == STATE[param_dtype]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("eps", [0.0, 1e-8])
@pytest.mark.parametrize("dtype", STATE)
def test_zero_gradient_gives_zero_update(dtype, eps):
    link = ao.scale_by_infinity_norm(eps=eps)
    state = link.init(jnp.zeros(3, dtype))
    for _ in range(3):
        update, state = link.update(jnp.zeros(3, dtype), state)
        np.testing.assert_array_equal(np.asarray(update, complex), 0)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_norm_of_half_precision_parameters_decays(dtype):
    # In the parameter's own dtype 0.999 u rounds back to u, and the norm is stuck.
    link = ao.scale_by_infinity_norm(b2=0.999)
    state = link.init(jnp.zeros((), dtype))
    _, state = link.update(jnp.asarray(1.0, dtype), state)
    for _ in range(1000):
        _, state = link.update(jnp.asarray(0.0, dtype), state)
    np.testing.assert_allclose(state.nu, 0.999**1000, rtol=1e-4)


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf])
def test_non_finite_gradient_is_visible(bad):
    link = ao.scale_by_infinity_norm()
    _, state = link.update(jnp.array([bad, 1.0]), link.init(jnp.zeros(2)))
    update, state = link.update(jnp.ones(2), state)
    assert not np.isfinite(update[0])
    assert np.isfinite(update[1])


def test_complex_leaves_have_one_norm_of_the_modulus():
    link = ao.scale_by_infinity_norm(b1=0.0, eps=0.0)
    update, state = link.update(
        jnp.array([3.0 + 4.0j]), link.init(jnp.zeros(1, jnp.complex64))
    )
    np.testing.assert_allclose(state.nu, [5.0], rtol=1e-6)
    np.testing.assert_allclose(update, [0.6 + 0.8j], rtol=1e-6)


@pytest.mark.parametrize("size", [1e-25, 1e25])
def test_complex_division_neither_under_nor_overflows(size):
    # A division by the square of u would.
    link = ao.scale_by_infinity_norm(b1=0.0, eps=0.0)
    gradient = jnp.array([3.0 + 4.0j], jnp.complex64) * jnp.complex64(size)
    update, _ = link.update(gradient, link.init(jnp.zeros(1, jnp.complex64)))
    np.testing.assert_allclose(update, [0.6 + 0.8j], rtol=1e-5)


def test_none_masked_empty_scalar_and_zero_size_leaves_pass():
    params = {
        "none": None,
        "masked": optax.MaskedNode(),
        "scalar": jnp.ones(()),
        "empty": jnp.zeros((0, 4)),
        "nothing": {},
    }
    link = ao.scale_by_infinity_norm()
    state = link.init(params)
    update, new = jax.jit(link.update)(params, state)
    chex.assert_trees_all_equal_structs(update, params)
    chex.assert_trees_all_equal_shapes_and_dtypes(new, state)
    assert update["scalar"] > 0
    assert link.update({}, link.init({}))[0] == {}


def test_leaf_without_gradient_keeps_its_moments():
    link = ao.scale_by_infinity_norm()
    params = {"a": jnp.ones(2), "b": jnp.ones(2)}
    _, state = link.update(params, link.init(params))
    update, new = link.update({"a": None, "b": jnp.ones(2)}, state)
    assert update["a"] is None
    chex.assert_trees_all_equal(new.mu["a"], state.mu["a"])
    chex.assert_trees_all_equal(new.nu["a"], state.nu["a"])
    assert new.mu["b"][0] > state.mu["b"][0]


def test_numbers_as_leaves():
    link = ao.scale_by_infinity_norm(b1=0.0, eps=0.0)
    update, _ = link.update({"a": 2.0}, link.init({"a": 1.0}))
    assert update["a"] == 1.0


def test_state_does_not_hold_weak_types():
    state = ao.scale_by_infinity_norm().init({"a": 1.0})
    assert not any(leaf.weak_type for leaf in jax.tree.leaves(state))


@pytest.mark.usefixtures("lenient_promotion", "x64")
@pytest.mark.parametrize("param_dtype", ["bfloat16", "float32", "float64"])
@pytest.mark.parametrize("hyper_dtype", ["float32", "float64"])
def test_traced_hyperparameters_do_not_change_dtypes(param_dtype, hyper_dtype):
    params = jnp.ones(2, param_dtype)
    first = ao.scale_by_infinity_norm().init(params)

    @jax.jit
    def step(b1, b2, eps, state):
        link = ao.scale_by_infinity_norm(b1, b2, eps, eps_outside=eps)
        return link.update(params, state)

    update, state = step(*jnp.array([0.9, 0.999, 1e-8], hyper_dtype), first)
    chex.assert_trees_all_equal_shapes_and_dtypes(state, first)
    assert update.dtype == params.dtype


@pytest.mark.usefixtures("x64")
def test_traced_b1_is_subtracted_in_the_moments_dtype():
    # In float32 1 - b1 would be rounded once more.
    b1 = np.float32(1e-5)
    params = jnp.ones(1, "float64")

    @jax.jit
    def first_moment(b1):
        link = ao.scale_by_infinity_norm(b1)
        return link.update(params, link.init(params))[1].mu

    np.testing.assert_allclose(first_moment(b1), 1 - np.float64(b1), rtol=1e-15)


@pytest.mark.parametrize("traced", [False, True])
@pytest.mark.parametrize("b1", [0.9, 0.99, 0.999, 0.9999, 0.99999])
def test_weights_of_the_mean_add_up_to_one(b1, traced):
    # The corrected mean of a constant is the constant. float32 rounds 0.99999 by 1e-8,
    # which would be 0.1% of 1 - b1. What is left: m stays where a step is less than
    # half of its last bit, in PyTorch too.
    b1 = jnp.float32(b1) if traced else b1
    tx = ao.scale_by_adamax(b1, 0.5, 0.0)
    ones = jnp.ones(())

    @jax.jit
    def steps(state):
        def step(state, _):
            update, state = tx.update(ones, state)
            return state, update

        return jax.lax.scan(step, state, length=150_000)[1]

    found = np.asarray(steps(tx.init(ones)))
    np.testing.assert_allclose(found, 1, rtol=4e-4)


@pytest.mark.parametrize("traced", [False, True])
@pytest.mark.parametrize("b1", [0.0, 0.5, 0.9, 0.95, 0.99])
def test_mean_of_opposite_large_gradients_is_finite(b1, traced):
    # g - m overflows, and m does not.
    decay = jnp.float32(b1) if traced else b1
    tx = ao.scale_by_infinity_norm(decay)
    state = tx.init(jnp.ones(()))
    for sign in [*[1] * 60, -1]:
        update, state = tx.update(jnp.float32(sign * 2e38), state)
    expected = b1 * (1 - b1**60) - (1 - b1)
    np.testing.assert_allclose(update, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("b1", [0.99, 0.999, 0.99999])
def test_mean_near_one_is_exact_to_float32(b1):
    g = np.random.default_rng(0).normal(size=(3000, 64)).astype(np.float32) + 1
    tx = ao.scale_by_infinity_norm(b1)

    @jax.jit
    def last(g):
        def step(state, g):
            return tx.update(g, state)[1], None

        return jax.lax.scan(step, tx.init(g[0]), g)[0].mu

    weights = b1 ** np.arange(len(g))[::-1, None] * (1 - b1)
    expected = (weights * g.astype(np.float64)).sum(0)
    np.testing.assert_allclose(last(g), expected, rtol=2e-5)
