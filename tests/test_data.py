"""Splits, batches, augmentation, and the files that data sets are read from."""

import hashlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar
from urllib.error import URLError

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from data.errors import UserError
from data.sources import CIFAR10, CIFAR20, CIFAR100, MNIST, Digits, DigitsParity, Source
from data.split import Dataset, Pixels, Split
from data.streams import Streams
from tests.conftest import data_root, needs, plan_of


def split_of(n: int, pixels: Pixels | None = None, size: int = 6) -> Split:
    """Rows whose images say which row they are."""
    images = torch.arange(n, dtype=torch.uint8).view(n, 1, 1, 1).expand(n, 1, size, size).contiguous()
    return Split(images, torch.arange(n) % 3, torch.arange(n), pixels or Pixels((0.0,), (1.0,)))


@settings(max_examples=40, deadline=None)
@given(n=st.integers(1, 200), size=st.integers(1, 70), seed=st.integers(0, 5), shuffled=st.booleans())
def test_a_pass_shows_every_row_once_with_its_own_image(
    n: int, size: int, seed: int, shuffled: bool
) -> None:
    split = split_of(n)
    order = Streams(seed, "test")("order") if shuffled else None
    batches = list(split.batches(size, order))
    rows = torch.cat([batch.rows for batch in batches])
    assert sorted(rows.tolist()) == list(range(n))
    assert all(len(batch.rows) == size for batch in batches[:-1])
    for batch in batches:
        assert torch.equal((batch.images[:, 0, 0, 0] * 255).round().long(), batch.rows)
        assert torch.equal(batch.labels, batch.rows % 3)
    if not shuffled:
        assert rows.tolist() == list(range(n))


def test_the_batch_size_does_not_change_the_order() -> None:
    split = split_of(150)

    def order(size: int) -> list[int]:
        batches = split.batches(size, Streams(0, "test")("order"))
        return torch.cat([batch.rows for batch in batches]).tolist()

    assert order(7) == order(64) == order(1000)


def test_normalised_images_have_mean_zero_and_deviation_one(digits: Dataset) -> None:
    images = torch.cat([batch.images for batch in digits.train.batches(100)])
    assert abs(images.mean().item()) < 0.01 and abs(images.std().item() - 1) < 0.01


def test_a_crop_is_a_window_of_the_padded_image_and_a_flip_mirrors_it() -> None:
    n, side, pad = 64, 5, 2
    images = torch.randint(1, 255, (n, 3, side, side), dtype=torch.uint8)
    pixels = Pixels((0.0,) * 3, (1.0,) * 3, crop=pad, flip=True)
    out = pixels.augment(images, Streams(0, "test")("augment"))
    padded = torch.nn.functional.pad(images, (pad,) * 4)
    seen = set()
    for i in range(n):
        windows = {
            (dy, dx, flip): window.flip(-1) if flip else window
            for dy in range(2 * pad + 1)
            for dx in range(2 * pad + 1)
            for flip in (False, True)
            for window in [padded[i, :, dy : dy + side, dx : dx + side]]
        }
        found = [where for where, window in windows.items() if torch.equal(window, out[i])]
        assert found, f"image {i} is no window of itself"
        seen.update(found)
    assert len(seen) > 30, "shifts and flips vary"


def test_augmentation_needs_a_generator_and_repeats_with_it() -> None:
    images = torch.randint(0, 255, (40, 1, 6, 6), dtype=torch.uint8)
    pixels = Pixels((0.0,), (1.0,), crop=2, flip=True)
    split = Split(images, torch.zeros(40, dtype=torch.int64), torch.arange(40), pixels)
    plain = torch.cat([b.images for b in split.batches(8)])
    assert torch.equal(plain, torch.cat([b.images for b in split.batches(8)]))

    def augmented(seed: int) -> torch.Tensor:
        rng = Streams(seed, "test")("augment")
        return torch.cat([b.images for b in split.batches(8, augment=rng)])

    assert torch.equal(augmented(1), augmented(1))
    assert not torch.equal(augmented(1), augmented(2)) and not torch.equal(augmented(1), plain)


def test_selections_keep_rows_and_labels_together() -> None:
    split = split_of(30)
    gone = torch.tensor([3, 4, 20])
    kept, lost = split.without(gone), split.only(gone)
    assert lost.rows.tolist() == [3, 4, 20] and len(kept) == 27
    both = kept.joined(lost)
    assert sorted(both.rows.tolist()) == list(range(30))
    assert torch.equal(both.labels, both.rows % 3)
    assert torch.equal(split.relabelled(torch.zeros(30)).labels, torch.zeros(30, dtype=torch.int64))


def test_drawn_rows_are_in_random_order_and_all_if_there_are_fewer_than_asked_for() -> None:
    split = split_of(30)

    def drawn(most: int | None = None) -> list[int]:
        return split.drawn(Streams(0, "test")("sample"), most).rows.tolist()

    assert sorted(drawn()) == list(range(30)) != drawn()
    assert drawn(7) == drawn()[:7] and drawn(31) == drawn() and drawn(0) == []


