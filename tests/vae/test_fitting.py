"""Warps fitted to masks: exact on ellipses, close on anything else."""

import numpy as np
import pytest
import torch
from scipy import fft

from mhvae_cli.config import DecoderConfig, EncoderConfig, ModelConfig, WarpConfig
from mhvae_cli.evaluation.metrics import dice
from mhvae_cli.training.phantoms import phantom
from mhvae_cli.vae.decoder import SegmentationHead
from mhvae_cli.vae.fitting import affine_of, distance_map, fit, fit_tones, rim, shrink_tones
from mhvae_cli.vae.latents import Latents
from mhvae_cli.vae.model import build
from mhvae_cli.vae.tones import join
from mhvae_cli.vae.warp import RADIUS, Warp, pixel_centres

CENTRE, AXES, TURN = np.array([0.15, -0.2]), np.array([0.55, 0.3]), np.deg2rad(25)
FAMILIES = [WarpConfig("affine"), WarpConfig("tps", "circular"), WarpConfig("tps", "uniform")]


def ellipse(size: tuple[int, int]) -> np.ndarray:
    along = np.array([[np.cos(TURN), np.sin(TURN)], [-np.sin(TURN), np.cos(TURN)]])
    u = (pixel_centres(size) - CENTRE) @ along.T / AXES
    return ((u**2).sum(1) <= 1).reshape(size)


