"""The class `Adamax` and torch.optim.Adamax, side by side.

Deliberately not compared:

- half-precision parameters: PyTorch keeps their moments in the parameter's dtype, ours
  in float32 (`test_optimizer.py` holds ours against float64);
- a learning rate below 0, where chained schedulers lead to one: ours refuses the next
  step, PyTorch takes it;
- the step of an infinite or NaN parameter without weight decay: ours adds 0 times it,
  PyTorch skips the addition;
- errors: PyTorch refuses the same values of hyperparameters with other words, and takes
  an infinite lr, which we refuse;
- what does not exist here: `foreach`, `capturable`, `differentiable`, hooks, closures,
  `zero_grad`, sparse gradients;
- the plateau scheduler's metric: both get the same recorded numbers, since a loss
  computed by each would differ in the last bit and with it, rarely, the schedule.

Tolerance: a unit in the last place of float32 is 1.2e-7 of the value. Each of 50 steps
rounds the parameter once and the update a few times.
"""

import copy
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import adamax_optax as ao
from adamax_optax import lr_scheduler

torch = pytest.importorskip("torch")

STEPS = 50
GROUPS = [
    dict(lr=0.1, betas=(0.8, 0.95), eps=1e-3, weight_decay=0.2),
    dict(lr=0.02, betas=(0.95, 0.99), eps=1e-8, weight_decay=0.05, maximize=True),
]
SHAPES = [[(3, 2), (4,)], [(), (2, 2, 2)]]
METRICS = np.repeat(np.linspace(2.0, 1.0, 10), 5) + np.tile([0, 0.1, 0.2, 0.1, 0], 10)


def draw(seed=0):
    """Return initial parameters, and for every step gradients, group by group."""
    rng = np.random.default_rng(seed)

    def tree():
        return [
            [rng.normal(size=shape).astype(np.float32) for shape in shapes]
            for shapes in SHAPES
        ]

    return tree(), [tree() for _ in range(STEPS)]


class Ours:
    """A run with our optimizer and schedulers."""

    library = lr_scheduler

    def __init__(self, params):
        groups = zip(params, GROUPS, strict=True)
        self.optimizer = ao.Adamax(
            [{"params": jax.tree.map(jnp.asarray, p), **hyper} for p, hyper in groups]
        )
        self.schedulers = schedulers(lr_scheduler, self.optimizer)

    def step(self, gradients):
        self.optimizer(jax.tree.map(jnp.asarray, gradients))

    def params(self):
        return jax.tree.map(np.asarray, self.optimizer.parameters)

    def state_dict(self):
        """Return the optimizer's state, as tensors."""
        return jax.tree.map(
            lambda x: torch.tensor(np.asarray(x)) if isinstance(x, jax.Array) else x,
            self.optimizer.state_dict(),
        )


class Theirs:
    """A run with PyTorch's."""

    def __init__(self, params):
        self.tensors = [
            [torch.nn.Parameter(torch.tensor(p)) for p in g] for g in params
        ]
        groups = zip(self.tensors, GROUPS, strict=True)
        # PyTorch does not copy the dicts.
        self.optimizer = torch.optim.Adamax(
            [{"params": p, **hyper} for p, hyper in groups]
        )
        self.schedulers = schedulers(torch.optim.lr_scheduler, self.optimizer)

    def step(self, gradients):
        for tensors, group in zip(self.tensors, gradients, strict=True):
            for tensor, gradient in zip(tensors, group, strict=True):
                tensor.grad = torch.tensor(gradient)
        self.optimizer.step()

    def params(self):
        return [[t.detach().numpy().copy() for t in group] for group in self.tensors]

    def state_dict(self):
        return copy.deepcopy(self.optimizer.state_dict())


def schedulers(library, optimizer):
    return [
        library.CosineAnnealingLR(optimizer, T_max=60),
        library.ReduceLROnPlateau(optimizer, factor=0.5, patience=2),
    ]


def run(side, gradients, start=0):
    """Take the steps; return the parameters after each."""
    history = []
    for k in range(start, start + len(gradients)):
        side.step(gradients[k - start])
        side.schedulers[0].step()
        side.schedulers[1].step(METRICS[k])
        history.append(side.params())
    return history


def take_over(side, other):
    """Load the state of another run, whichever library it is of."""
    side.optimizer.load_state_dict(other.state_dict())
    for mine, its in zip(side.schedulers, other.schedulers, strict=True):
        mine.load_state_dict(its.state_dict())
    return side


def assert_close(actual, expected, steps=STEPS):
    ulp = np.finfo(np.float32).eps
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=8 * ulp, atol=steps * ulp),
        actual,
        expected,
    )


