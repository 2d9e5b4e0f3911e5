"""Equation 8 and what a score network sees, against Gaussians whose score, loss and draws are known."""

import json
import math
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mhvae_cli.config import DiffusionConfig, UNetConfig
from mhvae_cli.diffusion.noise import path_noise
from mhvae_cli.diffusion.refiner import Refiner
from mhvae_cli.diffusion.score import ScoreNetwork
from mhvae_cli.diffusion.sde import SDE
from mhvae_cli.diffusion.solvers import SOLVERS
from mhvae_cli.errors import ModelError, UsageError
from mhvae_cli.inference.loading import load_refiner

TINY = UNetConfig(channels=8, levels=2, blocks=1)
SEES = ["residual+recon", "residual", "x"]
TIMES = [0.02, 0.2, 0.5, 0.9]


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class Stub(nn.Module):
    """In the U-Net's place: answer(what is seen (B, C, H, W), log-SNR (B, 1, 1, 1)); keeps what came in."""

    def __init__(self, answer: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.answer, self.given = answer, []
        self.enter = nn.Conv2d(1, 1, 1)  # whose dtype is asked for

    def forward(self, seen: Tensor, log_snr: Tensor) -> Tensor:
        self.given.append((seen, log_snr))
        return self.answer(seen, log_snr[:, None, None, None])


def stubbed(answer: Callable[[Tensor, Tensor], Tensor], scale: float = 1.0, **given: Any) -> ScoreNetwork:
    network = ScoreNetwork(DiffusionConfig(unet=TINY, **given), 1)
    network.unet = Stub(answer)
    network.scale.fill_(scale)
    return network


def nothing(seen: Tensor, _level: Tensor) -> Tensor:
    return torch.zeros_like(seen[:, :1])


def exact_v(spread: float) -> Callable[[Tensor, Tensor], Tensor]:
    """E[alpha eps - sigma u(0) | u(t)] for u(0) ~ N(0, spread^2), from the log-SNR."""

    def answer(u: Tensor, level: Tensor) -> Tensor:
        alpha2, sigma2 = torch.sigmoid(2 * level), torch.sigmoid(-2 * level)
        return (alpha2 * sigma2).sqrt() * (1 - spread**2) / (alpha2 * spread**2 + sigma2) * u

    return answer


# What goes in and out


@pytest.mark.parametrize("process", ["mhvae", "diffusevae"])
def test_the_start_of_the_process_and_the_image_are_inverse(process: str) -> None:
    network = stubbed(nothing, scale=0.15, process=process)
    image, x_hat = noise(2, 1, 4, 4), noise(2, 1, 4, 4, seed=1)
    start = image - x_hat if process == "mhvae" else image
    torch.testing.assert_close(network.target(image, x_hat) * 0.15, start)
    torch.testing.assert_close(network.image(network.target(image, x_hat), x_hat), image)


@pytest.mark.parametrize("sees", SEES)
def test_the_network_is_shown_what_the_configuration_says(sees: str) -> None:
    network = stubbed(nothing, scale=0.2, sees=sees)
    u, x_hat, t = noise(2, 1, 3, 3), noise(2, 1, 3, 3, seed=1), torch.tensor([0.1, 0.7])
    network(u, t, x_hat)
    ((seen, level),) = network.unet.given
    truth = {"residual": u, "x": x_hat + 0.2 * u, "residual+recon": torch.cat([u, x_hat], dim=1)}[sees]
    torch.testing.assert_close(seen, truth)
    torch.testing.assert_close(level, torch.tensor([network.sde.log_snr(float(s)) for s in t]))


def test_the_real_network_takes_as_many_channels_as_it_sees() -> None:
    for sees in SEES:
        network = ScoreNetwork(DiffusionConfig(unet=TINY, sees=sees), 3)
        u, x_hat = noise(2, 3, 7, 9), noise(2, 3, 7, 9, seed=1)
        assert network.score(u, 0.5, x_hat).shape == (2, 3, 7, 9)
        assert network.unet.enter.in_channels == 4 * 3 * (2 if sees == "residual+recon" else 1)


# Score and loss


@pytest.mark.parametrize("spread", [0.4, 1.0, 2.5])
@pytest.mark.parametrize("t", TIMES)
def test_a_perfect_v_gives_the_analytic_score(spread: float, t: float) -> None:
    network = stubbed(exact_v(spread), sees="residual")
    u = noise(2, 1, 5, 5)
    variance = network.sde.alpha(t) ** 2 * spread**2 + network.sde.sigma(t) ** 2
    torch.testing.assert_close(network.score(u, t, torch.zeros_like(u)), -u / variance, rtol=2e-4, atol=1e-4)


@pytest.mark.parametrize("process", ["mhvae", "diffusevae"])
@pytest.mark.parametrize("t", TIMES)
def test_a_perfect_v_has_the_irreducible_loss_and_any_other_more(process: str, t: float) -> None:
    """Var(v | u) of a Gaussian; a change d of v costs the mean of d^2, whatever t."""
    spread, scale = 0.5, 0.3
    x_hat, eps = noise(40, 1, 64, 64, seed=1), noise(40, 1, 64, 64, seed=2)
    start = spread * scale * noise(40, 1, 64, 64)
    image = start if process == "diffusevae" else x_hat + start
    times = torch.full((40,), t)

    def loss(change: Callable[[Tensor], Tensor]) -> float:
        answer = exact_v(spread)
        network = stubbed(
            lambda seen, level: change(answer(seen, level)), scale, sees="residual", process=process
        )
        per_sample = network.loss(image, x_hat, times, eps)
        assert per_sample.shape == (40,)
        return float(per_sample.mean())

    sde = stubbed(nothing).sde
    variance = sde.alpha(t) ** 2 * spread**2 + sde.sigma(t) ** 2
    best = loss(lambda v: v)
    assert best == pytest.approx(spread**2 / variance, rel=0.01)
    size = (sde.alpha(t) * sde.sigma(t) * (1 - spread**2)) ** 2 / variance  # E[v^2] of the perfect v
    assert loss(lambda v: 1.5 * v) - best == pytest.approx(size / 4, rel=0.1, abs=1e-5)
    assert loss(lambda v: 0.5 * v) - best == pytest.approx(size / 4, rel=0.1, abs=1e-5)
    assert loss(lambda v: v + 0.2) - best == pytest.approx(0.04, rel=0.1)


@pytest.mark.parametrize("t", TIMES)
def test_the_papers_form_gives_the_score_of_what_it_sees(t: float) -> None:
    """S(x, t) = -E[eps | x] / sigma, in which x_hat has no part; x0 and x_hat of sd 1 and 0.8, apart."""
    scale, x_hat = 1.25, 0.8 * noise(60, 1, 32, 32, seed=1)
    image, eps = noise(60, 1, 32, 32), noise(60, 1, 32, 32, seed=2)
    sde = stubbed(nothing).sde
    alpha, noised = sde.alpha(t), scale * sde.sigma(t)
    share = noised / (alpha**2 + 0.64 * (1 - alpha) ** 2 + noised**2)  # E[eps | x] / x
    network = stubbed(lambda seen, _level: share * seen, scale, sees="x")
    losses = network.loss(image, x_hat, torch.full((60,), t), eps)
    assert float(losses.mean()) == pytest.approx(1 - share * noised, rel=0.02)
    u = noise(2, 1, 3, 3)
    x = x_hat[:2, :, :3, :3] + scale * u
    score = network.score(u, t, x_hat[:2, :, :3, :3])
    torch.testing.assert_close(score, -share * x / sde.sigma(t))


def test_the_target_has_unit_size_at_every_time() -> None:
    network = stubbed(nothing, 0.3)
    image, x_hat, eps = 0.3 * noise(8, 1, 64, 64), torch.zeros(8, 1, 64, 64), noise(8, 1, 64, 64, seed=2)
    losses = network.loss(image, x_hat, torch.linspace(1e-3, 1, 8), eps)
    assert losses.tolist() == pytest.approx([1.0] * 8, rel=0.06)


# What it must see (section 4.2 writes S(x, t))


def fitted(sees: str, x0: Tensor, x_hat: Tensor, times: list[float]) -> ScoreNetwork:
    """A network that answers linearly in what it sees, by least squares of equation 8 at each time."""
    network = stubbed(nothing, float((x0 - x_hat).std()), sees=sees)
    sde, start = network.sde, network.target(x0, x_hat)
    lines = {}
    for i, t in enumerate(times):
        eps = noise(*x0.shape, seed=10 + i)
        network.loss(x0, x_hat, torch.full((len(x0),), t), eps)
        seen = network.unet.given.pop()[0].flatten(1)
        sought = eps if sees == "x" else sde.alpha(t) * eps - sde.sigma(t) * start
        lines[sde.log_snr(t)] = torch.linalg.lstsq(seen, sought.flatten(1)).solution

    def answer(seen: Tensor, level: Tensor) -> Tensor:
        line = lines[min(lines, key=lambda known: abs(known - float(level[0])))]
        return (seen.flatten(1) @ line)[:, :, None, None]

    network.unet.answer = answer
    return network


def test_without_x_hat_the_mean_that_it_should_return_to_is_missed() -> None:
    """x0 ~ N(0, 1) and a VAE that shrinks: E[x0 | x_hat] = 1.4 x_hat, with an sd of 0.3.

    The best linear S(x, t) there is, and the best of the residual alone, draw about another mean; with the
    residual and x_hat the draws are those of p(x0 | x_hat). By the paper's solver (equation 15).
    """
    slope, left, count, steps = 1.4, 0.3, 10_000, 60
    x_hat = math.sqrt(1 - left**2) / slope * noise(count, 1, 1, 1)
    x0 = slope * x_hat + left * noise(count, 1, 1, 1, seed=1)
    shown = torch.tensor([-1.0, 0.5, 1.0])[:, None].expand(3, 2500).reshape(-1, 1, 1, 1)
    times = [1 - i / steps for i in range(steps)]
    slopes, spreads = {}, {}
    for sees in SEES:
        network = fitted(sees, x0, x_hat, times)
        draw = path_noise([""], shown.shape, seed=0)
        score = partial(network.score, x_hat=shown)
        u = SOLVERS["euler-maruyama"](
            score, draw()[0], network.sde, steps=steps, noise=lambda draw=draw: draw()[0]
        )
        draws = network.image(u, shown).view(3, -1)
        slopes[sees], spreads[sees] = draws.mean(1) / shown.view(3, -1)[:, 0], draws.std(1)
    assert slopes["residual+recon"].tolist() == pytest.approx([slope] * 3, abs=0.04)
    assert spreads["residual+recon"].tolist() == pytest.approx([left] * 3, rel=0.05)
    for sees in ("residual", "x"):
        assert (slopes[sees] - slope).abs().min() > 0.3, slopes


# The refiner


def refiner(spread: float = 1.0, scale: float = 0.2, **given: Any) -> Refiner:
    made = Refiner(DiffusionConfig(unet=TINY, sees="residual", **given), channels=1, codes=3)
    made.network.unet = Stub(exact_v(spread))
    made.network.scale.fill_(scale)
    return made


@pytest.mark.parametrize(
    ("solver", "steps"),
    [("dpm++2m", 20), ("dpm++2m-sde", 30), ("unipc", 20), ("heun", 60), ("euler-maruyama", 100)],
)
def test_refined_pictures_are_draws_about_x_hat(solver: str, steps: int) -> None:
    x_hat = torch.linspace(-0.3, 0.3, 60)[None, None, :, None].expand(2, 1, 60, 70)
    found = refiner(spread=0.5).refine(x_hat, ["a", "b"], solver=solver, steps=steps)
    assert found.shape == x_hat.shape
    added = found - x_hat
    assert added.std() == pytest.approx(0.1, rel=0.04) and abs(added.mean()) < 0.006
    assert abs(torch.corrcoef(added.flatten(1))[0, 1]) < 0.05


@pytest.mark.parametrize("strength", [0.05, 0.3, 0.6])
def test_less_strength_adds_less(strength: float) -> None:
    x_hat = torch.linspace(-0.3, 0.3, 60)[None, None, :, None].expand(1, 1, 60, 70)
    found = refiner(spread=0.5).refine(x_hat, ["a"], solver="dpm++2m", strength=strength)
    sde = SDE()
    alpha, sigma = sde.alpha(strength), sde.sigma(strength)
    # The flow of N(0, 0.5^2) from noise of sd sigma, where alpha^2 0.5^2 of the variance is missing.
    sd = 0.2 * 0.5 * sigma / (0.25 * alpha**2 + sigma**2) ** 0.5
    assert (found - x_hat).std() == pytest.approx(sd, rel=0.05)


def test_diffusevae_starts_from_the_noised_picture() -> None:
    x_hat = torch.full((1, 1, 60, 70), 0.05)
    made = refiner(spread=0.5, process="diffusevae")
    means = [float(made.refine(x_hat, ["a"], solver="dpm++2m", strength=s).mean()) for s in (0.02, 1.0)]
    assert means[0] == pytest.approx(0.05, abs=0.006) and abs(means[1]) < 0.006


def test_the_strength_is_the_models_own() -> None:
    x_hat = torch.zeros(1, 1, 20, 20)
    own = refiner(strength=0.2).refine(x_hat, ["a"], steps=5)
    assert torch.equal(own, refiner().refine(x_hat, ["a"], steps=5, strength=0.2))
    assert not torch.equal(own, refiner().refine(x_hat, ["a"], steps=5))


@pytest.mark.parametrize("strength", [0.0, 0.001, 1.01, float("nan")])
def test_a_strength_that_is_none(strength: float) -> None:
    with pytest.raises(UsageError, match="strength"):
        refiner().refine(torch.zeros(1, 1, 8, 8), ["a"], strength=strength)


def test_diffusevaes_draws_are_not_added_to_x_hat() -> None:
    x_hat = torch.full((1, 1, 60, 70), 0.7)
    found = refiner(spread=0.5, process="diffusevae").refine(x_hat, ["a"], solver="dpm++2m")
    assert abs(found.mean()) < 0.006 and found.std() == pytest.approx(0.1, rel=0.04)


def test_a_draw_is_keyed_on_seed_and_name_alone() -> None:
    made, x_hat = refiner(), 0.2 * noise(3, 1, 9, 11)
    three = made.refine(x_hat, ["a", "b", "c"], seed=4, steps=8)
    for order in ([2, 0, 1], [1], [1, 2]):
        again = made.refine(x_hat[order], ["abc"[i] for i in order], seed=4, steps=8)
        torch.testing.assert_close(again, three[order], atol=1e-6, rtol=0)
    for keys, seed in ((["a", "b", "d"], 4), (["a", "b", "c"], 5)):
        other = made.refine(x_hat, keys, seed=seed, steps=8)
        assert (other[2] - three[2]).abs().max() > 0.05
    assert (made.refine(x_hat, ["a"] * 3, steps=8) - x_hat).std(0).max() < 1e-5


def test_what_is_refined_stays_in_the_range() -> None:
    found = refiner(scale=3.0).refine(torch.zeros(1, 1, 20, 20), ["a"], steps=8)
    assert found.min() == -1 and found.max() == 1


def test_an_unknown_solver_is_named_with_the_known() -> None:
    with pytest.raises(UsageError, match="no solver 'ddim'") as caught:
        refiner().refine(torch.zeros(1, 1, 8, 8), ["a"], solver="ddim")
    assert "dpm++2m" in caught.value.hint


# From a folder


def test_a_folders_refiner_is_the_one_that_was_saved(tiny_refined: Path) -> None:
    one, half = load_refiner(tiny_refined), load_refiner(tiny_refined, dtype=torch.bfloat16)
    assert float(one.network.scale) == float(half.network.scale) == pytest.approx(0.1)
    assert half.network.unet.enter.weight.dtype == torch.bfloat16 and half.codes_factor.dtype == torch.float32
    assert not one.training
    x_hat = 0.3 * noise(2, 1, 32, 40)
    sharp = one.refine(x_hat, ["a", "b"])
    assert (sharp - x_hat).std() == pytest.approx(0.1, rel=0.05)  # what is not learnt is unit noise
    torch.testing.assert_close(half.refine(x_hat, ["a", "b"]), sharp, atol=0.02, rtol=0)


def test_a_folder_without_one_says_what_to_do(tiny_model: Path) -> None:
    with pytest.raises(ModelError, match="tiny: has no cDDPM") as caught:
        load_refiner(tiny_model)
    assert "--no-refine" in caught.value.hint and "train-cddpm" in caught.value.hint


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"sees": "everything"}, "cddpm.model.sees"),
        ({"unet": {"channels": 0}}, "unet.channels"),
        ({"unet": {"channels": 16, "levels": 2, "blocks": 1}}, "does not match"),
        ({"beta_max": 1.0}, "noise schedule"),
        (None, "cddpm"),
    ],
)
def test_a_configuration_that_is_not_its_own_is_refused(
    change: dict[str, Any] | None, said: str, tiny_refined: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_refined, folder)
    content = json.loads((folder / "config.json").read_text())
    content["cddpm"]["model"] = change if change is None else {**content["cddpm"]["model"], **change}
    (folder / "config.json").write_text(json.dumps(content))
    with pytest.raises(ModelError, match=said) as caught:
        load_refiner(folder)
    assert "\n" not in str(caught.value)


def test_weights_that_are_missing_are_named(tiny_refined: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_refined, folder)
    (folder / "cddpm.safetensors").unlink()
    with pytest.raises(ModelError, match=r"no cddpm\.safetensors"):
        load_refiner(folder)


def test_loading_imports_no_compiler(tiny_refined: Path) -> None:
    """Which would cost seconds."""
    code = (
        "import sys\nfrom pathlib import Path\nfrom mhvae_cli.inference.loading import load_refiner\n"
        "load_refiner(Path(sys.argv[1]))\n"
        "print([m for m in ('torch._dynamo', 'torch._inductor', 'sympy', 'scipy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tiny_refined)], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr
