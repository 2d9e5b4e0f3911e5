"""What tests share: phantoms on disk, and a tiny model folder with random weights."""

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import numpy as np
    from support.hub_server import HubServer

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
if "PYTEST_XDIST_WORKER" in os.environ:
    # A worker a core: with torch's own threads on top they would fight for the cores.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
for name in [name for name in os.environ if name.startswith("MHVAE_")]:
    del os.environ[name]  # a tester's own settings are not the tests'


@pytest.fixture(autouse=True)
def determinism_ends_with_its_test() -> Iterator[None]:
    """--deterministic is a setting of the whole process; other tests are to see torch as it starts."""
    yield
    if "torch" in sys.modules:
        sys.modules["torch"].use_deterministic_algorithms(False)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, which is the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def phantom_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight fetal-head phantoms, 64 x 80 px, as a data folder: images/, masks/, index.csv."""
    from mhvae_cli.training.phantoms import write_phantoms

    folder = tmp_path_factory.mktemp("phantoms")
    write_phantoms(folder, "fetal-head", 8, size=(64, 80))
    return folder


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder (32 px, grey, thin-plate spline) with random weights: its masks are lopsided blobs."""
    import torch

    from mhvae_cli.checkpoints.folder import FORMAT, KIND, save_model
    from mhvae_cli.checkpoints.model_card import model_card
    from mhvae_cli.config import DecoderConfig, EncoderConfig, ModelConfig, TrainConfig, to_dict
    from mhvae_cli.vae.model import build

    encoder = EncoderConfig(arch="resnet18", width=0.125, reduce=4, hidden=16)
    config = ModelConfig(
        image_size=32, z_dim=4, encoder=encoder, decoder=DecoderConfig(channels=8, max_size=32)
    )
    state = {name: tensor.clone() for name, tensor in build(config, seed=0).state_dict().items()}
    state["encoder.theta.2.weight"] *= 20  # so that theta differs visibly from image to image
    for name in state:
        if name.endswith("warp.loc"):
            state[name] += torch.tensor([[0.25], [-0.1]])
        if name.endswith("warp.modes"):
            state[name] *= 0.3
    card = {"license": "apache-2.0", "data": "none", "attribution": "none"}
    described = {"format": FORMAT, "kind": KIND, "name": "tiny", "figures": {}, "card": card}
    described |= {"model": to_dict(config), "training": to_dict(TrainConfig())}
    folder = tmp_path_factory.mktemp("models") / "tiny"
    save_model(folder, config=described, states={"vae": state}, card=model_card(described))
    return folder


@pytest.fixture(scope="session")
def tiny_refined(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with a cDDPM of random weights: what it adds to a picture is seeded noise of sd 0.1."""
    import torch

    from mhvae_cli.checkpoints.folder import load_state, read_config, save_model
    from mhvae_cli.checkpoints.model_card import model_card
    from mhvae_cli.config import DiffusionConfig, UNetConfig, to_dict
    from mhvae_cli.diffusion.refiner import Refiner

    content, state = read_config(tiny_model), load_state(tiny_model)
    config = DiffusionConfig(unet=UNetConfig(channels=8, levels=2, blocks=1))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        refiner = Refiner(config, channels=1, codes=4 + 40)
    refiner.network.scale.fill_(0.1)
    cddpm = {"model": to_dict(config), "training": {}, "size": [40, 60]}
    content |= {"name": "tiny-refined", "cddpm": cddpm}
    folder = tmp_path_factory.mktemp("models") / "tiny-refined"
    states = {"vae": state, "cddpm": refiner.state_dict()}
    save_model(folder, config=content, states=states, card=model_card(content))
    return folder


@pytest.fixture(scope="session")
def many_heads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty fetal-head phantoms, 64 x 80 px, as a data folder: enough to calibrate on."""
    from mhvae_cli.training.phantoms import write_phantoms

    folder = tmp_path_factory.mktemp("heads")
    write_phantoms(folder, "fetal-head", 60, size=(64, 80))
    return folder


@pytest.fixture(scope="session")
def judged_model(tiny_model: Path, many_heads: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model, calibrated on phantoms, theta's limit aside: its weights are random."""
    from mhvae_cli import Pipeline
    from mhvae_cli.inference.qc import SIGNALS
    from mhvae_cli.training.calibration import calibrate, write_calibration
    from mhvae_cli.training.datasets import discover

    folder = tmp_path_factory.mktemp("judged") / "tiny"
    shutil.copytree(tiny_model, folder)
    samples = discover(many_heads)
    pipeline = Pipeline.load(folder, device="cpu", dtype="float32")
    assert calibrate(pipeline.networks, samples[:30], samples[30:40]) is None  # too few
    found = calibrate(pipeline.networks, samples[:30], samples[30:])
    assert found is not None and set(found.statistics.limits) == set(SIGNALS)
    write_calibration(folder, found, images=30)
    weights = "vae.safetensors"
    assert (folder / weights).read_bytes() == (tiny_model / weights).read_bytes()
    assert weights in (folder / "SHA256SUMS").read_text()
    return folder


@pytest.fixture(scope="session")
def images() -> "list[np.ndarray]":
    """Three fetal-head phantoms of 61 x 90 px."""
    from mhvae_cli.training.phantoms import phantom

    return [phantom("fetal-head", number, (61, 90))[0] for number in range(3)]


@pytest.fixture
def hub() -> "Iterator[HubServer]":
    """A server that speaks the Hub's routes."""
    from support.hub_server import HubServer

    with HubServer() as server:
        yield server


@dataclass(frozen=True)
class Ended:
    """How a command ended: exit code, lines of stdout, stderr, and stdout's bytes."""

    code: int
    lines: list[str]
    stderr: str
    stdout: bytes


@pytest.fixture(scope="session")
def mhvae() -> Callable[..., Ended]:
    """Run the command in this process: mhvae("segment", path, "-o", folder, stdin=b"...")."""
    from typer.testing import CliRunner

    from mhvae_cli.cli import app

    def run(*args: object, stdin: bytes | None = None) -> Ended:
        result = CliRunner().invoke(app, [str(arg) for arg in args], input=stdin)
        text = result.stdout_bytes.decode(errors="replace")
        return Ended(result.exit_code, text.splitlines(), result.stderr, result.stdout_bytes)

    return run
