"""Whatever interrupts a step of the class, it is before or after it, bit for bit."""

import gc
import signal
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import adamax_optax as ao
from tests.compat import inside

nnx = pytest.importorskip("flax.nnx")

SHAPES = [(i % 7 + 1,) for i in range(30)]
LONGEST = 5000


class Run:
    """An optimizer, with what it must hold after each step."""

    def __init__(self, kind, donate):
        self.kind, self.donate = kind, donate
        self.gradients = [
            jnp.cos(jnp.arange(float(shape[0])) + i) for i, shape in enumerate(SHAPES)
        ]
        self.start()
        self.expected = [self.held()]
        for _ in range(LONGEST):
            self.optimizer(self.gradients)
            self.expected.append(self.held())
        self.start()

    def start(self):
        arrays = [jnp.full(shape, 0.1 * i) for i, shape in enumerate(SHAPES)]
        self.params = arrays
        if self.kind == "nnx":
            self.params = [nnx.Param(array) for array in arrays]
        self.optimizer = ao.Adamax(self.params, lr=0.01, donate=self.donate)

    def values(self):
        if self.kind == "nnx":  # without asking the optimizer
            return [np.asarray(variable.get_value()) for variable in self.params]
        return list(map(np.asarray, self.optimizer.parameters))

    def held(self):
        """Return the parameters, and the moments and step counts as saved."""
        values, state = self.values(), self.optimizer.state_dict()["state"]
        return values, jax.tree.map(np.asarray, state)

    def step_held(self):
        """Return the step that the optimizer is after; it must be so in full."""
        values, state = self.held()
        step = int(state[0]["step"]) if state else 0
        np.testing.assert_equal((values, state), self.expected[step])
        return step


@pytest.fixture(params=["arrays", "nnx"], scope="module")
def kind(request):
    return request.param


@pytest.fixture(params=[False, True], ids=["plain", "donating"], scope="module")
def run(request, kind):
    return Run(kind, request.param)


class Interrupt(BaseException):
    pass


def interrupted(run, signals, handler):
    """Take steps, while signals arrive at random moments."""
    rng = np.random.default_rng(0)
    old = signal.signal(signal.SIGALRM, handler)
    seen = 0
    try:
        run.start()
        while seen < signals:
            try:
                signal.setitimer(signal.ITIMER_REAL, rng.uniform(1e-5, 1e-3))
                while True:
                    run.optimizer(run.gradients)
            except Interrupt:
                seen += 1
            if run.step_held() > LONGEST - 200:
                run.start()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)


@pytest.mark.parametrize(
    "signals", [50, pytest.param(1000, marks=pytest.mark.slow)]
)
def test_a_handler_that_raises(run, signals):
    def handler(*_):
        raise Interrupt

    interrupted(run, signals, handler)
    run.optimizer(run.gradients)
    assert run.step_held() > 0
    assert gc.isenabled()


@pytest.mark.parametrize(
    "signals", [50, pytest.param(1000, marks=pytest.mark.slow)]
)
def test_a_handler_that_saves(run, signals):
    """As one that writes a checkpoint before the machine is taken away."""

    def handler(*_):
        run.step_held()
        raise Interrupt

    interrupted(run, signals, handler)
