"""Phantoms: synthetic images like those of the paper's data sets (section 5.1), with exact masks.

Coordinates: x to the right, y down, (0, 0) at the centre of the image, whose shorter side is from -1 to 1.
Shapes are formulas, so masks are exact at any size: a pixel is inside if its centre is.
No patient data is used.
"""

import csv
import io
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from ..filesystem import write_atomic
from ..images.encode import encode_png
from .textures import blob, ellipse, noise, polar, rotate, speckle, step, stroke

Kind = Literal["fetal-head", "skin-lesion", "optic-disc"]
_MELANIN = np.array([0.5, 1.0, 1.7])
_BLOOD = np.array([0.25, 1.0, 0.85])
_SKINS = np.array(
    [[228, 205, 196], [232, 196, 166], [208, 198, 208], [186, 142, 108], [236, 164, 152], [222, 220, 200]]
)


def phantom(kind: Kind, seed: int, size: tuple[int, int] = (256, 256)) -> tuple[np.ndarray, np.ndarray]:
    """The image uint8 and mask bool (H, W) of a phantom of `size` (height, width), determined by the seed.

    "fetal-head" is (H, W), an ultrasound sector; the mask extends to the outer edge of the skull.
    "skin-lesion" is (H, W, 3), a dermoscopy image, and "optic-disc" (H, W, 3), the centre of a fundus image.
    The shape of the mask is the same at every size of the same aspect ratio.
    """
    rng = np.random.default_rng([get_args(Kind).index(kind), seed])
    height, width = size
    y, x = np.mgrid[:height, :width] * 2.0 + 1
    x, y = (x - width) / min(size), (y - height) / min(size)
    draw = {"fetal-head": _fetal_head, "skin-lesion": _skin_lesion, "optic-disc": _optic_disc}[kind]
    image, mask = draw(rng, x, y)
    return np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8), mask


def write_phantoms(
    folder: Path, kind: Kind, count: int, *, seed: int = 0, size: tuple[int, int] = (256, 256)
) -> None:
    """Write a data folder of `count` phantoms: images/, masks/ and index.csv (id, subject, fold 0 to 3).

    Phantom i has the seed `seed` + i. Raises OutputError if the folder cannot be written.
    """
    table = io.StringIO()
    rows = csv.writer(table, lineterminator="\n")
    rows.writerow(("id", "subject", "fold"))
    for number in range(count):
        image, mask = phantom(kind, seed + number, size)
        name = f"{kind}_{seed + number:04d}"
        write_atomic(folder / "images" / f"{name}.png", encode_png(image))
        write_atomic(folder / "masks" / f"{name}.png", encode_png(mask))
        rows.writerow((name, number, number % 4))
    write_atomic(folder / "index.csv", table.getvalue().encode())


