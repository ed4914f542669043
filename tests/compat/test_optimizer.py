"""The class `Adamax` on trees of arrays: steps, groups, live options, dtypes, Optax."""

import copy
import inspect
import itertools
import pickle

import chex
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.training.train_state import TrainState

import adamax_optax as ao
from adamax_optax import lr_scheduler
from tests.compat import inside
from tests.numbers.test_mindspore import CASES, STEPS, assert_within, largest, load
from tests.reference import adamax_trajectory
from tests.running import random_gradients

# The constructor of mindspore.experimental.optim.Adamax, recorded from MindSpore 2.10.0
# with inspect.signature, for where it is not installed.
MINDSPORE = (
    "(params, lr=0.002, betas=(0.9, 0.999), eps=1e-08, weight_decay=0.0, *, "
    "maximize=False)"
)
# What it prints, recorded from the same version.
MINDSPORE_REPR = """\
Adamax (
Parameter Group 0
    betas: (0.9, 0.999)
    eps: 1e-08
    lr: 0.3
    maximize: False
    weight_decay: 0.1

Parameter Group 1
    betas: (0.9, 0.999)
    eps: 1e-08
    lr: 0.1
    maximize: False
    weight_decay: 0.1
)"""


@pytest.fixture
def compilations(monkeypatch):
    """Return a function that counts compilations of the step since the last call."""
    return inside.count_compilations(monkeypatch)


def close(actual, expected, rtol=2e-6):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol),
        actual,
        expected,
    )


# --- The signature and the printed form -----------------------------------------------


def unannotated(signature):
    return (
        "("
        + ", ".join(
            str(p.replace(annotation=p.empty))
            if p.kind is not p.KEYWORD_ONLY
            else f"*, {p.replace(annotation=p.empty)}"
            for p in signature.parameters.values()
        )
        + ")"
    )


def test_signature_as_recorded_from_mindspore():
    ours = unannotated(inspect.signature(ao.Adamax))
    assert ours == MINDSPORE.removesuffix(")") + (
        ", *, donate=False, *, foreach=None, *, capturable=False"
        ", *, differentiable=False, *, fused=None)"
    )


def test_signature_of_installed_mindspore():
    optim = pytest.importorskip("mindspore.experimental.optim")
    assert unannotated(inspect.signature(optim.Adamax)) == MINDSPORE


def test_repr_as_recorded_from_mindspore():
    groups = [{"params": jnp.ones(2), "lr": 0.3}, {"params": jnp.ones(2)}]
    assert repr(ao.Adamax(groups, lr=0.1, weight_decay=0.1)) == MINDSPORE_REPR


def test_everything_public_is_documented():
    for name, member in inspect.getmembers(ao.Adamax):
        if not name.startswith("_"):
            assert inspect.getdoc(member), name


# --- MindSpore's own trajectories -----------------------------------------------------


@pytest.mark.parametrize("case", [c for c in CASES if not c.startswith("nn_")])
def test_replays_mindspore(case):
    recording = load(case)
    params = iter([jnp.asarray(values[0]) for values in recording.params])
    groups = [
        {**group, "params": [next(params) for _ in group["leaves"]]}
        for group in recording.groups
    ]
    optimizer = ao.Adamax(groups)
    history = []
    for k in range(STEPS):
        for group, rates in zip(optimizer.param_groups, recording.rates, strict=True):
            group["lr"] = float(rates[k])
        # MindSpore's way of passing them: one flat sequence.
        optimizer(tuple(jnp.asarray(values[k]) for values in recording.grads))
        history.append(jax.tree.leaves(optimizer.parameters))
    assert_within(
        [np.stack(values) for values in zip(*history, strict=True)],
        [values[1:] for values in recording.params],
        [largest(values) for values in recording.params],
    )
    state = optimizer.state_dict()["state"]
    assert_within(
        [state[i]["exp_avg"] for i in range(len(state))],
        recording.exp_avg,
        [largest(g) for g in recording.grads],
    )
    assert {int(entry["step"]) for entry in state.values()} == {recording.step_t}