def test_streams_differ_by_seed_scope_and_purpose_and_by_nothing_else() -> None:
    def draw(seed: int, scope: str, purpose: str) -> int:
        return int(torch.randint(2**62, (1,), generator=Streams(seed, scope)(purpose)))

    cases = [(0, "a", "x"), (1, "a", "x"), (0, "b", "x"), (0, "a", "y")]
    assert len({draw(*case) for case in cases}) == 4
    assert draw(0, "a", "x") == draw(0, "a", "x")


def test_digits_are_scikit_learns(digits: Dataset) -> None:
    from sklearn.datasets import load_digits

    assert (len(digits.train), len(digits.test)) == (1438, 359)
    counts = torch.cat([digits.train.labels, digits.test.labels]).bincount().tolist()
    assert counts == torch.tensor(load_digits().target).bincount().tolist()


def test_digits_that_were_changed_are_read_unchanged_again(digits: Dataset) -> None:
    """A process reads the file once."""
    source = plan_of("dataset=digits").source
    changed = source.load(Path(), False)
    changed.train.images.fill_(0)
    changed.train.labels.fill_(0)
    again = source.load(Path(), False).train
    assert torch.equal(again.images, digits.train.images) and again.images.any()
    assert torch.equal(again.labels, digits.train.labels) and again.labels.any()


def test_a_limit_keeps_the_first_rows_of_every_class_and_their_positions(digits: Dataset) -> None:
    few = digits.limited(7)
    assert few.train.labels.bincount().tolist() == [7] * 10 == few.test.labels.bincount().tolist()
    assert torch.equal(digits.train.labels[few.train.rows], few.train.labels)
    assert torch.equal(digits.train.images[few.train.rows], few.train.images)


@pytest.mark.parametrize("rows", [131, 1000])
def test_a_class_that_has_no_more_rows_is_not_made_rare(digits: Dataset, rows: int) -> None:
    assert digits.train.labels.bincount()[3] == 131
    with pytest.raises(UserError, match=rf"data.rare=\[3:{rows}\] takes no row, as class 3 has 131"):
        digits.thinned(3, rows)
    assert digits.thinned(3, 130).train.labels.bincount()[3] == 130


def test_a_missing_file_is_named_with_the_cure(tmp_path: Path) -> None:
    plan = plan_of("dataset=mnist")
    with pytest.raises(UserError, match=r"t.*-ubyte is missing.*data\.root.*data\.download=true"):
        plan.source.load(tmp_path, False)


def test_a_corrupt_file_is_named(tmp_path: Path) -> None:
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    (raw / "train-images-idx3-ubyte").write_bytes(b"not an image")
    with pytest.raises(UserError, match=r"train-images-idx3-ubyte is damaged"):
        plan_of("dataset=mnist").source.load(tmp_path, False)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (
            RuntimeError("Error:\nTried a, got:\n<urlopen error [Errno -2] Name unknown>\n"),
            "Name unknown",
        ),
        (URLError(OSError(-2, "Name unknown")), "Name unknown"),
        (TimeoutError(), "TimeoutError"),
    ],
)
def test_a_failed_download_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str
) -> None:
    def fail(*args: object, **options: object) -> None:
        raise error

    monkeypatch.setattr("torchvision.datasets.MNIST", fail)
    with pytest.raises(UserError) as refused:
        plan_of("dataset=mnist").source.load(tmp_path, True)
    assert f"({reason}); copy the files there" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_folder_that_cannot_be_written_to_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"\[Errno 20\] Not a directory.* point data.root at a folder"):
        plan_of("dataset=mnist").source.load(tmp_path / "file" / "data", True)


def test_nothing_is_written_where_no_file_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = SimpleNamespace(data=torch.zeros(3, 28, 28, dtype=torch.uint8), targets=torch.arange(3))
    monkeypatch.setattr("torchvision.datasets.MNIST", lambda root, train: part)

    class Whole(MNIST):
        files: ClassVar = {}

    assert len(Whole([0.5], [0.5], 0, False).load(tmp_path, True).train) == 3
    assert not list(tmp_path.iterdir())


BYTES = np.arange(128, dtype=np.uint8).reshape(2, 1, 8, 8)
READ_ONLY = np.broadcast_to(BYTES, BYTES.shape)


@pytest.mark.parametrize(
    "images",
    [
        BYTES[:, :, ::-1],
        BYTES[:, 0][:, None],
        BYTES.astype(">u2"),
        READ_ONLY,
        torch.from_numpy(BYTES),
        BYTES.tolist(),
    ],
)
@pytest.mark.filterwarnings("error")
def test_a_source_splits_arrays_of_any_layout(images: Any) -> None:
    """The strides, too, are those of one layout: a convolution rounds by them."""
    split = Digits([0.5], [0.5], 0, False).split(images, np.array([3, 4], ">i4"))
    assert np.array_equal(split.images.numpy(), np.asarray(images)) and split.labels.tolist() == [3, 4]
    assert split.images.stride() == (64, 64, 8, 1) and split.images.dtype == torch.uint8


