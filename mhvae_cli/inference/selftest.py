"""Self-test of a device: a small model with fixed weights, run stage by stage.

Encode (section 3.1), warp (3.2), decode (3.3), then three steps of equation 15 (4.2). Weights and image are
generated with integer arithmetic, so that they are bit-identical with every library and on every machine.
"""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch

from ..checkpoints.folder import FORMAT, KIND, save_model
from ..checkpoints.model_card import model_card
from ..checkpoints.registry import bundled
from ..config import (
    TEXTURE,
    DecoderConfig,
    DiffusionConfig,
    EncoderConfig,
    ModelConfig,
    TrainConfig,
    UNetConfig,
    to_dict,
)
from ..devices import resolve_device, resolve_dtype
from ..diffusion.refiner import Refiner
from ..diffusion.spectrum import KNOTS
from ..errors import DeviceError
from ..vae.editing import LatentCode
from ..vae.model import build
from .networks import Networks

STEPS = 3
POSE = np.array([[0.9, -0.2, 0.05], [0.2, 0.9, -0.1]])
"""The edit that is decoded: a rotation and a shift."""
REPEATS = 3
"""Runs on the CPU: with a race between threads, some runs succeed."""
SMALL = "small"
"""The name of the model with fixed weights."""

TRUTH = {
    "encode": [-1.7808733, -1.7314060, -0.0019363, 0.7459975],
    "warp": [-0.6869828, 0.0533339, -0.5512013, -0.5725876],
    "decode": [-0.2503012, 0.0061397, -1.7218707, -0.1722403],
    "refine": [-0.4007265, 0.0373062, -1.6492028, 0.3638280],
}
"""`project` of each stage of the small model, computed in float64, on one thread and without oneDNN."""
TRUTH_TOLERANCE = 1e-4
"""The largest allowed deviation of float32 on the CPU from `TRUTH`."""
EXACT_TOLERANCE = 5e-5
TOLERANCES = {"float32": 5e-3, "float16": 1e-2, "bfloat16": 3e-2}
"""The largest allowed deviation of a device from the CPU in float32, relative to the stage's largest value.
float32 leaves room for TF32, which CUDA's convolutions use; the warp has no convolution and is computed in
float32 whatever the network's dtype: `EXACT_TOLERANCE`."""

DEVICE_ERRORS = (DeviceError, RuntimeError, TypeError)
"""What torch raises if it lacks a kernel, a dtype or memory."""


@dataclass(frozen=True)
class Outcome:
    """One test: each stage's deviation `off`, the largest `allowed`, and the `fault` (error), if any."""

    device: str
    dtype: str
    model: str
    off: dict[str, float] = field(default_factory=dict)
    allowed: dict[str, float] = field(default_factory=dict)
    fault: str | None = None

    @property
    def ok(self) -> bool:
        """Whether the test passed."""
        return self.fault is None and all(self.off[name] <= most for name, most in self.allowed.items())


def check(devices: Sequence[str]) -> Iterator[Outcome]:
    """Test the CPU against `TRUTH`, then each of `devices`, in float32 and its default dtype, against it.

    The models are the small one and the bundled ones. ModelError if one of them is damaged.
    """
    with tempfile.TemporaryDirectory() as folder:
        small = Path(folder) / SMALL
        write_model(small)
        models: list[tuple[str, str | Path]] = [(SMALL, small), *((name, name) for name in bundled())]
        for name, ref in models:
            load = partial(Networks.load, ref, offline=True)
            try:
                reference = _reference(load)
            except DEVICE_ERRORS as error:
                yield Outcome("cpu", "float32", name, fault=_first_line(error))
                continue
            if name == SMALL:
                yield _against_truth(load)
            for device in devices:
                best = str(resolve_dtype("auto", resolve_device(device))).removeprefix("torch.")
                for dtype in dict.fromkeys(["float32", best]):
                    if (device, dtype) != ("cpu", "float32"):
                        yield _against(reference, load, device, dtype, name)


def _reference(load: "partial[Networks]") -> dict[str, np.ndarray]:
    return run(load(device="cpu", dtype="float32"))


def _against_truth(load: "partial[Networks]") -> Outcome:
    runs = [from_truth(_reference(load)) for _ in range(REPEATS)]
    off = {name: max(each[name] for each in runs) for name in TRUTH}
    return Outcome("cpu", "float32", SMALL, off, dict.fromkeys(TRUTH, TRUTH_TOLERANCE))


def _against(
    reference: Mapping[str, np.ndarray], load: "partial[Networks]", device: str, dtype: str, model: str
) -> Outcome:
    outcome = partial(Outcome, device, dtype, model)
    try:
        found = run(load(device=device, dtype=dtype), reference)
    except DEVICE_ERRORS as error:
        return outcome(fault=_first_line(error))
    return outcome(deviations(found, reference), {name: tolerance(name, dtype) for name in found})


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def noise(count: int, key: int) -> np.ndarray:
    """(count,) float64 in [-1, 1), uniform: SplitMix64, in integers (Steele, Lea and Flood, OOPSLA 2014)."""
    z = (np.arange(count, dtype=np.uint64) + np.uint64(key << 32)) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((z ^ (z >> np.uint64(31))) >> np.uint64(11)).astype(np.float64) / 2**52 - 1


