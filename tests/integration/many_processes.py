"""Train on the devices of all processes: run by each of them, see test_distributed.py.

python -m tests.integration.many_processes PORT PROCESSES RANK RESULT
"""

import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import adamax_optax as ao

STEPS, BATCH = 3, 4
LAZY = "class with lazy rows"
SHAPES = {"w": (8, 6), "b": (6,), "s": ()}
# How parameters and state are divided among the processes, and in which form it is.
CASES = [
    ("replicated", "bfloat16"),
    ("ZeRO", "float16"),
    ("divided", "uint16"),
    ("class", None),
    (LAZY, "uint16"),
]


def batches() -> list[dict[str, np.ndarray]]:
    """Return a batch for each step, of such numbers that their means are exact."""
    rng = np.random.default_rng(0)
    return [
        {
            name: rng.integers(-3, 4, (BATCH, *shape)).astype(np.float32)
            for name, shape in SHAPES.items()
        }
        for _ in range(STEPS)
    ]


def loss_fn(params: Any, batch: Any) -> Any:
    """Return a mean over the batch, of which the gradient is the batch's mean."""

    def one(p, x):
        return jnp.mean(jnp.sum(p.astype(jnp.float32) * x, range(1, x.ndim)))

    return optax.tree.sum(jax.tree.map(one, params, batch))


def train(mesh: jax.sharding.Mesh, how: str, form: Any) -> Any:
    """Return parameters and state after all steps, whole."""
    rows, everywhere = NamedSharding(mesh, P("data")), NamedSharding(mesh, P())

    def share(array):
        size = BATCH // jax.process_count()
        own = array[jax.process_index() * size :][:size]
        return jax.make_array_from_process_local_data(rows, own)

    params = {
        name: jax.device_put(
            jnp.ones(shape, jnp.float32 if name == "b" else jnp.bfloat16),
            rows if how in ("divided", LAZY) and shape else everywhere,
        )
        for name, shape in SHAPES.items()
    }
    data = [jax.tree.map(share, batch) for batch in batches()]
    if how in ("class", LAZY):
        group = {"params": params, "state_dtype": form, "lazy_rows": how == LAZY}
        optimizer = ao.Adamax([group], lr=0.05)
        grad_fn = jax.jit(jax.grad(loss_fn), out_shardings=everywhere)
        for batch in data:
            params = optimizer([grad_fn(optimizer.parameters[0], batch)])
        return whole((params, optimizer.state_dict()["state"]))

    tx = ao.stochastic_rounding(ao.adamax(0.05, weight_decay=0.1, state_dtype=form))
    if how == "ZeRO":
        places = ao.state_shardings(tx, params, axis="data")
        state = jax.jit(tx.init, out_shardings=places)(params)
    else:
        state = tx.init(params)

    def step(params, state, batch):
        updates, state = tx.update(jax.grad(loss_fn)(params, batch), state, params)
        return optax.apply_updates(params, updates), state

    places = jax.tree.map(lambda x: x.sharding, (params, state))
    step = jax.jit(step, out_shardings=places, donate_argnums=(0, 1))
    for batch in data:
        params, state = step(params, state, batch)
    return whole((params, state))


def whole(tree: Any) -> list[np.ndarray]:
    """Return the leaves of a tree, gathered from all processes where need be."""
    return [
        np.asarray(x)
        if not isinstance(x, jax.Array) or x.is_fully_addressable
        else multihost_utils.process_allgather(x, tiled=True)
        for x in jax.tree.leaves(tree)
    ]


def results(devices: Any) -> dict[str, np.ndarray]:
    """Return the leaves that each case ends with."""
    mesh = jax.sharding.Mesh(np.array(devices), ("data",))
    return {
        f"{how} {form} {number}": leaf
        for how, form in CASES
        for number, leaf in enumerate(train(mesh, how, form))
    }


def main() -> None:
    """Be one of the processes."""
    port, processes, rank = map(int, sys.argv[1:4])
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", 1)
    jax.config.update("jax_use_shardy_partitioner", True)
    jax.distributed.initialize(f"127.0.0.1:{port}", processes, rank)
    found = results(jax.devices())
    if rank == 0:
        np.savez(sys.argv[4], processes=jax.process_count(), **found)  # type: ignore[arg-type]
    jax.distributed.shutdown()


if __name__ == "__main__":
    main()
