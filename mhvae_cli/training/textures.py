"""Building blocks of `phantoms`, in its frame: shapes of positions (x, y), and noise from a generator."""

import numpy as np


def turned(x: np.ndarray, y: np.ndarray, turn: float) -> tuple[np.ndarray, np.ndarray]:
    return x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)


def ellipse(
    x: np.ndarray, y: np.ndarray, centre: np.ndarray, axes: np.ndarray, turn: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """rho (1 on the outline), the distance to it (first order, negative inside), x and y along the axes."""
    u, v = turned(x - centre[0], y - centre[1], turn)
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
    light: np.ndarray = np.exp(-((((s - at[0]) / radii[0]) ** 2 + ((q - at[1]) / radii[1]) ** 2) ** power))
    return light


def stroke(
    x: np.ndarray,
    y: np.ndarray,
    at_x: float,
    at_y: float,
    turn: float,
    bend: float,
    half: float,
    width: float,
) -> np.ndarray:
    """A curved line through a point: 1 on it, 0 off it, antialiased."""
    u, v = turned(x - at_x, y - at_y, turn)
    away = np.abs(v - bend * u**2) / np.hypot(1, 2 * bend * u)
    pixel = 2 / min(x.shape)
    drawn: np.ndarray = np.clip((width - away) / pixel + 0.5, 0, 1) * (np.abs(u) < half)
    return drawn


def step(distance: np.ndarray, soft: float) -> np.ndarray:
    """1 where `distance` is negative, 0 where it is positive, over some `soft`."""
    return 1 / (1 + np.exp(np.clip(distance / soft, -50, 50)))


def noise(rng: np.random.Generator, shape: tuple[int, ...], grain: float | tuple[float, float]) -> np.ndarray:
    """Gaussian noise of unit variance, smoothed over `grain` pixels."""
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
    """Noise that lies along the beams: `depth` runs from 0 to 1, `across` from -1 to 1, as `grain` does."""
    return _sampled(noise(rng, (256, 256), (grain[0] * 256, grain[1] * 128)), depth, across)


def speckle(rng: np.random.Generator, depth: np.ndarray, across: np.ndarray) -> np.ndarray:
    """Fully developed speckle (Rayleigh, mean 1), wider across the beam than along it."""
    grain = rng.uniform(0.9, 1.8), rng.uniform(1.0, 2.2)
    waves = np.hypot(*(noise(rng, (448, 320), grain) for _ in range(2)))
    return _sampled(waves / waves.mean(), depth, across)


def _sampled(field: np.ndarray, depth: np.ndarray, across: np.ndarray) -> np.ndarray:
    """Bilinear look-up, clamped at the border: rows by depth (0 to 1), columns by `across` (-1 to 1)."""
    row = np.clip(depth, 0, 1) * (field.shape[0] - 1.001)
    column = np.clip(across / 2 + 0.5, 0, 1) * (field.shape[1] - 1.001)
    i, j = row.astype(int), column.astype(int)
    down, right = row - i, column - j
    above = field[i, j] * (1 - right) + field[i, j + 1] * right
    below = field[i + 1, j] * (1 - right) + field[i + 1, j + 1] * right
    sampled: np.ndarray = above * (1 - down) + below * down
    return sampled
