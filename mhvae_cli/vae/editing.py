"""Section 5.2.2, appendices E, F and G: latent codes, and the edits that the verbs make to them.

An image's latent code is its style z, its position theta, and `pose`, the map from points of the image to
those of theta's frame, both in [-1, 1] (the image edge to edge, y down). That frame is the unedited image, or
the crop of it in which the object was found; the pose contains the crop and the user's edit. It is kept
separate from theta, which could only approximate it. Edits are given in native pixels of the upright image,
xy in the frame 0..w by 0..h, y down, pixel centres at +0.5.
"""

import math
from dataclasses import dataclass, replace

import numpy as np

from ..errors import ModelError, UsageError

HANDLES = 20
"""The number of handles of a spline's outline (`vae.handles`)."""


@dataclass(frozen=True)
class LatentCode:
    """One image's latent code: style z float32 (Z,), position theta float32 (P,), and `pose`.

    `pose` float64 (2, 3), or None for the identity; `size` (h, w): the native size, upright.
    """

    z: np.ndarray
    theta: np.ndarray
    pose: np.ndarray | None
    size: tuple[int, int]


def blend(content: LatentCode, style: LatentCode, *, mix: float = 1.0) -> LatentCode:
    """Figure 5: `content` in the style of `style`; `mix` in [0, 1] blends the styles, 1 is `style`'s own.

    UsageError for a `mix` outside [0, 1], ModelError for latent codes of different lengths.
    """
    _same_model(content, style)
    return replace(content, z=_lerp(content.z, style.z, _share("mix", mix)))


def interpolate(a: LatentCode, b: LatentCode, *, style: float, position: float) -> LatentCode:
    """Figure 9: a latent code between `a` (0) and `b` (1), separately in style and in position; `a`'s size.

    Linear in z, in theta, and in a pose's angle, stretch and shift. UsageError for `style` or `position`
    outside [0, 1], ModelError for latent codes of different lengths.
    """
    _same_model(a, b)
    share = _share("position", position)
    return LatentCode(
        z=_lerp(a.z, b.z, _share("style", style)),
        theta=_lerp(a.theta, b.theta, share),
        pose=_between_poses(a, b, share),
        size=a.size,
    )


def transform_code(
    code: LatentCode,
    *,
    about: tuple[float, float],
    rotate: float = 0.0,
    scale: float = 1.0,
    shift: tuple[float, float] = (0.0, 0.0),
) -> LatentCode:
    """Figures 6 and 8: the image in its current state, rotated and scaled about a point, then shifted.

    `rotate` in degrees, counter-clockwise on the screen; `scale` a factor above 0; `about` and `shift` (x, y)
    in native pixels. The edit is a similarity in pixels, whatever the image's aspect ratio, and is composed
    with earlier ones. UsageError for numbers that are not finite, and for a scale of 0 or less.
    """
    numbers = {"rotate": [rotate], "scale": [scale], "shift": shift, "about": about}
    for name, values in numbers.items():
        if not all(math.isfinite(value) for value in values):
            raise UsageError(f"{name}: not a finite number: {', '.join(map(str, values))}")
    if scale <= 0:
        raise UsageError(f"scale: {scale} is not above 0", hint="0.5 halves, 2 doubles")
    # A pose maps edited points to unedited ones, so this is the inverse of the edit. Where y points down, the
    # matrix of +rotate is clockwise on the screen, hence the inverse of a counter-clockwise rotation.
    back = _rotation(math.radians(rotate)) / scale
    centre = np.array(about, dtype=np.float64)
    step = _in_units(np.column_stack([back, centre - back @ (centre + shift)]), code.size)
    pose = step if code.pose is None else _after(code.pose, step)
    if not (np.isfinite(pose).all() and np.linalg.det(pose[:, :2]) > 0):
        raise UsageError("the edit is too large or too small")
    return replace(code, pose=pose)


def _same_model(a: LatentCode, b: LatentCode) -> None:
    for name, left, right in (("z", a.z, b.z), ("theta", a.theta, b.theta)):
        if left.shape != right.shape:
            sizes = f"{name} has {left.size} and {right.size} entries"
            raise ModelError(f"latent codes of different models: {sizes}")


def _share(name: str, value: float) -> float:
    if not 0 <= value <= 1:
        raise UsageError(f"{name}: {value} is not between 0 and 1")
    return value


def _lerp(a: np.ndarray, b: np.ndarray, share: float) -> np.ndarray:
    return ((1 - share) * a + share * b).astype(np.float32)


def _in_units(matrix: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A map of native pixels (2, 3) as the same map of [-1, 1] points."""
    half = np.array([size[1], size[0]]) / 2
    middle = matrix[:, :2] @ half + matrix[:, 2]
    return np.column_stack([matrix[:, :2] * half / half[:, None], middle / half - 1])


def _after(second: np.ndarray, first: np.ndarray) -> np.ndarray:
    """The map (2, 3) that applies `first`, then `second`."""
    return np.column_stack([second[:, :2] @ first[:, :2], second[:, :2] @ first[:, 2] + second[:, 2]])


def _between_poses(a: LatentCode, b: LatentCode, share: float) -> np.ndarray | None:
    """Interpolate angle and stretch linearly, about the point, if any, that both poses map to the same place.

    The mean of the matrices would not do: between an image and its rotation by 180 degrees it is zero.
    """
    if a.pose is None and b.pose is None:
        return None
    # Angles are measured in pixels, with the aspect ratio of `a`, which the result has.
    aspect = np.array([a.size[1], a.size[0]])
    stretch = np.column_stack([aspect[:, None] / aspect, aspect])
    still = np.eye(2, 3)
    first, last = (stretch * (still if code.pose is None else code.pose) for code in (a, b))
    apart = first - last
    pivot = np.zeros(2)
    if np.linalg.norm(apart[:, :2]) > 1e-6:
        pivot = -np.linalg.lstsq(apart[:, :2], apart[:, 2], rcond=1e-6)[0]
    angles, stretches = zip(*(_polar(pose[:, :2]) for pose in (first, last)), strict=True)
    change = (angles[1] - angles[0] + math.pi) % (2 * math.pi) - math.pi
    linear = _rotation(angles[0] + share * change) @ ((1 - share) * stretches[0] + share * stretches[1])
    at_pivot = (1 - share) * (first[:, :2] @ pivot + first[:, 2]) + share * (last[:, :2] @ pivot + last[:, 2])
    moved: np.ndarray = np.column_stack([linear, at_pivot - linear @ pivot]) / stretch
    return moved


def _polar(matrix: np.ndarray) -> tuple[float, np.ndarray]:
    """Polar decomposition of a matrix of positive determinant: its angle, and the symmetric stretch (2, 2)
    applied before the rotation."""
    angle = math.atan2(matrix[1, 0] - matrix[0, 1], matrix[0, 0] + matrix[1, 1])
    return angle, _rotation(angle).T @ matrix


def _rotation(angle: float) -> np.ndarray:
    return np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
