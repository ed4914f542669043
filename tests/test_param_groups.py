"""param_groups: which parameter is in which group, and the numbers of each group."""

import functools
from typing import NamedTuple

import chex
import equinox as eqx
import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import adamax_optax as ao
from tests.running import FORMS, random_gradients, trajectory

PARAMS = {
    "embedding": np.linspace(-1, 1, 6, dtype=np.float32).reshape(3, 2),
    "dense": {
        "kernel": np.linspace(1, 2, 4, dtype=np.float32).reshape(2, 2),
        "bias": np.array([0.5, -0.5], np.float32),
    },
    "norm": {"scale": np.ones(2, np.float32)},
}
GRADIENTS = jax.tree.map(
    lambda p: random_gradients(p.shape, steps=20, seed=p.size).astype(np.float32),
    PARAMS,
)
RULES = {
    "bias|norm": {"weight_decay": 0.0},
    "embedding": {"learning_rate_scale": 0.1},
    ".*": {},
}
LABELS = {
    "embedding": "embedding",
    "dense": {"kernel": ".*", "bias": "bias|norm"},
    "norm": {"scale": "bias|norm"},
}
SCHEDULE = optax.linear_schedule(0.1, 0.01, 20)


def one_update(tx, params, gradients=None):
    """Return the first update, inside jit."""
    gradients = params if gradients is None else gradients
    return jax.jit(tx.update)(gradients, tx.init(params), params)[0]


# --- The numbers ----------------------------------------------------------------------


def test_against_the_groups_of_pytorch():
    torch = pytest.importorskip("torch")
    own = {
        "bias|norm": dict(weight_decay=0.0, eps=1e-3),
        "embedding": dict(learning_rate_scale=0.1, b1=0.5, b2=0.9),
        "kernel": dict(maximize=True),
    }
    tx = ao.param_groups(own, learning_rate=0.02, weight_decay=0.1)
    got, _ = trajectory(tx, PARAMS, GRADIENTS)

    theirs = jax.tree.map(lambda p: torch.nn.Parameter(torch.tensor(p)), PARAMS)
    dense, norm = theirs["dense"], theirs["norm"]
    optimizer = torch.optim.Adamax(
        [
            dict(params=[dense["bias"], norm["scale"]], weight_decay=0.0, eps=1e-3),
            dict(params=[theirs["embedding"]], lr=0.1 * 0.02, betas=(0.5, 0.9)),
            dict(params=[dense["kernel"]], maximize=True),
        ],
        lr=0.02,
        weight_decay=0.1,
    )
    for step in range(20):
        for parameter, gradient in zip(
            jax.tree.leaves(theirs), jax.tree.leaves(GRADIENTS), strict=True
        ):
            parameter.grad = torch.tensor(gradient[step])
        optimizer.step()
        expected = jax.tree.map(lambda p: p.detach().numpy(), theirs)
        chex.assert_trees_all_close(
            jax.tree.map(lambda p, step=step: p[step], got),
            expected,
            rtol=2e-6,
            atol=1e-7,
        )


@pytest.mark.usefixtures("lenient_promotion")
@pytest.mark.parametrize("state_dtype", FORMS)
@pytest.mark.parametrize("optimizer", [ao.adamax, ao.adamaxw])
def test_is_the_partition_that_one_would_build_by_hand(optimizer, state_dtype):
    tx = ao.param_groups(
        RULES,
        optimizer,
        learning_rate=SCHEDULE,
        weight_decay=0.1,
        state_dtype=state_dtype,
    )
    make = functools.partial(optimizer, state_dtype=state_dtype)
    by_hand = optax.partition(
        {
            "bias|norm": make(SCHEDULE, weight_decay=0.0),
            "embedding": make(lambda t: 0.1 * SCHEDULE(t), weight_decay=0.1),
            ".*": make(SCHEDULE, weight_decay=0.1),
        },
        LABELS,
    )
    got, state = trajectory(tx, PARAMS, GRADIENTS)
    expected, state_by_hand = trajectory(by_hand, PARAMS, GRADIENTS)
    chex.assert_trees_all_equal(got, expected)
    chex.assert_trees_all_equal(state, state_by_hand)