# --- Structures -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "params",
    [
        jnp.ones(3),
        np.ones(3, np.float32),
        [jnp.ones(3), jnp.ones(())],
        (jnp.ones(3), {"a": jnp.ones((2, 2)), "b": None}),
        {"a": (jnp.ones(3),), "empty": jnp.ones((0, 2))},
        {"params": {"kernel": jnp.ones((2, 3))}},  # as of Flax Linen
    ],
)
def test_any_tree_comes_back_as_it_was(params):
    optimizer = ao.Adamax(params, lr=0.1)
    gradients = jax.tree.map(jnp.ones_like, params)
    for stepped in (optimizer(gradients), optimizer.parameters):
        assert jax.tree.structure(stepped) == jax.tree.structure(params)
        jax.tree.map(lambda x: np.testing.assert_allclose(x, 0.9, rtol=1e-6), stepped)


@pytest.mark.parametrize(
    "given",
    [
        iter,
        lambda params: (p for p in params),
        lambda params: filter(lambda p: p.size, params),
        lambda params: dict(enumerate(params)).values(),
        lambda params: list(zip("ab", params, strict=False)),
        lambda params: dict(zip("ab", params, strict=False)).items(),
    ],
)
def test_parameters_as_pytorch_takes_them(given):
    params = [jnp.ones(3), jnp.ones(2)]
    optimizer = ao.Adamax(given(params), lr=0.5)
    groups = ao.Adamax({"params": given([p]), "lr": 0.5} for p in params)
    optimizer.zero_grad()
    first, second = optimizer(params)
    (one,), (other,) = groups([[params[0]], [params[1]]])
    for new in (first, second, one, other):
        np.testing.assert_allclose(new, 0.5, rtol=1e-6)


def test_names_of_parameters_are_kept():
    optimizer = ao.Adamax([("w", jnp.ones(3)), ("b", jnp.ones(2))])
    assert optimizer.param_groups[0]["param_names"] == ["w", "b"]
    [group] = ao.Adamax([{"params": [("w", jnp.ones(3))]}]).param_groups
    assert group["param_names"] == ["w"]


@pytest.mark.parametrize(
    "options",
    [
        {"foreach": False, "capturable": True, "differentiable": False},
        {"foreach": True, "fused": False},
    ],
)
def test_options_of_pytorch_without_an_effect(options):
    new = ao.Adamax(jnp.ones(2), lr=0.5, **options)(jnp.ones(2))
    np.testing.assert_allclose(new, 0.5, rtol=1e-6)


@pytest.mark.parametrize("kind", [np.array, jnp.array, list])
def test_betas_as_an_array(kind):
    optimizer = ao.Adamax(jnp.zeros(2), lr=0.5, betas=kind([0.0, 0.0]))
    np.testing.assert_allclose(optimizer(jnp.ones(2)), -0.5, rtol=1e-6)
    np.testing.assert_allclose(optimizer(-jnp.ones(2)), 0.0, atol=1e-6)


@pytest.mark.parametrize("state_dtype", [None, jnp.uint16])
def test_nothing_is_transferred(state_dtype):
    params = {"a": jnp.ones(5000), "b": jnp.ones(3), "c": jnp.ones(3)}
    group = {"params": params, "state_dtype": state_dtype}
    optimizer = ao.Adamax([group], lr=jnp.float32(0.1), eps=np.float64(1e-8))
    gradients = jax.tree.map(jnp.ones_like, [params])
    missing, half = [{**gradients[0], "b": None}], jnp.float32(0.5)
    optimizer(gradients)
    scheduler = lr_scheduler.StepLR(ao.Adamax([params], lr=0.5), 1)
    with jax.transfer_guard("disallow"):
        for _ in range(3):
            optimizer(gradients)
            optimizer(missing)
        # New hyperparameters are put there explicitly.
        optimizer.param_groups[0]["lr"] = 0.3
        optimizer(gradients)
        optimizer.param_groups[0]["lr"] = optimizer.param_groups[0]["eps"] = half
        optimizer(gradients)
        scheduler.step()
        if jax.__version_info__ >= (0, 7):  # older ones transfer the indices of a slice
            optimizer.state_dict()


