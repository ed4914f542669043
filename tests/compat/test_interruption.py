"""Whatever interrupts a step of the class, it is before or after it, bit for bit."""

import contextlib
import gc
import signal
import sys
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import adamax_optax as ao
from tests.compat import inside

nnx = pytest.importorskip("flax.nnx")

SHAPES = [(i % 7 + 1,) for i in range(30)]
LONGEST = 200


class Run:
    """An optimizer, with what it must hold after each step."""

    def __init__(self, kind, donate):
        self.kind, self.donate = kind, donate
        self.gradients = [
            jnp.cos(jnp.arange(shape[0], dtype=jnp.float32) + i)
            for i, shape in enumerate(SHAPES)
        ]
        self.start()
        self.expected = [self.held()]
        for _ in range(LONGEST):
            self.optimizer(self.gradients)
            self.expected.append(self.held())
        self.start()

    def start(self):
        arrays = [jnp.full(s, 0.1 * i, jnp.float32) for i, s in enumerate(SHAPES)]
        self.params = arrays
        if self.kind == "nnx":
            self.params = [nnx.Param(array) for array in arrays]
        self.optimizer = ao.Adamax(self.params, lr=0.01, donate=self.donate)

    def values(self):
        if self.kind == "nnx":  # without asking the optimizer
            return [np.asarray(variable[...]) for variable in self.params]
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


@contextlib.contextmanager
def alarms(handler):
    """Handle SIGALRM."""
    old = signal.signal(signal.SIGALRM, handler)
    # Coverage locks its data, and would not unlock it if a handler raised there.
    tracing = sys.gettrace()
    sys.settrace(None)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
        sys.settrace(tracing)


def interrupted(run, signals, handler):
    """Take steps, while signals arrive at random moments."""
    rng = np.random.default_rng(0)
    seen, steps, arrived, problems = 0, 0, [], []

    def counted(*_):
        arrived.append(None)
        try:
            handler()
        except Exception as error:
            problems.append(error)
        raise Interrupt

    with alarms(counted):
        run.start()
        while seen < signals:
            before = steps
            try:
                signal.setitimer(signal.ITIMER_REAL, rng.uniform(1e-5, 1e-3))
                while len(arrived) == seen:
                    run.optimizer(run.gradients)
                    steps += 1
            except Interrupt:
                pass
            except Exception:
                # NumPy and JAX may replace or drop what a handler raises inside them.
                if len(arrived) == seen:
                    raise
            seen = len(arrived)
            if run.step_held() > LONGEST - 100:
                run.start()
            if steps == before:  # it may have to be compiled again
                run.optimizer(run.gradients)
    assert not problems
    assert steps > signals


@pytest.mark.parametrize("signals", [50, pytest.param(1000, marks=pytest.mark.slow)])
def test_a_handler_that_raises(run, signals):
    interrupted(run, signals, lambda: None)
    run.optimizer(run.gradients)
    assert run.step_held() > 0
    assert gc.isenabled()


@pytest.mark.parametrize("signals", [50, pytest.param(1000, marks=pytest.mark.slow)])
def test_a_handler_that_saves(run, signals):
    """As one that writes a checkpoint before the machine is taken away."""
    interrupted(run, signals, run.step_held)


@pytest.mark.parametrize("flag", ["jax_debug_nans", "jax_debug_infs"])
def test_an_error_inside_the_step(run, flag):
    run.start()
    run.optimizer(run.gradients)
    bad = [jnp.full_like(gradient, np.inf) for gradient in run.gradients]
    if flag == "jax_debug_nans":
        bad = [gradient * np.nan for gradient in bad]
    with getattr(jax, flag.removeprefix("jax_"))(True):
        for _ in range(2):
            with pytest.raises(FloatingPointError):
                run.optimizer(bad)
            assert run.step_held() == 1
    run.optimizer(run.gradients)
    assert run.step_held() == 2


