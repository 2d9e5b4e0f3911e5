"""What is told of a model folder is what lies in it."""

import hashlib
import math
from pathlib import Path

from support.model_folders import CONFIG, tensors

from mhvae_cli.checkpoints import folder as model_folder
from mhvae_cli.checkpoints.describe import components, describe
from mhvae_cli.checkpoints.model_card import INTENDED_USE


def test_a_folder_is_described_by_its_files_and_its_configuration(folder: Path) -> None:
    (folder / "log.csv").write_text("epoch\n")  # no file of the model
    told = describe(folder)
    assert (told["name"], told["folder"], told["image_size"]) == ("heads", str(folder), 192)
    assert told["parameters"] == {"vae": sum(math.prod(tensor.shape) for tensor in tensors().values())}
    assert told["sha256"] == model_folder.digest(folder)
    assert told["licence"] == CONFIG["card"]["license"] and told["intended_use"] == INTENDED_USE
    assert told["figures"]["hd_mm"] is None  # it was not finite
    assert set(told["files"]) == {"config.json", "vae.safetensors", "README.md", "SHA256SUMS"}
    for name, file in told["files"].items():
        data = (folder / name).read_bytes()
        assert file == {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def test_components_are_the_weights_that_are_there(tmp_path: Path) -> None:
    states = {"vae": tensors(), "cddpm": {"w": tensors()["bn.running_var"]}}
    single = {**CONFIG, "model": {"single_head": True}}
    model_folder.save_model(tmp_path, config=single, states=states, card="")
    told = describe(tmp_path)
    assert told["components"] == components(tmp_path) == ["vae", "cddpm"]
    assert told["parameters"]["cddpm"] == 4 and told["warp"] is None
    (tmp_path / "cddpm.safetensors").unlink()
    assert components(tmp_path) == ["vae"]