def _fetal_head(rng: np.random.Generator, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    half_height, half_width = np.array(x.shape) / min(x.shape)  # half of the image's height and width
    semi_major = rng.uniform(0.35, 0.65) if rng.random() < 0.15 else rng.uniform(0.75, 1.1)
    axes = np.array([semi_major, semi_major * rng.uniform(0.7, 0.88)])
    angle = rng.normal(0, 0.3) + (np.pi / 2 if rng.random() < 0.15 else 0)
    direction = np.array([np.cos(angle), np.sin(angle)])
    extent = np.hypot(axes[0] * direction, axes[1] * direction[::-1])
    shrink = min(1, 0.97 * half_width / extent[0], 0.97 * half_height / extent[1])
    axes, extent = axes * shrink, extent * shrink
    centre = rng.uniform(-0.6, 0.6, 2) * np.maximum([half_width, half_height] - extent, 0)
    rho, distance, s, q = ellipse(x, y, centre, axes, angle)
    inside = rho <= 1

    apex = np.array([centre[0] * 0.5 + rng.uniform(-0.2, 0.2), -half_height - rng.uniform(0.4, 1.6)])
    r, beam = np.hypot(x - apex[0], y - apex[1]), np.arctan2(x - apex[0], y - apex[1])
    edges = beam[inside].min(), beam[inside].max()
    opening = max(rng.uniform(0.4, 0.8), np.abs(edges).max() * rng.uniform(0.98, 1.2))
    r_min = min(rng.uniform(0, 0.15) - half_height - apex[1], r[inside].min() - 0.02)
    r_max = half_height - apex[1] + rng.uniform(-0.05, 0.4)
    field = (r > r_min) & (r < r_max) & (np.abs(beam) < opening)

    depth, across = (r - r_min) / (r_max - r_min), beam / opening
    outside = _tissue(rng, depth, across, distance)
    below = step(depth[inside].mean() - depth, 0.04)
    for edge in edges:  # shadows below the sides of the skull, where the beam is refracted
        outside *= 1 - rng.uniform(0.3, 0.9) * below * np.exp(-(((beam - edge) / (0.1 * opening)) ** 2))
    brain = _brain(rng, s, q, depth, across)
    echo = outside + (brain - outside) * step(distance + 0.01, 0.008)
    speckles = speckle(rng, depth, across)
    contrast = rng.uniform(0.3, 0.6)
    echo *= 1 - contrast + contrast * speckles
    facing = np.abs(np.sin(beam + angle) * s / axes[0] + np.cos(beam + angle) * q / axes[1])
    facing /= np.hypot(s / axes[0], q / axes[1]) + 1e-9
    echo += _skull(rng, distance, np.arctan2(q, s), facing, axes[0]) * (0.8 + 0.2 * speckles)
    image = np.clip(echo * rng.uniform(0.65, 1.1), 0, 1) ** rng.uniform(0.8, 1.2) * field
    return _scanner_overlay(rng, image, inside), inside


def _tissue(
    rng: np.random.Generator, depth: np.ndarray, across: np.ndarray, distance: np.ndarray
) -> np.ndarray:
    """Echo outside the head: layers of tissue, fluid, a bright near field, and attenuation with depth."""
    layers = 0.34 + 0.1 * polar(rng, depth, across, (0.02, 0.3))
    layers += 0.06 * polar(rng, depth, across, (0.05, 0.08))
    fluid = polar(rng, depth, across, (0.22, 0.4)) - rng.uniform(-0.6, 1.4)
    if rng.random() < 0.4:  # fluid all around the head
        fluid = np.maximum(fluid, 1 - distance / rng.uniform(0.05, 0.35))
    layers *= 1 - 0.93 * step(-fluid, 0.07)
    layers += rng.uniform(0, 0.3) * np.exp(-((depth / rng.uniform(0.05, 0.15)) ** 2))
    return np.maximum(layers, 0.01) * np.exp(-rng.uniform(0, 1.5) * depth) * rng.uniform(0.9, 1.9)


def _brain(
    rng: np.random.Generator, s: np.ndarray, q: np.ndarray, depth: np.ndarray, across: np.ndarray
) -> np.ndarray:
    """Echo inside the skull; s and q are from -1 to 1 along the long and the short axis."""
    echo = rng.uniform(0.04, 0.18) + 0.04 * polar(rng, depth, across, (0.06, 0.12))
    folds = np.maximum(polar(rng, depth, across, (0.05, 0.09)), 0) * step(np.hypot(s, q) - 0.65, 0.05)
    echo += rng.uniform(0, 0.15) * folds
    midline = rng.normal(0, 0.05)
    falx = np.clip(polar(rng, s / 2 + 0.5, 0 * s, (0.04, 0.1)) * 0.6 + 0.5, 0, 1) * (np.abs(s) < 0.88)
    echo += rng.uniform(0.1, 0.55) * falx * np.exp(-(((q - midline) / 0.022) ** 2))
    side = rng.choice([-1, 1])
    for _ in range(rng.integers(0, 6)):  # walls of the ventricles
        at = side * rng.uniform(0.2, 0.75), midline + rng.normal(0, 0.22)
        echo += rng.uniform(0.2, 0.7) * blob(s, q, at, (rng.uniform(0.05, 0.16), 0.018))
    for _ in range(rng.integers(0, 4)):  # choroid plexus
        at = -side * rng.uniform(0.0, 0.55), midline + rng.choice([-1, 1]) * rng.uniform(0.2, 0.55)
        echo += rng.uniform(0.15, 0.4) * blob(s, q, at, rng.uniform((0.08, 0.08), (0.22, 0.18)), power=3)
    return np.maximum(echo, 0.02) * np.exp(-rng.uniform(0, 0.8) * depth)


def _skull(
    rng: np.random.Generator, distance: np.ndarray, angle: np.ndarray, facing: np.ndarray, semi_major: float
) -> np.ndarray:
    """Echo of the skull: a band inside the edge with gaps, bright and thick where `facing` the beam is 1."""
    strength = rng.uniform(0.02, 0.4) + facing ** rng.uniform(1, 4)
    for _ in range(rng.integers(2, 7)):
        gap = np.abs(np.angle(np.exp(1j * (angle - rng.uniform(-np.pi, np.pi)))))
        strength *= 1 - rng.uniform(0.3, 1) * np.exp(-((gap / rng.uniform(0.04, 0.3)) ** 2))
    thickness = rng.uniform(0.02, 0.045) * (0.5 + 0.6 * semi_major) * (0.7 + 0.6 * facing)
    band = np.exp(-((np.abs(distance + thickness) / thickness) ** 2.5))
    halo = 0.3 * np.exp(-(((distance + thickness) / (3 * thickness)) ** 2))
    return rng.uniform(0.35, 0.85) * strength * (band + halo)


def _scanner_overlay(rng: np.random.Generator, image: np.ndarray, head: np.ndarray) -> np.ndarray:
    """Draw what a scanner adds to the image: a blank corner outside the head, and a grey scale."""
    height, width = image.shape
    corner = np.s_[int(height * rng.uniform(0.75, 0.9)) :, int(width * rng.uniform(0.7, 0.85)) :]
    if rng.random() < 0.8 and not head[corner].any():
        image[corner] = 0
    if rng.random() < 0.8:
        bar = image[: int(height * 0.3), : max(2, width // 100)]
        bar[:] = np.linspace(1, 0, len(bar))[:, None]
    return image


def _skin_lesion(rng: np.random.Generator, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    radius = np.exp(rng.uniform(np.log(0.27), np.log(1.0)))
    stretch, rotation = rng.uniform(0.65, 1), rng.uniform(0, np.pi)
    centre = rng.normal(0, 0.12, 2) + rng.uniform(-0.3, 0.3, 2) * (1 - radius)
    u, v = rotate(x - centre[0], y - centre[1], rotation)
    angle, rho = np.arctan2(v / stretch, u), np.hypot(u, v / stretch)
    orders = np.arange(2, 13)
    waves = rng.normal(0, rng.uniform(0.03, 0.16), len(orders)) / orders**0.7
    phases = rng.uniform(0, 2 * np.pi, len(orders))
    outline = radius * np.exp(
        np.tensordot(waves, np.cos(orders[:, None, None] * angle + phases[:, None, None]), 1)
    )
    distance = rho - outline

    scale = min(x.shape) / 256
    softness = rng.uniform(0.012, 0.07) * (0.5 + radius)
    ragged_distance = distance + softness * (0.7 + 0.7 * noise(rng, x.shape, 5 * scale))
    coverage = step(ragged_distance, softness / 2)
    density = 1 + 0.25 * noise(rng, x.shape, 22 * scale) + 0.15 * noise(rng, x.shape, 6 * scale)
    density += rng.uniform(0, 0.25) * (np.abs(noise(rng, x.shape, 2.5 * scale)) < 0.5)  # pigment network
    density += rng.uniform(-0.4, 0.8) * np.exp(-((rho / radius / 0.6) ** 2))
    darkness = np.exp(rng.uniform(np.log(0.2), np.log(1.4)))
    spectrum = rng.dirichlet([2, 0.7]) @ [_MELANIN, _BLOOD]
    skin = _SKINS[rng.integers(len(_SKINS))] / 255 * rng.uniform(0.9, 1.12)
    mottle = 0.04 * noise(rng, x.shape, 30 * scale) + 0.02 * noise(rng, x.shape, 4 * scale)
    absorbed = (darkness * np.maximum(density, 0.1) * coverage)[..., None] * spectrum
    absorbed = absorbed + mottle[..., None] * _BLOOD
    image = skin * np.exp(-absorbed) * _light(rng, x, y)[..., None]
    return _hairs(rng, image, x, y), distance <= 0


def _light(rng: np.random.Generator, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Uneven illumination: a gradient, vignetting and, in some images, the edge of the dermatoscope."""
    radius = np.hypot(x, y)
    light: np.ndarray = (
        1 + x * rng.normal(0, 0.06) + y * rng.normal(0, 0.06) - rng.uniform(0, 0.15) * radius**2
    )
    if rng.random() < 0.15:
        light *= step(radius - rng.uniform(1.1, 1.35), 0.03)
    return light


def _hairs(rng: np.random.Generator, image: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Draw hairs and, in some images, a ruler over the skin."""
    count = rng.integers(0, 25) if rng.random() < 0.5 else 0
    direction, colour = rng.uniform(0, np.pi), rng.uniform(0.05, 0.35) * np.array([1, 0.85, 0.75])
    for _ in range(count):
        curve = rng.uniform(-1, 1), rng.uniform(-1, 1), direction + rng.normal(0, 0.4), rng.normal(0, 0.4)
        shade = rng.uniform(0.4, 0.95) * stroke(
            x, y, *curve, rng.uniform(0.15, 0.9), rng.uniform(0.004, 0.011)
        )
        image += (colour - image) * shade[..., None]
    if rng.random() < 0.15:
        u, v = rotate(x, y - rng.uniform(0.7, 0.9), rng.normal(0, 0.15))
        ticks = (np.abs(np.mod(u, 0.1) - 0.05) < 0.006) & (v > -0.05) & (v < 0) & (np.abs(u) < 0.7)
        image[ticks | ((np.abs(v) < 0.006) & (np.abs(u) < 0.7))] *= 0.3
    return image


def _optic_disc(rng: np.random.Generator, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    centre, radius = rng.normal(0, 0.08, 2), rng.uniform(0.35, 0.6)
    axes = radius * np.array([1, rng.uniform(0.84, 0.98)])
    rho, distance, _, _ = ellipse(x, y, centre, axes, np.pi / 2 + rng.normal(0, 0.3))
    offset = centre + rng.normal(0, 0.06, 2) * radius
    cup = ellipse(x, y, offset, axes * rng.uniform(0.35, 0.7), rng.uniform(0, np.pi))[1]

    scale = min(x.shape) / 256
    retina = np.array([0.62, 0.27, 0.1]) * rng.uniform(0.75, 1.2) * rng.uniform(0.92, 1.08, 3)
    texture = 1 + 0.07 * noise(rng, x.shape, 12 * scale) + 0.03 * noise(rng, x.shape, 2 * scale)
    image = retina * (1 + rng.uniform(0, 0.25) * np.exp(-((distance / 0.15) ** 2)))[..., None]
    image = (
        image
        + (np.array([0.9, 0.62, 0.33]) * rng.uniform(0.85, 1.1) - image) * step(distance, 0.012)[..., None]
    )
    image = image + (np.array([0.97, 0.86, 0.62]) - image) * step(cup, rng.uniform(0.02, 0.06))[..., None]
    image = image * (texture * _light(rng, x, y))[..., None]
    # Vessels leave the disc, most of them upwards and downwards.
    for direction in (-1.6, 1.6, -1.3, 1.3, -1.9, 1.9, -0.6, 2.6):
        angle = direction + rng.normal(0, 0.2)
        point = offset + np.array([np.cos(angle), np.sin(angle)]) * 0.75
        shade = stroke(x, y, point[0], point[1], angle, rng.normal(0, 0.35), 0.78, rng.uniform(0.012, 0.035))
        image = image * (1 - rng.uniform(0.3, 0.65) * shade[..., None] * [0.5, 1, 0.9])
    return image, rho <= 1