def test_an_interrupted_compilation_is_made_up_for(monkeypatch):
    params = [jnp.ones(3), jnp.ones((2, 5))]
    optimizer = ao.Adamax(params, lr=0.5)
    trace = inside.Program._step

    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(inside.Program, "_step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            optimizer(params)
    assert optimizer.state_dict()["state"] == {}
    for _ in range(3):
        moments = inside.arrays(optimizer)
        optimizer(params)
    np.testing.assert_allclose(optimizer.parameters[0], -0.5, rtol=1e-6)
    # What is compiled overwrites the moments themselves, and not copies.
    assert all(x.is_deleted() for x in moments)
    assert inside.Program._step is trace


def test_garbage_collection_stays_as_it_is():
    optimizer = ao.Adamax(jnp.ones(3))
    optimizer(jnp.ones(3))
    assert gc.isenabled()
    gc.disable()
    try:
        optimizer(jnp.ones(3))
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_an_interruption_while_gradients_are_matched():
    """The next step matches its own gradients, not those of the interrupted one."""
    params = [jnp.ones(3), jnp.ones(3)]
    whole, part = params, [None, jnp.ones(3)]
    optimizer = ao.Adamax(params, lr=0.5)
    expected = [np.stack(optimizer(whole)) for _ in range(2)]
    tracing = sys.gettrace()

    def interrupted_at(n):
        lines = iter(range(n))

        def trace(frame, event, _):
            if frame.f_code.co_name != "match":
                return None
            if event == "line" and next(lines, None) is None:
                raise Interrupt
            return trace

        optimizer = ao.Adamax(params, lr=0.5)
        optimizer(whole)
        try:
            sys.settrace(trace)
            optimizer(part)
        except Interrupt:
            return optimizer
        finally:
            sys.settrace(tracing)
        return None

    seen = 0
    while optimizer := interrupted_at(seen):
        np.testing.assert_array_equal(np.stack(optimizer(whole)), expected[1])
        seen += 1
    assert seen > 5


def test_no_context_of_jax_is_entered(monkeypatch):
    """A handler that raises at its end would leave it open, and `jit` broken."""

    def refused():
        raise AssertionError("this context must not be entered")

    monkeypatch.setattr(jax, "ensure_compile_time_eval", refused)
    params = [jnp.ones(3), jnp.ones((2, 3))]
    optimizer = ao.Adamax(params, lr=0.5)
    for lr in (0.25, jnp.float32(0.125)):
        optimizer.param_groups[0]["lr"] = lr
        optimizer(params)
        optimizer([None, params[1]])
    optimizer.param_groups[0]["state_dtype"] = jnp.uint16
    optimizer.load_state_dict(optimizer.state_dict())
    optimizer.add_param_group({"params": jnp.ones(2)})
    state = optimizer.state_dict()["state"]
    assert [int(entry["step"]) for entry in state.values()] == [2, 4]


class Timeout(ValueError):
    pass


def test_an_error_that_a_handler_raises_while_compiling(monkeypatch):
    params = [jnp.ones(3), jnp.ones((2, 7))]
    optimizer = ao.Adamax(params, lr=0.5)

    def interrupted(*_):
        raise Timeout

    with monkeypatch.context() as patch:
        patch.setattr(inside.Program, "_step", interrupted)
        with pytest.raises(Timeout):
            optimizer(params)
    for _ in range(2):
        moments = inside.arrays(optimizer)
        optimizer(params)
    assert all(x.is_deleted() for x in moments)


@pytest.mark.slow
def test_a_handler_that_steps_is_refused(run):
    refused = []

    def handler():
        try:
            run.optimizer(run.gradients)
        except RuntimeError as error:
            assert "in the middle of a step" in str(error)
            refused.append(error)

    interrupted(run, 200, handler)
    assert refused
    run.step_held()


@pytest.mark.parametrize("call", ["step", "load_state_dict", "add_param_group"])
def test_a_call_in_the_middle_of_a_step(call, monkeypatch):
    params = [jnp.ones(3), jnp.ones((9, ord(call[0])))]  # not yet compiled
    optimizer = ao.Adamax(params, lr=0.5)
    saved = optimizer.state_dict()
    arguments = {
        "step": params,
        "load_state_dict": saved,
        "add_param_group": {"params": jnp.ones(2)},
    }

    def interrupted(*_):
        optimizer.state_dict()  # which is allowed
        getattr(optimizer, call)(arguments[call])

    with monkeypatch.context() as patch:
        patch.setattr(inside.Program, "_step", interrupted)
        with pytest.raises(RuntimeError, match="in the middle of a step"):
            optimizer(params)
    np.testing.assert_allclose(optimizer(params)[0], 0.5, rtol=1e-6)


def test_a_load_is_not_torn(run):
    """The hyperparameters and the moments of a dict come together."""
    run.start()
    run.optimizer(run.gradients)
    first = run.optimizer.state_dict()
    run.optimizer(run.gradients)
    second = run.optimizer.state_dict()
    for step, saved in enumerate((first, second), 1):
        saved["param_groups"][0]["lr"] = float(step)
    torn = []

    def handler(*_):
        now = run.optimizer.state_dict()
        if now["param_groups"][0]["lr"] != float(now["state"][0]["step"]):
            torn.append(now)

    run.optimizer.load_state_dict(first)
    with alarms(handler):
        for delay in np.random.default_rng(2).uniform(1e-5, 5e-3, 30):
            signal.setitimer(signal.ITIMER_REAL, delay)
            run.optimizer.load_state_dict(second)
            run.optimizer.load_state_dict(first)
    assert not torn


@pytest.mark.parametrize("concrete", [False, True])
def test_a_step_inside_a_trace_changes_nothing(run, concrete):
    run.start()
    run.optimizer(run.gradients)

    def call(gradients):
        return run.optimizer(run.gradients if concrete else gradients)

    for _ in range(2):
        with pytest.raises(ValueError, match="cannot step inside jit, grad or scan"):
            jax.jit(call)(run.gradients)
    assert run.step_held() == 1
    run.optimizer(run.gradients)
    assert run.step_held() == 2


@pytest.mark.parametrize(
    "state_dtype", [None, pytest.param(jnp.uint16, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize(
    "before",
    [
        lambda group: None,
        lambda group: group.update(lr=0.3),
        lambda group: group.update(lr=jnp.float32(0.3)),
        lambda group: group.update(weight_decay=0.1),
        lambda group: group.update(state_dtype="bfloat16"),
    ],
)
@pytest.mark.parametrize("call", ["step", "missing", "state_dict", "update", "add"])
def test_nothing_of_a_trace_is_kept(call, before, state_dtype):
    params = {"a": jnp.ones(3), "b": jnp.ones((2, 2))}
    optimizer = ao.Adamax([{"params": params, "state_dtype": state_dtype}], lr=0.5)
    optimizer([params])
    before(optimizer.param_groups[0])

    def traced():
        if call == "add":
            optimizer.add_param_group({"params": jnp.ones(3)})
        elif call == "state_dict":
            optimizer.state_dict()
        elif call == "update":
            optimizer.param_groups.append({"params": np.ones(3, np.float32)})
            optimizer.init([params, jnp.ones(3)])
        else:
            missing = {**params, "b": None}
            with pytest.raises(ValueError, match="cannot step inside jit"):
                optimizer([params if call == "step" else missing])

    if call == "add":  # a parameter of the trace
        with pytest.raises(ValueError, match="Parameters must be"):
            jax.jit(traced)()
    else:
        jax.jit(traced)()
    gradients = [params, jnp.ones(3)] if call == "update" else [params]
    optimizer([{**params, "b": None}, *gradients[1:]])
    new = optimizer(gradients)
    state = optimizer.state_dict()["state"]
    assert [int(e["step"]) for e in state.values()][:2] == [3, 2]
    assert not any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves(new))


def test_without_jit(run):
    run.start()
    with jax.disable_jit():
        run.optimizer(run.gradients)
        with pytest.raises(ValueError, match="has shape"):
            run.optimizer(run.gradients[1:] + run.gradients[:1])
    state = run.optimizer.state_dict()["state"]
    assert {int(entry["step"]) for entry in state.values()} == {1}
    for new, expected in zip(run.values(), run.expected[1][0], strict=True):
        np.testing.assert_allclose(new, expected, rtol=1e-6)


def test_threads_take_turns(run):
    run.start()
    threads, steps, saved, problems = 4, 25, [], []

    def work():
        try:
            for _ in range(steps):
                run.optimizer(run.gradients)
                saved.append(run.optimizer.state_dict()["state"])
        except BaseException as error:
            problems.append(error)

    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not problems
    assert run.step_held() == threads * steps
    for state in saved:
        step = int(state[0]["step"])
        expected = run.expected[step][1]
        jax.tree.map(np.testing.assert_array_equal, state, expected)
