"""Plant one fault after the other in a copy of the package and see the tests go red.

Run `make faults`, or with names to plant only those: `python tests/plant_faults.py
eps-outside-max`. A fault that no test notices is printed as GREEN, and the exit status
is 1.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent


class Fault(NamedTuple):
    """A fault: in `file`, `old` becomes `new`; `tests` must notice."""

    file: str
    old: str
    new: str
    tests: str


FAULTS = {
    # The traps of the port.
    "negate-last": Fault(
        "_alias.py",
        """            _ascent(maximize),  # g ← -g
            _decay(weight_decay, mask),  # g ← g + λ θ
""",
        """            _decay(weight_decay, mask),
            _ascent(maximize),
""",
        "test_adamax.py numbers/test_paper.py "
        "numbers/test_torch.py numbers/test_mindspore.py",
    ),
    "maximize-ignored": Fault(
        "_alias.py",
        "return optax.scale(-1.0) if maximize else optax.identity()",
        "return optax.identity()",
        "test_adamax.py numbers/test_paper.py "
        "numbers/test_torch.py numbers/test_mindspore.py",
    ),
    "traced-maximize-swapped": Fault(
        "_alias.py",
        "maximize, -1.0, 1.0",
        "maximize, 1.0, -1.0",
        "test_adamax.py",
    ),
    "decay-decoupled": Fault(
        "_alias.py",
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
        "test_adamax.py numbers/test_paper.py "
        "numbers/test_torch.py numbers/test_mindspore.py",
    ),
    "decay-of-traced-zero-skipped": Fault(
        "_alias.py",
        "if isinstance(weight_decay, int | float) and weight_decay == 0:",
        "if not callable(weight_decay) and weight_decay == 0:",
        "test_adamax.py test_checks.py",
    ),
    "mask-dropped": Fault(
        "_alias.py",
        "optax.add_decayed_weights(weight_decay, mask)",
        "optax.add_decayed_weights(weight_decay)",
        "test_adamax.py numbers/test_optax.py",
    ),
    "schedule-one-step-late": Fault(
        "_alias.py",
        "            optax.scale_by_learning_rate(learning_rate),  # -γ m",
        "            optax.scale_by_learning_rate((lambda c: learning_rate(c + 1))"
        " if callable(learning_rate) else learning_rate),  # -γ m",
        "test_adamax.py numbers/test_mindspore.py",
    ),
    # The moments.
    "eps-outside-max": Fault(
        "_infinity_norm.py",
        """jnp.maximum(scalar(b2, u.dtype) * u, modulus + scalar(eps, u.dtype))""",
        """jnp.maximum(scalar(b2, u.dtype) * u, modulus) + scalar(eps, u.dtype)""",
        "moments/test_infinity_norm.py numbers/test_paper.py "
        "numbers/test_torch.py numbers/test_mindspore.py",
    ),
    "eps-outside-ignored": Fault(
        "_infinity_norm.py",
        "            u = u + scalar(eps_outside, u.dtype)\n",
        "",
        "moments/test_infinity_norm.py numbers/test_paper.py numbers/test_mindspore.py",
    ),
    "no-guard-against-0/0": Fault(
        "_infinity_norm.py",
        "nothing = u == 0",
        "nothing = jnp.zeros_like(u, bool)",
        "moments/test_infinity_norm.py",
    ),
    "derivative-through-0/0": Fault(
        "_infinity_norm.py",
        "jnp.where(nothing, 1, u)",
        "u",
        "test_adamax.py",
    ),
    "nan-hidden": Fault(
        "_infinity_norm.py",
        "nothing = u == 0",
        "nothing = ~(u > 0)",
        "moments/test_infinity_norm.py",
    ),
    "norm-does-not-decay": Fault(
        "_infinity_norm.py",
        "scalar(b2, u.dtype) * u,",
        "u,",
        "moments/test_infinity_norm.py numbers/test_paper.py numbers/test_optax.py",
    ),
    "state-in-the-parameters-dtype": Fault(
        "_infinity_norm.py",
        "return filled_like(p, 0, compute_dtype(jnp.result_type(p)))",
        "return filled_like(p, 0, jnp.result_type(p))",
        "moments/test_infinity_norm.py numbers/test_paper.py",
    ),
    "complex-norm-kept-complex": Fault(
        "_infinity_norm.py",
        "filled_like(m, 0, real_dtype(m.dtype))",
        "filled_like(m, 0, m.dtype)",
        "moments/test_infinity_norm.py",
    ),
    "update-in-the-states-dtype": Fault(
        "_infinity_norm.py",
        "quotient).astype(jnp.result_type(g))",
        "quotient)",
        "moments/test_infinity_norm.py",
    ),
    "traced-b1-imposes-its-dtype": Fault(
        "_infinity_norm.py",
        "decay = scalar(b1, m.dtype)  # first",
        "decay = b1  # first",
        "moments/test_infinity_norm.py",
    ),
    "gain-in-the-dtype-of-b1": Fault(
        "_infinity_norm.py",
        "(1 - decay)",
        "scalar(1 - b1, m.dtype)",
        "moments/test_infinity_norm.py",
    ),
    "moments-of-leaves-without-gradient-lost": Fault(
        "_infinity_norm.py",
        "other if g is None else",
        "None if g is None else",
        "moments/test_infinity_norm.py",
    ),
    # The bias correction.
    "correction-one-step-late": Fault(
        "_bias_correction.py",
        "-jnp.expm1(count.astype",
        "-jnp.expm1((count + 1).astype",
        "test_bias_correction.py numbers/test_paper.py",
    ),
    "correction-by-cancellation": Fault(
        "_bias_correction.py",
        "-jnp.expm1(count.astype(jnp.result_type(float)) * _log(b1))",
        "1 - jnp.asarray(b1, jnp.float32) ** count.astype(jnp.float32)",
        "test_bias_correction.py",
    ),
    "log-of-b1-in-32-bits": Fault(
        "_bias_correction.py",
        "return math.log(b1) if b1 > 0 else -math.inf",
        "pass",
        "test_bias_correction.py",
    ),
    "count-wraps": Fault(
        "_bias_correction.py",
        "optax.safe_increment(state.count)",
        "state.count + 1",
        "test_bias_correction.py",
    ),
    # Precision of the whole chain.
    "chain-in-the-gradients-dtype": Fault(
        "_dtypes.py",
        "    return jnp.asarray(x, compute_dtype(dtype))\n",
        "    return jnp.asarray(x)\n",
        "test_adamax.py test_dtypes.py",
    ),
    # Reduced state.
    "scale-does-not-decay": Fault(
        "_lazy_scale.py",
        "scale = scale * jnp.maximum(jnp.asarray(b2, jnp.float32), 2.0**-64)",
        "scale = scale * 1.0",
        "moments/test_reduced_norm.py",
    ),
    "word-not-quartered": Fault(
        "_word_codes.py",
        "kept - _QUARTER * quarterings",
        "kept",
        "moments/test_reduced_norm.py",
    ),
    "halves-not-quartered": Fault(
        "_half_codes.py",
        "half = power_of_two(-quarterings)",
        "half = 1.0",
        "moments/test_reduced_norm.py",
    ),
    "ratio-rounded-down": Fault(
        "_word_codes.py",
        "dropped = (random >> (32 - _RATIO_DROP)).astype(jnp.int32)",
        "dropped = 0",
        "moments/test_word_codes.py moments/test_reduced_norm.py",
    ),
    "ratio-without-sign": Fault(
        "_word_codes.py",
        "(code & 0x7F) | ((to_bits(m) >> 24) & 0x80)",
        "code & 0x7F",
        "moments/test_word_codes.py moments/test_reduced_norm.py",
    ),
    "ratio-not-clipped": Fault(
        "_word_codes.py",
        "(bound / (_RATIO_MAX - 1))\n",
        "(2 * bound / (_RATIO_MAX - 1))\n",
        "moments/test_word_codes.py moments/test_reduced_norm.py",
    ),
    "norm-rounded-down": Fault(
        "_word_codes.py",
        "(to_bits(v) - _NORM_LOW + _NORM_HALF)",
        "(to_bits(v) - _NORM_LOW)",
        "moments/test_word_codes.py moments/test_reduced_norm.py",
    ),
    "not-a-number-looks-healthy": Fault(
        "_word_codes.py",
        "return jnp.where((word & 0xFF) == _NORM_NAN, jnp.nan, ratio)",
        "return ratio",
        "moments/test_word_codes.py moments/test_reduced_norm.py",
    ),
    "gradients-beyond-the-word": Fault(
        "_word_codes.py",
        "g = jnp.clip(g, -_GRADIENT_MAX, _GRADIENT_MAX)",
        "g = g",
        "moments/test_reduced_norm.py",
    ),
    "forms-alike-are-not-equal": Fault(
        "_half_codes.py",
        "return isinstance(other, HalfCodes) and other.dtype == self.dtype",
        "return self is other",
        "moments/test_reduced_norm.py",
    ),
    "forms-of-two-dtypes-are-equal": Fault(
        "_half_codes.py",
        "return isinstance(other, HalfCodes) and other.dtype == self.dtype",
        "return isinstance(other, HalfCodes)",
        "moments/test_reduced_norm.py",
    ),
    "not-a-number-heals": Fault(
        "_word_codes.py",
        "jnp.where(kept == _NORM_NAN, kept, kept - _QUARTER * quarterings)",
        "kept - _QUARTER * quarterings",
        "moments/test_reduced_norm.py",
    ),
    "half-norm-underflows": Fault(
        "_half_codes.py",
        "kept = jnp.maximum(kept, self.low)",
        "kept = kept",
        "moments/test_half_codes.py",
    ),
    "half-mean-rounded-to-nearest": Fault(
        "_half_codes.py",
        "round_at_random(m, self.dtype, random)",
        "round_to_nearest(m, self.dtype)",
        "moments/test_half_codes.py",
    ),
    "gradients-beyond-float16": Fault(
        "_half_codes.py",
        "g = jnp.clip(g, -self.top, self.top)",
        "g = g",
        "moments/test_reduced_norm.py",
    ),
    "noise-without-place": Fault(
        "_noise.py",
        "return _mix(place + key)",
        "return _mix(0 * place + key)",
        "test_rounding.py",
    ),
    "noise-without-steps": Fault(
        "_noise.py",
        "return key + np.uint32(_GOLDEN)",
        "return key",
        "test_rounding.py",
    ),
    "parameters-rounded-to-nearest": Fault(
        "_stochastic_rounding.py",
        "(random >> 8).astype(jnp.float32) * np.float32(2.0**-24)",
        "0.5",
        "test_stochastic_rounding.py",
    ),
    "sum-becomes-infinite": Fault(
        "_stochastic_rounding.py",
        "    rounded = jnp.clip(rounded, float(info.min), float(info.max))\n",
        "",
        "test_stochastic_rounding.py",
    ),
    "reduced-state-differentiated-in-parts": Fault(
        "_reduced_norm.py",
        "return jax.lax.stop_gradient(ratio).astype",
        "return ratio.astype",
        "integration/test_wrappers.py",
    ),
    "schedule-taken-for-a-dtype": Fault(
        "_reduced_norm.py",
        "if isinstance(state_dtype, jax.Array):",
        "if False:",
        "integration/test_wrappers.py",
    ),
    "decay-rates-in-half-precision": Fault(
        "_checks.py",
        "jnp.finfo(dtype).bits < 32",
        "jnp.finfo(dtype).bits < 16",
        "test_checks.py",
    ),
    "cast-forgets-the-scale": Fault(
        "interop/_cast_state.py",
        "scale, key = state.scale, next_key(state.key)",
        "scale, key = jnp.ones([], jnp.float32) / 2, next_key(state.key)",
        "moments/test_cast_state.py",
    ),
    # Many devices.
    "new-state-anywhere": Fault(
        "_placement.py",
        "if not isinstance(param, jax.core.Tracer):",
        "if True:",
        "test_sharding.py integration/test_eight_devices.py",
    ),
    "new-state-by-shard-alike": Fault(
        "_placement.py",
        "    return jnp.where(never, param.astype(dtype), np.asarray(value, dtype))\n",
        """    from jax.experimental.shard_alike import shard_alike

    return shard_alike(param, jnp.full_like(param, value, dtype=dtype))[1]
