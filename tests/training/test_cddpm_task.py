"""The cDDPM's batches are keyed on the image, its times on the noise levels, and its VAE is frozen."""

from pathlib import Path
from statistics import NormalDist

import numpy as np
import pytest
import torch

from mhvae_cli.checkpoints.folder import load_state, read_config
from mhvae_cli.config import CDDPMConfig
from mhvae_cli.diffusion.density import CUT_SIDE, cut_share
from mhvae_cli.diffusion.sde import SDE
from mhvae_cli.diffusion.solvers import END
from mhvae_cli.evaluation.metrics import dice
from mhvae_cli.inference.loading import load_model, load_refiner
from mhvae_cli.training.cddpm_task import CDDPMTask, times
from mhvae_cli.training.datasets import Images, discover
from mhvae_cli.vae.decoder import resized
from mhvae_cli.vae.latents import Latents
from mhvae_cli.vae.outline import mask

CONFIG = CDDPMConfig(crop=16, crops=3, batch_size=4)


@pytest.fixture
def task(tiny_refined: Path, phantom_folder: Path, tmp_path: Path) -> CDDPMTask:
    samples = discover(phantom_folder, masks=False)
    train, val = (Images(part, image_size=32, channels=1, workers=1) for part in (samples[:6], samples[6:]))
    return CDDPMTask(
        load_model(tiny_refined)[0],
        load_refiner(tiny_refined),
        CONFIG,
        train,
        val,
        content=read_config(tiny_refined),
        vae_state=load_state(tiny_refined),
        device=torch.device("cpu"),
        dtype=torch.float32,
        out=tmp_path / "out",
    )


def test_times_are_quantiles_of_the_noise_levels() -> None:
    sde, shares = SDE(), np.array([0.1, 0.3, 0.5, 0.8])
    config = CDDPMConfig(level=0.4, level_sd=1.5)
    levels = [sde.log_snr(float(t)) for t in times(sde, shares, config).double()]
    want = [NormalDist(0.4, 1.5).inv_cdf(share) for share in shares]
    assert levels == pytest.approx(want, abs=1e-3)
    ends = times(sde, np.array([0.0, 1.0]), CDDPMConfig(level=0.0, level_sd=1e6))
    assert sorted(ends.tolist()) == pytest.approx([END, 1.0], rel=1e-3)  # never beyond the schedule


def test_a_batch_depends_on_each_image_and_the_epoch_alone(task: CDDPMTask) -> None:
    whole, part, later = task.batch([0, 1, 2, 3], 5), task.batch([3, 1], 5), task.batch([3, 1], 6)
    assert whole.eps.shape == (4, 3, 1, 16, 16) and whole.t.shape == (4, 3)
    for name in ("image", "eps_theta", "eps_z", "corners", "t", "eps"):
        one, two, other = (getattr(batch, name) for batch in (whole, part, later))
        assert np.array_equal(one[[3, 1]], two), name
        assert not np.array_equal(two, other), name
    assert whole.corners.min() >= 0 and whole.corners.max() <= 32 - 16


def test_the_vae_has_no_gradient_and_the_refiner_has(task: CDDPMTask) -> None:
    task.module.train()
    task.module(task.batch([0, 1], 0), 0.0)["loss"].backward()
    assert not [name for name, value in task.vae.named_parameters() if value.requires_grad]
    assert all(value.grad is not None for value in task.refiner.parameters())
    assert not task.vae.training


def test_what_is_kept_is_the_vae_as_it_was(task: CDDPMTask) -> None:
    ema = {f"refiner.{name}": value + 1 for name, value in task.refiner.state_dict().items()}
    task.save_model(ema, {"val_loss": 0.5})
    kept = load_state(task.out)
    assert all(torch.equal(kept[name], value) for name, value in task.vae_state.items())
    for name, value in load_state(task.out, "cddpm").items():
        assert torch.equal(value, ema[f"refiner.{name}"]), name
    assert read_config(task.out)["cddpm"]["validation"] == {"val_loss": 0.5}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_validation_has_the_precision_of_training(
    task: CDDPMTask, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a CPU without bfloat16 some of its kernels fail for images of the usual size."""
    task.dtype = dtype
    seen: set[torch.dtype] = set()
    enter = task.refiner.network.unet.enter
    enter.register_forward_hook(lambda _module, _given, made: seen.add(made.dtype))
    (task.out / "sheets").mkdir(parents=True)
    task.validate(dict(task.module.state_dict()), task.config.epochs)
    assert seen == {dtype} and list((task.out / "sheets").iterdir())


def test_the_scale_is_measured_anew(task: CDDPMTask) -> None:
    """Training may start from the cDDPM of another VAE, whose residuals had another scale."""
    task.measure()
    scale = float(task.refiner.network.scale)
    task.refiner.network.scale.fill_(7)
    task.measure()
    assert float(task.refiner.network.scale) == pytest.approx(scale)


def test_sampled_objects_may_be_cut_by_the_edge_or_hard_to_see_as_training_objects_are(
    task: CDDPMTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved = torch.randn((len(task.train), task.vae.theta_dim), generator=torch.Generator().manual_seed(0))

    def draw(image: torch.Tensor, *_: torch.Tensor) -> Latents:
        return Latents(torch.zeros(len(image), 4), moved[: len(image)])

    monkeypatch.setattr(task, "draw", draw)
    task.measure()
    cuts = sorted(cut_share(mask(task.vae, theta, (CUT_SIDE, CUT_SIDE))) for theta in moved.numpy())
    assert cuts[-2] <= float(task.refiner.codes_cut) <= cuts[-1] and cuts[0] < cuts[-1]
    x_hat = resized(task.vae.decode(Latents(torch.zeros(len(moved), 4), moved)), task.vae.config.image_size)
    seen = task.vae.locate(x_hat.clamp(-1, 1)).mean.numpy()
    found = sorted(
        dice(*(mask(task.vae, theta, (CUT_SIDE, CUT_SIDE)) for theta in pair))
        for pair in zip(moved.numpy(), seen, strict=True)
    )
    assert found[0] <= float(task.refiner.codes_found) + 1e-6 and float(task.refiner.codes_found) <= found[1]
    assert found[0] < found[-1]