@pytest.mark.parametrize(
    ("images", "span"),
    [
        (BYTES.astype(np.uint16) * 3, "uint16 from 0 to 381"),
        (BYTES.astype(np.int8) - 1, "int8 from -1 to 126"),
        (BYTES / 127, "float64 from 0 to 1"),
        (np.full((2, 1, 8, 8), np.nan), "float64 from nan to nan"),
        (BYTES.astype(str), "<U3"),
    ],
)
def test_images_that_are_no_bytes_are_refused_with_their_span(images: Any, span: str) -> None:
    with pytest.raises(UserError, match=rf"splits images that are {span}: give bytes from 0 to 255"):
        Digits([0.5], [0.5], 0, False).split(images, [3, 4])


@pytest.mark.parametrize("source", [Digits, DigitsParity, MNIST, CIFAR10, CIFAR20, CIFAR100])
def test_every_class_has_a_name_of_its_own(source: type[Source]) -> None:
    assert len(set(source.names)) == source.classes
    assert len(set(source.fine_names)) == (source.fine_classes or 0)


def test_parity_keeps_the_digits_as_fine_labels(digits: Dataset) -> None:
    data = plan_of("dataset=digits_parity", "scenario.classes=odd").source.load(Path(), False)
    assert data.classes == 2 and torch.equal(data.train.images, digits.train.images)
    assert data.test.fine is not None and torch.equal(data.test.fine, digits.test.labels)
    assert torch.equal(data.train.labels, digits.train.labels % 2)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("dataset.crop=99999999999999999999", "dataset.crop=99999999999999999999: it must be"),
        ("dataset.crop=-1", "dataset.crop=-1"),
        ("dataset.crop=9", "set at most 8 pixels"),
        ("dataset.std=[0]", "dataset.std=[0.0]"),
        ("dataset.mean=[nan]", "dataset.mean=[nan]"),
        ("dataset.mean=[inf]", "dataset.mean=[inf]"),
    ],
)
def test_impossible_pixels_are_refused(override: str, words: str) -> None:
    with pytest.raises(UserError) as refused:
        plan_of(override)
    assert words in str(refused.value)


# Real files


@needs("cifar-10-batches-py/batches.meta")
@needs("cifar-100-python/meta")
def test_the_names_of_classes_are_those_of_the_files() -> None:
    import pickle

    def names(file: str, key: str) -> tuple[str, ...]:
        with (data_root() / file).open("rb") as opened:
            return tuple(pickle.load(opened)[key])

    assert names("cifar-10-batches-py/batches.meta", "label_names") == CIFAR10.names
    assert names("cifar-100-python/meta", "fine_label_names") == CIFAR100.names == CIFAR20.fine_names
    assert names("cifar-100-python/meta", "coarse_label_names") == CIFAR20.names


@needs("MNIST/raw/train-images-idx3-ubyte")
def test_mnist_has_its_published_counts_and_statistics() -> None:
    data = plan_of("dataset=mnist").source.load(data_root(), False)
    assert data.train.images.shape == (60000, 1, 28, 28) and data.test.images.shape == (10000, 1, 28, 28)
    assert data.train.labels.bincount().tolist()[3] == 6131
    pixels = data.train.images.float() / 255
    assert abs(pixels.mean() - 0.1307) < 1e-4 and abs(pixels.std() - 0.3081) < 1e-4


@needs("cifar-10-batches-py/data_batch_1")
def test_cifar10_is_channel_first_and_matches_torchvision() -> None:
    from torchvision.datasets import CIFAR10 as Reader

    data = plan_of("dataset=cifar10").source.load(data_root(), False)
    reader = Reader(data_root(), train=False)
    assert data.train.labels.bincount().tolist() == [5000] * 10
    image, label = reader[123]
    assert data.test.labels[123] == label
    assert data.test.images[123].permute(1, 2, 0).numpy().tobytes() == image.tobytes()


@needs("cifar-100-python/train")
def test_cifar20_has_the_superclasses_of_the_files() -> None:
    import pickle

    data = plan_of("dataset=cifar20").source.load(data_root(), False)
    for split, name in ((data.train, "train"), (data.test, "test")):
        path = data_root() / "cifar-100-python" / name
        assert hashlib.md5(path.read_bytes()).hexdigest() in {
            "16019d7e3df5f24257cddd939b257f8d", "f0ef6b0ae62326f3e7ffdfab6717acfc"
        }  # fmt: skip
        with path.open("rb") as file:
            raw = pickle.load(file, encoding="latin1")
        assert split.labels.tolist() == raw["coarse_labels"]
        assert split.fine is not None and split.fine.tolist() == raw["fine_labels"]
