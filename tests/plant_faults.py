"""Plant faults in a copy of the package, one at a time, and see the tests go red.

These are the mistakes that real ports of Adamax make, and those that spoil numbers
without an error. `make faults` plants them all, which takes half an hour; names plant
only those::

    python -m tests.plant_faults eps-outside-max

A fault that one of its test files does not notice is printed as GREEN, and the exit
status is 1.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]


class Fault(NamedTuple):
    """Somewhere in the package `old` becomes `new`; each test file must notice."""

    old: str
    new: str
    tests: str  # files under tests/


FAULTS = {
    # Maximize, decay and schedule.
    "negate-after-the-decay": Fault(
        """            _ascent(maximize),  # g ← -g
            _decay(weight_decay, mask),  # g ← g + λ θ
""",
        """            _decay(weight_decay, mask),
            _ascent(maximize),
""",
        "numbers/test_paper.py numbers/test_torch.py numbers/test_mindspore.py",
    ),
    "maximize-ignored": Fault(
        "return optax.scale(-1.0) if maximize else optax.identity()",
        "return optax.identity()",
        "numbers/test_paper.py numbers/test_torch.py numbers/test_mindspore.py",
    ),
    "decay-decoupled": Fault(
        """            _decay(weight_decay, mask),  # g ← g + λ θ
            scale_by_infinity_norm(  # m / u
                b1, b2, eps, eps_outside=eps_outside, state_dtype=state_dtype
            ),
""",
        """            scale_by_infinity_norm(  # m / u
                b1, b2, eps, eps_outside=eps_outside, state_dtype=state_dtype
            ),
            _decay(weight_decay, mask),  # g ← g + λ θ
