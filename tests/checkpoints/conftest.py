"""What the tests of checkpoints share: a model folder."""

from pathlib import Path

import pytest
from support.hub_client import Client
from support.hub_server import HubServer
from support.model_folders import CONFIG, tensors

from mhvae_cli.checkpoints import folder as model_folder
from mhvae_cli.checkpoints import model_card


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "heads"
    text = model_card.model_card(CONFIG)
    model_folder.save_model(place, config=CONFIG, states={"vae": tensors()}, card=text)
    return place


@pytest.fixture
def client(hub: HubServer, tmp_path: Path) -> Client:
    return Client(hub.url, tmp_path)
