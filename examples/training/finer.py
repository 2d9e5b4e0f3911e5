"""Give a trained cDDPM a finer square to draw on, at nearly the same cost: larger patches, the same network.

    python examples/training/finer.py MODEL/ OUT/ --patch 3

The network's features keep their scale in the image, as does what it draws at first; the training that
follows adds finer detail. With patches of P instead of p pixels, the square's side is P / p times as long.
"""

import argparse
import math
from pathlib import Path

import numpy as np
import torch

from mhvae_cli.checkpoints.folder import load_state, read_config, save_model
from mhvae_cli.checkpoints.model_card import model_card


def main(model: Path, out: Path, new: int) -> None:
    """Convert the cDDPM of the folder `model`."""
    config = read_config(model)
    state = {name: value.float() for name, value in load_state(model, "cddpm").items()}
    diffusion = config["cddpm"]["model"]
    old = diffusion["unet"]["patch"]
    side = diffusion.get("image_size") or config["model"]["image_size"]

    # In one dimension: a pixel of the old patch is the mean of a part of the new one, and a pixel of the new
    # patch lies between old ones.
    edges = np.arange(new + 1) / new * old
    average = np.diff([np.clip(edges, i, i + 1) for i in range(old)], axis=1)
    centres = ((np.arange(new) + 0.5) / new * old - 0.5).clip(0, old - 1)
    spread = np.maximum(0, 1 - abs(centres[:, None] - np.arange(old)))
    enter, leave = (torch.from_numpy(np.kron(each, each)).float() for each in (average, spread))

    name = "network.unet.enter.weight"
    weight = state[name].unflatten(1, (-1, old**2))
    state[name] = torch.einsum("ocphw,pq->ocqhw", weight, enter).flatten(1, 2).contiguous()
    for name in ("network.unet.leave.2.weight", "network.unet.leave.2.bias"):
        weight = state[name].unflatten(0, (-1, old**2))
        state[name] = torch.einsum("cp...,qp->cq...", weight, leave).flatten(0, 1).contiguous()

    # The mean of several pixels has less noise: what the old network calls its level is a higher one. It sees
    # sines and cosines of the level, so that rotating its weights shifts the level.
    name, shift = "network.unet.embed.0.weight", -math.log(float((average[0] ** 2).sum()))
    half = state[name].shape[1] // 2
    rates = torch.exp(torch.linspace(math.log(2 * math.pi / 40), math.log(2 * math.pi / 0.4), half))
    sine, cosine = torch.sin(rates * shift), torch.cos(rates * shift)
    sines, cosines, rest = state[name].split((half, half, state[name].shape[1] - 2 * half), dim=1)
    turned = [sines * cosine - cosines * sine, sines * sine + cosines * cosine]
    state[name] = torch.cat([*turned, rest], dim=1)

    cddpm = {**diffusion, "image_size": side * new // old, "unet": {**diffusion["unet"], "patch": new}}
    config = {**config, "name": out.name, "cddpm": {**config["cddpm"], "model": cddpm}}
    states = {"vae": load_state(model), "cddpm": state}
    save_model(out, config=config, states=states, card=model_card(config))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--patch", type=int, default=3)
    args = parser.parse_args()
    main(args.model, args.out, args.patch)
