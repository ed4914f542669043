"""Compile the steps for an H100 and a TPU v5e, with neither of them at hand.

    make accelerators     a minute, in a virtual environment with both compilers

Prints what the compilers make of a step: kernels, bytes of memory, and communication
between eight devices. Nothing is timed. Writes the numbers to `benchmarks/results`.
"""

import datetime
import importlib.metadata
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

# Read when JAX is imported. There are no devices to look for.
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["JAX_SKIP_CUDA_CONSTRAINTS_CHECK"] = "1"
os.environ["TPU_SKIP_MDS_QUERY"] = "1"

import jax
import jax.numpy as jnp
import optax
from accelerators_program import read
from accelerators_report import BEGIN, END, PLACEMENTS, markdown
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from report import options, put_into_page, report, rounded
from speed_workloads import Workload, array, transformer

import adamax_optax as ao

# What the compiler must know of an H100 SXM, from NVIDIA's data sheet and CUDA guide.
H100 = """
gpu_device_info {
  cuda_compute_capability { major: 9 }
  core_count: 132
  fpus_per_core: 128
  threads_per_warp: 32
  threads_per_block_limit: 1024
  threads_per_core_limit: 2048
  registers_per_block_limit: 65536
  registers_per_core_limit: 65536
  shared_memory_per_block: 49152
  shared_memory_per_block_optin: 232448
  shared_memory_per_core: 233472
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  l2_cache_size: 52428800
  memory_bandwidth: 3352320000000
  device_memory_size: 84929347584
  clock_rate_ghz: 1.98
}
platform_name: "CUDA"
device_description_str: "NVIDIA H100 80GB HBM3"
dnn_version_info { major: 9 minor: 8 }
runtime_version { major: 12 minor: 8 }
"""

TARGETS: Mapping[str, Callable[[], Any]] = {
    "H100": lambda: topologies.get_topology_desc(
        "h100", platform="cuda", topology="1x1x8", target_config=H100
    ),
    "TPU v5e": lambda: topologies.get_topology_desc("v5e:2x4", platform="tpu"),
}

RATE, DECAY = 1e-3, 1e-2
OPTAX, OURS, UINT16 = "optax.adamax", "ours", "ours, uint16"


def _ours(state_dtype: str | None = None, decay: float = 0.0) -> Any:
    dtype = None if state_dtype is None else jnp.dtype(state_dtype)
    return ao.adamax(RATE, weight_decay=decay, state_dtype=dtype)


FORMS: Mapping[str, optax.GradientTransformation] = {
    OPTAX: optax.adamax(RATE),
    OURS: _ours(),
    "ours, decay": _ours(decay=DECAY),
    "ours, bfloat16": _ours("bfloat16"),
    "ours, float16": _ours("float16"),
    UINT16: _ours("uint16"),
    "ours, uint16, decay": _ours("uint16", DECAY),
    "ours, stacked": ao.stack_small_leaves(_ours()),
    "ours, uint16, stacked": ao.stack_small_leaves(_ours("uint16")),
}
ONE_ARRAY = [name for name in FORMS if "stacked" not in name]
SMALL_LEAVES = [OPTAX, OURS, "ours, stacked", UINT16, "ours, uint16, stacked"]
ON_A_MESH = [OPTAX, OURS, UINT16]


def measure(targets: Mapping[str, Callable[[], Any]], quick: bool) -> dict[str, Any]:
    """Compile every step for every target."""
    size = 1 << 20 if quick else 1 << 24
    leaves = Workload("100 leaves of 768", {f"leaf{i:02}": (768,) for i in range(100)})
    devices = {name: make().devices for name, make in targets.items()}
    return {
        "about": {
            "date": datetime.date.today().isoformat(),
            "versions": versions(),
        },
        "one device": [
            one_device(array(size), ONE_ARRAY, devices),
            one_device(leaves, SMALL_LEAVES, devices),
        ],
        "mesh": on_a_mesh(transformer(layers=1 if quick else 4), devices),
    }


def versions() -> dict[str, str]:
    """Return the versions of the compilers."""
    names = ("jax", "jax-cuda12-pjrt", "libtpu")
    return {name: importlib.metadata.version(name) for name in names}


def one_device(
    workload: Workload, forms: Sequence[str], devices: Mapping[str, Any]
) -> dict[str, Any]:
    """Compile steps for one device of each target."""
    steps: dict[str, Any] = {}
    for form in forms:
        steps[form] = {}
        for target, (first, *_) in devices.items():
            report(f"{workload.title}: {form} for {target}")
            place = jax.sharding.SingleDeviceSharding(first)
            params = _params(workload, place)
            state = jax.eval_shape(FORMS[form].init, params)
            state = jax.tree.map(lambda x, p=place: _placed(x, p), state)
            steps[form][target] = compiled(FORMS[form], params, state)
    return _about(workload) | {"steps": steps}


def on_a_mesh(workload: Workload, devices: Mapping[str, Any]) -> dict[str, Any]:
    """Compile steps for eight devices, with two placements of the parameters."""
    steps: dict[str, Any] = {}
    for placement in PLACEMENTS:
        for form in ON_A_MESH:
            row = steps[f"{form}, {placement}"] = {}
            for target, eight in devices.items():
                report(f"{workload.title}: {form}, {placement} for {target}")
                mesh = Mesh(eight, ("data",), axis_types=(AxisType.Auto,))
                sharded = placement == "sharded"
                spec = PartitionSpec("data") if sharded else PartitionSpec()
                params = _params(workload, NamedSharding(mesh, spec))
                axis = None if sharded else "data"
                shardings = ao.state_shardings(FORMS[form], params, axis)
                state = jax.eval_shape(FORMS[form].init, params)
                state = jax.tree.map(_placed, state, shardings)
                row[target] = compiled(FORMS[form], params, state)
    return _about(workload) | {"steps": steps}


def compiled(
    tx: optax.GradientTransformation, params: Any, state: Any
) -> dict[str, Any]:
    """Compile a step that overwrites parameters and state; return what it does."""

    def step(params, state, gradients):
        updates, state = tx.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    places = jax.tree.map(lambda x: x.sharding, (params, state))
    jitted = jax.jit(step, donate_argnums=(0, 1), out_shardings=places)
    program: Any = jitted.lower(params, state, params).compile()
    found = read(program.as_text(), small=len(params))
    temporaries = program.memory_analysis().temp_size_in_bytes
    return {**found._asdict(), "temporaries": temporaries}


def _about(workload: Workload) -> dict[str, Any]:
    return {
        "title": workload.title,
        "parameters": workload.size,
        "leaves": len(workload.shapes),
    }


def _params(workload: Workload, place: Any) -> dict[str, jax.ShapeDtypeStruct]:
    return {
        name: jax.ShapeDtypeStruct(shape, jnp.float32, sharding=place)
        for name, shape in workload.shapes.items()
    }


def _placed(x: Any, place: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place)


def main(argv: Sequence[str] | None = None) -> None:
    """Compile, print and write."""
    args = options(__doc__).parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    numbers = args.out / "accelerators.json"
    if not args.redraw:
        try:
            results = rounded(measure(TARGETS, args.quick))
        except NotImplementedError as error:  # the compilers are not installed
            sys.exit(f"{error}: run `make accelerators`, which installs the compilers.")
        numbers.write_text(json.dumps(results, indent=1) + "\n")
    results = json.loads(numbers.read_text())
    if args.page:
        put_into_page(args.page, markdown(results), BEGIN, END)
    print(markdown(results))


if __name__ == "__main__":
    main()
