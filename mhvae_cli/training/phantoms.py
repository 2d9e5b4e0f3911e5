"""Seeded synthetic images modelled on the paper's data sets (section 5.1), with exact masks; no patient data.

Frame: x right, y down, the centre of the image at (0, 0), its shorter side from -1 to 1. Shapes are formulas,
so a mask is exact at any size: a pixel is inside if its centre is.
"""

import csv
import io
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from ..filesystem import write_atomic
from ..images.encode import encode_png
from .textures import blob, ellipse, noise, polar, speckle, step, stroke, turned

Kind = Literal["fetal-head", "skin-lesion", "optic-disc"]
_MELANIN = np.array([0.5, 1.0, 1.7])
_BLOOD = np.array([0.25, 1.0, 0.85])
_SKINS = np.array(
    [[228, 205, 196], [232, 196, 166], [208, 198, 208], [186, 142, 108], [236, 164, 152], [222, 220, 200]]
)


def phantom(kind: Kind, seed: int, size: tuple[int, int] = (256, 256)) -> tuple[np.ndarray, np.ndarray]:
    """One image and its mask, of `size` (height, width), determined by the seed.

    "fetal-head": uint8 (H, W), an ultrasound sector; the mask reaches to the skull's outer edge.
    "skin-lesion": uint8 (H, W, 3), dermoscopy. "optic-disc": uint8 (H, W, 3), the middle of a fundus.
    The mask is bool (H, W), and lies the same at every size of one aspect.
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
    """Write `count` phantoms as a data folder: images/, masks/ and index.csv (id, subject, fold 0-3).

    Phantom i is that of `seed` + i. Raises OutputError where the folder cannot be written.
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
    tall, wide = np.array(x.shape) / min(x.shape)  # half of each
    long = rng.uniform(0.35, 0.65) if rng.random() < 0.15 else rng.uniform(0.75, 1.1)
    axes = np.array([long, long * rng.uniform(0.7, 0.88)])
    turn = rng.normal(0, 0.3) + (np.pi / 2 if rng.random() < 0.15 else 0)
    lean = np.array([np.cos(turn), np.sin(turn)])
    reach = np.hypot(axes[0] * lean, axes[1] * lean[::-1])
    shrink = min(1, 0.97 * wide / reach[0], 0.97 * tall / reach[1])
    axes, reach = axes * shrink, reach * shrink
    centre = rng.uniform(-0.6, 0.6, 2) * np.maximum([wide, tall] - reach, 0)
    rho, distance, s, q = ellipse(x, y, centre, axes, turn)
    inside = rho <= 1

    apex = np.array([centre[0] * 0.5 + rng.uniform(-0.2, 0.2), -tall - rng.uniform(0.4, 1.6)])
    r, beam = np.hypot(x - apex[0], y - apex[1]), np.arctan2(x - apex[0], y - apex[1])
    edges = beam[inside].min(), beam[inside].max()
    opening = max(rng.uniform(0.4, 0.8), np.abs(edges).max() * rng.uniform(0.98, 1.2))
    near = min(rng.uniform(0, 0.15) - tall - apex[1], r[inside].min() - 0.02)
    far = tall - apex[1] + rng.uniform(-0.05, 0.4)
    field = (r > near) & (r < far) & (np.abs(beam) < opening)

    depth, across = (r - near) / (far - near), beam / opening
    outside = _tissue(rng, depth, across, distance)
    behind = step(depth[inside].mean() - depth, 0.04)
    for edge in edges:  # the beam is bent away at the skull's flanks
        outside *= 1 - rng.uniform(0.3, 0.9) * behind * np.exp(-(((beam - edge) / (0.1 * opening)) ** 2))
    brain = _brain(rng, s, q, depth, across)
    echo = outside + (brain - outside) * step(distance + 0.01, 0.008)
    grains = speckle(rng, depth, across)
    contrast = rng.uniform(0.3, 0.6)
    echo *= 1 - contrast + contrast * grains
    facing = np.abs(np.sin(beam + turn) * s / axes[0] + np.cos(beam + turn) * q / axes[1])
    facing /= np.hypot(s / axes[0], q / axes[1]) + 1e-9
    echo += _skull(rng, distance, np.arctan2(q, s), facing, axes[0]) * (0.8 + 0.2 * grains)
    image = np.clip(echo * rng.uniform(0.65, 1.1), 0, 1) ** rng.uniform(0.8, 1.2) * field
    return _console(rng, image, inside), inside


