r"""Coming from MindSpore or PyTorch: their Adamax, with their constructor and habits.

`Adamax` takes the arguments of `mindspore.experimental.optim.Adamax` and
`torch.optim.Adamax`, gives their numbers, and keeps parameters and state itself, so
that a training loop is ported line by line. New code for JAX is better off with
`adamax_optax.adamax`: a pure function that can be compiled into the training step,
which this class drives.

Line by line
============

From MindSpore (``mindspore.experimental.optim``) to this package and Flax NNX:

===========================================  ==========================================
there                                        here
===========================================  ==========================================
``opt = Adamax(net.trainable_params())``     ``opt = Adamax(net)``
``Adamax([{"params": ps, "lr": 0.1}])``      ``Adamax([{"params": part, "lr": 0.1}])``
``value_and_grad(f, None, opt.parameters)``  ``nnx.value_and_grad(f)`` with f(net, ...)
``opt(grads)``                               the same
``opt.param_groups[0]["lr"] = 0.1``          the same
``optim.lr_scheduler.StepLR(opt, 30)``       ``ao.lr_scheduler.StepLR(opt, 30)``
``save_checkpoint(opt, path)``               ``pickle.dump(opt.state_dict(), file)``
===========================================  ==========================================

From PyTorch:

======================================  ============================================
there                                   here
======================================  ============================================
``opt = Adamax(net.parameters())``      ``opt = Adamax(net)``
``opt.zero_grad()``                     nothing: gradients are return values
``loss.backward()``                     ``loss, grads = nnx.value_and_grad(f)(net)``
``opt.step()``                          ``opt.step(grads)``
``opt.step(closure)``                   nothing: call the closure yourself
``opt.param_groups[0]["lr"] *= 0.5``    the same
``opt.add_param_group(group)``          the same
``optim.lr_scheduler.StepLR(opt, 30)``  ``ao.lr_scheduler.StepLR(opt, 30)``
``opt.load_state_dict(state_dict)``     the same; PyTorch's own dicts included
======================================  ============================================

The example of MindSpore's page
===============================

There:

.. code-block:: python

    import mindspore
    from mindspore import nn
    from mindspore.experimental import optim

    net = LeNet5()
    loss_fn = nn.SoftmaxCrossEntropyWithLogits(sparse=True)
    optimizer = optim.Adamax(net.trainable_params(), lr=0.1)

    def forward_fn(data, label):
        logits = net(data)
        loss = loss_fn(logits, label)
        return loss, logits

    grad_fn = mindspore.value_and_grad(
        forward_fn, None, optimizer.parameters, has_aux=True)

    def train_step(data, label):
        (loss, _), grads = grad_fn(data, label)
        optimizer(grads)
        return loss

The same here:

.. code-block:: python

    import adamax_optax as ao
    import optax
    from flax import nnx

    net = LeNet5(rngs=nnx.Rngs(0))
    loss_fn = optax.softmax_cross_entropy_with_integer_labels
    optimizer = ao.Adamax(net, lr=0.1)

    def forward_fn(net, data, label):
        logits = net(data)
        loss = loss_fn(logits, label).mean()
        return loss, logits

    grad_fn = nnx.jit(nnx.value_and_grad(forward_fn, has_aux=True))

    def train_step(data, label):
        (loss, _), grads = grad_fn(net, data, label)
        optimizer(grads)
        return loss

Four things have changed. The net is an argument, because JAX differentiates by
arguments. The loss has a mean, because JAX differentiates scalars only (to Adamax the
scale of the gradients is indifferent, as long as they are far above eps). The gradients
are compiled, which is up to you; the step compiles itself. And MindSpore's images are
NCHW, Flax's NHWC.

Parameters, and what "in place" means
=====================================

Arrays of JAX cannot be changed. What the optimizer holds is either

- an `nnx.Module`, of which it takes the `nnx.Param`, or any tree of modules and
  `nnx.Variable`: their variables get new arrays at each step, so that the net itself is
  trained, as at home. A variable that stands in two places is one parameter;
- or any other tree of arrays, such as the parameters of Flax Linen, Haiku or your own:
  then each step returns a new tree, which is also `optimizer.parameters` and
  ``param_groups[i]["params"]``:

>>> import adamax_optax as ao, jax, jax.numpy as jnp
>>> params = {"w": jnp.zeros(2)}
>>> optimizer = ao.Adamax(params, lr=0.5)
>>> params = optimizer({"w": jnp.array([4.0, -4.0])})
>>> print(f"{params['w'][0]:.2f} {optimizer.parameters['w'][1]:.2f}")
-0.50 0.50

Arrays that you still hold stay as they are; only the moments, which nobody else sees,
are overwritten. With ``donate=True`` parameters are overwritten too, as at home: that
saves their memory once, and most of the time of large ones, but what was a parameter
before a step is deleted by it:

>>> optimizer = ao.Adamax(params, lr=0.5, donate=True)
>>> new = optimizer({"w": jnp.array([4.0, -4.0])})
>>> print(params["w"].is_deleted(), new["w"].is_deleted())
True False

To set parameters yourself, assign a tree of the same structure and
shapes to ``param_groups[i]["params"]``, or update the module (`nnx.update`).

Groups are dicts, as at home; `adamax_optax.param_groups` has them for the functional
form, by the names of parameters. They are copied, so that yours do not change (PyTorch
puts its defaults into them); keys that are unknown here are kept. With groups,
parameters and gradients are lists with one entry for each:

>>> optimizer = ao.Adamax([
...     {"params": jnp.zeros(2), "lr": 0.5},
...     {"params": {"b": jnp.zeros(())}, "weight_decay": 0.1},
... ], lr=0.25)
>>> new = optimizer([jnp.ones(2), {"b": jnp.array(-1.0)}])
>>> print(f"{new[0][0]:.2f} {new[1]['b']:.2f}")
-0.50 0.25

Gradients may also come as one flat sequence, as MindSpore passes them. The order is
that of `jax.tree.leaves`: dicts and modules by name, where MindSpore and PyTorch have
the order of construction. The same order numbers the parameters of a state dict. A
parameter whose gradient is `None` is left alone, as in PyTorch:

>>> optimizer.param_groups[0]["lr"] = 1.0
>>> new = optimizer([jnp.ones(2), None])
>>> print(f"{new[0][0]:.2f} {new[1]['b']:.2f}")
-1.50 0.25

State
=====

`state_dict` has PyTorch's layout, and `load_state_dict` takes PyTorch's own dicts:

>>> saved = optimizer.state_dict()
>>> print({k: int(entry["step"]) for k, entry in saved["state"].items()})
{0: 2, 1: 1}
>>> print(sorted(saved["state"][0]), saved["param_groups"][1]["params"])
['exp_avg', 'exp_inf', 'step'] [1]

Parameters correspond by number, and a shape that does not fit is an error. Where the
order or the layout differs, as it does between PyTorch, MindSpore and Flax, go through
`adamax_optax.interop`, which also hands the state back to them. A state dict
does not have the parameters themselves, as in PyTorch; the page
``docs/checkpointing.md`` saves both with Orbax. An optimizer can also be copied or
pickled as a whole; if its parameters are a module's, do it together,
``copy.deepcopy((net, optimizer))``, so that the copies still belong to each other.

Differences from both
=====================

- The step cannot stand inside `jit`, `grad` or `scan`; it compiles itself, once for any
  number of steps and for any hyperparameters (and once more for the first weight decay
  other than 0). There use `adamax_optax.adamax`, or the
  instance's own `init` and `update`, with which it is an Optax transformation
  (`optax.chain`, `TrainState`, `nnx.Optimizer`) that leaves its own parameters alone.
- Hyperparameters are checked at each step, not in the constructor only: what was
  assigned to a group, or what a chain of schedulers has led to, is refused with a
  `ValueError` where PyTorch goes on with a negative learning rate. Values in arrays
  of JAX are looked at in the constructor only, so that no step waits for the device.
  An infinite value is refused too.
- A call that is refused changes nothing.
- An lr of the wrong type is a `ValueError`, as MindSpore documents it.
- lr = 0 and eps = 0 are allowed, as both document. With eps = 0 an element without any
  gradient so far is left where it is, where the others divide 0 by 0.
- A group may have the key ``"state_dtype"``, as `adamax_optax.adamax` has it: 4 or 2
  bytes of state per parameter. A state dict has its moments decoded, in float32. The
  entries ``"scale"`` and ``"key"``, which PyTorch passes over, give back the codes bit
  for bit; where they are missing, moments are coded anew at the next step.
- Half-precision parameters have their moments in float32. PyTorch's are in the
  parameter's dtype, where in float16 eps is 0 and in bfloat16 the norm does not decay.
- Hyperparameters meet float32 parameters in float32 and float64 ones in float64.
- All groups step in one compiled program, so their arrays must be on the same devices.
- No sparse gradients.

Differences from MindSpore
==========================

The version compared is 2.10.

- Each parameter has its own step count, as in PyTorch, and a group added later is
  corrected from its own first step. MindSpore has one count for all, and its
  `add_param_group` after the construction breaks the next step.
- `optimizer.parameters` is what was passed, not a flat tuple.
- Any number assigned to ``group["lr"]`` counts. In MindSpore only a float does; an int
  or a Tensor is silently ignored.
- lr = 0 and eps = 0 are refused there, in spite of the documentation. An lr of another
  type is a `TypeError` there. NaN passes for eps and betas there, and the betas and eps
  of a group are not checked at all.
- 1 - beta1^t is computed in float32 there. That moves the update by a relative 3e-7 at
  beta1 = 0.9 and by 2e-5 at 0.999.
- A gradient of NaN makes everything NaN here, as in PyTorch; there the norm passes it
  over and stays finite, though mean and parameter do not.
- `maximize` negates the gradient before the decay is added, in all three;
  MindSpore's equations leave it out.

Differences from PyTorch
========================

- Gradients are passed to `step`; there are no `zero_grad`, `backward`, closures or
  hooks, nor `foreach`, `capturable` and `differentiable`, which are about how PyTorch
  computes. In a loaded state dict they are kept with the other options.
- Complex parameters are taken component by component, as in PyTorch (the functional
  form takes the modulus, as Optax does). Optax's helper for it needs JAX's ordinary
  dtype promotion: not ``jax_numpy_dtype_promotion="strict"``.
- The step count in a state dict is exact up to 2^24, as in PyTorch.
- After an infinite gradient the mean stays infinite; PyTorch's is NaN one step later.
  The parameter is NaN in both.
"""

from adamax_optax.compat._optimizer import Adamax

__all__ = ["Adamax"]