def test_fifty_steps():
    params, gradients = draw()
    ours, theirs = Ours(params), Theirs(params)
    assert_close(run(ours, gradients), run(theirs, gradients))
    rates = [[g["lr"] for g in side.optimizer.param_groups] for side in (ours, theirs)]
    np.testing.assert_allclose(rates[0], rates[1], rtol=1e-6)
    # Both schedulers have had their say: the cosine, and several halvings.
    cosine = (1 + np.cos(np.pi * STEPS / 60)) / 2
    for rate, hyper in zip(rates[0], GROUPS, strict=True):
        assert 0 < rate < hyper["lr"] * cosine / 4


def test_state_from_pytorch_and_back():
    params, gradients = draw()
    theirs = Theirs(params)
    first = run(theirs, gradients[:20])
    # Ours continues from PyTorch's state at step 20 …
    ours = take_over(Ours(first[-1]), theirs)
    middle = run(ours, gradients[20:35], start=20)
    assert_close(middle, run(theirs, gradients[20:35], start=20))
    # … and PyTorch with what ours left at step 35.
    again = take_over(Theirs(middle[-1]), ours)
    assert_close(
        run(again, gradients[35:], start=35), run(theirs, gradients[35:], start=35)
    )


def test_state_dicts_are_alike():
    params, gradients = draw()
    ours, theirs = Ours(params), Theirs(params)
    for side in (ours, theirs):
        side.step(gradients[0])
    a, b = ours.optimizer.state_dict(), theirs.optimizer.state_dict()
    assert a["state"].keys() == b["state"].keys()
    for k in a["state"]:
        assert a["state"][k].keys() == b["state"][k].keys()
        for name, value in b["state"][k].items():
            assert a["state"][k][name].shape == tuple(value.shape)
            assert str(a["state"][k][name].dtype) in str(value.dtype)
            np.testing.assert_allclose(a["state"][k][name], value, rtol=1e-6)
    for mine, its in zip(a["param_groups"], b["param_groups"], strict=True):
        del mine["steps_taken"]
        # PyTorch has more options, all about how it computes.
        assert its.keys() - mine.keys() == {"foreach", "differentiable", "capturable"}
        assert {k: its[k] for k in mine} == mine


@pytest.mark.parametrize("state_dtype", ["bfloat16", "float16", "uint16"])
def test_reduced_state_there_and_back_is_exact(state_dtype):
    rng = np.random.default_rng(0)
    p, *gradients = rng.normal(size=(12, 40)).astype(np.float32)
    group = {"params": jnp.asarray(p), "state_dtype": state_dtype}
    ours, again = ao.Adamax([group]), ao.Adamax([group])
    for gradient in gradients[:6]:
        ours([gradient])
    saved = ours.state_dict()
    theirs = torch.optim.Adamax([torch.nn.Parameter(torch.tensor(p))])
    tensors = jax.tree.map(
        lambda x: torch.tensor(np.asarray(x)) if isinstance(x, jax.Array) else x,
        saved,
    )
    theirs.load_state_dict(tensors)
    again.load_state_dict(theirs.state_dict())
    again.param_groups[0]["params"] = ours.parameters[0]
    for gradient in gradients[6:]:
        (new,), (expected,) = again([gradient]), ours([gradient])
        np.testing.assert_array_equal(new, expected)
    # PyTorch steps on from them too.
    (tensor,) = theirs.param_groups[0]["params"]
    tensor.grad = torch.tensor(gradients[6])
    theirs.step()
    assert np.all(theirs.state[tensor]["exp_inf"].numpy() > 0)


def test_options_of_pytorch_are_kept():
    params, _ = draw()
    theirs, ours = Theirs(params), Ours(params)
    theirs.optimizer.param_groups[0]["lr"] = torch.tensor(0.25, dtype=torch.bfloat16)
    theirs.optimizer.param_groups[1]["name"] = "head"
    ours.optimizer.load_state_dict(theirs.optimizer.state_dict())
    first, second = ours.optimizer.param_groups
    assert isinstance(first["lr"], np.ndarray) and first["lr"] == 0.25
    assert first["foreach"] is None and second["name"] == "head"


def test_none_gradients_and_a_group_added_later():
    params, gradients = draw()
    a, b = params[0]
    tensors = [torch.nn.Parameter(torch.tensor(p)) for p in (a, b)]
    theirs = torch.optim.Adamax([tensors[0]], lr=0.1)
    ours = ao.Adamax(jnp.asarray(a), lr=0.1)
    for k in range(30):
        ga, gb = gradients[k][0]
        if k == 10:
            theirs.add_param_group({"params": [tensors[1]], "lr": 0.3})
            ours.add_param_group({"params": jnp.asarray(b), "lr": 0.3})
        ga = None if k % 3 == 0 else ga
        tensors[0].grad = None if ga is None else torch.tensor(ga)
        tensors[1].grad = torch.tensor(gb)
        theirs.step()
        ours(ga if k < 10 else [ga, gb]) if ga is not None or k >= 10 else ours([ga])
    got = ours.parameters
    assert_close(got, [t.detach().numpy() for t in tensors])
    steps = [int(entry["step"]) for entry in ours.state_dict()["state"].values()]
    assert steps == [int(theirs.state[t]["step"]) for t in tensors] == [20, 20]


