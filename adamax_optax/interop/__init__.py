r"""States from one library, or from one form, into another: a run goes on elsewhere.

Which function
==============

=====================================  ===============================================
a run goes on                          function
=====================================  ===============================================
here, from `torch.optim.Adamax`        `from_torch`, with ``optimizer.state_dict()``
there                                  `to_torch`, for ``optimizer.load_state_dict``
here, from MindSpore's Adamax, either  `from_mindspore`, with the arrays of a ``.ckpt``
there                                  `to_mindspore`, for ``load_param_into_net``
here, from `keras.optimizers.Adamax`   `from_keras`, with ``optimizer.variables``
there                                  `to_keras`, for ``optimizer.set_weights``
here, from `optax.adamax`, `adamaxw`   `from_optax`, with the state, wrappers and all
there                                  `to_optax`
here, with less or more memory         `cast_state`, to another `state_dtype`
=====================================  ===============================================

All but `cast_state` and the two for Optax take and return either a functional state, as
``tx.init(params)`` makes it, or a state dict of the class `adamax_optax.Adamax`:

.. code-block:: python

    state = from_torch(theirs, tx.init(params))
    optimizer.load_state_dict(from_torch(theirs, optimizer.state_dict()))

A functional state may be of any `state_dtype`, and lie anywhere in chains and wrappers
(`optax.chain`, `MultiSteps`, `inject_hyperparams`, `masked`, `partition`,
`nnx.Optimizer.opt_state`, ...). It comes back as if it had taken the steps here:
moments, step counts, and the counts of schedules, so that a schedule goes on where it
was. To start a schedule anew set its count with `optax.tree_utils.tree_set`.

Which transformation goes on
============================

A state has no hyperparameters. The same numbers come from:

======================================  ==============================================
there                                   here
======================================  ==============================================
`torch.optim.Adamax`                    ``adamax(lr, b1, b2, eps, weight_decay,
                                        maximize=...)``, or the class `Adamax`
`mindspore.experimental.optim.Adamax`   the same
`mindspore.nn.AdaMax`                   ``adamax(lr, b1, b2, eps=0.0, eps_outside=eps,
                                        weight_decay=...)``; it leaves parameters named
                                        ``beta`` or ``gamma`` without decay: `mask`
`keras.optimizers.Adamax`               ``adamaxw(lr, b1, b2, eps=0.0,
                                        eps_outside=eps, weight_decay=...)``: its decay
                                        is decoupled
`optax.adamax`, `optax.adamaxw`         `adamax` without weight decay; `adamaxw`
======================================  ==============================================

Which parameter is which leaf
=============================

PyTorch and MindSpore number parameters as they were constructed, JAX's trees have them
by name, sorted. `leaf_names` tells what the leaves are called:

>>> import adamax_optax as ao, jax.numpy as jnp, numpy as np, optax
>>> from adamax_optax import interop
>>> params = {"fc": {"kernel": jnp.ones((4, 2)), "bias": jnp.ones(2)}}
>>> interop.leaf_names(params)
['fc.bias', 'fc.kernel']

and `order` says which of them each parameter is, in the order of PyTorch's numbers. Its
own names do as well where only the last word is another one (weight for kernel, scale
or embedding), so that often nothing has to be written out:

>>> def entry(shape):
...     return {"step": 10.0, "exp_avg": np.ones(shape), "exp_inf": np.ones(shape)}
>>> saved = {
...     "state": {0: entry((2, 4)), 1: entry(2)},
...     "param_groups": [{"params": [0, 1]}],
... }
>>> tx = ao.adamax(learning_rate=0.1)
>>> state = interop.from_torch(
...     saved,
...     tx.init(params),
...     order=["fc.weight", "fc.bias"],  # [name for name, _ in net.named_parameters()]
...     convert=interop.kernels_to_flax,
... )
>>> int(optax.tree_utils.tree_get(state, "count"))
10

Where more than that differs, it is a mapping, ``{"fc1.weight": "dense.kernel", ...}``,
of names or numbers. Without `order`, names decide where they are known (MindSpore's
always are; PyTorch's if its optimizer was made with `named_parameters`), and numbers
where they are not, or where the leaves are those of a list. In an `optax.partition`
leaves have no order among all, so there must be names or an `order`. A leaf of the
class's state dict has its number for a name, or what the group has under
``"param_names"``, as PyTorch's may:

.. code-block:: python

    optimizer.param_groups[0]["param_names"] = interop.leaf_names(params)

`convert` brings a leaf into the layout of the other side; `kernels_to_flax` and
`kernels_from_flax` do so for the kernels of PyTorch and MindSpore. They also serve for
the parameters themselves, which are in no optimizer's state:

>>> weights = {"fc.kernel": np.zeros((2, 4)), "fc.bias": np.zeros(2)}
>>> weights = {k: interop.kernels_to_flax(k, array) for k, array in weights.items()}
>>> weights["fc.kernel"].shape
(4, 2)

What does not fit
=================

Whatever is missing, left over, or of another shape or kind is refused as a whole: one
`ValueError` lists it all, and no state is changed.

>>> interop.from_torch(saved, tx.init(params))
Traceback (most recent call last):
    ...
ValueError: The state dict does not fit:
- mu of the leaf 'fc.bias' must have the parameter's shape (2,), got (2, 4)
- mu of the leaf 'fc.kernel' must have the parameter's shape (4, 2), got (2,)
- nu of the leaf 'fc.bias' must have the parameter's shape (2,), got (2, 4)
- nu of the leaf 'fc.kernel' must have the parameter's shape (4, 2), got (2,)

One step count serves all leaves of a functional state. Where PyTorch's differ (groups
that came later, gradients that were missing), take a part of an `optax.partition` for
each, or the class, which counts for each parameter. Parameters that never took a step
are to be kept out of the state, with `optax.masked`.
"""

from adamax_optax.interop._keras import from_keras, to_keras
from adamax_optax.interop._kernels import kernels_from_flax, kernels_to_flax
from adamax_optax.interop._mindspore import from_mindspore, to_mindspore
from adamax_optax.interop._optax import from_optax, to_optax
from adamax_optax.interop._states import leaf_names
from adamax_optax.interop._torch import from_torch, to_torch
from adamax_optax.moments import cast_state

__all__ = [
    "cast_state",
    "from_keras",
    "from_mindspore",
    "from_optax",
    "from_torch",
    "kernels_from_flax",
    "kernels_to_flax",
    "leaf_names",
    "to_keras",
    "to_mindspore",
    "to_optax",
    "to_torch",
]
