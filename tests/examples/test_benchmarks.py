"""The benchmarks' own figures of sharpness: power spectra, pyramids, sliced Wasserstein distances."""

from collections.abc import Iterator
from types import ModuleType

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from scipy.stats import wasserstein_distance
from support.scripts import benchmark


@pytest.fixture(scope="module")
def bench() -> Iterator[ModuleType]:
    """examples/benchmarks/sharpness.py, imported as its neighbours do."""
    with benchmark("sharpness") as module:
        yield module


def noise(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.2, shape).astype(np.float32)


def everything(bench: ModuleType, pictures: np.ndarray, real: np.ndarray) -> np.ndarray:
    """(1 + levels,): the distance of spectra, and of patches at each level."""
    return bench.measure([pictures], real)(np.arange(len(real)))[0]


# Spectra


def test_white_noise_has_the_power_of_its_variance_at_every_frequency(bench: ModuleType) -> None:
    found = bench.log_spectrum(noise(0, 400, 1, 32, 32))
    assert found.shape == (400, 1, 16)
    # The mean that is taken off was a part of the slowest wave too, under the window.
    assert (10**found).mean(axis=0)[0, 1:] == pytest.approx(np.full(15, 0.04), rel=0.1)


@pytest.mark.parametrize("cycles", [4, 9, 13])
def test_a_wave_stands_at_its_own_frequency_whichever_way_it_runs(bench: ModuleType, cycles: int) -> None:
    y, x = np.mgrid[:32, :32] / 32
    for wave in (np.sin(2 * np.pi * cycles * x), np.cos(2 * np.pi * cycles * y)):
        spectrum = bench.log_spectrum(wave[None, None].astype(np.float32))[0, 0]
        assert spectrum.argmax() + 1 == cycles
        # A Hann window spreads a wave over its two neighbours and no further.
        far = np.abs(np.arange(1, 17) - cycles) > 2
        assert spectrum[far].max() < spectrum.max() - 4


def test_black_has_the_power_of_rounding(bench: ModuleType) -> None:
    black = bench.log_spectrum(np.full((1, 3, 32, 32), -1, np.float32))
    assert black == pytest.approx(np.full((1, 3, 16), np.log10((2 / 255) ** 2 / 12)))


def test_noise_in_the_colours_of_grey_detail_is_a_distance_of_its_own(bench: ModuleType) -> None:
    """Too weak to be seen in the power of all channels together."""
    grey = np.repeat(noise(4, 8, 1, 32, 32), 3, axis=1)
    red = np.zeros_like(grey)
    red[:, :1] = 0.03 * noise(5, 8, 1, 32, 32)
    spectra = [bench.log_spectrum(images).mean(axis=0)[:, 4:].mean(axis=1) for images in (grey, grey + red)]
    assert spectra[1][0] == pytest.approx(spectra[0][0], abs=0.05)
    assert (spectra[1][1:] > spectra[0][1:] + 0.2).all()


def test_half_the_contrast_is_a_distance_of_log10_of_four(bench: ModuleType) -> None:
    real = noise(1, 8, 3, 32, 32)
    assert everything(bench, real / 2, real)[0] == pytest.approx(np.log10(4), rel=1e-3)


def test_low_frequencies_do_not_count_for_the_spectrum(bench: ModuleType) -> None:
    real = noise(2, 6, 1, 64, 64)
    wave = np.cos(2 * np.pi * 2 * np.arange(64) / 64).astype(np.float32)
    assert everything(bench, real + wave, real)[0] < 1e-3
    assert everything(bench, real + wave[:, None] * wave, real)[0] < 1e-3


# Pyramids


@pytest.mark.parametrize("size, sides", [(64, [64, 32, 16]), (40, [40, 20]), (50, [50, 25]), (24, [24])])
def test_a_pyramid_adds_up_to_the_images(bench: ModuleType, size: int, sides: list[int]) -> None:
    images = noise(3, 2, 3, size, size)
    levels = bench.pyramid(images)
    assert [level.shape for level in levels] == [(2, 3, side, side) for side in sides]
    back = levels[-1]
    for detail in levels[-2::-1]:
        spread = np.zeros_like(detail)
        spread[..., ::2, ::2] = 4 * back
        back = detail + bench.blur(spread)
    np.testing.assert_allclose(back, images, atol=1e-6)


def test_a_flat_image_is_in_the_last_level_alone(bench: ModuleType) -> None:
    *details, last = bench.pyramid(np.full((1, 1, 64, 64), 0.3, np.float32))
    assert all(np.abs(level[..., 2:-2, 2:-2]).max() < 1e-6 for level in details)
    assert last == pytest.approx(np.full((1, 1, 16, 16), 0.3), rel=1e-4)


