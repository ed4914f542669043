"""Any input gives the right numbers or a clear error, never a silent NaN.

``FUZZ=50 python -m pytest tests/numbers/test_fuzz.py`` tries fifty times as many
examples, and others each time.
"""

import functools
import os
from fractions import Fraction

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import adamax_optax as ao
from tests import running

FACTOR = int(os.environ.get("FUZZ", "1"))
FORMS = [None, "bfloat16", "float16", "uint16"]
STEPS = 4


def fuzz(examples):
    return hypothesis.settings(
        max_examples=examples * FACTOR,
        derandomize=FACTOR == 1,
        deadline=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )


# --- The paper's Algorithm 2 in float64, with a bound for the rounding of each form ---

# How far one rounding moves m and u in proportion: two neighbours for m, which is
# rounded at random, and half as much for u. The word has steps of 1/16 from 1/247 of R
# on, and u in steps of up to 25%, rounded in ratio.
MEAN_ROUNDING = {"bfloat16": 2**-7, "float16": 2**-9, "uint16": 1 / 16}
NORM_ROUNDING = {"bfloat16": 2**-8, "float16": 2**-10, "uint16": 0.13}
# The range in which a form claims to have the numbers, s in [1/2, 2) considered.
RANGE = {
    None: (0.0, np.inf),
    "bfloat16": (2.0**-90, 2.0**118),
    "float16": (2.0**-26, 2.0**28),
    "uint16": (2.0**-26, 2.0**32),
}


def exact(form, param, gradients, hyper, *, decoupled):
    """Return updates at fixed parameters, and how far rounding may move them.

    Args:
      form: The form of the state.
      param: One array.
      gradients: One array for each step.
      hyper: The arguments of `adamax`, as numbers.
      decoupled: Whether they are `adamaxw`'s.

    Returns:
      Updates and bounds, float64 or complex128, of the shape of the gradients. The
      bound is infinite where the form does not claim to have the number, and NaN where
      |g| + eps or m / u is beyond the range of the dtype, which takes huge complex
      gradients, or b1 > b2 near 0.
    """
    lr, b1, b2, eps = (hyper[k] for k in ("learning_rate", "b1", "b2", "eps"))
    decay, outside = hyper["weight_decay"], hyper["eps_outside"]
    dtype = gradients.dtype
    info = jnp.finfo(dtype)
    is_wide = info.bits == 64 and form is None
    ulp = np.finfo(np.float64 if is_wide else np.float32).eps
    tiny = 4 * float(np.finfo(np.float64 if is_wide else np.float32).tiny)
    largest = float(np.finfo(np.float64 if is_wide else np.float32).max)
    low, high = RANGE[form]
    memory = b2 if form is None else max(b2, 2.0**-64)  # as documented
    wide = np.complex128 if jnp.iscomplexobj(gradients) else np.float64
    p = np.asarray(param, wide)
    m, u = np.zeros(p.shape, wide), np.zeros(p.shape)
    size = np.zeros(p.shape)  # what m would be without any cancellation
    m_off, u_off = np.zeros(p.shape), np.zeros(p.shape)
    claimed, overflow = np.ones(p.shape, bool), np.zeros(p.shape, bool)
    updates, bounds = [], []
    for t, gradient in enumerate(gradients, start=1):
        g = np.asarray(gradient, wide) * (-1 if hyper["maximize"] else 1)
        a = np.abs(g)
        if not decoupled:
            g, a = g + decay * p, a + decay * np.abs(p)
        claimed &= a + eps < largest / 4
        overflow |= (a + eps >= largest) & (form is None)  # other forms cut gradients
        new = np.abs(g) + eps
        m = b1 * m + (1 - b1) * g
        u = np.maximum(memory * u, new)
        size = b1 * size + (1 - b1) * a
        m_off = b1 * m_off + 8 * ulp * size + tiny
        u_off = np.maximum(memory * u_off, 8 * ulp * (a + eps)) + tiny
        denominator, u_error = u + outside, u_off + 8 * ulp * u
        if form is not None:
            claimed &= (new == 0) | ((new >= low) & (new <= high))
            claimed &= (u == 0) | (u >= low)
            u_error = u_error + NORM_ROUNDING[form] * u
            m_off += MEAN_ROUNDING[form] * (np.abs(m) + m_off)
            if form == "float16":
                m_off += 2.0**-36  # where the root of m is subnormal
            if form == "uint16":
                claimed &= b1 < b2
                r = min((1 - b1) / (1 - b1 / b2), 64.0) if b1 < b2 else 64.0
                claimed &= r < 64
                m_off += 1.13 * r * u / 247 / 16
                # The ratio saturates at R where u was rounded down.
                m_off += np.where(np.abs(m) + m_off > 0.85 * r * u, 0.13 * r * u, 0)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            ratio = np.where(denominator > 0, m / denominator, 0)
            off = (m_off + np.abs(ratio) * u_error) / (denominator - u_error)
            off = np.where(denominator > 2 * u_error, off + tiny, np.inf)
            # Nothing so far, and eps = 0: exactly 0.
            off = np.where((size == 0) & (denominator == 0), 0, off)
            step = lr / -np.expm1(t * np.log(b1)) if b1 > 0 else lr
            update = -step * ratio
            bound = step * (off + 32 * ulp * np.abs(ratio)) if lr > 0 else 0 * off
            if decoupled:
                update = update - lr * decay * p
                bound = bound + 8 * ulp * lr * decay * np.abs(p)
            bound = bound + float(info.eps) * (np.abs(update) + bound) + tiny
            bound = bound + float(info.smallest_subnormal) + 8 * tiny * lr
            corrected = np.abs(ratio) / (-np.expm1(t * np.log(b1)) if b1 > 0 else 1)
            beyond = overflow | ~(corrected < largest / 1e3)
        too_large = np.abs(update) + bound > 0.9 * float(info.max)
        bound = np.where(claimed & ~too_large, bound, np.inf)
        bounds.append(np.where(beyond, np.nan, bound))
        updates.append(update)
    return np.stack(updates), np.stack(bounds)


