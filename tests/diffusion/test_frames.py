"""Frames: found among scans that share them, told from shadows, chosen by a blurred image, stored small."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from mhvae_cli.diffusion.frames import (
    LEAST,
    MOST,
    TONES,
    Frames,
    black_border,
    tone_counts,
    tone_evidence,
)

SIDE = 72
YS, XS = np.mgrid[:SIDE, :SIDE]
FAN = np.abs(XS - 35.5) > 10 + 0.4 * YS
BOX = FAN & (YS < 30) | (YS > 60) & (XS > 40)
BORDERLESS = np.zeros((SIDE, SIDE), bool)


def scan(frame: np.ndarray, number: int, *, shadow: bool = False) -> np.ndarray:
    """Speckle (1, S, S) in [-1, 1] within a frame; a shadow reaches from its edge into the field of view."""
    rng = np.random.default_rng(number)
    image = rng.uniform(-0.6, 0.6, (SIDE, SIDE))
    image[frame] = rng.uniform(-1, -0.97, frame.sum())
    if shadow:
        image[30 + number % 20 :, 10 + 7 * number % 50 :][:, :6] = -1
    return image[None].astype(np.float32)


def blurred(image: np.ndarray) -> np.ndarray:
    """What a VAE makes of an image: smooth, and a bit lighter than black."""
    return np.maximum(gaussian_filter(image, (0, 4, 4)), -0.9)


def fitted(*groups: tuple[np.ndarray, int], subjects: int = 100, shadow: bool = False) -> Frames | None:
    images, numbers = [], []
    for frame, count in groups:
        for _ in range(count):
            numbers.append(len(numbers))
            images.append(scan(frame, numbers[-1], shadow=shadow))
    borders = np.stack([black_border(image) for image in images])
    counts = sum(tone_counts(blurred(image), border) for image, border in zip(images, borders, strict=True))
    names = [str(number % subjects) for number in numbers]
    return Frames.fit(borders, names, tone_evidence(counts))


def test_the_frames_of_scans_are_found_without_their_shadows() -> None:
    found = fitted((FAN, 30), (BOX, 20), (BORDERLESS, 10), shadow=True)
    assert found is not None
    for frame in (FAN, BOX):
        assert min((mask ^ frame).mean() for mask in found.masks) < 0.005
    assert len(found.masks) <= 4 and found.masks.mean((1, 2)).min() > 0.01
    assert np.array_equal(found.masks, fitted((FAN, 30), (BOX, 20), (BORDERLESS, 10), shadow=True).masks)  # type: ignore[union-attr]


def test_a_frame_of_few_subjects_is_not_kept() -> None:
    assert fitted((FAN, 30), subjects=LEAST - 1) is None
    found = fitted((FAN, 30), (BOX, LEAST - 1))
    assert found is not None
    assert min((mask ^ BOX).mean() for mask in found.masks) > 0.05
    assert fitted((BORDERLESS, 30)) is None


def test_an_image_is_black_by_its_frame_and_not_by_a_shadow() -> None:
    found = fitted((FAN, 20), (BOX, 20))
    assert found is not None
    image = scan(FAN, 55)
    image[0, 10:60, :36] = -1  # a shadow that joins the frame
    assert (black_border(image) & ~FAN).sum() > 300
    own = found.own(image)
    assert (own & ~FAN).sum() < 0.5 * (black_border(image) & ~FAN).sum() and (
        own & FAN
    ).sum() > 0.98 * FAN.sum()
    assert not found.own(scan(BORDERLESS, 56)).any()
    shifted = np.roll(FAN, 1, axis=1)
    assert (found.own(scan(shifted, 57)) ^ shifted).mean() < 0.01  # its own edge, not that of the set


def test_the_frame_is_that_of_the_blurred_image() -> None:
    found = fitted((FAN, 30), (BOX, 30), (BORDERLESS, 20))
    assert found is not None
    for frame in (FAN, BOX, BORDERLESS):
        chosen = [found.choose(blurred(scan(frame, number))) for number in range(70, 80)]
        assert np.mean([(mask ^ frame).mean() for mask in chosen]) < 0.01


def test_an_image_that_tells_nothing_gets_what_most_images_have() -> None:
    for counts, most in (((30, 10, 10), FAN), ((10, 30, 10), BOX), ((10, 10, 30), BORDERLESS)):
        found = fitted(*zip((FAN, BOX, BORDERLESS), counts, strict=True))
        assert found is not None
        dumb = Frames(found.masks, np.zeros_like(found.evidence), found.prior)
        assert (dumb.choose(blurred(scan(FAN, 1))) ^ most).mean() < 0.005
        assert np.exp(found.prior).sum() == pytest.approx(1) and np.exp(found.prior.max()) > 0.5


def test_outlines_that_noise_and_shadows_frayed_are_straight() -> None:
    borders = []
    for number in range(40):
        rng = np.random.default_rng(number)
        waves = gaussian_filter(rng.standard_normal(SIDE), 3, mode="wrap") * 6
        frayed = 25.5 - XS - 0.4 * YS + np.abs(waves)[:, None] > 0
        borders.append(frayed | FAN | (YS > 60) & (XS > 40))
    subjects = [str(number) for number in range(40)]
    found = Frames.fit(np.stack(borders), subjects, np.zeros(TONES, np.float32))
    assert found is not None
    frame = FAN | (YS > 60) & (XS > 40)
    for mask in found.masks:
        assert (mask ^ frame).mean() < 0.03
        edge = mask[:60, :36].sum(1)
        line = np.polyval(np.polyfit(YS[:60, 0], edge, 1), YS[:60, 0])
        assert np.abs(edge - line).max() < 1.5


def test_colour_is_black_in_all_channels() -> None:
    red = np.full((3, SIDE, SIDE), -1, np.float32)
    red[0] = 0.5
    assert not black_border(red).any() and black_border(np.full_like(red, -1)).all()
    assert tone_counts(red, BORDERLESS)[0].argmax() > tone_counts(-np.ones_like(red), BORDERLESS)[0].argmax()


def test_stored_small_and_the_same_when_read_again() -> None:
    found = fitted((FAN, 30), (BOX, 20))
    assert found is not None
    arrays = found.arrays()
    assert sum(array.nbytes for array in arrays.values()) < found.masks.size / 16
    again = Frames.of_arrays(arrays, SIDE)
    assert np.array_equal(again.masks, found.masks)
    assert np.array_equal(again.evidence, found.evidence) and np.array_equal(again.prior, found.prior)
    damaged = {
        "shape": np.array([MOST + 1, SIDE]),
        "masks": arrays["masks"][:-9],
        "evidence": arrays["evidence"][1:],
        "prior": arrays["prior"][1:],
    }
    for name, value in damaged.items():
        with pytest.raises(ValueError, match=r"frames|masks"):
            Frames.of_arrays({**arrays, name: value}, SIDE)
    one = {"shape": np.array([1, SIDE]), "prior": arrays["prior"][:2]}
    for more in ({"other": arrays["shape"]}, one):
        with pytest.raises(ValueError, match="masks"):
            Frames.of_arrays({**arrays, **more}, SIDE)
    with pytest.raises(ValueError, match="draws 64 px"):
        Frames.of_arrays(arrays, 64)
    with pytest.raises(ValueError, match="decompressing"):
        Frames.of_arrays({**arrays, "masks": np.zeros(9, np.uint8)}, SIDE)