def phantom(size: int, channels: int) -> np.ndarray:
    """The phantom, float32 (C, S, S) in [-1, 1]: a bright ring around a grey disc, with coarse noise."""
    y, x = (2 * np.mgrid[:size, :size] + 1) / size - 1
    r2 = (x - 0.1) ** 2 / 0.36 + (y + 0.05) ** 2 / 0.25
    ground = np.where(r2 < 1, np.where(r2 > 0.8, 0.8, -0.2), -0.7)
    cells = noise(channels * 64, 1).reshape(channels, 8, 8)
    scale = -(-size // 8)
    coarse = cells.repeat(scale, 1).repeat(scale, 2)[:, :size, :size]
    return np.clip(ground + 0.2 * coarse, -1, 1).astype(np.float32)


def write_model(folder: Path) -> None:
    """Write the model with fixed weights: 64 px, greyscale, a ResNet18, a spline, a cDDPM of two levels."""
    encoder = EncoderConfig(arch="resnet18", width=0.25, reduce=8, hidden=32)
    decoder = DecoderConfig(channels=16, max_size=32)
    config = ModelConfig(image_size=64, z_dim=8, encoder=encoder, decoder=decoder)
    unet = UNetConfig(channels=16, levels=2, blocks=1)
    diffusion = DiffusionConfig(sees="residual+recon+mask+known+place+texture", spectral=True, unet=unet)
    vae = _filled(build(config, seed=0), key=2)
    vae["warp.loc"], vae["warp.modes"] = vae["warp.loc"] * 0, torch.eye(len(vae["warp.modes"])) * 0.1
    codes = config.z_dim + TEXTURE + len(vae["warp.modes"])
    refiner = Refiner(diffusion, channels=1, codes=codes)
    cddpm = _filled(refiner, key=3) | {"network.scale": torch.tensor(2.0)}
    cddpm["network.spectrum.log_power"] = torch.linspace(3, -4, KNOTS)[None]
    basis = cddpm["network.texture.basis"]
    cddpm["network.texture.basis"] = torch.from_numpy(noise(basis.numel(), 5).reshape(basis.shape)).float()
    card = {"license": "apache-2.0", "data": "none", "attribution": "none"}
    content = {"format": FORMAT, "kind": KIND, "name": "self-test", "figures": {}, "card": card}
    content |= {"model": to_dict(config), "training": to_dict(TrainConfig())}
    content |= {"cddpm": {"model": to_dict(diffusion), "training": {}, "size": [64, 64]}}
    save_model(folder, config=content, states={"vae": vae, "cddpm": cddpm}, card=model_card(content))


def _filled(module: torch.nn.Module, key: int) -> dict[str, torch.Tensor]:
    """The module's weights, scaled to preserve the size of activations; statistics are unchanged."""
    state = {name: value.clone() for name, value in module.state_dict().items()}
    for index, (name, weight) in enumerate(module.named_parameters()):
        fan_in = max(1, weight[0].numel()) if weight.dim() > 1 else 0
        spread = (3 / fan_in) ** 0.5 if fan_in else 0.1
        drawn = spread * noise(weight.numel(), key * 1000 + index).reshape(weight.shape)
        one = weight.dim() == 1 and name.endswith("weight")  # a norm's
        state[name] = torch.from_numpy(drawn + one).float()
    return state


def run(networks: Networks, given: Mapping[str, np.ndarray] | None = None) -> dict[str, np.ndarray]:
    """Each stage of the phantom, float32: encode (Z + P,), warp (S, S, 2), decode and refine (C, S, S).

    Each stage's input is the previous stage in `given`, by default the own one: an error then shows only in
    the stage that makes it.
    """
    config = networks.config
    found: dict[str, np.ndarray] = {}
    size = (config.image_size, config.image_size)
    z, theta = networks.encode(phantom(config.image_size, config.channels)[None])
    found["encode"] = np.concatenate([z[0], theta[0]])
    code = (given or found)["encode"]
    z = np.concatenate([code[: config.z_dim], noise(networks.style_dim - config.z_dim, 6).astype(np.float32)])
    made = LatentCode(z=z, theta=code[config.z_dim :], pose=POSE, size=size)
    with torch.inference_mode():
        parameters = torch.from_numpy(made.theta)[None].to(networks.device)
        warp = networks.model.warp
        assert warp is not None
        found["warp"] = warp.grid(parameters, size, torch.from_numpy(POSE)[None])[0].cpu().numpy()
    found["decode"] = networks.decode([made])[0]
    x_hat = (given or found)["decode"]
    found["refine"] = networks.refine(x_hat[None], ["self-test"], steps=STEPS, codes=[made])[0]
    return found


def project(stage: np.ndarray) -> list[float]:
    """A stage as a few numbers, relative to its root mean square: sums with fixed signs over sqrt(n)."""
    flat, count = stage.astype(np.float64).ravel(), len(TRUTH["encode"])
    signs = np.sign(noise(count * flat.size, 4)).reshape(count, -1)
    sums: list[float] = (signs @ flat / np.sqrt(flat.size * (flat @ flat / flat.size))).tolist()
    return sums


def from_truth(found: Mapping[str, np.ndarray]) -> dict[str, float]:
    """The deviation of each stage of the fixed-weight model from `TRUTH`: infinite for NaN."""
    return {name: _worst(np.subtract(project(found[name]), truth)) for name, truth in TRUTH.items()}


def deviations(found: Mapping[str, np.ndarray], reference: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Each stage's deviation from the reference, relative to its largest value: infinite for NaN."""
    return {name: _worst((found[name] - right) / np.abs(right).max()) for name, right in reference.items()}


def tolerance(stage: str, dtype: str) -> float:
    """The largest allowed deviation of a device from the CPU in float32."""
    return EXACT_TOLERANCE if stage == "warp" else TOLERANCES[dtype]


def _worst(difference: np.ndarray) -> float:
    worst = float(np.abs(difference).max())
    return worst if np.isfinite(worst) else float("inf")
