"""in_compute_dtype and the helpers that pick a dtype."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adamax_optax as ao
from adamax_optax._dtypes import compute_dtype, in_compute_dtype, real_dtype, scalar


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        ("float8_e4m3fn", "float32"),
        ("float16", "float32"),
        ("bfloat16", "float32"),
        ("float32", "float32"),
        ("float64", "float64"),
        ("complex64", "complex64"),
        ("complex128", "complex128"),
    ],
)
def test_compute_dtype(dtype, expected):
    assert compute_dtype(jnp.dtype(dtype)) == expected


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [("complex64", "float32"), ("complex128", "float64"), ("float32", "float32")],
)
def test_real_dtype(dtype, expected):
    assert real_dtype(jnp.dtype(dtype)) == expected


def test_scalar_casts_arrays_and_leaves_numbers():
    assert isinstance(scalar(0.9, jnp.float32), float)
    assert scalar(jnp.float32(0.5), jnp.bfloat16).dtype == jnp.bfloat16


def test_extra_arguments_reach_the_inner_transformation():
    def update_fn(updates, state, params=None, *, factor):
        return updates * factor, state

    inner = optax.GradientTransformationExtraArgs(optax.identity().init, update_fn)
    tx = in_compute_dtype(inner)
    update, _ = tx.update(jnp.ones(2, jnp.bfloat16), tx.init(None), factor=3.0)
    assert update.dtype == jnp.bfloat16
    np.testing.assert_array_equal(update.astype(jnp.float32), 3.0)


def test_inner_transformation_sees_wide_arrays():
    seen = []

    def update_fn(updates, state, params=None):
        seen.extend([updates["a"].dtype, params["a"].dtype, params["step"].dtype])
        return updates, state

    tx = in_compute_dtype(
        optax.GradientTransformation(optax.identity().init, update_fn)
    )
    half = {"a": jnp.ones(2, jnp.float16), "step": jnp.zeros((), jnp.int32)}
    tx.update(half, tx.init(half), half)
    assert seen == [jnp.float32, jnp.float32, jnp.int32]


def test_a_name_that_is_no_state_dtype_is_refused() -> None:
    # By the type checker too: mypy complains about an ignore that nothing needs.
    with pytest.raises(ValueError, match="state_dtype must be .* got 'nonsense'"):
        ao.adamax(state_dtype="nonsense")  # type: ignore[arg-type]
    ao.adamax(state_dtype="uint16")
    ao.adamax(state_dtype=jnp.bfloat16)
    ao.adamax(state_dtype=jnp.dtype("float16"))
