"""Figure 1: what each head sees, what moves when a code moves, and what segmenting leaves alone."""

import numpy as np
import pytest
import torch
from torch import Tensor

from mhvae_cli.config import DecoderConfig, EncoderConfig, ModelConfig, WarpConfig
from mhvae_cli.vae.latents import Latents
from mhvae_cli.vae.model import MultiHeadedVAE, build
from mhvae_cli.vae.warp import RADIUS, pixel_centres

ARCHS = ["resnet18", "resnet34", "resnet50", "resnet50-vit-b16", "efficientnet-lite0"]
ENCODER = EncoderConfig(arch="resnet18", width=0.125, reduce=4, hidden=8)
TINY = {"image_size": 32, "z_dim": 5, "encoder": ENCODER, "decoder": DecoderConfig(channels=8, max_size=32)}


def tiny(**given: object) -> MultiHeadedVAE:
    return build(ModelConfig(**{**TINY, **given})).eval()


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def changed(a: Tensor, b: Tensor) -> bool:
    return bool((a - b).abs().max() > 1e-3 * a.abs().max())


# One pass


@pytest.mark.parametrize("arch", ARCHS)
def test_every_arch_builds_on_meta_and_runs(arch: str) -> None:
    config = ModelConfig(
        **{**TINY, "image_size": 64, "encoder": EncoderConfig(arch=arch, width=0.125, reduce=4, hidden=8)}
    )
    empty, model = build(config, seed=None), build(config)
    assert {k: v.shape for k, v in empty.state_dict().items()} == {
        k: v.shape for k, v in model.state_dict().items()
    }
    assert all(parameter.is_meta for parameter in empty.parameters())
    image = noise(2, 1, 64, 64)
    out = model(image, noise(2, 40), noise(2, 5))
    assert out.mask_pred.shape == (2, 64, 64) and out.recon.shape == (2, 1, 64, 64)
    assert out.theta.shape == (2, 40) and out.q_z.mean.shape == (2, 5)
    assert out.mask_pred.min() >= 0 and out.mask_pred.max() <= 1
    (out.recon.mean() + out.mask_pred.mean()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.image_head.parameters())
    assert any(p.grad is not None and p.grad.abs().max() > 0 for p in model.encoder.convnet.parameters())

    empty.load_state_dict(model.state_dict(), assign=True)
    with torch.no_grad():
        again = empty.eval()(image, noise(2, 40), noise(2, 5))
        torch.testing.assert_close(again.recon, model.eval()(image, noise(2, 40), noise(2, 5)).recon)


@pytest.mark.parametrize(("size", "channels"), [(32, 1), (32, 3), (96, 3)])
def test_the_picture_has_the_images_shape(size: int, channels: int) -> None:
    """96 is no doubling of 32 x 32: the last step is an interpolation."""
    model = tiny(image_size=size, channels=channels)
    image = noise(1, channels, size, size)
    with torch.no_grad():
        assert model.decode(model.encode(image)).shape == image.shape