def test_call_is_step():
    for call in (ao.Adamax.__call__, ao.Adamax.step):
        optimizer = ao.Adamax(jnp.ones(2), lr=0.1)
        np.testing.assert_allclose(call(optimizer, jnp.ones(2)), 0.9, rtol=1e-6)


@pytest.mark.parametrize(
    "gradients",
    [
        {"a": jnp.ones(2), "b": {"c": jnp.ones(()), "d": jnp.ones(2)}},
        [jnp.ones(2), jnp.ones(()), jnp.ones(2)],
        (np.ones(2, np.float32), np.float32(1), np.ones(2, np.float32)),
    ],
)
def test_gradients_as_tree_or_flat(gradients):
    params = {"a": jnp.ones(2), "b": {"c": jnp.ones(()), "d": jnp.ones(2)}}
    stepped = ao.Adamax(params, lr=0.1)(gradients)
    assert jax.tree.structure(stepped) == jax.tree.structure(params)
    close(stepped, jax.tree.map(lambda x: 0.9 * x, params))


@pytest.mark.parametrize(
    ("gradients", "moved"),
    [
        ({"a": jnp.ones(()), "b": {"c": None, "d": jnp.ones(())}}, "ad"),
        ({"a": None, "b": {"c": jnp.ones(()), "d": None}}, "c"),
        ({"a": jnp.ones(()), "b": None}, "a"),  # above the parameters
        ([None, jnp.ones(()), None], "c"),
        ([None, None, None], ""),
    ],
)
def test_parameter_without_gradient_is_left_alone(gradients, moved):
    params = {"a": jnp.ones(()), "b": {"c": jnp.ones(()), "d": jnp.ones(())}}
    optimizer = ao.Adamax(params, lr=0.1, weight_decay=0.5)
    optimizer({"a": jnp.ones(()), "b": {"c": jnp.ones(()), "d": jnp.ones(())}})
    before, old = optimizer.state_dict()["state"], optimizer.parameters
    new = optimizer(gradients)
    after = optimizer.state_dict()["state"]
    for k, name in enumerate("acd"):
        value, was = jax.tree.leaves(new)[k], jax.tree.leaves(old)[k]
        assert (float(value) != float(was)) == (name in moved)
        assert int(after[k]["step"]) == 1 + (name in moved)
        same = after[k]["exp_avg"] == before[k]["exp_avg"]
        assert bool(same) == (name not in moved)


def test_order_of_a_flat_sequence_is_that_of_the_parameters():
    params = {"z": jnp.zeros(1), "a": [jnp.zeros(2), jnp.zeros(3)]}
    stepped = ao.Adamax(params, lr=0.1)([jnp.ones(2), jnp.ones(3), -jnp.ones(1)])
    close(stepped, {"z": np.full(1, 0.1), "a": [np.full(2, -0.1), np.full(3, -0.1)]})


def test_groups():
    groups = (
        {"params": {"w": jnp.ones(2)}, "lr": 0.1, "name": "slow"},
        {"params": jnp.ones(3), "lr": 0.2, "maximize": True},
    )
    optimizer = ao.Adamax(groups)
    expected = [{"w": np.full(2, 0.9)}, np.full(3, 1.2)]
    close(optimizer([{"w": jnp.ones(2)}, jnp.ones(3)]), expected)
    close(optimizer.parameters, expected)
    assert optimizer.param_groups[0]["name"] == "slow"
    assert optimizer.param_groups[0]["betas"] == optimizer.defaults["betas"]
    # The caller's dicts are the caller's.
    assert "betas" not in groups[0]
    np.testing.assert_array_equal(groups[0]["params"]["w"], 1.0)


def test_one_group_still_comes_with_one_entry():
    optimizer = ao.Adamax([{"params": {"w": jnp.ones(2)}}], lr=0.1)
    close(optimizer([{"w": jnp.ones(2)}]), [{"w": np.full(2, 0.9)}])


