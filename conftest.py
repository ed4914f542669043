"""Settings for all tests: strict promotion, eight devices, repeatable hypothesis."""

import time
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


def pytest_configure(config):
    """Share compiled programs between workers, and with the next run.

    They lie in pytest's own cache: `--cache-clear` forgets them, and `-p
    no:cacheprovider` switches them off.
    """
    if not hasattr(config, "cache"):
        return
    folder = config.cache.mkdir("jax")
    if not hasattr(config, "workerinput"):
        for program in folder.iterdir():
            if program.stat().st_mtime < time.time() - 7 * 24 * 3600:
                program.unlink()
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    # An entry that another worker is still writing cannot be read: compile it here.
    message = "ignore:Error (reading|writing) persistent compilation cache entry"
    config.addinivalue_line("filterwarnings", message)


# Programs that need other libraries. pytest would import them to look for doctests.
collect_ignore_glob = [
    f"tests/{library}/*.py"
    for library in ("mindspore", "mxnet", "paddle", "repositories", "tensorflow")
]


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
    before = jax.config.jax_use_shardy_partitioner  # type: ignore[attr-defined]
    jax.config.update("jax_use_shardy_partitioner", True)
    yield
    jax.config.update("jax_use_shardy_partitioner", before)
