"""Combine the position part of one model with the style head, the image head and the cDDPM of another.

    python examples/training/graft.py POSITION/ STYLE/ OUT/

Both must be fine-tuned from the same model, so that the heads of STYLE work with the features of POSITION.
The masks are bit-identical to those of POSITION.
"""

import sys
from pathlib import Path

from mhvae_cli.checkpoints.folder import load_state, read_config, save_model
from mhvae_cli.checkpoints.model_card import model_card

position, style, out = map(Path, sys.argv[1:])
config = {**read_config(style), "name": out.name}
config.pop("trust", None)  # measured on the features of STYLE: run calibrate.py again
config["model"] = {**config["model"], "boundary": read_config(position)["model"].get("boundary", False)}
config["training"] = {**read_config(position)["training"], "style": config["training"]}
STYLE = ("encoder.z.", "image_head.")
vae = {name: value for name, value in load_state(position).items() if not name.startswith(STYLE)}
vae |= {name: value for name, value in load_state(style).items() if name.startswith(STYLE)}
states = {"vae": vae}
states |= {
    part: load_state(style, part)
    for part in ("cddpm", "frames", "audit")
    if (style / f"{part}.safetensors").exists()
}
save_model(out, config=config, states=states, card=model_card(config))