def mask_of(warp: Warp, offsets: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    theta = warp.theta_of(warp.identity + torch.from_numpy(offsets).float()[None])
    return (SegmentationHead(0.02, 0).level(warp(theta, size))[0] >= 0).numpy()


@pytest.mark.parametrize("size", [(256, 256), (200, 320)])
def test_rim_lies_on_an_ellipses_outline(size: tuple[int, int]) -> None:
    points, weight = rim(ellipse(size))
    assert points.shape == (96, 2) and (weight == 1).all()
    along = np.array([[np.cos(TURN), np.sin(TURN)], [-np.sin(TURN), np.cos(TURN)]])
    u = (points - CENTRE) @ along.T / AXES
    misses = np.abs(np.linalg.norm(u, axis=1) - 1) * AXES.min() * min(size) / 2  # about pixels
    assert misses.max() < 1 and misses.mean() < 0.4
    bearings = np.sort(np.arctan2(*(points - CENTRE).T[::-1]))
    assert np.diff(bearings).max() < np.deg2rad(15)


def test_rim_has_no_bias() -> None:
    """The outermost pixels' centres lie inside the outline by half a pixel; the rim must not."""
    mask = (np.linalg.norm(pixel_centres((64, 64)), axis=1) <= RADIUS).reshape(64, 64)
    points, _ = rim(mask)
    assert abs(np.linalg.norm(points, axis=1).mean() - RADIUS) < 0.2 * 2 / 64


def test_rim_marks_where_the_border_cuts() -> None:
    mask = (np.linalg.norm(pixel_centres((64, 64)) - [-1, 0], axis=1) <= RADIUS).reshape(64, 64)
    points, weight = rim(mask)
    cut = points[:, 0] < -0.98
    assert cut.any() and (weight[cut] == 0).all()
    assert (weight[points[:, 0] > -0.9] == 1).all()


@pytest.mark.parametrize("size", [(512, 512), (400, 640)])
def test_affine_is_the_ellipses_own(size: tuple[int, int]) -> None:
    """root^-1 RADIUS has the ellipse's semi-axes as eigenvalues, its axes as eigenvectors."""
    affine = affine_of(ellipse(size))
    values, vectors = np.linalg.eigh(np.linalg.inv(affine[:, :2]) * RADIUS)
    np.testing.assert_allclose(values, np.sort(AXES), rtol=3e-3)
    angle = np.arctan2(vectors[1, 1], vectors[0, 1]) % np.pi
    assert angle == pytest.approx(TURN, abs=np.deg2rad(0.5))
    np.testing.assert_allclose(affine[:, :2] @ CENTRE + affine[:, 2], 0, atol=3e-3)


@pytest.mark.parametrize("config", FAMILIES, ids=str)
def test_every_family_fits_an_ellipse(config: WarpConfig) -> None:
    truth, warp = ellipse((256, 256)), Warp(config)
    offsets = fit(warp, truth)
    assert offsets.shape == warp.loc.shape
    assert dice(mask_of(warp, offsets, (256, 256)), truth) > 0.99


def test_a_fit_is_the_same_at_another_size() -> None:
    warp = Warp(WarpConfig("tps"))
    fitted = fit(warp, ellipse((512, 512)))
    assert dice(mask_of(warp, fitted, (200, 320)), ellipse((200, 320))) > 0.99


@pytest.mark.parametrize(("points", "least"), [("circular", 0.96), ("uniform", 0.94)])
@pytest.mark.parametrize("seed", [0, 2, 5])
def test_the_spline_fits_a_wobbly_lesion(points: str, least: float, seed: int) -> None:
    truth = phantom("skin-lesion", seed, (128, 128))[1]
    spline, affine = Warp(WarpConfig("tps", points)), Warp(WarpConfig("affine"))
    found = dice(mask_of(spline, fit(spline, truth), truth.shape), truth)
    assert found > least
    assert found > dice(mask_of(affine, fit(affine, truth), truth.shape), truth)


@pytest.mark.parametrize("config", FAMILIES, ids=str)
def test_tiny_and_cut_masks_give_numbers(config: WarpConfig) -> None:
    warp, dot, all_of_it = Warp(config), np.zeros((64, 64), bool), np.ones((64, 64), bool)
    dot[10, 50] = True
    for mask in (dot, all_of_it):
        assert np.isfinite(fit(warp, mask)).all()
    found = mask_of(warp, fit(warp, dot), (640, 640))
    y, x = (axis.mean() for axis in np.nonzero(found))
    assert (x / 10, y / 10) == (pytest.approx(50.5, abs=1), pytest.approx(10.5, abs=1))


def test_distance_map_of_the_disc() -> None:
    mask = (np.linalg.norm(pixel_centres((300, 300)), axis=1) <= RADIUS).reshape(300, 300)
    found = distance_map(mask, 300)
    truth = RADIUS - np.linalg.norm(pixel_centres((300, 300)), axis=1).reshape(300, 300)
    assert found.shape == (300, 300) and found.dtype == np.float32
    assert np.abs(found - truth).max() < 0.7 * 2 / 300
    assert ((found >= 0) == mask).all()


def test_distance_map_squashes_to_a_square() -> None:
    size = (120, 360)
    mask = (np.linalg.norm(pixel_centres(size), axis=1) <= RADIUS).reshape(size)
    found = distance_map(mask, 60)
    truth = np.linalg.norm(pixel_centres((60, 60)), axis=1).reshape(60, 60) <= RADIUS
    assert dice(found >= 0, truth) > 0.97


@pytest.mark.parametrize("channels", [1, 3])
def test_tones_begin_as_principal_components(channels: int) -> None:
    """The style code of layers and the layers of a style code, against numpy's own decomposition."""
    config = ModelConfig(
        image_size=32,
        channels=channels,
        z_dim=5,
        tones=4,
        encoder=EncoderConfig(arch="resnet18", width=0.125, reduce=4, hidden=16),
        decoder=DecoderConfig(channels=8, max_size=32),
    )
    model = build(config, seed=0).eval()
    rng = torch.Generator().manual_seed(1)
    mixed = torch.randn(40, 6, generator=rng) @ torch.randn(6, 2 * channels * 4**2, generator=rng) * 0.2
    layers = mixed.view(40, 2, channels, 4, 4)
    fit_tones(model, layers)
    flat = layers.double().flatten(1).numpy()
    u, s, v = np.linalg.svd(flat - flat.mean(0), full_matrices=False)
    best = (u[:, :5] * s[:5]) @ v[:5] + flat.mean(0)
    with torch.inference_mode():
        q = model.encoder.style_of_layers(layers)
        np.testing.assert_allclose(model.image_head.tones(q.mean), best, atol=1e-4)
        theta = torch.zeros(40, model.theta_dim)
        joined = join(
            layers=torch.from_numpy(best).float().view_as(layers),
            source=model.warp(theta, (32, 32)),
            level=model.segmentation_head.level,
        )
        np.testing.assert_allclose(model.decode(Latents(q.mean, theta)), joined, atol=1e-4)
    np.testing.assert_allclose(q.mean.var(0, correction=0), np.ones(5), rtol=1e-3)
    assert (q.logvar < -3).all()


def test_tones_keep_what_holds_for_new_images_and_lose_the_noise() -> None:
    """Coarse tones that are true, and fine ones in which the truth is one part in five, the rest noise."""
    config = ModelConfig(
        image_size=32,
        channels=3,
        z_dim=6,
        tones=16,
        encoder=EncoderConfig(arch="resnet18", width=0.125, reduce=4, hidden=16),
        decoder=DecoderConfig(channels=8, max_size=32),
    )
    model, rng = build(config, seed=0).eval(), np.random.default_rng(3)
    shape, axes = (6, 2, 3, 16, 16), (-3, -2, -1)
    true, fine = rng.standard_normal(shape), np.hypot(*np.ogrid[:16, :16]) > 2**2.75 - 1
    noise = 2 * rng.standard_normal(shape) * fine
    pixels = fft.idctn(true + noise, axes=axes, norm="ortho").reshape(6, -1).T
    model.image_head.tones.weight.data.copy_(torch.from_numpy(pixels))
    z = torch.from_numpy(3 + rng.standard_normal((400, 6))).float()
    layers = np.tensordot(z.numpy(), fft.idctn(true, axes=axes, norm="ortho"), 1) + 0.7
    mean = model.image_head.tones(z.mean(0)).detach()
    shrink_tones(model, z, torch.from_numpy(layers).float())
    left = fft.dctn(model.image_head.tones.weight.detach().numpy().T.reshape(shape), axes=axes, norm="ortho")
    np.testing.assert_allclose(left[..., ~fine], true[..., ~fine], atol=0.02)
    gain = left[..., fine] / (true + noise)[..., fine]
    assert 0.1 < gain.min() < gain.max() < 0.3  # 1 / (1 + 2^2)
    np.testing.assert_allclose(model.image_head.tones(z.mean(0)).detach(), mean, atol=1e-4)
    before = model.image_head.tones.weight.detach().clone()
    shrink_tones(model, z, torch.from_numpy(layers).float())
    torch.testing.assert_close(model.image_head.tones.weight, before, atol=1e-4, rtol=1e-4)


def test_fewer_layers_than_components_leave_the_others_unused() -> None:
    config = ModelConfig(
        image_size=32,
        z_dim=8,
        tones=4,
        encoder=EncoderConfig(arch="resnet18", width=0.125, reduce=4, hidden=16),
        decoder=DecoderConfig(channels=8, max_size=32),
    )
    model = build(config, seed=0).eval()
    layers = torch.randn(3, 2, 1, 4, 4, generator=torch.Generator().manual_seed(2))
    fit_tones(model, layers)
    with torch.inference_mode():
        z = model.encoder.style_of_layers(layers).mean
        np.testing.assert_allclose(model.image_head.tones(z), layers.flatten(1), atol=1e-4)
    assert z[:, :2].abs().max() > 0.5 and not z[:, 2:].any()
