"""What the compiled step looks like: its bytes, scratch memory and calls."""

import re

import jax
import jax.numpy as jnp
import optax
import pytest

import adamax_optax as ao
from tests.compat import inside

SIZE = 1 << 18
LEAVES = 4 * inside.STACK

# The bytes that are counted are those of jax 0.10's compiler.
recent = pytest.mark.skipif(
    jax.__version_info__ < (0, 10), reason="older compilers fuse less"
)


def compiled_step(tx, params):
    """Compile the step that a training loop would: it overwrites what it replaces."""

    def step(params, state, gradients):
        updates, state = tx.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    return (
        jax.jit(step, donate_argnums=(0, 1))
        .lower(params, tx.init(params), params)
        .compile()
    )


def compiled_class(params, donate=False, **options):
    """Return the compiled step of the class, and the optimizer."""
    optimizer = ao.Adamax([{"params": params, **options}], donate=donate)
    gradients = jax.tree.leaves(jax.tree.map(jnp.ones_like, params))
    return inside.lowered(optimizer, gradients).compile(), optimizer


def bytes_moved(compiled):
    cost = compiled.cost_analysis()
    return (cost[0] if isinstance(cost, list) else cost)["bytes accessed"]


def fusions(compiled):
    text = compiled.as_text()
    return len(re.findall(r" fusion\(", text[text.index("ENTRY") :]))


def calls(compiled):
    """Return what a program calls outside itself."""
    return re.findall(
        r"custom-call|infeed|outfeed|\bsend\b|\brecv\b", compiled.as_text()
    )


@recent
@pytest.mark.usefixtures("lenient_promotion")
@pytest.mark.parametrize(("decay", "bytes_each"), [(0.0, 40), (0.1, 48)])
def test_the_float32_step_moves_what_optaxs_does(decay, bytes_each):
    params = jnp.zeros(SIZE)
    ours = compiled_step(ao.adamax(weight_decay=decay), params)
    assert bytes_moved(ours) / SIZE < bytes_each + 0.1
    if not decay:
        theirs = compiled_step(optax.adamax(1e-3), params)
        assert bytes_moved(ours) <= bytes_moved(theirs)
        assert fusions(ours) <= fusions(theirs)
    assert ours.memory_analysis().temp_size_in_bytes < 1024


@pytest.mark.parametrize("state_dtype", [None, jnp.bfloat16, jnp.float16, jnp.uint16])
def test_parameters_and_state_are_overwritten_and_nobody_is_called(state_dtype):
    params = {"w": jnp.zeros((64, 64)), "b": jnp.zeros(64)}
    tx = ao.adamax(weight_decay=0.1, state_dtype=state_dtype)
    compiled = compiled_step(tx, params)
    held = jax.tree.leaves((params, tx.init(params)))
    memory = compiled.memory_analysis()
    assert memory.alias_size_in_bytes == sum(x.nbytes for x in held)
    assert calls(compiled) == []


@pytest.mark.parametrize(
    "state_dtype", [pytest.param(None, marks=pytest.mark.slow), jnp.uint16]
)
def test_the_class_passes_few_arrays(state_dtype):
    params = [jnp.zeros((3, 4 + i % 2)) for i in range(LEAVES)]
    compiled, optimizer = compiled_class(params, state_dtype=state_dtype)
    # The moments in stacks, and the step counts.
    stacks = LEAVES // inside.STACK
    # Of a word's state also the scale, the bound and the key.
    arrays = 2 * stacks if state_dtype is None else stacks + 3
    state = inside.state(optimizer)
    assert len(state) == arrays + 1
    # The moments are overwritten; the parameters, which the caller may hold, are not.
    memory = compiled.memory_analysis()
    assert memory.alias_size_in_bytes == sum(x.nbytes for x in state)
    assert calls(compiled) == []


@recent
@pytest.mark.usefixtures("lenient_promotion")
def test_the_class_runs_fewer_kernels_than_optax():
    params = [jnp.zeros((3, 4 + i % 2)) for i in range(LEAVES)]
    compiled, _ = compiled_class(params)
    theirs = compiled_step(optax.adamax(1e-3), params)
    assert fusions(compiled) < 1.5 * LEAVES < 3 * LEAVES <= fusions(theirs)


@recent
@pytest.mark.parametrize("donate", [False, True])
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_a_large_parameter_of_the_class_moves_no_more_than_the_functional_form(
    decay, donate
):
    params = [jnp.zeros(SIZE)]
    compiled, _ = compiled_class(params, donate=donate, weight_decay=decay)
    functional = compiled_step(ao.adamax(weight_decay=decay), params)
    assert bytes_moved(compiled) <= bytes_moved(functional) + 1024


@pytest.mark.parametrize("state_dtype", [None, jnp.bfloat16, jnp.float16, jnp.uint16])
def test_the_class_that_may_donate_overwrites_parameters_too(state_dtype):
    params = [jnp.zeros(SIZE), jnp.zeros((3, 4)), jnp.zeros(4)]
    compiled, optimizer = compiled_class(params, donate=True, state_dtype=state_dtype)
    held = sum(x.nbytes for x in [*inside.state(optimizer), *params])
    assert compiled.memory_analysis().alias_size_in_bytes == held


@recent
@pytest.mark.parametrize("state_dtype", [None, jnp.bfloat16, jnp.float16, jnp.uint16])
def test_the_class_that_may_donate_needs_no_scratch_memory(state_dtype):
    compiled, _ = compiled_class(
        [jnp.zeros(SIZE)], donate=True, state_dtype=state_dtype
    )
    assert compiled.memory_analysis().temp_size_in_bytes < 1024


@pytest.mark.usefixtures("lenient_promotion")
@pytest.mark.parametrize("donate", [False, True])
def test_a_step_of_the_class_does_not_wait_for_the_device(donate):
    @jax.jit
    def slow(x, times):
        return jax.lax.fori_loop(0, times, lambda _, x: jnp.cos(x @ x), x)

    def waits(step):
        gradients = {"w": slow(jnp.ones((256, 256)), 1), "b": jnp.ones(3)}
        jax.block_until_ready(step(gradients))  # compiles
        gradients["w"] = slow(jnp.ones((256, 256)), 2000)
        new = step(gradients)
        ready = gradients["w"].is_ready() or new["w"].is_ready()
        jax.block_until_ready(new)
        return ready

    tx = optax.adamax(1e-3)
    jitted = jax.jit(tx.update, donate_argnums=1)
    params = {"w": jnp.ones((256, 256)), "b": jnp.ones(3)}
    state = tx.init(params)

    def theirs(gradients):
        nonlocal state
        updates, state = jitted(gradients, state)
        return updates

    optimizer = ao.Adamax(params, donate=donate)
    optimizer.param_groups[0]["lr"] = jnp.asarray(0.1)  # nor for an array among these
    # On CPU jax 0.6 waits for what a call that overwrites its arguments reads.
    assert waits(optimizer) == waits(theirs) == (jax.__version_info__ < (0, 10))
