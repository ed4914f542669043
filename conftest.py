"""Settings for all tests: strict promotion, eight devices, repeatable hypothesis."""

from collections.abc import Iterator

import hypothesis
import jax
import pytest

# A dtype that changes by promotion is a bug of ours, so it is an error here. Tests of
# other libraries that rely on promotion switch it back on with `lenient_promotion`.
jax.config.update("jax_numpy_dtype_promotion", "strict")

# Virtual devices, for the tests of sharded arrays; all else runs on the first.
jax.config.update("jax_num_cpu_devices", 8)

hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None)
hypothesis.settings.load_profile("repeatable")


# Programs that need MindSpore: not for pytest, which looks for doctests everywhere.
collect_ignore_glob = ["tests/mindspore/*.py"]


@pytest.fixture(autouse=True)
def doctests_as_users_run_them(request: pytest.FixtureRequest) -> None:
    """Run the examples in docstrings with JAX's ordinary promotion."""
    if isinstance(request.node, pytest.DoctestItem):
        request.getfixturevalue("lenient_promotion")


@pytest.fixture
def x64() -> Iterator[None]:
    """Allow 64-bit arrays for the length of a test."""
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)


@pytest.fixture
def lenient_promotion() -> Iterator[None]:
    """Use JAX's ordinary dtype promotion for the length of a test."""
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture
def shardy() -> Iterator[None]:
    """Use the partitioner that is JAX's default from 0.7 on.

    The older one merges equal constants, even those of parameters in different layouts,
    and then moves data between the layouts: in `optax.sgd` too.
    """
    before = jax.config.read("jax_use_shardy_partitioner")
    jax.config.update("jax_use_shardy_partitioner", True)
    yield
    jax.config.update("jax_use_shardy_partitioner", before)
