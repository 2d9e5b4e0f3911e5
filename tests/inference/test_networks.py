"""What a model's networks run, and what they refuse."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from mhvae_cli.errors import ModelError
from mhvae_cli.inference.pipeline import Pipeline


def test_segmenting_runs_no_image_head(tiny_model: Path, image: np.ndarray) -> None:
    own = Pipeline.load(tiny_model, device="cpu", dtype="float32")

    def refuse(*_: object) -> None:
        raise AssertionError("was run")

    for part in (own.networks.model.image_head, own.networks.model.encoder.z):
        part.register_forward_pre_hook(refuse)
    assert own.segment(image).mask.any()
    with pytest.raises(AssertionError, match="was run"):
        own.networks.model.encode(torch.zeros(1, 1, 32, 32))


def test_a_single_headed_model_finds_no_object(pipeline: Pipeline, image: np.ndarray) -> None:
    from mhvae_cli.inference.networks import Networks
    from mhvae_cli.vae.model import build

    model = build(dataclasses.replace(pipeline.networks.config, single_head=True))
    place, number = torch.device("cpu"), torch.float32
    networks = Networks(model, name="one", folder=pipeline.networks.folder, device=place, dtype=number)
    single = Pipeline(networks)
    with pytest.raises(ModelError, match="single-headed"):
        single.segment(image)
