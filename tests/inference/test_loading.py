"""A folder's refiner is loaded as it was saved, or one line says why not."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from support.score_stubs import noise

from mhvae_cli.errors import ModelError
from mhvae_cli.inference.loading import load_refiner


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