def test_group_added_later_starts_its_own_bias_correction():
    optimizer = ao.Adamax({"w": jnp.zeros(2)}, lr=0.1)
    for _ in range(20):
        optimizer({"w": jnp.ones(2)})
    before = optimizer.parameters
    optimizer.add_param_group({"params": jnp.zeros(3), "lr": 0.5})
    new = optimizer([{"w": jnp.ones(2)}, jnp.ones(3)])
    # Under a constant gradient every step is lr, if it is corrected for its own count.
    close(new, [{"w": before["w"] - 0.1}, np.full(3, -0.5)])


@hypothesis.given(
    present=st.lists(
        st.tuples(st.booleans(), st.booleans(), st.booleans()), min_size=1, max_size=8
    )
)
@hypothesis.settings(max_examples=10)
def test_each_parameter_is_a_run_of_its_own(present):
    gradients = random_gradients((3, 2), steps=len(present))
    hyper = dict(lr=0.1, weight_decay=0.1)
    optimizer = ao.Adamax([jnp.ones(2)] * 3, **hyper)
    for gradient, flags in zip(gradients, present, strict=True):
        optimizer(
            [
                jnp.asarray(g, jnp.float32) if flag else None
                for g, flag in zip(gradient, flags, strict=True)
            ]
        )
    for k in range(3):
        own = [g[k] for g, flags in zip(gradients, present, strict=True) if flags[k]]
        expected = adamax_trajectory(np.ones(2), own, **hyper)[-1] if own else 1.0
        np.testing.assert_allclose(
            optimizer.parameters[k], expected, rtol=2e-6, atol=2e-6
        )


# --- Live options ---------------------------------------------------------------------


def test_a_hyperparameter_may_change_its_type():
    kinds = [float, np.float32, lambda x: np.full(1, x), jnp.float32]
    pairs = [pair for pair in itertools.product(kinds, kinds) if pair[0] != pair[1]]
    optimizer, param = ao.Adamax(jnp.zeros(()), lr=0.0), 0.0
    for before, after in pairs:
        for lr in (before(0.25), after(0.5), after(0.25), before(0.25)):
            optimizer.param_groups[0]["lr"] = lr
            param -= float(np.squeeze(lr))
            np.testing.assert_allclose(optimizer(jnp.ones(())), param, rtol=1e-6)


@pytest.mark.parametrize("kind", [float, np.float32, np.asarray, jnp.asarray])
def test_every_option_is_live_and_compiled_once(kind, compilations):
    start = dict(lr=0.1, betas=(0.5, 0.9), eps=1e-3, weight_decay=0.2, maximize=False)
    changes = [
        dict(lr=0.3),
        dict(betas=(0.7, 0.2)),
        dict(eps=0.5),
        dict(weight_decay=0.7),
        dict(maximize=True),
        dict(lr=0, weight_decay=1, eps=0),  # ints
        dict(lr=0.2, weight_decay=0.1),
    ]
    optimizer = ao.Adamax(jnp.full(5, 0.5), **start)
    tx = optax.inject_hyperparams(ao.adamax)(
        0.1, 0.5, 0.9, 1e-3, 0.2, maximize=jnp.asarray(False)
    )
    param = jnp.full(5, 0.5)
    state = tx.init(param)
    optimizer(jnp.ones(5))
    compilations()
    updates, state = tx.update(jnp.ones(5), state, param)
    param = optax.apply_updates(param, updates)
    for k, change in enumerate(changes):
        gradient = jnp.cos(jnp.arange(5.0) + k)
        for name, value in change.items():
            numeric = name in ("lr", "eps", "weight_decay")
            new = kind(value) if numeric else value
            optimizer.param_groups[0][name] = new
        live = optimizer.param_groups[0]
        state.hyperparams.update(
            learning_rate=jnp.asarray(live["lr"], jnp.float32),
            b1=jnp.asarray(live["betas"][0]),
            b2=jnp.asarray(live["betas"][1]),
            eps=jnp.asarray(live["eps"], jnp.float32),
            weight_decay=jnp.asarray(live["weight_decay"], jnp.float32),
            maximize=jnp.asarray(live["maximize"]),
        )
        updates, state = tx.update(gradient, state, param)
        param = optax.apply_updates(param, updates)
        close(optimizer(gradient), param)
    assert compilations() == 0


