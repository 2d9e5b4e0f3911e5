"""The thin-plate spline's grid: against a memory copy, against SciPy, and in both layouts of its product.

    python examples/benchmarks/tps_grid.py [--size 256] [--samples 8] [--repeats 30]

`Warp.forward` multiplies the parameters (2 B, K) by the basis (K, N) that it keeps for a size: its traffic
is the basis read once and the grid (2 B, N) written once. The bound is a copy that moves as many bytes: a
tensor of half of them, read and written. The other layout is basis^T (N, K) @ parameters (B, K, 2), which
gives (B, N, 2) as `grid_sample` takes it. SciPy is `RBFInterpolator` (thin plate, degree 1), float64, fit
and evaluation: an interpolator a sample, and one for all samples as columns, which shares its kernel
between them. Targets: 3 x the copy; SciPy, a call a sample, at least 100 x slower.
"""

import argparse
from collections.abc import Callable

from common import interleaved, table, verdict  # first: see there

# isort: split
import numpy as np
import torch
from scipy.interpolate import RBFInterpolator

from mhvae_cli.config import WarpConfig
from mhvae_cli.vae.warp import Warp, pixel_centres


def spline(sources: np.ndarray, warp: Warp, pixels: np.ndarray) -> np.ndarray:
    """SciPy's answer: sources (K, D) of the control points -> (N, D) at the pixels."""
    return RBFInterpolator(warp.points, sources, kernel="thin_plate_spline", degree=1)(pixels)


def backward(product: Callable[[], torch.Tensor], leaf: torch.Tensor) -> Callable[[], None]:
    """The product and its gradient with respect to `leaf`."""

    def task() -> None:
        leaf.grad = None
        grid = product()
        grid.backward(torch.ones_like(grid))

    return task


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=30)
    args = parser.parse_args()
    size = (args.size, args.size)
    warp, pixels = Warp(WarpConfig()), pixel_centres(size)
    theta = 0.1 * torch.randn(args.samples, warp.theta_dim, generator=torch.Generator().manual_seed(0))
    parameters = warp.parameters_of(theta).detach()
    basis = torch.from_numpy(warp.basis(pixels).T.copy()).float()
    rows = parameters.flatten(0, 1).clone().requires_grad_()
    tall, columns = basis.T.contiguous(), parameters.mT.contiguous().requires_grad_()
    grid = warp(theta, size)
    moved = basis.numel() + grid.numel()
    source, target = torch.rand(2, moved // 2)
    sources = parameters.double().numpy()  # (B, 2, K)

    def copy() -> None:
        target.copy_(source)

    def forward(product: Callable[[], torch.Tensor]) -> Callable[[], torch.Tensor]:
        return torch.no_grad()(product)

    tasks = {
        "copy of as many bytes": copy,
        "Warp, cached basis": forward(lambda: warp(theta, size)),
        "(2B, K) @ (K, N)": forward(lambda: rows @ basis),
        "(N, K) @ (B, K, 2)": forward(lambda: tall @ columns),
        "(2B, K) @ (K, N), and gradient": backward(lambda: rows @ basis, rows),
        "(N, K) @ (B, K, 2), and gradient": backward(lambda: tall @ columns, columns),
    }
    seconds = interleaved(tasks, args.repeats)
    scipy = {
        "SciPy, one call": lambda: spline(sources.reshape(-1, sources.shape[2]).T, warp, pixels),
        "SciPy, a call a sample": lambda: [spline(each.T, warp, pixels) for each in sources],
    }
    seconds |= interleaved(scipy, 3)
    truth = scipy["SciPy, one call"]().T.reshape(grid.shape)
    threads = torch.get_num_threads()
    print(f"{args.samples} samples at {args.size} px, {moved * 4 / 1e6:.1f} MB, {threads} threads")
    table(["", "ms"], *([name, f"{1e3 * value:.3f}"] for name, value in seconds.items()))
    ours = seconds["Warp, cached basis"]
    print(f"largest difference from SciPy: {np.abs(grid.numpy() - truth).max():.1e} (an image is 2 wide)")
    verdict("grid / copy", ours / seconds["copy of as many bytes"], 3)
    verdict("SciPy, a call a sample / grid", seconds["SciPy, a call a sample"] / ours, 100, least=True)
    print(f"SciPy, one call / grid: {seconds['SciPy, one call'] / ours:.1f} x")
    other, chosen = "(N, K) @ (B, K, 2)", "(2B, K) @ (K, N)"
    print(f"the other layout / the chosen: {seconds[other] / seconds[chosen]:.1f} x", end="")
    with_gradient = seconds[other + ", and gradient"] / seconds[chosen + ", and gradient"]
    print(f", {with_gradient:.1f} x with the gradient")


if __name__ == "__main__":
    main()
