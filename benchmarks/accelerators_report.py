"""Tables of what the compilers for a GPU and a TPU make of the steps."""

from typing import Any

from report import table

BEGIN, END = "<!-- accelerators: begin -->", "<!-- accelerators: end -->"

PLACEMENTS = {
    "sharded": "parameters and state divided among the devices (FSDP)",
    "ZeRO-1": "parameters on every device, state divided among them",
}


def markdown(results: dict[str, Any]) -> str:
    """Return all tables with a sentence before each."""
    about = results["about"]
    versions = ", ".join(f"{name} {v}" for name, v in about["versions"].items())
    parts = [f"Compiled on {about['date']}; {versions}. Nothing ran on a device.\n"]
    for workload in results["one device"]:
        parts.append(
            f"**{workload['title']}**, on one device: *kernels*, and in brackets those "
            "on single numbers such as the step count; bytes of memory read and "
            "written, and of scratch memory, for each parameter.\n\n"
            f"{one_device_table(workload)}\n"
        )
    mesh = results["mesh"]
    listed = "\n".join(f"- *{name}*: {what}." for name, what in PLACEMENTS.items())
    parts.append(
        f"**{mesh['title']}**, on eight devices: all communication of a step, and the "
        f"bytes that a device receives for each parameter.\n\n{mesh_table(mesh)}\n\n"
        f"{listed}\n"
    )
    return "\n".join(parts)


def one_device_table(workload: dict[str, Any]) -> str:
    """Return the table of the steps on one device."""
    parameters = workload["parameters"]
    targets = list(next(iter(workload["steps"].values())))
    head = ["step"]
    for target in targets:
        head += [f"{target}: kernels", "bytes", "scratch"]
    rows = []
    for form, step in workload["steps"].items():
        row = [form]
        for target in targets:
            found = step[target]
            row += [
                f"{found['kernels']} (+{found['small']})",
                f"{found['bytes'] / parameters:.2f}",
                f"{found['temporaries'] / parameters:.2f}",
            ]
        rows.append(row)
    return table(head, rows)


def mesh_table(workload: dict[str, Any]) -> str:
    """Return the table of the steps on eight devices."""
    targets = list(next(iter(workload["steps"].values())))
    head = ["step"]
    for target in targets:
        head += [f"{target}: communication", "bytes"]
    rows = []
    for form, step in workload["steps"].items():
        row = [form]
        for target in targets:
            found = step[target]
            kinds = [f"{n} {kind}" for kind, n in found["collectives"].items()]
            row += [
                ", ".join(kinds) or "none",
                f"{found['received'] / workload['parameters']:.2f}",
            ]
        rows.append(row)
    return table(head, rows)