def _tissue(
    rng: np.random.Generator, depth: np.ndarray, across: np.ndarray, distance: np.ndarray
) -> np.ndarray:
    """Echo of the head's surroundings: layers, pockets of fluid, a bright near field, loss with depth."""
    layers = 0.34 + 0.1 * polar(rng, depth, across, (0.02, 0.3))
    layers += 0.06 * polar(rng, depth, across, (0.05, 0.08))
    fluid = polar(rng, depth, across, (0.22, 0.4)) - rng.uniform(-0.6, 1.4)
    if rng.random() < 0.4:  # the head floats
        fluid = np.maximum(fluid, 1 - distance / rng.uniform(0.05, 0.35))
    layers *= 1 - 0.93 * step(-fluid, 0.07)
    layers += rng.uniform(0, 0.3) * np.exp(-((depth / rng.uniform(0.05, 0.15)) ** 2))
    return np.maximum(layers, 0.01) * np.exp(-rng.uniform(0, 1.5) * depth) * rng.uniform(0.9, 1.9)


def _brain(
    rng: np.random.Generator, s: np.ndarray, q: np.ndarray, depth: np.ndarray, across: np.ndarray
) -> np.ndarray:
    """Echo inside the skull: s, q run from -1 to 1 along the long and the short axis."""
    echo = rng.uniform(0.04, 0.18) + 0.04 * polar(rng, depth, across, (0.06, 0.12))
    folds = np.maximum(polar(rng, depth, across, (0.05, 0.09)), 0) * step(np.hypot(s, q) - 0.65, 0.05)
    echo += rng.uniform(0, 0.15) * folds
    middle = rng.normal(0, 0.05)
    dashes = np.clip(polar(rng, s / 2 + 0.5, 0 * s, (0.04, 0.1)) * 0.6 + 0.5, 0, 1) * (np.abs(s) < 0.88)
    echo += rng.uniform(0.1, 0.55) * dashes * np.exp(-(((q - middle) / 0.022) ** 2))
    side = rng.choice([-1, 1])
    for _ in range(rng.integers(0, 6)):  # walls of the ventricles
        at = side * rng.uniform(0.2, 0.75), middle + rng.normal(0, 0.22)
        echo += rng.uniform(0.2, 0.7) * blob(s, q, at, (rng.uniform(0.05, 0.16), 0.018))
    for _ in range(rng.integers(0, 4)):  # choroid plexus
        at = -side * rng.uniform(0.0, 0.55), middle + rng.choice([-1, 1]) * rng.uniform(0.2, 0.55)
        echo += rng.uniform(0.15, 0.4) * blob(s, q, at, rng.uniform((0.08, 0.08), (0.22, 0.18)), power=3)
    return np.maximum(echo, 0.02) * np.exp(-rng.uniform(0, 0.8) * depth)


def _skull(
    rng: np.random.Generator, distance: np.ndarray, angle: np.ndarray, facing: np.ndarray, long: float
) -> np.ndarray:
    """Echo of the bone: a band under the edge, bright and thick where it faces the beam (1), with gaps."""
    strength = rng.uniform(0.02, 0.4) + facing ** rng.uniform(1, 4)
    for _ in range(rng.integers(2, 7)):
        gap = np.abs(np.angle(np.exp(1j * (angle - rng.uniform(-np.pi, np.pi)))))
        strength *= 1 - rng.uniform(0.3, 1) * np.exp(-((gap / rng.uniform(0.04, 0.3)) ** 2))
    thick = rng.uniform(0.02, 0.045) * (0.5 + 0.6 * long) * (0.7 + 0.6 * facing)
    band = np.exp(-((np.abs(distance + thick) / thick) ** 2.5))
    halo = 0.3 * np.exp(-(((distance + thick) / (3 * thick)) ** 2))
    return rng.uniform(0.35, 0.85) * strength * (band + halo)