@pytest.mark.parametrize("kind", [float, np.float32, np.asarray, jnp.asarray])
def test_the_weight_decay_may_come_and_go(kind):
    decays = [0, 0.5, 0, 0.25, 0.25, 0]
    optimizer = ao.Adamax(jnp.ones(3), lr=0.1)
    param = jnp.ones(3)
    tx = optax.inject_hyperparams(ao.adamax)(0.1, weight_decay=0.0)
    state = tx.init(param)
    for k, decay in enumerate(decays):
        gradient = jnp.cos(jnp.arange(3.0) + k)
        optimizer.param_groups[0]["weight_decay"] = kind(decay)
        state.hyperparams["weight_decay"] = jnp.asarray(decay, jnp.float32)
        updates, state = tx.update(gradient, state, param)
        param = optax.apply_updates(param, updates)
        close(optimizer(gradient), param)


def test_an_array_changed_in_place_counts():
    lr = np.array(0.5)
    optimizer = ao.Adamax(jnp.zeros(2), lr=lr)
    close(optimizer(jnp.ones(2)), np.full(2, -0.5))
    lr *= 0
    close(optimizer(jnp.ones(2)), np.full(2, -0.5))


def test_values_of_jax_are_not_waited_for(monkeypatch):
    lr = jnp.array(0.5)
    optimizer = ao.Adamax(jnp.zeros(2), lr=lr)
    gradient, half = jnp.ones(2), jnp.array(0.25)

    def waited(array):
        raise AssertionError("The value was looked at.")

    # What int(), float(), print() and NumPy ask for.
    with monkeypatch.context() as patch:
        patch.setattr(type(lr), "_value", property(waited))
        with pytest.raises(AssertionError, match="looked at"):
            float(lr)
        optimizer(gradient)
        optimizer.param_groups[0]["lr"] = half
        new = optimizer(gradient)
    close(new, np.full(2, -0.75))


@pytest.mark.parametrize(
    "lr", [0.1, np.float64(0.1), np.array(0.1), np.array([0.1]), jnp.array([[0.1]])]
)
def test_lr_is_a_number_or_one_element(lr):
    optimizer = ao.Adamax(jnp.ones(2), lr=lr)
    close(optimizer(jnp.ones(2)), np.full(2, 0.9))
    tx = ao.Adamax(jnp.ones(2), lr=lr)
    updates, _ = tx.update(jnp.ones(2), tx.init(jnp.ones(2)))
    close(updates, np.full(2, -0.1))


def test_zero_lr_and_zero_eps_are_allowed():
    optimizer = ao.Adamax(jnp.ones(2), lr=0, eps=0)
    np.testing.assert_array_equal(optimizer(jnp.array([0.0, 1.0])), 1.0)


def test_parameters_set_by_the_user_count():
    optimizer = ao.Adamax({"w": jnp.zeros(2)}, lr=0.1)
    optimizer({"w": jnp.ones(2)})
    optimizer.param_groups[0]["params"] = {"w": np.full(2, 5.0, np.float32)}
    close(optimizer({"w": jnp.ones(2)}), {"w": np.full(2, 4.9)})


def test_weakly_typed_parameters_compile_once(compilations):
    loss_fn = jax.grad(lambda p: jnp.sum(p["w"] ** 2) + p["b"] ** 2)
    params = {"w": jnp.full(13, 0.5), "b": jnp.asarray(1.0)}
    assert params["w"].weak_type and params["b"].weak_type
    optimizer = ao.Adamax(params)
    for _ in range(3):
        params = optimizer(loss_fn(params))
    assert compilations() == 1


def test_instances_share_compiled_code(compilations):
    for lr in (0.1, 0.2, 0.3):
        optimizer = ao.Adamax({"w": jnp.ones((7, 3))}, lr=lr)
        for _ in range(3):
            optimizer({"w": jnp.ones((7, 3))})
    assert compilations() == 1


