"""The names of leaves, and the layout of their kernels."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from adamax_optax.interop import kernels_from_flax, kernels_to_flax, leaf_names


@pytest.mark.parametrize(
    ("name", "there", "here"),
    [
        ("fc.kernel", (4, 3), (3, 4)),
        ("kernel", (4, 3), (3, 4)),
        ("conv.kernel", (4, 3, 5), (5, 3, 4)),
        ("conv.kernel", (4, 3, 5, 6), (5, 6, 3, 4)),
        ("conv.kernel", (4, 3, 5, 6, 7), (5, 6, 7, 3, 4)),
        ("fc.bias", (4,), (4,)),
        ("norm.scale", (4, 3), (4, 3)),
        ("emb.embedding", (4, 3), (4, 3)),
        ("odd.kernel", (4,), (4,)),
        ("up.kernel", (4, 3, 5, 6), (5, 6, 4, 3)),
        ("flat.kernel", (2, 60), (60, 2)),
    ],
)
def test_shapes_and_inverse(name, there, here):
    options = dict(conv_transpose=["up.kernel"], flattened={"flat.kernel": (3, 4, 5)})
    array = np.random.default_rng(0).normal(size=there)
    converted = kernels_to_flax(name, array, **options)
    assert converted.shape == here
    np.testing.assert_array_equal(kernels_from_flax(name, converted, **options), array)


def test_flattened_image_that_does_not_fit():
    # Even if it fits all of the array.
    flat = {"kernel": (3, 5, 2)}
    with pytest.raises(ValueError, match="reshape"):
        kernels_to_flax("kernel", np.ones((4, 15)), flattened=flat)
    with pytest.raises(ValueError, match="reshape"):
        kernels_from_flax("kernel", np.ones((15, 4)), flattened=flat)


def torch_layers():
    torch = pytest.importorskip("torch")
    return torch, {
        "grouped": (
            torch.nn.Conv2d(4, 6, (3, 2), groups=2),
            nn.Conv(6, (3, 2), padding="VALID", feature_group_count=2),
        ),
        "mirrored": (
            torch.nn.ConvTranspose2d(4, 6, (3, 2), stride=(2, 1)),
            nn.ConvTranspose(6, (3, 2), (2, 1), "VALID"),
        ),
        "transposed": (
            torch.nn.ConvTranspose2d(4, 6, (3, 2), stride=(2, 1)),
            nn.ConvTranspose(6, (3, 2), (2, 1), "VALID", transpose_kernel=True),
        ),
    }


@pytest.mark.parametrize("name", ["grouped", "mirrored", "transposed"])
def test_layers_compute_the_same(name):
    torch, layers = torch_layers()
    theirs, ours = layers[name]
    images = np.random.default_rng(0).normal(size=(2, 4, 6, 5)).astype(np.float32)
    expected = theirs(torch.tensor(images)).detach().numpy()
    convert = functools.partial(
        kernels_to_flax, conv_transpose=["kernel"] if name == "mirrored" else []
    )
    params = {
        "kernel": convert("kernel", theirs.weight.detach().numpy()),
        "bias": theirs.bias.detach().numpy(),
    }
    outputs = ours.apply({"params": params}, images.transpose(0, 2, 3, 1))
    np.testing.assert_allclose(
        outputs.transpose(0, 3, 1, 2), expected, rtol=0, atol=2e-6
    )


def test_names():
    module = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
    tree = {"a": [jnp.ones(1), (jnp.ones(2), None)], "linear": nnx.state(module)}
    assert leaf_names(tree) == ["a.0", "a.1.0", "linear.bias", "linear.kernel"]
    assert leaf_names(jnp.ones(2)) == [""]
    assert leaf_names({}) == []
    with pytest.raises(ValueError, match=r"same name: \['a\.b'\]"):
        leaf_names({"a": {"b": 1.0}, "a.b": 2.0})


def test_names_are_in_the_order_of_the_leaves():
    tree = {"z": jnp.ones(1), "b": [jnp.ones(i) for i in range(12)]}
    leaves = jax.tree.leaves(tree)
    for name, leaf in zip(leaf_names(tree), leaves, strict=True):
        assert name == "z" or leaf is tree["b"][int(name.removeprefix("b."))]
