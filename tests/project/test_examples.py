"""The examples run, print what they promise and refuse bad options."""

import functools
import importlib
import re
import sys
from pathlib import Path

import flax.linen as nn
import jax
import numpy as np
import pytest
from matplotlib import image

EXAMPLES = Path(__file__).parents[2] / "examples"
ORANGE = (0xD5, 0x5E, 0x00)  # marks a wrong digit


@pytest.fixture(scope="module")
def lenet5():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(EXAMPLES)  # as `python examples/lenet5.py` has it
        yield importlib.import_module("lenet5")


@pytest.fixture(scope="module")
def digits(lenet5):
    return sys.modules["digits"]


@pytest.mark.slow
def test_two_epochs(lenet5, tmp_path, capsys):
    picture = tmp_path / "new" / "digits.png"
    lenet5.main(["--epochs", "2", "--seed", "3", "--out", str(picture)])
    text = capsys.readouterr().out
    lines = text.splitlines()
    assert all(line.isprintable() for line in lines)  # a pipe gets plain text

    losses = re.findall(r"^epoch \d  train loss (\S+)", text, re.M)
    first, second, word_first, word_second = map(float, losses)
    assert second < 0.7 * first
    assert word_second < 0.7 * word_first
    assert word_first == pytest.approx(first, rel=0.05)
    # 1437 // 32 batches: the last partial one is dropped.
    assert re.search(r"steps of 32 images *│ 88 *│ 88 ", text)
    # Besides the moments, two step counts; in uint16, a key, 10 scales and 10 bounds.
    sizes = f"{8 * 61_706 + 8:,}", f"{2 * 61_706 + 92:,}"
    assert re.search("bytes of state *│ {} *│ {} ".format(*sizes), text)

    # The last line has the accuracies over the whole test set.
    number = r"([01]\.\d{4})"
    pattern = f"test accuracy {number}, with 2 bytes of state {number}"
    match = re.fullmatch(pattern, lines[-1])
    assert match
    for accuracy in map(float, match.groups()):
        assert accuracy > 0.8
        assert accuracy == pytest.approx(round(accuracy * 360) / 360, abs=6e-5)

    assert lines[-2] == f"picture: {picture}"
    assert picture.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    pixels = np.round(image.imread(picture)[..., :3] * 255).astype(int)
    assert min(pixels.shape[:2]) > 500
    assert len(np.unique(pixels)) > 100  # the digits are in shades of grey
    assert (pixels == ORANGE).all(-1).any()


class Linear(nn.Module):
    """A network that compiles at once."""

    @nn.compact
    def __call__(self, x):
        return nn.Dense(10)(x.reshape(len(x), -1))


def test_quiet_prints_two_lines_and_the_default_picture_is_in_out(
    lenet5, capsys, monkeypatch, tmp_path
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(lenet5, "LeNet5", Linear)
    lenet5.main(["--quiet", "--epochs", "1", "--batch-size", "256"])
    picture, accuracy = capsys.readouterr().out.splitlines()
    assert picture == "picture: out/lenet5.png"
    assert accuracy.startswith("test accuracy ")
    assert Path("out/lenet5.png").stat().st_size > 20_000


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--lr", "-0.1", "must be above 0 and finite, got -0.1"),
        ("--lr", "0", "must be above 0 and finite, got 0"),
        ("--lr", "nan", "must be above 0 and finite, got nan"),
        ("--lr", "fast", "invalid float value: 'fast'"),
        ("--weight-decay", "-1", "must be 0 or more and finite, got -1"),
        ("--epochs", "0", "must be at least 1, got 0"),
        ("--epochs", "1.5", "invalid int value: '1.5'"),
        ("--batch-size", "0", "must be at least 1, got 0"),
        ("--batch-size", "1438", "must be at most 1437, the size of the training set"),
        ("--seed", "-1", "must be from 0 to 2**32 - 1, got -1"),
        ("--out", "digits.txt", "must be a .png, .pdf or .svg file, got digits.txt"),
    ],
)
def test_bad_options_are_refused(lenet5, capsys, option, value, message):
    with pytest.raises(SystemExit) as stop:
        lenet5.main([option, value])
    assert stop.value.code == 2
    assert f"error: argument {option}: {message}" in capsys.readouterr().err


