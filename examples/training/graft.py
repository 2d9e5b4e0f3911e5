"""Join the position part of one model with the style and image heads, and the cDDPM, of another.

    python examples/training/graft.py POSITION/ STYLE/ OUT/

Both must have grown from one model: the heads then read the features of POSITION's ConvNet as they do
STYLE's. Masks are POSITION's to the bit.
"""

import sys
from pathlib import Path

from mhvae_cli.checkpoints.folder import load_state, read_config, save_model
from mhvae_cli.checkpoints.model_card import model_card

position, style, out = map(Path, sys.argv[1:])
config = {**read_config(style), "name": out.name}
config.pop("trust", None)  # of other features: calibrate.py measures it anew
config["training"] = {**read_config(position)["training"], "style": config["training"]}
kept, given = load_state(position), load_state(style)
vae = {n: v if n.startswith(("encoder.z.", "image_head.")) else kept[n] for n, v in given.items()}
states = {"vae": vae, "cddpm": load_state(style, "cddpm")}
save_model(out, config=config, states=states, card=model_card(config))