def assert_right(form, params, gradients, got, hyper, *, decoupled):
    """Assert that updates are right wherever that is claimed, and not NaN.

    Args:
      form: The form of the state.
      params: A list of arrays.
      gradients: A list of arrays with a leading axis of steps.
      got: The updates, in the same form.
      hyper: The arguments of `adamax`, as numbers.
      decoupled: Whether they are `adamaxw`'s.
    """
    for param, gradient, update in zip(params, gradients, got, strict=True):
        assert update.dtype == gradient.dtype and update.shape == gradient.shape
        expected, bound = exact(form, param, gradient, hyper, decoupled=decoupled)
        assert_within(update, expected, bound, f"{hyper}, {gradient.tolist()}")


def assert_within(got, expected, bound, message):
    got = np.asarray(got).astype(expected.dtype)
    with np.errstate(invalid="ignore"):
        wrong = ~(np.abs(got - expected) <= bound) & np.isfinite(bound)
        wrong |= np.isnan(got) & ~np.isnan(bound)
    assert not wrong.any(), (
        f"{message}: {got[wrong]} is not {expected[wrong]} within {bound[wrong]}"
    )


# --- Strategies -----------------------------------------------------------------------

BELOW_ONE = float(np.nextafter(np.float32(1), np.float32(0)))


def float32s(low, high, *extremes):
    """Return a strategy for numbers that float32 has."""
    low, high = (float(np.float32(x)) for x in (low, high))
    return st.sampled_from([float(np.float32(x)) for x in extremes]) | st.floats(
        low, high, width=32, allow_subnormal=False
    )


RATES = float32s(0, BELOW_ONE, 0, 1e-30, 0.5, 0.9, 0.999, 1 - 2**-20, BELOW_ONE)
HYPER = st.fixed_dictionaries(
    {
        "learning_rate": float32s(0, 100, 0, 1e-30, 2e-3, 1),
        "b1": RATES,
        "b2": RATES,
        "eps": float32s(0, 10, 0, 1e-37, 1e-30, 1e-8, 1e-3, 1e20),
        "weight_decay": float32s(0, 10, 0, 1e-30, 1e-4, 1e4),
        "eps_outside": float32s(0, 10, 0, 1e-37, 1e-8, 1e20),
        "maximize": st.booleans(),
    }
)