""",
        "test_sharding.py",
    ),
    "new-state-differentiated": Fault(
        "_placement.py",
        "    param = lax.stop_gradient(param)\n",
        "",
        "test_sharding.py",
    ),
    "scalars-on-one-device": Fault(
        "_placement.py",
        "mesh = meshes.pop() if len(meshes) == 1 else None",
        "mesh = None",
        "test_sharding.py integration/test_eight_devices.py",
    ),
    "noise-made-in-full": Fault(
        "_noise.py",
        "jnp.zeros_like(like, dtype=jnp.uint32)",
        "jnp.zeros(shape, jnp.uint32)",
        "integration/test_eight_devices.py test_sharding.py",
    ),
    "noise-of-the-whole-parameter": Fault(
        "_stochastic_rounding.py",
        "noise(exact, key)",
        "noise(wide, key)",
        "test_sharding.py",
    ),
    "state-divided-twice-along-an-axis": Fault(
        "_state_shardings.py",
        "if not set(axes).isdisjoint(itertools.chain(*spec)):",
        "if False:",
        "test_sharding.py",
    ),
    "state-not-divided": Fault(
        "_state_shardings.py",
        "            spec[i] = divided\n",
        "",
        "test_sharding.py",
    ),
    # The class.
    "count-of-one-parameter-for-all": Fault(
        "compat/_buckets.py",
        "params[k].dtype, moments[k].count, _coding",
        "params[k].dtype, max(m.count for m in moments.values()), _coding",
        "compat/test_buckets.py",
    ),
    "moments-of-the-caller-donated": Fault(
        "interop/_arrays.py",
        "[jnp.array(part, copy=True) for part in jax.tree.leaves(value)]",
        "jax.tree.leaves(value)",
        "compat/test_optimizer.py",
    ),
    "parameters-donated": Fault(
        "compat/_step.py",
        "_keeping = jax.jit(_step_all, donate_argnums=0",
        "_keeping = jax.jit(_step_all, donate_argnums=(0, 1)",
        "compat/test_optimizer.py",
    ),
    "parameters-kept-where-they-may-be-overwritten": Fault(
        "compat/_step.py",
        "_overwriting = jax.jit(_step_all, donate_argnums=(0, 1)",
        "_overwriting = jax.jit(_step_all, donate_argnums=0",
        "compat/test_donate.py integration/test_program.py",
    ),
    "an-array-given-up-twice": Fault(
        "compat/_step.py",
        "distinct[k] = jnp.copy(params[k])",
        "pass",
        "compat/test_donate.py",
    ),
    "decay-in-arrays-left-out": Fault(
        "compat/_hyperparameters.py",
        'isinstance(group["weight_decay"], jax.Array) or bool(group["weight_decay"])',
        'type(group["weight_decay"]) is float and bool(group["weight_decay"])',
        "compat/test_optimizer.py",
    ),
    "copies-share-what-is-overwritten": Fault(
        "compat/_adamax.py",
        "if self._donate:  # the original's steps overwrite its arrays",
        "if False:",
        "compat/test_donate.py",
    ),
    "weight-decay-0-for-good": Fault(
        "compat/_hyperparameters.py",
        'values += [group["lr"], *betas, group["eps"], group["weight_decay"]]',
        'values += [group["lr"], *betas, group["eps"]]',
        "compat/test_optimizer.py",
    ),
    "hyperparameters-of-the-first-step": Fault(
        "compat/_adamax.py",
        "if found is not None and last is not None and found == last[0]:",
        "if last is not None:",
        "compat/test_optimizer.py compat/test_torch.py",
    ),
    "arrays-changed-in-place-unnoticed": Fault(
        "compat/_hyperparameters.py",
        "return values if _PLAIN.issuperset(map(type, values)) else None",
        "return values",
        "compat/test_optimizer.py",
    ),
    "arrays-of-numbers-looked-at": Fault(
        "compat/_hyperparameters.py",
        "if isinstance(group[name], jax.Array):",
        "if False:",
        "compat/test_optimizer.py",
    ),
    "complex-by-modulus": Fault(
        "compat/_moments.py",
        "    if any(map(jnp.iscomplexobj, jax.tree.leaves(tree))):\n",
        "    if False:\n",
        "compat/test_optimizer.py compat/test_torch.py",
    ),
    "weak-types-compiled-twice": Fault(
        "compat/_parameters.py",
        'weak = getattr(array, "weak_type", False)',
        "weak = False",
        "compat/test_optimizer.py",
    ),
    "gradients-matched-by-order-of-a-stale-structure": Fault(
        "compat/_gradients.py",
        "if self._treedef is None or treedef != self._treedef:",
        "if self._treedef is None:",
        "compat/test_optimizer.py compat/test_torch.py compat/test_errors.py",
    ),
    "prefix-of-a-name-taken-for-a-branch": Fault(
        "compat/_gradients.py",
        "above = (path[:n] for n in range(len(path)))",
        "above = [a for a in absent if ''.join(path).startswith(''.join(a)[:-2])]",
        "compat/test_errors.py",
    ),
    "tied-variables-stepped-twice": Fault(
        "compat/_parameters.py",
        "places.setdefault(id(variable), (prefix + _names(path), variable))",
        "places[len(places)] = (prefix + _names(path), variable)",
        "compat/test_nnx.py",
    ),
    "all-of-a-modules-variables-stepped": Fault(
        "_nnx.py",
        "nnx.variables(node, nnx.Param)",
        "nnx.variables(node)",
        "compat/test_nnx.py",
    ),
    # The groups of the functional form.
    "last-match-wins": Fault(
        "_param_groups.py",
        "for pattern, compiled in patterns.items():",
        "for pattern, compiled in reversed(patterns.items()):",
        "test_param_groups.py",
    ),
    "patterns-must-match-whole-names": Fault(
        "_param_groups.py",
        "compiled.search(name)",
        "compiled.fullmatch(name)",
        "test_param_groups.py",
    ),
    "variables-named-by-their-value": Fault(
        "_param_groups.py",
        "return x is None or _nnx.is_variable(x)",
        "return x is None",
        "test_param_groups.py",
    ),
    "scaled-schedule-evaluated-once": Fault(
        "_param_groups.py",
        "(lambda count: scale * rate(count)) if callable(rate)",
        "scale * rate(0) if callable(rate)",
        "test_param_groups.py",
    ),
    "unused-rule-passes": Fault(
        "_param_groups.py",
        "if unused and present:",
        "if False:",
        "test_param_groups.py",
    ),
    "defaults-over-rules": Fault(
        "_param_groups.py",
        "{**defaults, **rule}",
        "{**rule, **defaults}",
        "test_param_groups.py",
    ),
    "group-added-later-not-numbered": Fault(
        "compat/_adamax.py",
        "        self._grouped = True\n        self._number()\n",
        "        self._grouped = True\n",
        "compat/test_optimizer.py compat/test_torch.py",
    ),
    "refused-state-half-loaded": Fault(
        "compat/_adamax.py",
        """        params = self._read()
        moments = _state_dict.load_moments(""",
        """        for group, loaded in zip(self.param_groups, options, strict=True):
            group.update(loaded)
        params = self._read()
        moments = _state_dict.load_moments(""",
        "compat/test_errors.py",
    ),
    "loaded-options-shared-with-the-caller": Fault(
        "compat/_state_dict.py",
        "return to_numpy(value) if is_tensor else copy.deepcopy(value)",
        "return to_numpy(value) if is_tensor else value",
        "compat/test_state_dict.py",
    ),
    "groups-without-a-blank-line": Fault(
        "compat/_adamax.py",
        '"\\n".join(groups)',
        '"".join(groups)',
        "compat/test_optimizer.py",
    ),
    "rates-in-another-dtype": Fault(
        "compat/_step.py",
        "arguments[name] = jnp.asarray(arguments[name], jnp.finfo(dtype).dtype)",
        "pass",
        "compat/test_torch.py",
    ),
    "class-without-reduced-state": Fault(
        "compat/_buckets.py",
        'wanted = options.get("state_dtype")',
        "wanted = None",
        "compat/test_state_dtype.py",
    ),
    "halves-of-an-array-with-one-noise": Fault(
        "compat/_buckets.py",
        "leaf_key(part.norm.key, first)",
        "part.norm.key",
        "compat/test_buckets.py",
    ),
    "groups-in-one-bucket": Fault(
        "compat/_buckets.py",
        "key = group_of[k], params[k].dtype",
        "key = group_of[0], params[k].dtype",
        "compat/test_state_dict.py",
    ),
    "moments-not-overwritten": Fault(
        "compat/_step.py",
        "_keeping = jax.jit(_step_all, donate_argnums=0,",
        "_keeping = jax.jit(_step_all,",
        "integration/test_program.py",
    ),
    "pieces-cut-elsewhere": Fault(
        "compat/_step.py",
        "np.cumsum([param.size for param in params])[:-1]",
        "np.cumsum([param.size for param in params[::-1]])[:-1]",
        "compat/test_buckets.py",
    ),
    "sharded-parameters-joined": Fault(
        "compat/_buckets.py",
        "if params[k].size > SMALL or not replicated:",
        "if params[k].size > SMALL:",
        "compat/test_buckets.py",
    ),
    "loaded-state-compiled-anew": Fault(
        "interop/_arrays.py",
        "return x.sharding if bound else None",
        "return x.sharding",
        "compat/test_buckets.py",
    ),
    # State dicts of reduced state.
    "decoded-codes-rounded-down": Fault(
        "interop/_cast_state.py",
        "half = jnp.asarray(1 << 31, jnp.uint32)",
        "half = jnp.asarray(0, jnp.uint32)",
        "moments/test_cast_state.py",
    ),
    "decoded-zero-loses-its-sign": Fault(
        "_half_codes.py",
        "to_bits(m) < 0",
        "m < 0",
        "moments/test_cast_state.py",
    ),
    "state-dict-key-wrong": Fault(
        "compat/_moments.py",
        '"key": int(moments.norm.key)',
        '"key": 0',
        "compat/test_state_dtype.py compat/test_torch.py",
    ),
    "state-dict-scale-and-key-ignored": Fault(
        "compat/_state_dict.py",
        'if options.get("state_dtype") is None or not {"scale", "key"} <= set(entry):',
        "if True:",
        "compat/test_state_dtype.py compat/test_torch.py",
    ),
    "state-dict-before-the-switch": Fault(
        "compat/_adamax.py",
        "moments = self._scattered(self._kept(params), params)",
        "moments = self._scattered(self._buckets, params)",
        "compat/test_state_dtype.py",
    ),
    "betas-in-arrays-broadcast": Fault(
        "compat/_adamax.py",
        'b1=own["b1"],',
        'b1=self.param_groups[0]["betas"][0],',
        "compat/test_state_dtype.py",
    ),
    # States of other libraries.
    "moments-exchanged": Fault(
        "interop/_numbered.py",
        "mu, nu = (to_numpy(entry[name]) for name in KEYS[1:])",
        "nu, mu = (to_numpy(entry[name]) for name in KEYS[1:])",
        "interop/test_torch.py interop/test_errors.py compat/test_state_dict.py",
    ),
    "kernels-kept-as-they-were": Fault(
        "interop/_layout.py",
        'return name.rpartition(".")[2] == "kernel" and array.ndim >= 2',
        "return False",
        "interop/test_torch.py interop/test_mindspore.py interop/test_kernels.py",
    ),
    "transposed-kernels-not-mirrored": Fault(
        "interop/_layout.py",
        "return np.flip(array, window).transpose(*window, 0, 1)",
        "return array.transpose(*window, 0, 1)",
        "interop/test_torch.py interop/test_kernels.py",
    ),
    "flattened-images-not-permuted": Fault(
        "interop/_layout.py",
        "np.moveaxis(images, 1, -1).reshape(array.shape)",
        "images.reshape(array.shape)",
        "interop/test_torch.py interop/test_kernels.py",
    ),
    "names-ignored": Fault(
        "interop/_names.py",
        "if order is None and names and not are_numbers(state.names):",
        "if False:",
        "interop/test_torch.py interop/test_mindspore.py interop/test_errors.py",
    ),
    "words-ignored": Fault(
        "interop/_names.py",
        "for alias in _ALIASES.get(last, ())",
        "for alias in ()",
        "interop/test_torch.py interop/test_mindspore.py",
    ),
    "numbers-sorted-as-words": Fault(
        "interop/_functional.py",
        "self.names.sort(key=lambda name: (len(name), name))",
        "self.names.sort()",
        "interop/test_errors.py",
    ),
    "schedules-start-anew": Fault(
        "interop/_functional.py",
        "for at in self._all(_is_schedule):",
        "for at in []:",
        "interop/test_torch.py interop/test_errors.py interop/test_keras.py",
    ),
    "count-of-another-part": Fault(
        "interop/_functional.py",
        """            if is_moments(self._nodes[later]):
                break
""",
        "",
        "interop/test_errors.py",
    ),
    "steps-that-differ-taken": Fault(
        "interop/_functional.py",
        "if len(steps := {entry.step for entry in given}) > 1:",
        "if False:",
        "interop/test_errors.py",
    ),
    "missing-moments-taken-for-zero": Fault(
        "interop/_functional.py",
        "if given and missing:",
        "if False:",
        "interop/test_errors.py interop/test_mindspore.py",
    ),
    "code-with-the-default-betas": Fault(
        "interop/_functional.py",
        "cast_state(norm, codes[0].dtype, b1=b1, b2=b2)",
        "cast_state(norm, codes[0].dtype)",
        "interop/test_torch.py interop/test_mindspore.py interop/test_optax.py",
    ),
    "arrays-of-a-state-moved": Fault(
        "interop/_arrays.py",
        "return x.sharding if bound else None",
        "return None",
        "interop/test_torch.py",
    ),
    "complex-taken-for-real": Fault(
        "interop/_arrays.py",
        "or jnp.iscomplexobj(array) != is_complex",
        "or False",
        "interop/test_errors.py compat/test_errors.py",
    ),
    "infinite-steps-taken": Fault(
        "interop/_arrays.py",
        "0 <= count < math.inf and count % 1 == 0",
        "count >= 0",
        "interop/test_errors.py compat/test_errors.py",
    ),
    "epsilon-of-pytorch-outside": Fault(
        "interop/_torch.py",
        'if values.get("eps_outside"):',
        "if False:",
        "interop/test_torch.py",
    ),
    "power-of-beta-missing": Fault(
        "interop/_mindspore.py",
        "b1**step",
        "b1",
        "interop/test_mindspore.py",
    ),
    "accumulated-gradients-taken-for-steps": Fault(
        "interop/_keras.py",
        'if any(name.endswith("_gradient_accumulator") for name in values):',
        "if False:",
        "interop/test_keras.py",
    ),
    "wrappers-of-optax-left-behind": Fault(
        "interop/_optax.py",
        "if place.address in found:",
        "if place.address in found and place.field:",
        "interop/test_optax.py",
    ),
    "links-without-arrays-counted": Fault(
        "interop/_optax.py",
        'kind = "adamax" if _is_of_adamax(link) else type(link).__name__',
        'kind = "link"',
        "interop/test_optax.py",
    ),
    # The schedules.
    "closed-form-one-epoch-late": Fault(
        "schedules.py",
        "schedule(count // steps_per_epoch)",
        "schedule((count + 1) // steps_per_epoch)",
        "test_schedules.py",
    ),
    # Errors.
    "range-unchecked": Fault(
        "_checks.py",
        "0 <= number < below",
        "0 <= number <= below",
        "test_checks.py",
    ),
    "nan-passes-the-range": Fault(
        "_checks.py",
        "not (0 <= number < below and number <= _LARGEST)",
        "0 > number or number >= below or number > _LARGEST",
        "test_checks.py",
    ),
    "infinite-in-float32": Fault(
        "_checks.py",
        "0 <= number < below and number <= _LARGEST",
        "0 <= number < below",
        "test_checks.py numbers/test_fuzz.py",
    ),
    "hyperparameters-broadcast": Fault(
        "_checks.py",
        "if is_array and value.shape != ():",
        "if False:",
        "test_checks.py numbers/test_fuzz.py",
    ),
    "shape-unchecked": Fault(
        "_tree_checks.py",
        "if jnp.shape(leaf) != jnp.shape(other):",
        "if False:",
        "test_checks.py numbers/test_fuzz.py",
    ),
    "parameters-broadcast": Fault(
        "_alias.py",
        "        check_params(updates, params)\n",
        "",
        "test_checks.py numbers/test_fuzz.py",
    ),
    "mask-unchecked": Fault(
        "_alias.py",
        "mask = None if mask is None else checked_mask(mask)",
        "mask = mask",
        "test_checks.py",
    ),
    "missing-params-unnoticed": Fault(
        "_alias.py",
        "        if params is None:\n",
        "        if False:\n",
        "test_checks.py",
    ),
}


def plant(fault: Fault, copy: Path) -> None:
    """Write the fault into a copy of the package."""
    path = copy / "adamax_optax" / fault.file
    source = path.read_text()
    if source.count(fault.old) == 0:
        raise SystemExit(f"{fault.file} no longer has the line\n{fault.old}")
    path.write_text(source.replace(fault.old, fault.new))


def notices(fault: Fault) -> list[str]:
    """Return the test files that go red, of those that should."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        for name in ["adamax_optax", "tests", "pyproject.toml"]:
            source = ROOT / name
            (shutil.copytree if source.is_dir() else shutil.copy)(source, copy / name)
        plant(fault, copy)
        return [test for test in fault.tests.split() if not passes(test, copy)]


def passes(test: str, copy: Path) -> bool:
    """Whether one test file passes on the copy; stops at the first failure."""
    command = [sys.executable, "-m", "pytest", "-qx", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, f"tests/{test}"],
        cwd=copy,
        env={**os.environ, "PYTHONPATH": str(copy)},
        capture_output=True,
        text=True,
    )
    if done.returncode > 1:
        raise SystemExit(f"{test} did not run:\n{done.stdout}{done.stderr}")
    return done.returncode == 0


def main(names: list[str]) -> int:
    """Plant the named faults, or all, and print who noticed."""
    missed = 0
    for name in names or FAULTS:
        red = notices(FAULTS[name])
        # Every file listed is there because it claims to cover the line.
        expected = FAULTS[name].tests.split()
        verdict = "red" if red == expected else "GREEN in part" if red else "GREEN"
        missed += red != expected
        print(f"{name:42} {verdict:14} {' '.join(red)}", flush=True)
    print(f"{missed} of {len(names or FAULTS)} faults went unnoticed somewhere")
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