def test_help_shows_the_defaults(lenet5, capsys):
    with pytest.raises(SystemExit) as stop:
        lenet5.main(["--help"])
    assert stop.value.code == 0
    assert "(default: 0.002)" in capsys.readouterr().out


def test_digits_are_split_by_class_and_normalised_by_the_training_set(digits):
    data = digits.load_data(0)
    assert data.train_images.shape == (1437, 32, 32, 1)
    assert data.test_images.shape == (360, 32, 32, 1)
    assert data.train_images.dtype == data.test_images.dtype == np.float32
    counts = np.bincount(data.test_labels)
    assert counts.min() >= 35
    assert counts.max() <= 37
    assert data.train_images.mean() == pytest.approx(0, abs=1e-4)
    assert data.train_images.std() == pytest.approx(1, abs=1e-4)
    again, other = digits.load_data(0), digits.load_data(1)
    np.testing.assert_array_equal(again.test_images, data.test_images)
    assert (other.test_images != data.test_images).any()


def test_batches_have_one_shape_and_no_image_twice(digits):
    n = 10
    data = digits.Data(np.arange(n), np.arange(n), np.arange(0), np.arange(0))
    images = [b for b, _ in digits.batches(data, 3, np.random.default_rng(0))]
    assert [b.shape for b in images] == [(3,)] * 3
    assert len(set(np.concatenate(images))) == 9


def test_random_shift_moves_images_and_wraps_no_ink(digits):
    images = digits.load_data(0).train_images[:64]
    blank = images.min()
    shifted = np.asarray(digits.random_shift(jax.random.key(0), images))
    np.testing.assert_allclose(shifted.sum((1, 2)), images.sum((1, 2)), atol=1e-2)
    assert (shifted != images).any()
    # Two pixels to one side leave four blank ones on the other, never ink on both.
    for axis in (1, 2):
        first, last = (np.take(shifted, i, axis).max((1, 2)) > blank for i in (0, -1))
        assert not (first & last).any()


@pytest.fixture(scope="module")
def char_lm():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(EXAMPLES)
        yield importlib.import_module("char_lm")


@pytest.mark.slow
@pytest.mark.usefixtures("lenient_promotion")  # Optax's schedules
def test_characters_in_few_bytes(char_lm, tmp_path, capsys, monkeypatch):
    small = functools.partial(char_lm.Transformer, width=16, layers=1)
    monkeypatch.setattr(char_lm, "Transformer", small)
    picture = tmp_path / "new" / "curves.png"
    char_lm.main(["--steps", "60", "--seed", "3", "--out", str(picture)])
    text = capsys.readouterr().out
    assert f"picture: {picture}" in text
    pattern = (
        r"parameters ([\d.]+), gradients ([\d.]+), state ([\d.]+), "
        r"in all ([\d.]+) .* held-out loss ([\d.]+)"
    )
    wide, few = (list(map(float, found)) for found in re.findall(pattern, text))
    assert wide[:4] == [4, 4, 8, 16]
    # Besides, the scale and the bound of each leaf; they weigh more in a small model.
    assert few[:2] == [2, 2]
    assert 2 <= few[2] <= 2.1
    assert few[4] == pytest.approx(wide[4], rel=0.02)
    losses = [float(x) for x in re.findall(r"  loss (\S+)", text)]
    assert losses[4] < 0.9 * losses[0]
    assert picture.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


def test_characters_refuse_too_few_steps(char_lm, capsys):
    with pytest.raises(SystemExit) as stop:
        char_lm.main(["--steps", "19"])
    assert stop.value.code == 2
    assert "--steps must be at least 20, got 19" in capsys.readouterr().err


def test_text_is_split_and_complete(char_lm):
    text = char_lm.read_pages()
    assert len(text.train) > 80_000
    assert 0.09 < len(text.held_out) / len(text.train) < 0.13
    licence = (EXAMPLES.parent / "LICENSE").read_text()
    assert "".join(text.characters[np.asarray(text.train[: len(licence)])]) == licence
