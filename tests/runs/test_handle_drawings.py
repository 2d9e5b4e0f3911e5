"""Handles are drawn over the image that they move, and only models with handles are drawn."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mhvae_cli.checkpoints.folder import load_state, read_config, save_model
from mhvae_cli.errors import ModelError, UsageError
from mhvae_cli.inference.pipeline import Pipeline
from mhvae_cli.runs.handle_drawings import draw_handles, need_spline
from mhvae_cli.runs.inputs import gather
from mhvae_cli.runs.settings import GenerationSettings
from mhvae_cli.vae.handles import handles


@pytest.fixture
def settings(three_scans: None, tiny_model: Path) -> GenerationSettings:
    return GenerationSettings(out="m/", model=str(tiny_model), device="cpu", dtype="float32", workers=0)


def with_model(tiny_model: Path, place: Path, **changes: object) -> str:
    """The tiny model under another configuration."""
    config = read_config(tiny_model)
    changed = {**config, "model": {**config["model"], **changes}}
    save_model(place, config=changed, states={"vae": load_state(tiny_model)}, card="")
    return str(place)


def test_each_handle_is_a_dot_where_it_lies(settings: GenerationSettings, tiny_model: Path) -> None:
    assert draw_handles(gather(["scans"]), settings) == 0
    assert sorted(path.name for path in Path("m").glob("*.png")) == [f"{x}__handles.png" for x in "abc"]
    pipeline = Pipeline.load(tiny_model, device="cpu", dtype="float32")
    points = handles(pipeline.networks.model, pipeline.source(Path("scans/b.png")).code)
    drawn = np.array(Image.open("m/b__handles.png"))
    whole = drawn.shape[0] // 64
    assert drawn.shape == (64 * whole, 80 * whole, 3) and len(points) == 20
    for x, y in points * whole:
        assert tuple(drawn[int(y), int(x)]) == (255, 214, 0)


def test_drawings_are_png_only(settings: GenerationSettings) -> None:
    with pytest.raises(UsageError, match="PNG"):
        draw_handles(gather(["scans"]), replace(settings, format="tiff"))
    with pytest.raises(UsageError, match="--json"):
        draw_handles(gather(["scans/a.png"]), replace(settings, out="-", as_json=True))


def test_models_without_handles_are_refused(
    settings: GenerationSettings, tiny_model: Path, tmp_path: Path
) -> None:
    need_spline(settings)
    single = with_model(tiny_model, tmp_path / "single", single_head=True)
    with pytest.raises(ModelError, match="single-headed"):
        need_spline(replace(settings, model=single))
    affine = with_model(tiny_model, tmp_path / "affine", warp={"family": "affine"})
    with pytest.raises(UsageError, match="affine"):
        draw_handles(gather(["scans"]), replace(settings, model=affine))
    assert not Path("m").exists()
