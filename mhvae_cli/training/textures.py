"""Shapes and textures of the phantoms, in the coordinates of `phantoms`."""

import numpy as np


def rotate(x: np.ndarray, y: np.ndarray, angle: float) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates along axes rotated by `angle` (radians)."""
    return x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)


def ellipse(
    x: np.ndarray, y: np.ndarray, centre: np.ndarray, axes: np.ndarray, angle: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """rho (1 on the outline), the distance to the outline to first order (negative inside), and x and y along
    the axes, in semi-axes."""
    u, v = rotate(x - centre[0], y - centre[1], angle)
    s, q = u / axes[0], v / axes[1]
    rho = np.hypot(s, q)
    return rho, (rho - 1) * rho / (np.hypot(s / axes[0], q / axes[1]) + 1e-9), s, q


def blob(
    s: np.ndarray,
    q: np.ndarray,
    at: tuple[float, float],
    radii: tuple[float, float] | np.ndarray,
    power: float = 1,
) -> np.ndarray:
    """A (super-)Gaussian blob with a peak of 1 at `at`."""
    light: np.ndarray = np.exp(-((((s - at[0]) / radii[0]) ** 2 + ((q - at[1]) / radii[1]) ** 2) ** power))
    return light


def stroke(
    x: np.ndarray,
    y: np.ndarray,
    at_x: float,
    at_y: float,
    angle: float,
    bend: float,
    half: float,
    width: float,
) -> np.ndarray:
    """An antialiased curved line through a point: 1 on the line, 0 off it.

    `bend` is its curvature (of y = bend x^2), `half` half its length, and `width` half its width.
    """
    u, v = rotate(x - at_x, y - at_y, angle)
    offset = np.abs(v - bend * u**2) / np.hypot(1, 2 * bend * u)
    pixel = 2 / min(x.shape)
    drawn: np.ndarray = np.clip((width - offset) / pixel + 0.5, 0, 1) * (np.abs(u) < half)
    return drawn


def step(distance: np.ndarray, soft: float) -> np.ndarray:
    """A smooth step from 1 at negative to 0 at positive distances, about `soft` wide."""
    return 1 / (1 + np.exp(np.clip(distance / soft, -50, 50)))


def noise(rng: np.random.Generator, shape: tuple[int, ...], grain: float | tuple[float, float]) -> np.ndarray:
    """Gaussian noise of unit variance, smoothed with a standard deviation of `grain` pixels (y, x)."""
    down, right = np.broadcast_to(grain, 2)
    low = np.exp(
        -2
        * np.pi**2
        * ((np.fft.fftfreq(shape[0])[:, None] * down) ** 2 + (np.fft.rfftfreq(shape[1]) * right) ** 2)
    )
    field = np.fft.irfft2(np.fft.rfft2(rng.standard_normal(shape)) * low, shape)
    scaled: np.ndarray = field / field.std()
    return scaled


def polar(
    rng: np.random.Generator, depth: np.ndarray, across: np.ndarray, grain: tuple[float, float]
) -> np.ndarray:
    """Noise in beam coordinates: `depth` from 0 to 1, `across` from -1 to 1, `grain` in these units."""
    return _interpolate(noise(rng, (256, 256), (grain[0] * 256, grain[1] * 128)), depth, across)


def speckle(rng: np.random.Generator, depth: np.ndarray, across: np.ndarray) -> np.ndarray:
    """Fully developed speckle (Rayleigh, mean 1), wider across the beam than along it."""
    grain = rng.uniform(0.9, 1.8), rng.uniform(1.0, 2.2)
    waves = np.hypot(*(noise(rng, (448, 320), grain) for _ in range(2)))
    return _interpolate(waves / waves.mean(), depth, across)


def _interpolate(field: np.ndarray, depth: np.ndarray, across: np.ndarray) -> np.ndarray:
    """Interpolate `field` bilinearly at rows `depth` (0 to 1) and columns `across` (-1 to 1)."""
    row = np.clip(depth, 0, 1) * (field.shape[0] - 1.001)
    column = np.clip(across / 2 + 0.5, 0, 1) * (field.shape[1] - 1.001)
    i, j = row.astype(int), column.astype(int)
    down, right = row - i, column - j
    above = field[i, j] * (1 - right) + field[i, j + 1] * right
    below = field[i + 1, j] * (1 - right) + field[i + 1, j + 1] * right
    sampled: np.ndarray = above * (1 - down) + below * down
    return sampled