def values(dtype, shape):
    """Return a strategy for arrays of finite numbers, extremes among them."""
    info = jnp.finfo(dtype)
    extremes = [0.0, 1e-30, 1e-12, 1e-8, 1e-3, 1.0, 1e3, 1e20, 1e30]
    largest = min(float(info.max), 1e300)  # of which NumPy has the modulus
    extremes += [largest, float(info.tiny), float(info.smallest_subnormal)]
    extremes = [x for x in extremes if x <= largest]
    element = st.sampled_from(extremes) | st.floats(0, min(1e6, float(info.max)))
    size = int(np.prod(shape)) * (2 if jnp.issubdtype(dtype, np.complexfloating) else 1)

    def build(drawn):
        flat = np.array([-x if sign else x for x, sign in drawn], np.float64)
        if jnp.issubdtype(dtype, np.complexfloating):
            flat = flat[: len(flat) // 2] + 1j * flat[len(flat) // 2 :]
        return flat.reshape(shape).astype(dtype)

    return st.lists(
        st.tuples(element, st.booleans()), min_size=size, max_size=size
    ).map(build)


# --- Numbers, whatever the data and the hyperparameters -------------------------------

LEAVES = [
    (np.dtype("float16"), (2,)),
    (jnp.dtype("bfloat16"), (3,)),
    (np.dtype("float32"), (2, 2)),
    (np.dtype("float32"), ()),
    (np.dtype("float32"), (0, 2)),
]
WIDE_LEAVES = [
    (np.dtype("float64"), (3,)),
    (np.dtype("float64"), ()),
    (np.dtype("complex64"), (2,)),
    (np.dtype("complex128"), ()),
]


def tree_of(leaves):
    """Return a tree of nodes of every kind that has these leaves in this order."""
    first, second, *rest = leaves
    return {"a": [None, first], "b": ({}, {"c": second}), "d": list(rest)}


def data(leaves):
    params = st.tuples(
        *(
            st.lists(st.floats(-10, 10, width=16), min_size=size, max_size=size).map(
                lambda x, d=dtype, s=shape: np.array(x, np.float64).reshape(s).astype(d)
            )
            for dtype, shape in leaves
            for size in [int(np.prod(shape))]
        )
    )
    gradients = st.tuples(*(values(dtype, (STEPS, *shape)) for dtype, shape in leaves))
    return st.tuples(params, gradients)


@functools.cache
def runner(optimizer, form):
    """Return the compiled updates of all steps at fixed parameters."""

    @jax.jit
    def run(hyper, params, gradients):
        tx = optimizer(**hyper, state_dtype=form)
        params = tree_of(params)

        def step(state, gradient):
            updates, state = tx.update(tree_of(gradient), state, params)
            return state, jax.tree.leaves(updates)

        return jax.lax.scan(step, tx.init(params), list(gradients))[1]

    return run


def traced(hyper):
    return {
        name: np.bool_(value) if isinstance(value, bool) else np.float32(value)
        for name, value in hyper.items()
    }


@pytest.mark.parametrize("form", running.FORMS)
@pytest.mark.parametrize(
    "optimizer", [ao.adamax, pytest.param(ao.adamaxw, marks=pytest.mark.slow)]
)
def test_any_data_and_traced_hyperparameters(optimizer, form):
    @fuzz(30)
    @hypothesis.given(data(LEAVES), HYPER)
    def check(drawn, hyper):
        params, gradients = drawn
        got = runner(optimizer, form)(traced(hyper), params, gradients)
        decoupled = optimizer is ao.adamaxw
        assert_right(form, params, gradients, got, hyper, decoupled=decoupled)

    check()


@pytest.mark.usefixtures("x64", "lenient_promotion")
@pytest.mark.parametrize("form", running.FORMS)
def test_any_wide_data(form):
    leaves = WIDE_LEAVES if form is None else WIDE_LEAVES[:2]  # no complex ones

    @fuzz(20)
    @hypothesis.given(data(leaves), HYPER)
    def check(drawn, hyper):
        params, gradients = drawn
        got = runner(ao.adamax, form)(traced(hyper), params, gradients)
        assert_right(form, params, gradients, got, hyper, decoupled=False)

    check()


# --- Any tree -------------------------------------------------------------------------

SHAPES = st.sampled_from([(), (2,), (2, 1), (0, 3)])
HALF = jnp.dtype("bfloat16")
DTYPES = st.sampled_from([np.dtype("float16"), HALF, np.dtype("float32")])
LEAF = st.builds(lambda shape, dtype: np.ones(shape, dtype), SHAPES, DTYPES)
TREES = st.recursive(
    LEAF | st.none(),
    lambda inner: (
        st.dictionaries(st.sampled_from("abc"), inner, max_size=3)
        | st.lists(inner, max_size=3)
        | st.lists(inner, max_size=2).map(tuple)
    ),
    max_leaves=5,
).filter(lambda tree: tree is not None)
OPTIMIZERS = st.sampled_from([ao.adamax, ao.adamaxw])
# Python numbers, and a b1 that the word takes.
PLAIN = {
    "learning_rate": st.floats(0, 10),
    "b1": st.floats(0, 0.9),
    "b2": st.floats(0.91, 1, exclude_max=True),
    "eps": st.floats(0, 1),
    "weight_decay": st.floats(0, 1),
    "eps_outside": st.floats(0, 1),
    "maximize": st.booleans(),
}


@fuzz(60)
@hypothesis.given(
    TREES, OPTIMIZERS, st.sampled_from(FORMS), st.fixed_dictionaries(PLAIN), st.data()
)
def test_any_tree_keeps_its_form(tree, optimizer, form, hyper, draw):
    tx = optimizer(**hyper, state_dtype=form)
    state = jax.eval_shape(tx.init, tree)
    # Some leaves have no gradient, some gradients another dtype.
    gradients = jax.tree.map(
        lambda p: draw.draw(st.sampled_from([None, p, np.ones(p.shape, "float32")])),
        tree,
    )
    updates, new = jax.eval_shape(tx.update, gradients, state, tree)
    shape_and_dtype = functools.partial(
        jax.tree.map, lambda x: (x.shape, jnp.dtype(x.dtype))
    )
    assert shape_and_dtype(updates) == shape_and_dtype(gradients)
    assert shape_and_dtype(new) == shape_and_dtype(state)


@fuzz(20)
@hypothesis.given(
    TREES, OPTIMIZERS, st.sampled_from(FORMS), st.fixed_dictionaries(PLAIN), st.data()
)
def test_any_tree_has_the_numbers(tree, optimizer, form, hyper, draw):
    tx = optimizer(**hyper, state_dtype=form)
    gradients = jax.tree.map(
        lambda p: draw.draw(values(p.dtype, (STEPS, *p.shape))), tree
    )

    @jax.jit
    def run(gradients):
        def step(state, gradient):
            updates, state = tx.update(gradient, state, tree)
            return state, updates

        return jax.lax.scan(step, tx.init(tree), gradients, length=STEPS)[1]

    params, gradient_leaves = jax.tree.leaves(tree), jax.tree.leaves(gradients)
    got = jax.tree.leaves(run(gradients))
    decoupled = optimizer is ao.adamaxw
    assert_right(form, params, gradient_leaves, got, hyper, decoupled=decoupled)


# --- What does not fit ----------------------------------------------------------------


def no_parameters(leaf):
    """Return objects that may be in a leaf's place but are no parameters."""
    return [
        np.ones(leaf.shape, "int32"),
        np.ones(leaf.shape, bool),
        np.full(leaf.shape, None),
        "text",
        len,
        Fraction(1, 2),
    ]


def other_arrays(leaf):
    """Return arrays that are not of a leaf's shape and kind."""
    return [
        np.ones((*leaf.shape, 3), leaf.dtype),
        np.ones((1, *leaf.shape), leaf.dtype),
        np.ones(leaf.shape, "complex64"),
    ]


def put(tree, number, leaf):
    """Return the tree with another object in the place of a leaf."""
    leaves, treedef = jax.tree.flatten(tree)
    leaves[number] = leaf
    return treedef.unflatten(leaves)


WITH_LEAVES = TREES.filter(lambda tree: len(jax.tree.leaves(tree)) > 0)


@fuzz(40)
@hypothesis.given(WITH_LEAVES, OPTIMIZERS, st.sampled_from(FORMS), st.data())
def test_leaf_that_does_not_fit_is_named(tree, optimizer, form, draw):
    decay = draw.draw(st.sampled_from([0.0, 0.1]))
    tx = optimizer(weight_decay=decay, state_dtype=form)
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    number = draw.draw(st.integers(0, len(leaves) - 1))
    path, leaf = leaves[number]
    name = jax.tree_util.keystr(path) or "the root"

    bad = put(tree, number, draw.draw(st.sampled_from(no_parameters(leaf))))
    other = put(tree, number, draw.draw(st.sampled_from(other_arrays(leaf))))
    with pytest.raises(ValueError) as error:
        tx.init(bad)
    assert f"parameter at {name} " in str(error.value)
    state = tx.init(tree)
    for gradients in [bad, other]:
        with pytest.raises(ValueError) as error:
            tx.update(gradients, state, tree)
        assert f"gradient at {name} " in str(error.value)
        # The class as well, and it changes nothing.
        instance = ao.Adamax(tree)
        with pytest.raises(ValueError) as error:
            instance(gradients)
        label = f"params{jax.tree_util.keystr(path)}"
        assert label in str(error.value) or not path
        jax.tree.map(np.testing.assert_array_equal, instance.parameters, tree)
    if decay:
        for params in [bad, other]:
            with pytest.raises(ValueError) as error:
                tx.update(tree, state, params)
            assert f"at {name} " in str(error.value)


@fuzz(60)
@hypothesis.given(TREES, TREES, OPTIMIZERS, st.sampled_from(FORMS))
def test_any_two_trees(tree, other, optimizer, form):
    # Whatever is passed as gradients and parameters: numbers of the same form, or an
    # error, and never one from the inside of JAX.
    tx = optimizer(weight_decay=0.1, state_dtype=form)
    state = jax.eval_shape(tx.init, tree)
    for gradients, params in [(other, tree), (tree, other), (other, other)]:
        try:
            updates, _ = jax.eval_shape(tx.update, gradients, state, params)
        except ValueError as error:
            assert "gradient" in str(error) or "parameter" in str(error)
        else:
            assert jax.tree.structure(updates) == jax.tree.structure(gradients)


# --- Hyperparameters out of range -----------------------------------------------------

NUMBERS = ["learning_rate", "b1", "b2", "eps", "weight_decay", "eps_outside"]
NO_NUMBERS: list = [None, "0.1", [0.1], (0.1,), 0.1j, Fraction(1, 10), object(), {}]
NO_NUMBERS += [np.ones(2), jnp.ones(1), np.ones((0,)), np.array("x"), np.bool_(True)]
NO_NUMBERS += [jnp.array(1j), np.complex64(1), jnp.array(True)]


def out_of_range(name):
    """Return a strategy for what a hyperparameter must not be."""
    bad = st.floats(max_value=0, exclude_max=True) | st.integers(max_value=-1)
    bad |= st.sampled_from([np.nan, np.inf, -np.inf, 10**400, 1e300])
    bad |= st.sampled_from(NO_NUMBERS)
    if name in ("b1", "b2"):
        bad |= st.floats(min_value=1) | st.just(jnp.bfloat16(0.5))
    floats = bad.filter(lambda x: isinstance(x, float))
    return bad | floats.map(np.float64) | floats.map(np.array)


@fuzz(150)
@hypothesis.given(
    OPTIMIZERS, st.sampled_from(FORMS), st.sampled_from(NUMBERS), st.data()
)
def test_hyperparameter_out_of_range_is_named(optimizer, form, name, draw):
    value = draw.draw(out_of_range(name))
    with pytest.raises(ValueError, match=f"^{name} ") as error:
        optimizer(**{name: value}, state_dtype=form)
    shown = value.item() if isinstance(value, np.float64) else value
    assert (
        repr(value) in str(error.value)
        or repr(shown) in str(error.value)
        or (f"dtype {getattr(value, 'dtype', None)}" in str(error.value))
    )


@fuzz(100)
@hypothesis.given(st.sampled_from(["lr", "betas", "eps", "weight_decay"]), st.data())
def test_class_refuses_and_changes_nothing(name, draw):
    one_element = (np.ndarray, jax.Array)
    value = draw.draw(out_of_range("b1" if name == "betas" else name))
    hypothesis.assume(not (isinstance(value, one_element) and value.size == 1))
    hypothesis.assume(not isinstance(value, Fraction))
    value = (0.5, value) if name == "betas" else value
    shown = r"betas\[1\]" if name == "betas" else name
    optimizer = ao.Adamax(np.ones(2, np.float32))
    with pytest.raises(ValueError, match=shown):
        ao.Adamax(np.ones(2, np.float32), **{name: value})
    optimizer.param_groups[0][name] = value
    with pytest.raises(ValueError, match=shown):
        optimizer(np.ones(2, np.float32))
    np.testing.assert_array_equal(optimizer.parameters, 1)


# --- Gradients that are not finite ----------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_bad_element_is_visible_and_stays_alone(form, bad):
    hyper = dict(learning_rate=0.1, b1=0.9, b2=0.999, eps=1e-8, weight_decay=0.1)
    hyper = traced({**hyper, "eps_outside": 0.0, "maximize": False})

    @fuzz(5)
    @hypothesis.given(data(LEAVES), st.integers(0, STEPS - 1), st.integers(0, 3))
    def check(drawn, step, number):
        params, gradients = drawn[0], list(drawn[1])
        clean = runner(ao.adamax, form)(hyper, params, gradients)
        gradients[number] = gradients[number].copy()
        place = (0,) * (gradients[number].ndim - 1)
        gradients[number][(step, *place)] = bad
        got = runner(ao.adamax, form)(hyper, params, gradients)
        for i, (update, expected) in enumerate(zip(got, clean, strict=True)):
            update, expected = np.array(update, float), np.array(expected, float)
            if i == number:
                after = (slice(step, None), *place)
                if np.isnan(bad) or form is None:  # inf / inf, and from then on
                    assert np.isnan(update[after]).all()
                else:  # as one beyond the range
                    assert np.isfinite(update[after]).all()
                update[after] = expected[after] = 0
            np.testing.assert_array_equal(update, expected)

    check()


# --- The class ------------------------------------------------------------------------

CLASS_LEAVES = [
    (np.dtype("float16"), (2,)),
    (np.dtype("float32"), (2, 2)),
    (np.dtype("complex64"), (2,)),
]
CLASS_GROUPS = [(None, [0, 1, 2]), ("bfloat16", [1]), ("float16", [1]), ("uint16", [1])]


def real(array):
    """Return a complex array as one of its components, and a real one as it is."""
    array = np.asarray(array)
    is_complex = np.iscomplexobj(array)
    return np.stack([array.real, array.imag], -1) if is_complex else array


@pytest.mark.usefixtures("lenient_promotion")  # Optax's, for complex numbers
def test_class_has_the_numbers():
    @fuzz(20)
    @hypothesis.given(data(CLASS_LEAVES), HYPER)
    def check(drawn, hyper):
        # The parameters are set back before each step, so that they are fixed here too.
        hyper = {**hyper, "eps_outside": 0.0}
        hypothesis.assume(hyper["b1"] < hyper["b2"])
        leaves, gradients = drawn
        params = [[leaves[k].copy() for k in numbers] for _, numbers in CLASS_GROUPS]
        optimizer = ao.Adamax(
            [
                {"params": own, "state_dtype": form}
                for own, (form, _) in zip(params, CLASS_GROUPS, strict=True)
            ],
            lr=hyper["learning_rate"],
            betas=(hyper["b1"], hyper["b2"]),
            eps=hyper["eps"],
            weight_decay=hyper["weight_decay"],
            maximize=hyper["maximize"],
        )
        history = []
        for t in range(STEPS):
            for group, own in zip(optimizer.param_groups, params, strict=True):
                group["params"] = own
            history.append(
                optimizer(
                    [[gradients[k][t] for k in numbers] for _, numbers in CLASS_GROUPS]
                )
            )
        for g, (form, numbers) in enumerate(CLASS_GROUPS):
            for place, k in enumerate(numbers):
                got = np.stack([real(step[g][place]) for step in history])
                p, gradient = real(leaves[k]), real(gradients[k])
                update, bound = exact(form, p, gradient, hyper, decoupled=False)
                expected = np.asarray(p, np.float64) + update
                size = np.abs(p).astype(np.float64) + np.abs(update)
                bound = bound + 2 * float(np.finfo(p.dtype).eps) * size
                assert_within(got, expected, bound, f"{form}, {hyper}")

    check()
