"""scale_by_bias_correction: 1 / (1 - b1^t), from the first step to the millionth."""

from fractions import Fraction

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import adamax_optax as ao
from adamax_optax import ScaleByBiasCorrectionState


def corrected_one(b1, count, dtype="float32"):
    """Return what 1.0 becomes at the step after `count` steps."""
    link = ao.scale_by_bias_correction(b1)
    state = ScaleByBiasCorrectionState(jnp.asarray(count, jnp.int32))
    return jax.jit(link.update)(jnp.ones((), dtype), state)[0]


def exact(b1, t):
    """1 / (1 - b1^t), in rational arithmetic where that is small enough."""
    if t <= 1000:
        return float(1 / (1 - Fraction(b1) ** t))
    with np.errstate(divide="ignore"):  # ln 0
        return -1 / np.expm1(t * np.log(np.longdouble(b1)))


class BiasCorrectionTest(chex.TestCase):
    @chex.variants(with_jit=True, without_jit=True)
    def test_first_steps(self):
        link = ao.scale_by_bias_correction(0.5)
        update_fn = self.variant(link.update)
        state = link.init(None)
        for t, expected in [(1, 2.0), (2, 4 / 3), (3, 8 / 7)]:
            x, state = update_fn({"a": jnp.ones(2), "b": None}, state)
            assert state.count == t
            chex.assert_trees_all_close(x["a"], jnp.full(2, expected), rtol=1e-6)


@pytest.mark.parametrize("t", [1, 2, 10, 1000, 10**6])
@pytest.mark.parametrize("b1", [0.0, 0.1, 0.9, 0.999, 0.99999, 1 - 2**-30])
def test_accurate_for_every_b1_and_step(b1, t):
    np.testing.assert_allclose(corrected_one(b1, t - 1), exact(b1, t), rtol=5e-7)


@pytest.mark.parametrize("t", [1, 10, 10**6])
@pytest.mark.parametrize("b1", [0.0, 0.9, 0.99999])
def test_accurate_for_a_traced_b1(b1, t):
    # The nearest float32 to b1 is what was asked for.
    traced = np.float32(b1)
    np.testing.assert_allclose(
        corrected_one(jnp.asarray(traced), t - 1), exact(float(traced), t), rtol=2e-6
    )


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("b1", [0.9, 0.99999])
def test_float64_is_accurate_to_float64(b1):
    np.testing.assert_allclose(
        corrected_one(b1, 6, "float64"), exact(b1, 7), rtol=1e-14
    )


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    "dtype", ["float16", "bfloat16", "float32", "float64", "complex64", "complex128"]
)
def test_dtype_stays(dtype):
    assert corrected_one(0.9, 0, dtype).dtype == dtype


def test_count_saturates():
    largest = jnp.iinfo(jnp.int32).max
    link = ao.scale_by_bias_correction()
    x, state = link.update(jnp.ones(()), ScaleByBiasCorrectionState(jnp.int32(largest)))
    assert state.count == largest
    assert state.count.dtype == jnp.int32
    assert x == 1.0


def test_out_of_range():
    with pytest.raises(ValueError, match="b1 .*below 1, got 1.0"):
        ao.scale_by_bias_correction(1.0)


@pytest.mark.parametrize("leaf", [jnp.ones(2, int), "text", len])
def test_leaf_that_has_no_quotient(leaf):
    link = ao.scale_by_bias_correction()
    with pytest.raises(ValueError, match=r"The update at \['a'\] "):
        link.update({"a": leaf}, link.init(None))


# Down to where b1^t has no digits beside 1.
B1 = np.array([0, 1e-30, 1e-8, 1e-7, 1e-3, 0.3, 0.9, 0.999], np.float32)


@pytest.mark.parametrize("t", [1, 2, 3, 160])
@pytest.mark.parametrize("derivative", [jax.grad, jax.jacfwd])
def test_derivatives_by_b1(derivative, t):
    found = jax.vmap(derivative(lambda b1: corrected_one(b1, t - 1)))(B1)
    b1 = B1.astype(np.float64)
    expected = t * b1 ** (t - 1) / (1 - b1**t) ** 2  # of 1 / (1 - b1^t)
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-37)


@pytest.mark.parametrize("t", [1, 2, 3, 160])
@pytest.mark.parametrize("derivative", [jax.hessian, lambda f: jax.grad(jax.grad(f))])
def test_second_derivatives_by_b1(derivative, t):
    found = jax.vmap(derivative(lambda b1: corrected_one(b1, t - 1)))(B1)
    b1 = B1.astype(np.float64)
    weight = 1 - b1**t
    curvature = t * (t - 1) * b1 ** max(t - 2, 0)
    expected = curvature / weight**2 + 2 * t**2 * b1 ** (2 * t - 2) / weight**3
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-37)


@pytest.mark.parametrize("b1", [0.0, 1e-30, 1e-7, 0.3])
def test_first_update_has_no_derivative_by_b1(b1):
    # Whatever b1 is, the first update is that of the sign of the gradient.
    def first(b1):
        tx = ao.adamax(1.0, b1, eps=0.0)
        return tx.update(jnp.ones(()), tx.init(jnp.ones(())))[0]

    for derivative in (jax.grad(first), jax.grad(jax.grad(first))):
        np.testing.assert_allclose(derivative(jnp.float32(b1)), 0, atol=1e-6)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("t", [1, 10, 10**6])
def test_wider_b1_is_rounded_as_the_mean_rounds_it(t):
    b1 = jnp.asarray(0.99999, "float64")
    expected = exact(float(np.float32(0.99999)), t)
    np.testing.assert_allclose(corrected_one(b1, t - 1), expected, rtol=1e-6)
