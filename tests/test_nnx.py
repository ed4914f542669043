"""What is particular to Flax NNX, of the present version and of older ones."""

import subprocess
import sys
import types

import jax.numpy as jnp
from flax import nnx

from adamax_optax import _nnx


def test_what_is_a_node_and_what_a_variable():
    module = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
    assert _nnx.is_node(module) and not _nnx.is_variable(module)
    assert _nnx.is_node(module.kernel) and _nnx.is_variable(module.kernel)
    for other in [jnp.ones(2), nnx.state(module), {"kernel": module.kernel}, None]:
        assert not _nnx.is_node(other) and not _nnx.is_variable(other)


def test_parameters_of_a_module_with_their_paths():
    module = nnx.BatchNorm(3, rngs=nnx.Rngs(0))
    found = {path[-1].key: variable for path, variable in _nnx.variables_of(module)}
    assert set(found) == {"bias", "scale"}  # not the statistics
    assert found["bias"] is module.bias
    assert _nnx.variables_of(module.bias) == [((), module.bias)]


def test_variables_of_older_flax():
    # 0.11 has the property `value` only, which 0.12 deprecated.
    variable = types.SimpleNamespace(value=1)
    _nnx.put(variable, 2)
    assert _nnx.get(variable) == variable.value == 2


def test_without_flax_nothing_is_of_it():
    code = "from adamax_optax import _nnx; print(_nnx.is_node(1), _nnx.is_variable(1))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["False", "False"]