@pytest.mark.usefixtures("lenient_promotion")
def test_complex_parameters():
    rng = np.random.default_rng(0)
    initial = (rng.normal(size=5) + 1j * rng.normal(size=5)).astype(np.complex64)
    hyper = dict(lr=0.05, weight_decay=0.1)
    tensors = [torch.nn.Parameter(torch.tensor(p)) for p in (initial, initial.real)]
    theirs = torch.optim.Adamax(tensors, **hyper)
    ours = ao.Adamax([jnp.asarray(initial), jnp.asarray(initial.real)], **hyper)
    for k in range(40):
        g = (rng.normal(size=5) + 1j * rng.normal(size=5)).astype(np.complex64)
        gradients = [g, g.imag.copy()]
        for tensor, gradient in zip(tensors, gradients, strict=True):
            tensor.grad = torch.tensor(gradient)
        theirs.step()
        ours(gradients)
        if k == 20:  # and the state of a complex parameter, there and back
            ours.load_state_dict(theirs.state_dict())
            saved = jax.tree.map(
                lambda x: torch.tensor(np.asarray(x)) if hasattr(x, "at") else x,
                ours.state_dict(),
            )
            assert saved["state"][0]["exp_inf"].is_complex()
            theirs.load_state_dict(saved)
    assert_close(ours.parameters, [t.detach().numpy() for t in tensors])


@pytest.mark.usefixtures("x64")
def test_float64_and_float32_beside_each_other():
    rng = np.random.default_rng(0)
    hyper = dict(lr=0.05, betas=(0.93, 0.997), eps=1e-6, weight_decay=0.1)
    initial = [rng.normal(size=4), rng.normal(size=4).astype(np.float32)]
    tensors = [torch.nn.Parameter(torch.tensor(p)) for p in initial]
    theirs = torch.optim.Adamax(tensors, **hyper)
    ours = ao.Adamax([jnp.asarray(p) for p in initial], **hyper)
    for _ in range(60):
        gradients = [rng.normal(size=4).astype(p.dtype) for p in initial]
        for tensor, gradient in zip(tensors, gradients, strict=True):
            tensor.grad = torch.tensor(gradient)
        theirs.step()
        double, single = ours(gradients)
    assert double.dtype == np.float64 and single.dtype == np.float32
    np.testing.assert_allclose(double, tensors[0].detach(), rtol=1e-12, atol=1e-14)
    assert_close(single, tensors[1].detach().numpy())


def test_nan_and_infinite_gradients():
    tensor = torch.nn.Parameter(torch.ones(3))
    theirs, ours = (
        torch.optim.Adamax([tensor], lr=0.1),
        ao.Adamax([jnp.ones(3)], lr=0.1),
    )
    for gradient in ([1.0, np.nan, np.inf], [1.0, 1.0, 1.0]):
        tensor.grad = torch.tensor(gradient)
        theirs.step()
        [param] = ours([jnp.array(gradient)])
    assert_close(param, tensor.detach().numpy())
    ours_state, theirs_state = ours.state_dict()["state"][0], theirs.state[tensor]
    assert_close(ours_state["exp_inf"], theirs_state["exp_inf"].numpy())
    assert_close(ours_state["exp_avg"][:2], theirs_state["exp_avg"][:2].numpy())
    # Theirs is m + (1 - b1) (g - m), and that infinity - infinity.
    assert ours_state["exp_avg"][2] == np.inf and theirs_state["exp_avg"][2].isnan()


def test_signature():
    theirs = inspect.signature(torch.optim.Adamax).parameters
    ours = inspect.signature(ao.Adamax).parameters
    leading = list(theirs)[:5]
    # PyTorch has `foreach` after weight_decay; MindSpore has nothing there.
    assert list(theirs)[5] == "foreach"
    assert set(theirs) < set(ours)
    assert set(ours) - set(theirs) == {"donate", "fused"}
    for name in theirs:
        assert ours[name].default == theirs[name].default, name
    for name in [*leading, "maximize"]:
        assert ours[name].kind == theirs[name].kind, name


def test_tensors_as_hyperparameters():
    rate = torch.tensor(0.5)
    optimizer = ao.Adamax(jnp.zeros(2), lr=rate)
    np.testing.assert_allclose(optimizer(jnp.ones(2)), -0.5, rtol=1e-6)
    rate.mul_(2)  # in place
    np.testing.assert_allclose(optimizer(jnp.ones(2)), -1.5, rtol=1e-6)