# Patches


def test_a_set_is_at_no_distance_from_itself_in_any_order(bench: ModuleType) -> None:
    real = noise(4, 6, 1, 32, 32)
    assert not everything(bench, real, real).any()
    distances = bench.measure([real, real + 0.1], real)
    assert (distances(np.array([0, 3, 5]))[0] == 0).all() and distances(np.array([0, 3, 5]))[1, -1] > 0


def test_the_distance_of_patches_is_scipys_along_each_direction(bench: ModuleType) -> None:
    real, other = noise(5, 4, 3, 24, 24), gaussian_filter(noise(6, 4, 3, 24, 24), (0, 0, 1, 1))
    slices = bench.projections((other, real), np.random.default_rng([0, 0]))
    expected = [wasserstein_distance(a.ravel(), b.ravel()) for a, b in zip(*slices, strict=True)]
    assert len(expected) == 256 and slices[0].shape == (256, 4, 64)
    assert everything(bench, other, real)[1] == pytest.approx(np.mean(expected), rel=1e-4)


def test_patches_are_projected_from_where_they_lie(bench: ModuleType) -> None:
    """An image that is one value everywhere has patches of that value, on the unit directions."""
    real = noise(7, 3, 1, 24, 24)
    flat = np.full_like(real, real.mean() + 5 * real.std())
    made, _ = bench.projections((flat, real), np.random.default_rng(0))
    same = made[:, :1, :1]
    np.testing.assert_allclose(made, np.broadcast_to(same, made.shape), rtol=1e-4, atol=1e-5)
    # 49 entries of about 5 each, on directions of unit length: 5 sqrt(49) x a coordinate's share, on average
    assert np.sqrt((same**2).mean()) == pytest.approx(5, rel=0.25)


def test_lost_contrast_costs_what_it_should(bench: ModuleType) -> None:
    """Patches of white noise are normal: |sorted difference| of sd 1 and sd s is (1 - s) sqrt(2 / pi)."""
    real = noise(8, 40, 1, 24, 24)
    assert everything(bench, real / 2, real)[1] == pytest.approx(0.5 * np.sqrt(2 / np.pi), rel=0.03)


def test_blur_costs_the_finest_level_most_and_sharpening_it_again_less(bench: ModuleType) -> None:
    real = gaussian_filter(noise(9, 12, 1, 64, 64), (0, 0, 0.5, 0.5))
    blurred, less = (gaussian_filter(real, (0, 0, sd, sd)) for sd in (1.5, 0.5))
    many, few = everything(bench, blurred, real), everything(bench, less, real)
    assert many[1] > many[2] > many[3] > 0
    assert (few < many).all()


def test_sharpness_reports_both_sets_their_ratio_and_a_floor(bench: ModuleType) -> None:
    real = noise(10, 12, 1, 32, 32)
    vae, refined = real / 4, real / 2
    report = bench.sharpness(vae, refined, real)
    assert list(report) == ["spectrum", "patches", "patches at 32 px", "patches at 16 px"]
    row = report["spectrum"]
    assert row["VAE"][0] == pytest.approx(np.log10(16), rel=5e-3)
    assert row["ratio"][0] == pytest.approx(0.5, rel=5e-3)
    assert row["real halves"][0] < row["refined"][0] / 2
    levels = [report[f"patches at {side} px"]["VAE"][0] for side in (32, 16)]
    assert report["patches"]["VAE"][0] == pytest.approx(np.mean(levels))
    assert report["patches"]["ratio"][0] == pytest.approx(2 / 3, rel=0.02)


# Standard errors


@pytest.mark.parametrize("count", [200, 203])
def test_the_jackknife_gives_the_standard_error_of_a_mean(bench: ModuleType, count: int) -> None:
    rng = np.random.default_rng(11)
    errors = []
    for _ in range(200):
        values = rng.normal(3, 2, count)
        value, error = bench.jackknife(lambda keep, x=values: x[keep].mean(), count)
        assert value == pytest.approx(values.mean())
        errors.append(error)
    assert np.sqrt(np.mean(np.square(errors))) == pytest.approx(2 / np.sqrt(count), rel=0.08)


def test_the_jackknife_of_few_images_leaves_out_one_at_a_time(bench: ModuleType) -> None:
    values = np.array([1.0, 2.0, 4.0])
    _, error = bench.jackknife(lambda keep: values[keep].mean(), 3)
    assert error == pytest.approx(values.std(ddof=1) / np.sqrt(3))
