"""Measure on a model's validation images how far its results can be trusted, and put that in its config.json.

    python examples/training/calibrate.py MODEL/ --data DIR [--data DIR2] [--hold-out K]

train-vae does so by itself; this is for models that were trained before it did, or joined by graft.py. --data
and --hold-out are those of the training: its validation images are then found again by its own rule.
"""

import argparse
from pathlib import Path

from mhvae_cli import Pipeline
from mhvae_cli.checkpoints.folder import read_config
from mhvae_cli.training.calibration import calibrate, write_statistics
from mhvae_cli.training.datasets import split
from mhvae_cli.training.train import gather, hold_out

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("model", type=Path)
parser.add_argument("--data", type=Path, action="append", required=True)
parser.add_argument("--hold-out", type=int)
args = parser.parse_args()
training = read_config(args.model)["training"]
samples = hold_out(gather(args.data), args.hold_out)
train, held = split(samples, fraction=training["val_fraction"], seed=training["seed"])
pipeline = Pipeline.load(args.model)
trust = calibrate(pipeline.networks, train, held)
if trust is None:
    raise SystemExit(f"{args.model}: {len(held)} validation images are too few, or it finds no object")
write_statistics(args.model, trust, images=len(held))
print(f"{args.model}: {len(train)} training and {len(held)} validation images,", end=" ")
print(f"temperature {trust.temperature:.2f}")