def _console(rng: np.random.Generator, image: np.ndarray, head: np.ndarray) -> np.ndarray:
    """What a scanner draws over the image: a blanked corner beside the head, and a bar of greys."""
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
    stretch, turn = rng.uniform(0.65, 1), rng.uniform(0, np.pi)
    centre = rng.normal(0, 0.12, 2) + rng.uniform(-0.3, 0.3, 2) * (1 - radius)
    u, v = turned(x - centre[0], y - centre[1], turn)
    angle, rho = np.arctan2(v / stretch, u), np.hypot(u, v / stretch)
    orders = np.arange(2, 13)
    waves = rng.normal(0, rng.uniform(0.03, 0.16), len(orders)) / orders**0.7
    phases = rng.uniform(0, 2 * np.pi, len(orders))
    outline = radius * np.exp(
        np.tensordot(waves, np.cos(orders[:, None, None] * angle + phases[:, None, None]), 1)
    )
    distance = rho - outline

    scale = min(x.shape) / 256
    soft = rng.uniform(0.012, 0.07) * (0.5 + radius)
    ragged = distance + soft * (0.7 + 0.7 * noise(rng, x.shape, 5 * scale))
    cover = step(ragged, soft / 2)
    density = 1 + 0.25 * noise(rng, x.shape, 22 * scale) + 0.15 * noise(rng, x.shape, 6 * scale)
    density += rng.uniform(0, 0.25) * (np.abs(noise(rng, x.shape, 2.5 * scale)) < 0.5)  # pigment network
    density += rng.uniform(-0.4, 0.8) * np.exp(-((rho / radius / 0.6) ** 2))
    dark = np.exp(rng.uniform(np.log(0.2), np.log(1.4)))
    ink = rng.dirichlet([2, 0.7]) @ [_MELANIN, _BLOOD]
    skin = _SKINS[rng.integers(len(_SKINS))] / 255 * rng.uniform(0.9, 1.12)
    mottle = 0.04 * noise(rng, x.shape, 30 * scale) + 0.02 * noise(rng, x.shape, 4 * scale)
    absorbed = (dark * np.maximum(density, 0.1) * cover)[..., None] * ink + mottle[..., None] * _BLOOD
    image = skin * np.exp(-absorbed) * _light(rng, x, y)[..., None]
    return _hairs(rng, image, x, y), distance <= 0


def _light(rng: np.random.Generator, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Uneven light: a gradient over the image and a darker rim, sometimes the tube of the dermatoscope."""
    radius = np.hypot(x, y)
    light: np.ndarray = (
        1 + x * rng.normal(0, 0.06) + y * rng.normal(0, 0.06) - rng.uniform(0, 0.15) * radius**2
    )
    if rng.random() < 0.15:
        light *= step(radius - rng.uniform(1.1, 1.35), 0.03)
    return light


def _hairs(rng: np.random.Generator, image: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Draw hairs and, on some images, a ruler over the skin."""
    count = rng.integers(0, 25) if rng.random() < 0.5 else 0
    lie, colour = rng.uniform(0, np.pi), rng.uniform(0.05, 0.35) * np.array([1, 0.85, 0.75])
    for _ in range(count):
        curve = rng.uniform(-1, 1), rng.uniform(-1, 1), lie + rng.normal(0, 0.4), rng.normal(0, 0.4)
        shade = rng.uniform(0.4, 0.95) * stroke(
            x, y, *curve, rng.uniform(0.15, 0.9), rng.uniform(0.004, 0.011)
        )
        image += (colour - image) * shade[..., None]
    if rng.random() < 0.15:
        u, v = turned(x, y - rng.uniform(0.7, 0.9), rng.normal(0, 0.15))
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
    for heading in (-1.6, 1.6, -1.3, 1.3, -1.9, 1.9, -0.6, 2.6):  # vessels leave upwards and downwards
        way = heading + rng.normal(0, 0.2)
        at = offset + np.array([np.cos(way), np.sin(way)]) * 0.75
        shade = stroke(x, y, at[0], at[1], way, rng.normal(0, 0.35), 0.78, rng.uniform(0.012, 0.035))
        image = image * (1 - rng.uniform(0.3, 0.65) * shade[..., None] * [0.5, 1, 0.9])
    return image, rho <= 1