@pytest.mark.usefixtures("lenient_promotion")
def test_takes_any_optimizer_of_optax():
    tx = ao.param_groups(RULES, optax.adamaxw, learning_rate=0.02, weight_decay=0.1)
    ours = ao.param_groups(RULES, ao.adamaxw, learning_rate=0.02, weight_decay=0.1)
    theirs, _ = trajectory(tx, PARAMS, GRADIENTS)
    got, _ = trajectory(ours, PARAMS, GRADIENTS)
    chex.assert_trees_all_close(got, theirs, rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize("optimizer", [ao.adamax, ao.adamaxw])
@pytest.mark.parametrize(
    "rate", [{}, {"learning_rate": 0.3}, {"learning_rate": lambda count: 0.3}]
)
def test_scale_of_the_learning_rate(optimizer, rate):
    # The default, a number, a schedule; in adamaxw it takes the decay along.
    params = [jnp.ones(2), jnp.ones(2)]
    tx = ao.param_groups(
        {"0": {"learning_rate_scale": 0.25}, "1": {}},
        optimizer,
        weight_decay=0.5,
        **rate,
    )
    scaled, plain = one_update(tx, params)
    np.testing.assert_allclose(scaled, 0.25 * plain, rtol=1e-6)
    assert np.all(plain < 0)


def test_first_match_wins():
    rules = {"b": {"learning_rate": 0.1}, "bias": {}, "a|b": {"learning_rate": 0.2}}
    tx = ao.param_groups({k: rules[k] for k in ["b", "a|b"]}, learning_rate=0.3)
    update = one_update(tx, {"a": jnp.ones(1), "bias": jnp.ones(1)})
    np.testing.assert_allclose(update["a"], -0.2, rtol=1e-6)
    np.testing.assert_allclose(update["bias"], -0.1, rtol=1e-6)
    with pytest.raises(ValueError, match=r"rules \['bias'\] apply to no parameter"):
        ao.param_groups(rules).init({"a": jnp.ones(1), "bias": jnp.ones(1)})


def test_a_rule_overrides_the_defaults():
    tx = ao.param_groups({"a": dict(b1=0.0), "b": {}}, learning_rate=0.1, b1=0.5)
    params = {"a": jnp.ones(1), "b": jnp.ones(1)}
    state = tx.init(params)
    for sign in (1, -1):
        update, state = tx.update(optax.tree_utils.tree_scale(sign, params), state)
    # b1 = 0: the last gradient; 0.5: (-0.5 + 0.25) / 0.75 of it. u is 0.999 or 1.
    np.testing.assert_allclose(update["a"], 0.1, rtol=1e-5)
    np.testing.assert_allclose(update["b"], 0.1 / 3, rtol=1e-5)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.int32])
def test_freezing_takes_no_state_and_no_gradient(dtype):
    params = {"encoder": jnp.ones((100, 10), dtype), "head": jnp.ones(2)}
    tx = ao.param_groups({"encoder": optax.set_to_zero(), "head": {}})
    assert sum(leaf.nbytes for leaf in jax.tree.leaves(tx.init(params))) == 2 * 8 + 4
    update = one_update(tx, params)
    np.testing.assert_array_equal(update["encoder"], 0)
    assert update["encoder"].dtype == dtype
    np.testing.assert_allclose(update["head"], -2e-3, rtol=1e-6)


def test_each_group_has_its_form_of_state():
    params = {"embedding": jnp.ones((10, 10)), "head": jnp.ones(2)}
    tx = ao.param_groups({"embedding": {"state_dtype": "uint16"}, "head": {}})
    state = tx.init(params).inner_states
    sizes = {k: sum(x.nbytes for x in jax.tree.leaves(v)) for k, v in state.items()}
    # A word for each and the scale, the key and the count; two floats and the count.
    assert sizes == {"embedding": 2 * 100 + 16, "head": 8 * 2 + 4}


# --- Names ----------------------------------------------------------------------------


class Layer(NamedTuple):
    weight: jax.Array
    rest: list