def test_a_scheduler_compiles_nothing_and_its_lr_counts(compilations):
    optimizer = ao.Adamax(jnp.zeros(11), lr=0.8)
    scheduler = lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)
    history = []
    for _ in range(4):
        history.append(float(optimizer(jnp.ones(11))[0]))
        scheduler.step()
    np.testing.assert_allclose(np.diff([0, *history]), [-0.8, -0.4, -0.2, -0.1], 1e-5)
    assert compilations() == 1


# --- What the caller holds ------------------------------------------------------------


def test_arrays_that_the_caller_holds_stay_valid():
    params = {"w": jnp.ones(4)}
    gradients = {"w": jnp.full(4, 0.5)}
    optimizer = ao.Adamax(params, lr=jnp.asarray(0.1))
    held = [params, gradients, optimizer.param_groups[0]["lr"]]
    for _ in range(3):
        held += [optimizer(gradients), optimizer.state_dict(), optimizer.parameters]
        twin = copy.copy(optimizer)
        held.append(twin(gradients))
    copies = jax.tree.map(np.array, held)
    optimizer.load_state_dict(held[4])
    optimizer(gradients)
    jax.tree.map(np.testing.assert_array_equal, held, copies)


def test_the_moments_themselves_are_donated():
    optimizer = ao.Adamax(jnp.ones(1000))
    optimizer(jnp.ones(1000))
    moments = inside.arrays(optimizer)
    optimizer(jnp.ones(1000))
    assert len(moments) == 2 and all(x.is_deleted() for x in moments)


@pytest.mark.parametrize(
    "copied", [copy.copy, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))]
)
def test_copies_go_on_by_themselves(copied):
    class Named(ao.Adamax):
        pass

    groups = [{"params": {"a": jnp.ones(2)}}, {"params": jnp.ones(3), "lr": 0.3}]
    optimizer = (ao.Adamax if copied is not copy.copy else Named)(groups, lr=0.1)
    optimizer.label = "kept"
    gradients = [{"a": jnp.ones(2)}, jnp.arange(3.0)]
    optimizer(gradients)
    other = copied(optimizer)
    assert type(other) is type(optimizer) and other.label == "kept"
    assert repr(other) == repr(optimizer)
    other.param_groups[0]["lr"] = 0.1  # no one else's
    expected = other(gradients)
    optimizer.param_groups[1]["lr"] = 0.3
    jax.tree.map(np.testing.assert_array_equal, optimizer(gradients), expected)
    assert other.param_groups[0] is not optimizer.param_groups[0]


# --- Dtypes ---------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_keeps_its_moments_in_float32(dtype):
    gradients = random_gradients((6,), steps=40)
    optimizer = ao.Adamax(jnp.ones(6, dtype), lr=0.01)
    for gradient in gradients:
        param = optimizer(jnp.asarray(gradient, dtype))
    assert param.dtype == dtype
    state = optimizer.state_dict()["state"][0]
    assert state["exp_avg"].dtype == state["exp_inf"].dtype == jnp.float32
    rounded = np.asarray(jnp.asarray(gradients, dtype), np.float64)
    expected = adamax_trajectory(np.ones(6), rounded, lr=0.01)[-1]
    ulp = float(jnp.finfo(dtype).eps)
    # 40 steps of half a unit each, at random signs.
    np.testing.assert_allclose(np.asarray(param, np.float64), expected, atol=8 * ulp)


@pytest.mark.usefixtures("x64")
def test_float64():
    gradients = random_gradients((6,), steps=40)
    hyper = dict(lr=0.013, eps=1e-7, weight_decay=0.1)
    optimizer = ao.Adamax(jnp.ones(6), betas=(0.93, 0.997), **hyper)
    for gradient in gradients:
        param = optimizer(jnp.asarray(gradient))
    expected = adamax_trajectory(np.ones(6), gradients, b1=0.93, b2=0.997, **hyper)
    assert param.dtype == jnp.float64
    np.testing.assert_allclose(param, expected[-1], rtol=1e-13)