def test_a_seed_is_a_model_and_leaves_the_global_generator() -> None:
    state = torch.random.get_rng_state()
    a, b, c = (build(ModelConfig(**TINY), seed=seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert any(not torch.equal(a[name], c[name]) for name in a)


def test_codes_are_drawn_from_the_posterior_by_the_callers_noise() -> None:
    model, image = tiny(), noise(2, 1, 32, 32)
    with torch.no_grad():
        out = model(image, noise(2, 40, seed=1), noise(2, 5, seed=2))
        still = model(image, torch.zeros(2, 40), torch.zeros(2, 5))
        codes = model.encode(image)
    q = out.q_theta
    torch.testing.assert_close(out.theta, q.mean + (q.logvar / 2).exp() * noise(2, 40, seed=1))
    torch.testing.assert_close(out.z, out.q_z.mean + (out.q_z.logvar / 2).exp() * noise(2, 5, seed=2))
    torch.testing.assert_close(still.theta, codes.theta)
    torch.testing.assert_close(still.recon, model.decode(codes))
    torch.testing.assert_close(still.mask_pred, model.mask(codes.theta, (32, 32)))
    assert changed(still.recon, out.recon)


# The mask


def test_nil_theta_is_the_disc_softly() -> None:
    model = tiny(edge=0.05)
    soft = model.mask(torch.zeros(1, 40), (64, 64))[0]
    distance = RADIUS - np.linalg.norm(pixel_centres((64, 64)), axis=1).reshape(64, 64)
    torch.testing.assert_close(
        soft, torch.from_numpy(1 / (1 + np.exp(-distance / 0.05))).float(), atol=1e-5, rtol=0
    )


@pytest.mark.parametrize("family", ["affine", "tps"])
def test_the_level_is_the_masks_at_any_point(family: str) -> None:
    model = tiny(warp=WarpConfig(family))
    theta = 0.1 * noise(1, model.theta_dim)
    level = model.level(theta, pixel_centres((40, 50)))
    assert level.dtype == np.float64 and level.shape == (2000,)
    soft = model.mask(theta, (40, 50))[0].double().numpy().ravel()
    np.testing.assert_allclose(1 / (1 + np.exp(-level / model.config.edge)), soft, atol=1e-4)
    assert 0.02 < (level >= 0).mean() < 0.9


def test_an_edit_moves_mask_and_picture_as_the_same_edit_in_theta() -> None:
    model = tiny(warp=WarpConfig("affine"))
    theta, z = 0.1 * noise(1, 6), noise(1, 5)
    pose = torch.tensor([[[0.8, -0.3, 0.1], [0.3, 0.8, -0.2]]])
    square = torch.cat([pose, torch.tensor([[[0.0, 0.0, 1.0]]])], dim=1)
    folded = model.warp.theta_of(model.warp.parameters_of(theta) @ square)
    torch.testing.assert_close(
        model.mask(theta, (30, 40), pose), model.mask(folded, (30, 40)), atol=1e-4, rtol=0
    )
    with torch.no_grad():
        edited, same, plain = (
            model.decode(Latents(z, t, p)) for t, p in ((theta, pose), (folded, None), (theta, None))
        )
    torch.testing.assert_close(edited, same, atol=1e-4, rtol=0)
    assert changed(plain, edited)


# The picture


def head_features(model: MultiHeadedVAE, latents: Latents) -> tuple[Tensor, Tensor]:
    """The image head's 32 x 32 features before and after the warp."""
    seen: list[Tensor] = []
    hooks = [
        model.image_head.up.register_forward_hook(lambda m, i, o: seen.append(o)),
        model.image_head.out.register_forward_pre_hook(lambda m, i: seen.append(i[0])),
    ]
    with torch.no_grad():
        model.decode(latents)
    for hook in hooks:
        hook.remove()
    before, after = seen
    return before, after


def test_half_of_the_channels_move_with_theta() -> None:
    """A shift by three cells: the first half is seen three cells further on, the other half stays put."""
    model = tiny(warp=WarpConfig("affine"))
    theta = model.warp.theta_of(torch.tensor([[[1.0, 0, 3 * 2 / 32], [0, 1.0, 0]]]))
    before, after = head_features(model, Latents(noise(2, 5), theta.expand(2, -1)))
    assert before.shape == after.shape == (2, 8, 32, 32)
    torch.testing.assert_close(after[:, :4, :, :-3], before[:, :4, :, 3:], atol=1e-5, rtol=0)
    assert after[:, :4, :, -3:].abs().max() < 1e-5  # from beyond the edge
    assert torch.equal(after[:, 4:], before[:, 4:])
    assert changed(after[:, :4], before[:, :4])


def test_nil_theta_leaves_every_feature_where_it_is() -> None:
    model = tiny()
    before, after = head_features(model, Latents(noise(1, 5), torch.zeros(1, 40)))
    torch.testing.assert_close(after, before, atol=1e-4, rtol=0)


def test_the_picture_moves_with_theta_alone_and_with_z_alone() -> None:
    model = tiny()
    theta, z = 0.1 * noise(1, 40), noise(1, 5)
    with torch.no_grad():
        plain = model.decode(Latents(z, theta))
        assert torch.equal(plain, model.decode(Latents(z, theta)))
        assert changed(plain, model.decode(Latents(z, 0.1 * noise(1, 40, seed=1))))
        assert changed(plain, model.decode(Latents(noise(1, 5, seed=1), theta)))


def test_the_mask_has_its_gradient_from_theta_not_z() -> None:
    model = tiny()
    out = model(noise(1, 1, 32, 32), noise(1, 40), noise(1, 5))
    out.mask_pred.sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in model.encoder.theta[2].parameters())
    assert all(p.grad is None for p in [*model.encoder.z.parameters(), *model.image_head.parameters()])


def test_segmenting_runs_neither_z_nor_the_image_head() -> None:
    model = tiny()

    def refuse(*_: object) -> None:
        raise AssertionError("was run")

    image = noise(1, 1, 32, 32)
    model.image_head.register_forward_pre_hook(refuse)
    model.encoder.z.register_forward_pre_hook(refuse)
    theta = model.locate(image).mean
    assert model.mask(theta, (32, 32)).shape == (1, 32, 32)
    with pytest.raises(AssertionError, match="was run"):
        model.decode(Latents(noise(1, 5), theta))
    with pytest.raises(AssertionError, match="was run"):
        model.encode(image)


# One head only


def test_single_headed_it_has_no_theta_and_no_warp() -> None:
    model = tiny(single_head=True)
    assert model.theta_dim == 0 and model.warp is None and model.encoder.theta is None
    assert not any(name.startswith(("warp", "encoder.theta")) for name in model.state_dict())
    image = noise(2, 1, 32, 32)
    with torch.no_grad():
        out = model(image, torch.zeros(2, 0), torch.zeros(2, 5))
        codes = model.encode(image)
        torch.testing.assert_close(out.recon, model.decode(codes))
    assert out.mask_pred is None and out.q_theta is None and out.theta.shape == (2, 0)
    assert codes.theta.shape == (2, 0) and out.recon.shape == image.shape
    before, after = head_features(model, codes)
    assert torch.equal(before, after)
    for ask in (lambda: model.mask(codes.theta, (8, 8)), lambda: model.locate(image)):
        with pytest.raises(TypeError, match="position"):
            ask()


def test_one_head_or_two_share_all_other_weights() -> None:
    one, two = (tiny(single_head=single).state_dict() for single in (True, False))
    extra = {name.split(".")[0] + "." + name.split(".")[1] for name in two.keys() - one.keys()}
    assert one.keys() < two.keys()
    assert extra == {"encoder.theta", "warp.loc", "warp.modes"}
    assert all(one[name].shape == two[name].shape for name in one)


# Tones


def test_layers_are_exact_under_autocast() -> None:
    """As in a training with bfloat16."""
    model, image, theta = tiny(tones=8), noise(2, 1, 32, 32), noise(2, 40)
    layers = model.layers(image, theta)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(model.layers(image, theta), layers)
        made = model.decode(Latents(noise(2, 5), theta))
    exact = model.decode(Latents(noise(2, 5), theta))
    assert made.dtype == torch.float32 and (made - exact).abs().max() < 0.05


# What a checkpoint holds


def test_a_checkpoint_holds_the_statistics_but_no_basis() -> None:
    names = {name for name in tiny().state_dict() if name.startswith(("warp", "segmentation_head"))}
    assert names == {"warp.loc", "warp.modes"}
    mapped = {name for name in tiny(reference=16).state_dict() if name.startswith("segmentation_head")}
    assert mapped == {"segmentation_head.reference"}


def test_the_statistics_travel_with_the_weights() -> None:
    config = ModelConfig(**TINY)
    model, empty = build(config), build(config, seed=None)
    model.warp.set_statistics(0.1 + 0.2 * noise(50, 2, 20))
    empty.load_state_dict(model.state_dict(), assign=True)
    theta = 0.5 * noise(1, 40)
    points = pixel_centres((9, 9))
    np.testing.assert_array_equal(empty.level(theta, points), model.level(theta, points))
    assert not np.allclose(model.level(theta, points), build(config).level(theta, points))