class Linears(nnx.Module):
    def __init__(self, *, rngs):
        self.first = nnx.Linear(1, 1, rngs=rngs)
        self.rest = nnx.Sequential(
            nnx.Linear(1, 1, use_bias=False, rngs=rngs), nnx.LayerNorm(1, rngs=rngs)
        )


def equinox_mlp():
    mlp = eqx.nn.MLP(1, 1, 1, depth=1, key=jax.random.key(0))
    return eqx.filter(mlp, eqx.is_array)


NNX_NAMES = "first/bias first/kernel rest/layers/0/kernel rest/layers/1/bias"
NNX_NAMES += " rest/layers/1/scale"


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (lambda: {"a": {"b_0": jnp.ones(1)}, "c": jnp.ones(1)}, "a/b_0 c"),
        (lambda: [jnp.ones(1), (jnp.ones(1), {"a": jnp.ones(1)})], "0 1/0 1/1/a"),
        (lambda: Layer(jnp.ones(1), [None, jnp.ones(1)]), "weight rest/1"),
        (lambda: {"linear/~/w": {"w": jnp.ones(1)}}, "linear/~/w/w"),
        (equinox_mlp, "layers/0/bias layers/0/weight layers/1/bias layers/1/weight"),
        (lambda: nnx.state(Linears(rngs=nnx.Rngs(0)), nnx.Param), NNX_NAMES),
        (
            lambda: nnx.to_pure_dict(nnx.state(Linears(rngs=nnx.Rngs(0)), nnx.Param)),
            NNX_NAMES,
        ),
    ],
    ids=["dict", "list", "NamedTuple", "haiku", "equinox", "nnx.State", "pure"],
)
def test_names(make, names):
    # As every parameter must match and every rule be used, these are the names. The
    # learning rates then show that each rule has taken its own.
    params, names = make(), names.split()
    rates = {name: 0.1 * i for i, name in enumerate(names, start=1)}
    tx = ao.param_groups(
        {f"^{name}$": {"learning_rate": rate} for name, rate in rates.items()}
    )
    updates = one_update(tx, jax.tree.map(jnp.ones_like, params))
    chex.assert_trees_all_equal_structs(updates, params)
    got = {
        jax.tree_util.keystr(path, simple=True, separator="/").removesuffix("/value"): u
        for path, u in jax.tree_util.tree_leaves_with_path(updates)
    }
    assert set(got) == set(names)
    for name, rate in rates.items():
        np.testing.assert_allclose(got[name], np.full_like(got[name], -rate), rtol=1e-5)


def test_one_array_has_the_empty_name():
    update = one_update(ao.param_groups({"^$": {}}, learning_rate=0.1), jnp.ones(2))
    np.testing.assert_allclose(update, -0.1, rtol=1e-6)


def test_nnx_optimizer_groups_variables_and_their_arrays_alike():
    # Its init sees variables, its update arrays: the pattern must end both names.
    model = Linears(rngs=nnx.Rngs(0))
    before = jax.tree.map(np.asarray, nnx.to_pure_dict(nnx.state(model, nnx.Param)))
    rules = {"/(bias|scale)$": {"learning_rate": 0.5}, "/kernel$": {}}
    optimizer = nnx.Optimizer(
        model, ao.param_groups(rules, learning_rate=0.25), wrt=nnx.Param
    )
    ones = jax.tree.map(jnp.ones_like, nnx.state(model, nnx.Param))
    for _ in range(2):
        optimizer.update(model, ones)
    after = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    moved = jax.tree.map(lambda a, b: np.ravel(b - a)[0], before, after)
    np.testing.assert_allclose(moved["first"]["bias"], -1.0, rtol=1e-5)
    np.testing.assert_allclose(moved["rest"]["layers"][1]["scale"], -1.0, rtol=1e-5)
    np.testing.assert_allclose(moved["first"]["kernel"], -0.5, rtol=1e-5)


# --- Errors ---------------------------------------------------------------------------


def test_parameter_without_a_rule():
    tx = ao.param_groups({"bias": {}, "norm": {}})
    with pytest.raises(ValueError, match=r"'dense/kernel' matches none .*'bias', 'nor"):
        tx.init({"dense": {"kernel": jnp.ones(1), "bias": jnp.ones(1)}})