@pytest.mark.usefixtures("lenient_promotion")
def test_complex_is_component_wise():
    gradients = random_gradients((4,), 20) + 1j * random_gradients((4,), 20, seed=1)
    optimizer = ao.Adamax(jnp.ones(4, jnp.complex64), lr=0.1)
    for gradient in gradients:
        param = optimizer(jnp.asarray(gradient, jnp.complex64))
    real = adamax_trajectory(np.ones(4), gradients.real, lr=0.1)[-1]
    imag = adamax_trajectory(np.zeros(4), gradients.imag, lr=0.1)[-1]
    np.testing.assert_allclose(param, real + 1j * imag, rtol=2e-6, atol=2e-6)


def test_zero_size_and_scalars_step():
    optimizer = ao.Adamax([jnp.zeros((0, 3)), jnp.zeros(())], lr=0.1)
    empty, scalar = optimizer([jnp.zeros((0, 3)), jnp.ones(())])
    assert empty.shape == (0, 3)
    assert float(scalar) == pytest.approx(-0.1)


def test_count_stays_at_the_largest_int32():
    optimizer = ao.Adamax(jnp.zeros(2), lr=0.1)
    optimizer(jnp.ones(2))
    saved = optimizer.state_dict()
    saved["state"][0]["step"] = np.asarray(2**31 + 5.0)
    optimizer.load_state_dict(saved)
    assert np.isfinite(optimizer(jnp.ones(2))).all()


# --- Optax ----------------------------------------------------------------------------


def optax_run(tx, params, gradients):
    @jax.jit
    @chex.assert_max_traces(n=1)
    def step(params, state, gradient):
        updates, state = tx.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    chex.clear_trace_counter()
    state = tx.init(params)
    for gradient in gradients:
        params, state = step(params, state, gradient)
    return params


def test_stands_in_a_chain():
    hyper = dict(lr=0.1, weight_decay=0.2, maximize=True)
    gradients = [{"w": jnp.full(3, x)} for x in (1.0, 0.5, -2.0)]
    params = {"w": jnp.arange(3.0)}
    optimizer = ao.Adamax(params, **hyper)
    tx = optax.chain(optax.clip_by_global_norm(1e9), optimizer)
    got = optax_run(tx, params, gradients)
    # Its own state is another matter.
    assert optimizer.state_dict()["state"] == {}
    for gradient in gradients:
        optimizer(gradient)
    close(got, optimizer.parameters)


def test_two_groups_as_a_transformation():
    params = [{"w": jnp.arange(3.0)}, jnp.ones(2)]
    options = [dict(lr=0.1), dict(lr=0.3, weight_decay=0.5)]
    optimizer = ao.Adamax(
        [{"params": p, **o} for p, o in zip(params, options, strict=True)]
    )
    gradients = [[{"w": jnp.full(3, x)}, jnp.full(2, -x)] for x in (1.0, 0.5)]
    got = optax_run(optimizer, params, gradients)
    for gradient in gradients:
        optimizer(gradient)
    close(got, optimizer.parameters)


@pytest.mark.usefixtures("lenient_promotion")
def test_complex_as_a_transformation():
    params = jnp.ones(3, jnp.complex64)
    optimizer = ao.Adamax(params, lr=0.1)
    gradients = [jnp.asarray([1 + 2j, -1j, 0.1], jnp.complex64)] * 2
    got = optax_run(optimizer, params, gradients)
    for gradient in gradients:
        optimizer(gradient)
    close(got, optimizer.parameters)


def test_is_the_tx_of_a_train_state():
    params = {"w": jnp.ones(3)}
    optimizer = ao.Adamax(params, lr=0.1)
    state = TrainState.create(apply_fn=None, params=params, tx=optimizer)
    state = jax.jit(lambda s, g: s.apply_gradients(grads=g))(state, {"w": jnp.ones(3)})
    close(state.params, optimizer({"w": jnp.ones(3)}))