""",
        "numbers/test_paper.py numbers/test_torch.py numbers/test_mindspore.py",
    ),
    "decay-of-traced-zero-skipped": Fault(
        "if isinstance(weight_decay, int | float) and weight_decay == 0:",
        "if not callable(weight_decay) and weight_decay == 0:",
        "test_adamax.py",
    ),
    "mask-dropped": Fault(
        "optax.add_decayed_weights(weight_decay, mask)",
        "optax.add_decayed_weights(weight_decay)",
        "numbers/test_optax.py",
    ),
    "schedule-one-step-late": Fault(
        "            optax.scale_by_learning_rate(learning_rate),  # -γ m",
        "            optax.scale_by_learning_rate((lambda c: learning_rate(c + 1))"
        " if callable(learning_rate) else learning_rate),  # -γ m",
        "test_adamax.py numbers/test_mindspore.py",
    ),
    # m / u in float32.
    "eps-outside-max": Fault(
        "jnp.maximum(scalar(b2, u.dtype) * u, modulus + scalar(eps, u.dtype))",
        "jnp.maximum(scalar(b2, u.dtype) * u, modulus) + scalar(eps, u.dtype)",
        "moments/test_infinity_norm.py numbers/test_paper.py numbers/test_torch.py "
        "numbers/test_mindspore.py",
    ),
    "eps-outside-ignored": Fault(
        "            u = u + scalar(eps_outside, u.dtype)\n",
        "",
        "numbers/test_paper.py numbers/test_mindspore.py",
    ),
    "norm-does-not-decay": Fault(
        "jnp.maximum(scalar(b2, u.dtype) * u,",
        "jnp.maximum(u,",
        "moments/test_infinity_norm.py numbers/test_paper.py numbers/test_optax.py",
    ),
    "zero-over-zero": Fault(
        "is_zero = u == 0",
        "is_zero = jnp.zeros_like(u, bool)",
        "moments/test_infinity_norm.py",
    ),
    "nan-hidden": Fault(
        "is_zero = u == 0",
        "is_zero = ~(u > 0)",
        "moments/test_infinity_norm.py",
    ),
    "derivative-through-zero-over-zero": Fault(
        "jnp.where(is_zero, 1, u)",
        "u",
        "test_adamax.py",
    ),
    "state-in-the-parameters-dtype": Fault(
        "return filled_like(p, 0, compute_dtype(jnp.result_type(p)))",
        "return filled_like(p, 0, jnp.result_type(p))",
        "moments/test_infinity_norm.py numbers/test_paper.py",
    ),
    "arithmetic-in-the-gradients-dtype": Fault(
        "return jnp.asarray(x, compute_dtype(dtype))\n",
        "return jnp.asarray(x)\n",
        "test_adamax.py",
    ),
    "traced-b1-imposes-its-dtype": Fault(
        "decay = scalar(b1, m.dtype)  # before",
        "decay = b1  # before",
        "moments/test_infinity_norm.py",
    ),
    # 1 - b1^t.
    "correction-one-step-late": Fault(
        "t = count.astype(dtype)",
        "t = (count + 1).astype(dtype)",
        "test_bias_correction.py numbers/test_paper.py",
    ),
    "correction-by-cancellation": Fault(
        "return -jnp.expm1(t * (math.log(b1) if b1 > 0 else -math.inf))",
        "return 1 - jnp.asarray(b1, dtype) ** t",
        "test_bias_correction.py",
    ),
    "count-wraps": Fault(
        "optax.safe_increment(state.count)",
        "state.count + 1",
        "test_bias_correction.py",
    ),
    # State in 4 and 2 bytes.
    "scale-does-not-decay": Fault(
        "scale = scale * _positive(b2)",
        "scale = scale * 1.0",
        "moments/test_reduced_norm.py",
    ),
    "words-not-quartered": Fault(
        "old - _QUARTER * quarterings",
        "old",
        "moments/test_reduced_norm.py",
    ),
    "halves-not-quartered": Fault(
        "half = power_of_two(-quarterings)",
        "half = 1.0",
        "moments/test_reduced_norm.py",
    ),
    "ratio-rounded-down": Fault(
        "drop_at_random(bits, _RATIO_STEP + 2, random)",
        "bits >> (_RATIO_STEP + 2)",
        "moments/test_word_codes.py moments/test_reduced_norm.py",
    ),
    "ratio-without-sign": Fault(
        "(code & 0x7F) | ((to_bits(m) >> 24) & 0x80)",
        "code & 0x7F",
        "moments/test_word_codes.py",
    ),
    "codes-read-with-the-new-bound": Fault(
        "m = _ratio(word, old_bound) * _norm(old)",
        "m = _ratio(word, bound) * _norm(old)",
        "moments/test_live_betas.py",
    ),
    "bound-without-the-rounding-of-u": Fault(
        "_UNIT = _ROUNDED_DOWN / (_RATIO_MAX - 1)",
        "_UNIT = 1 / (_RATIO_MAX - 1)",
        "moments/test_live_betas.py",
    ),
    "bound-of-constant-betas": Fault(
        "return jnp.minimum(b1 / b2 * bound, BOUND_MAX - 1) + (1 - b1)",
        "return 0 * bound + (1 - b1) / jnp.maximum(1 - b1 / b2, 1 / BOUND_MAX)",
        "moments/test_live_betas.py",
    ),
    "scale-of-a-leaf-without-gradient-decays": Fault(
        "return jnp.where(np.array(steps), new, old)",
        "return new",
        "moments/test_live_betas.py",
    ),
    "scale-of-a-waiting-row-decays": Fault(
        "scale=of_rows(moments.scale),",
        "scale=moments.scale,",
        "test_lazy_rows.py",
    ),
    "lazy-and-dense-rows-in-one-stack": Fault(
        "(spec.shape, spec.dtype, spec.state_dtype, spec.decays, spec.lazy_rows)",
        "(spec.shape, spec.dtype, spec.state_dtype, spec.decays)",
        "compat/test_lazy_rows.py",
    ),
    "ratio-decoded-with-another-range": Fault(
        "magnitude = (x - 1.0) * (bound * _UNIT)",
        "magnitude = (x - 1.0) * (2 * bound * _UNIT)",
        "moments/test_word_codes.py",
    ),
    "norm-rounded-down": Fault(
        "(to_bits(v) - (_NORM_LOW - half))",
        "(to_bits(v) - _NORM_LOW)",
        "moments/test_word_codes.py moments/test_reduced_norm.py",
    ),
    "nan-in-a-word-looks-healthy": Fault(
        "return jnp.where((word & 0xFF) == _NORM_NAN, jnp.nan, _ratio(word, bound))",
        "return _ratio(word, bound)",
        "moments/test_reduced_norm.py",
    ),
    "gradients-beyond-the-word": Fault(
        "g = jnp.clip(g, -_GRADIENT_MAX, _GRADIENT_MAX)",
        "g = g",
        "moments/test_reduced_norm.py",
    ),
    "gradients-beyond-float16": Fault(
        "g = self._clip(g)  # NaN",
        "g = g  # NaN",
        "moments/test_reduced_norm.py",
    ),
    "half-norm-underflows": Fault(
        "kept = jnp.maximum(kept, self.low)",
        "kept = kept",
        "moments/test_half_codes.py",
    ),
    "half-mean-rounded-to-nearest": Fault(
        "return to_bfloat16_at_random(m, random)",
        "return round_to_nearest(m, self.dtype)",
        "moments/test_half_codes.py",
    ),
    "float16-mean-stays-subnormal": Fault(
        "jnp.maximum(magnitude + least, 2 * magnitude)",
        "jnp.maximum(2 * magnitude, least)",
        "test_rounding.py moments/test_reduced_norm.py",
    ),
    "nan-rounded-to-a-number": Fault(
        "jnp.where(x == x, from_bits(bits), jnp.nan)",
        "from_bits(bits)",
        "test_rounding.py moments/test_reduced_norm.py",
    ),
    "weights-do-not-add-up": Fault(
        "isinstance(b1, int | float) and b1 > 0.9",
        "False",
        "moments/test_infinity_norm.py",
    ),
    "updates-rounded-before-the-sum": Fault(
        "            widened(updates), state.inner_state",
        "            updates, state.inner_state",
        "test_stochastic_rounding.py",
    ),
    "parameters-rounded-to-nearest": Fault(
        "uniform(random) * width < part",
        "0.5 * width < part",
        "test_stochastic_rounding.py",
    ),
    "same-noise-at-every-place": Fault(
        "return _mix(place + key)",
        "return _mix(0 * place + key)",
        "test_rounding.py",
    ),
    "same-noise-at-every-step": Fault(
        "return key + np.uint32(_GOLDEN)",
        "return key",
        "test_rounding.py",
    ),
    # The class.
    "one-count-for-all-parameters": Fault(
        "after if stepping is None else jnp.where(stepping, after, counts)",
        "after",
        "compat/test_missing_gradients.py",
    ),
    "a-step-without-gradient": Fault(
        "jnp.where(row.stepping, x, y)",
        "x",
        "compat/test_missing_gradients.py",
    ),
    "parameters-donated": Fault(
        "            overwritten = Overwritten((packed,), prepare)\n",
        "            overwritten = Overwritten((packed, params), prepare)\n",
        "compat/test_optimizer.py",
    ),
    "no-copies-while-compiling": Fault(
        "        return self.copies(), None",
        "        self.copies()\n        return self._arrays, None",
        "compat/test_interruption.py",
    ),
    "results-stored-one-by-one": Fault(
        "    _consume(map(object.__setattr__, owners, names, results))",
        "    for owner, name, result in zip(owners, names, results, strict=True):\n"
        "        object.__setattr__(owner, name, result)",
        "compat/test_interruption.py",
    ),
    "hyperparameters-of-the-first-step": Fault(
        "if found is None or found != self._hyper[0]:",
        "if self._hyper[0] is None:",
        "compat/test_optimizer.py compat/test_torch.py",
    ),
    "complex-by-modulus": Fault(
        "    if any(map(jnp.iscomplexobj, jax.tree.leaves(tree))):\n",
        "    if False:\n",
        "compat/test_torch.py",
    ),
    "tied-variables-stepped-twice": Fault(
        "places.setdefault(id(variable), place)",
        "places[len(places)] = place",
        "compat/test_nnx.py",
    ),
    "groups-share-hyperparameters": Fault(
        "groups = [self.specs[k].group for k in piece.numbers]",
        "groups = [0 for k in piece.numbers]",
        "compat/test_stacks.py compat/test_torch.py",
    ),
    "shardings-left-to-xla": Fault(
        "        if all(spec.sharding is None for spec in self.specs):\n",
        "        if True:\n",
        "compat/test_placement.py",
    ),
    "states-by-place-in-the-list": Fault(
        "            if id(group) in by_group:\n"
        "                found += by_group[id(group)]",
        "            if id(group) in by_group:\n"
        "                found += list(itertools.islice(rest, len(own.paths)))",
        "compat/test_surgery.py",
    ),
    "a-beta-that-rounds-to-1": Fault(
        "dtype(beta) == 1:",
        "beta == 1:",
        "compat/test_errors.py",
    ),
    "refused-state-half-loaded": Fault(
        "    layout.check(groups, look=True)\n    dtypes",
        "    layout.check(groups, look=True)\n"
        "    for old, new in zip(layout.groups, groups, strict=True):\n"
        "        old.update(new)\n"
        "    dtypes",
        "compat/test_errors.py",
    ),
    # States of other libraries.
    "moments-exchanged": Fault(
        "            entries[key] = Entry(*values)",
        "            entries[key] = Entry(values[0], values[2], values[1])",
        "interop/test_torch.py compat/test_state_dict.py",
    ),
    "kernels-not-transposed": Fault(
        'return name.rpartition(".")[2] == "kernel" and array.ndim >= 2',
        "return False",
        "interop/test_torch.py interop/test_mindspore.py",
    ),
    "schedules-start-at-zero": Fault(
        "for at in self._all(_is_schedule):",
        "for at in []:",
        "interop/test_torch.py interop/test_keras.py",
    ),
    "power-of-beta-missing": Fault(
        "b1**step",
        "b1",
        "interop/test_mindspore.py",
    ),
}


def place(fault: Fault, package: Path) -> Path:
    """Return the one file of a package that has the text of a fault.

    Raises:
      LookupError: If the text is not there, or there twice.
    """
    files = [
        path
        for path in sorted(package.rglob("*.py"))
        for _ in range(path.read_text().count(fault.old))
    ]
    if len(files) != 1:
        raise LookupError(f"{len(files)} places have\n{fault.old}")
    return files[0]


def unnoticed(fault: Fault) -> list[str]:
    """Plant a fault in a copy and return the names of the test files that pass."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        for name in ["adamax_optax", "tests", "conftest.py", "pyproject.toml"]:
            source = ROOT / name
            (shutil.copytree if source.is_dir() else shutil.copy)(source, copy / name)
        path = place(fault, copy / "adamax_optax")
        path.write_text(path.read_text().replace(fault.old, fault.new))
        return [test for test in fault.tests.split() if passes(test, copy)]


def passes(test: str, copy: Path) -> bool:
    """Whether one test file passes on a copy; stops at the first failure."""
    command = [sys.executable, "-m", "pytest", "-qx", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, "-m", "not slow", f"tests/{test}"],
        cwd=copy,
        env={**os.environ, "PYTHONPATH": str(copy)},
        capture_output=True,
        text=True,
    )
    if done.returncode > 1:
        raise SystemExit(f"{test} did not run:\n{done.stdout}{done.stderr}")
    return done.returncode == 0


def main() -> int:
    """Plant the named faults, or all, and print which of them the tests notice."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("faults", nargs="*", metavar="FAULT", help="all by default")
    names = parser.parse_args().faults or list(FAULTS)
    missed = 0
    with tempfile.TemporaryDirectory() as compiled:
        # A fault leaves most programs as they are: all tests share what is compiled.
        os.environ["JAX_COMPILATION_CACHE_DIR"] = compiled
        os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
        for name in names:
            green = unnoticed(FAULTS[name])
            missed += bool(green)
            verdict = f"GREEN in {' '.join(green)}" if green else "red"
            print(f"{name:36} {verdict}", flush=True)
    print(f"{missed} of {len(names)} faults were missed by a test file")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