def test_rules_without_a_parameter():
    tx = ao.param_groups({"bias": {}, "nrom": {}, "x$": {}, ".*": {}})
    with pytest.raises(ValueError, match=r"rules \['nrom', 'x\$'\] .*'norm/scale'"):
        tx.init(PARAMS)


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({}, "rules must be a dict of patterns"),
        ([("bias", {})], "rules must be a dict of patterns"),
        ({"*bias": {}}, r"rule '\*bias' is not a regular expression: nothing to rep"),
        ({0: {}}, "rule 0 is not a regular expression"),
        (
            {"bias": 0.1},
            r"rule 'bias' must map to a dict .* or a transformation .*0\.1",
        ),
        ({"bias": {"lr": 0.1}}, r"rule 'bias': .*'lr'.* takes \['learning_rate'"),
        ({"bias": {"b1": 2.0}}, r"rule 'bias': b1 must be .* got 2\.0"),
        ({"bias": {"learning_rate_scale": -1.0}}, r"rule 'bias': learning_rate_scale"),
        ({"bias": {"learning_rate_scale": "x"}}, r"'bias': learning_rate_scale .*'x'"),
        (
            {"bias": {"learning_rate_scale": 1, "learning_rate": "x"}},
            "rule 'bias': learning_rate must be",
        ),
    ],
)
def test_bad_rules(rules, message):
    with pytest.raises(ValueError, match=message):
        ao.param_groups(rules)


def test_scales_a_learning_rate_that_the_signature_does_not_name():
    def wrapped(**kwargs):
        return ao.adamax(**kwargs)

    tx = ao.param_groups(
        {"x": {"learning_rate_scale": 0.5}}, wrapped, learning_rate=1.0
    )
    params = {"x": jnp.ones(2)}
    updates, _ = tx.update(params, tx.init(params), params)
    np.testing.assert_allclose(updates["x"], -0.5, rtol=1e-6)


def test_optimizers_that_do_not_fit():
    with pytest.raises(ValueError, match="'x': learning_rate_scale needs an optimizer"):
        ao.param_groups({"x": {"learning_rate_scale": 0.1}}, ao.scale_by_adamax)
    with pytest.raises(ValueError, match="'x': missing .*'learning_rate'"):
        ao.param_groups({"x": {}}, optax.sgd)


def test_gradients_that_do_not_fit():
    tx = ao.param_groups({"a": {}, "b": {}})
    state = tx.init({"a": jnp.ones(3), "b": jnp.ones(2)})
    with pytest.raises(ValueError, match=r"\['b'\] has shape \(3,\)"):
        tx.update({"a": jnp.ones(3), "b": jnp.ones(3)}, state)
    with pytest.raises(ValueError, match="'c' matches none of the rules"):
        tx.update({"a": jnp.ones(3), "c": jnp.ones(3)}, state)


def test_a_tree_without_parameters_passes():
    tx = ao.param_groups({"bias": {}})
    for empty in [{}, {"bias": None}, {"x": None}, [optax.MaskedNode()]]:
        assert tx.update(empty, tx.init(empty), empty)[0] == empty


# --- Where it stands ------------------------------------------------------------------


def test_leaves_without_gradient_keep_their_moments():
    tx = ao.param_groups({"a": {}, "b": {}}, learning_rate=0.1, weight_decay=0.1)
    params = {"a": [jnp.ones(2), jnp.ones(2)], "b": jnp.ones(2), "none": None}
    state = tx.init(params)
    gradients = {"a": [None, jnp.ones(2)], "b": jnp.ones(2), "none": None}
    update, state = tx.update(gradients, state, params)
    assert update["a"][0] is None and update["none"] is None
    np.testing.assert_allclose(update["a"][1], -0.1, rtol=1e-6)
    mu = optax.tree_utils.tree_get(state.inner_states["a"], "mu")
    np.testing.assert_array_equal(mu["a"][0], 0)


