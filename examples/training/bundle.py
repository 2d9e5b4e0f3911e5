"""Make a bundled model from a finished run: float16 weights, and metrics in the model card.

    python examples/training/bundle.py RUN/ mhvae_cli/models/NAME figures.json

figures.json holds groups of metrics measured on held-out images: {"group": {"name": value}}.
"""

import json
import sys
from pathlib import Path

from mhvae_cli.checkpoints.folder import PARTS, load_state, read_config, save_model
from mhvae_cli.checkpoints.model_card import model_card

run, target, figures = map(Path, sys.argv[1:])
config = read_config(run)
config["name"] = target.name
# They replace the validation metrics: the first stage was trained on some of the validation images.
config["figures"] = json.loads(figures.read_text())
states = {part: load_state(run, part) for part in PARTS if (run / f"{part}.safetensors").exists()}
save_model(target, config=config, states=states, card=model_card(config), dtype="float16")
print(target, f"{sum(f.stat().st_size for f in target.iterdir()) / 1e6:.1f} MB")