def test_hyperparameters_are_traced_and_vmapped():
    def last(decay, scale):
        rules = {"norm": {"weight_decay": decay}, ".*": {"learning_rate_scale": scale}}
        tx = ao.param_groups(rules, learning_rate=SCHEDULE, weight_decay=0.1)
        return trajectory_end(tx)

    decays, scales = jnp.array([0.0, 0.2]), jnp.array([0.5, 2.0])
    swept = jax.jit(jax.vmap(last))(decays, scales)
    for i in range(2):
        expected = last(float(decays[i]), float(scales[i]))
        got = jax.tree.map(lambda x, i=i: x[i], swept)
        chex.assert_trees_all_close(got, expected, rtol=1e-5, atol=1e-6)


def trajectory_end(tx):
    """Return the parameters after all gradients; differentiable."""

    def step(carry, gradient):
        params, state = carry
        updates, state = tx.update(gradient, state, params)
        return (optax.apply_updates(params, updates), state), None

    params = jax.tree.map(jnp.asarray, PARAMS)
    gradients = jax.tree.map(jnp.asarray, GRADIENTS)
    (params, _), _ = jax.lax.scan(step, (params, tx.init(params)), gradients)
    return params


@pytest.mark.parametrize("inside", [False, True])
def test_learning_rate_that_is_set_while_training(inside):
    # Injected into a function that makes the groups, or into each group by itself.
    params = {"embedding": jnp.ones(2), "head": jnp.ones(2)}
    rules = {"embedding": {"learning_rate_scale": 0.5}, "head": {}}
    if inside:
        tx = ao.param_groups(
            rules, optax.inject_hyperparams(ao.adamax), learning_rate=0.1
        )
    else:
        tx = optax.inject_hyperparams(
            lambda learning_rate: ao.param_groups(rules, learning_rate=learning_rate)
        )(learning_rate=0.1)
    state = tx.init(params)
    update_fn = jax.jit(chex.assert_max_traces(tx.update, n=1))
    for rate in [0.1, 0.4]:
        if inside:
            groups = state.inner_states
            groups["head"].inner_state.hyperparams["learning_rate"] = jnp.float32(rate)
        else:
            state.hyperparams["learning_rate"] = jnp.float32(rate)
        update, state = update_fn(params, state, params)
        np.testing.assert_allclose(update["head"], -rate, rtol=1e-5)
        small = 0.05 if inside else 0.5 * rate
        np.testing.assert_allclose(update["embedding"], -small, rtol=1e-5)
    chex.clear_trace_counter()


def test_the_state_is_looked_at_by_name_mapped_and_saved():
    tx = ao.param_groups(RULES, learning_rate=0.1)
    params = jax.tree.map(jnp.asarray, PARAMS)
    _, state = jax.jit(tx.update)(params, tx.init(params), params)
    mu = optax.tree_utils.tree_get(state.inner_states["embedding"], "mu")
    np.testing.assert_allclose(mu["embedding"], 0.1 * PARAMS["embedding"], rtol=1e-6)

    # Optax finds in it what belongs to a parameter.
    shapes = optax.tree_utils.tree_map_params(
        tx, lambda leaf: str(leaf.shape), state, transform_non_params=lambda _: "other"
    )
    expected = [str(p.shape) for p in jax.tree.leaves(PARAMS)] * 2 + ["other"] * 3
    assert sorted(jax.tree.leaves(shapes)) == sorted(expected)

    saved = flax.serialization.to_bytes(state)
    loaded = flax.serialization.from_bytes(tx.init(params), saved)
    chex.assert_trees_all_equal(loaded, state)


def test_moments_lie_where_their_parameters_lie():
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:2]), "x")
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("x"))
    params = {"a": jnp.ones((4, 2)), "b": jnp.ones(8)}
    placed = jax.device_put(params, sharding)
    tx = ao.param_groups({"a": {}, "b": {"learning_rate_scale": 0.5}})
    state = tx.init(placed)
    updates, state = jax.jit(tx.update)(placed, state, placed)
    moments = [x for x in jax.tree.leaves((updates, state)) if x.ndim > 0]
    assert len(moments) == 6 and all(x.sharding == sharding for x in moments)
    chex.assert_trees_all_equal(updates, one_update(tx, params))
