"""Measure what a model's quality control and intervals need, and write it to its config.json.

    python examples/training/calibrate.py MODEL/ --data DIR [--data DIR2] [--hold-out K]

train-vae does this at the end of training; this script is for models combined with graft.py, and for models
of earlier versions. With the --data and --hold-out of the training, the validation split is the same as in
training. It takes a minute or two on one core, and needs to be repeated when the encoder changes; of the
image head only `--qc full` depends.
"""

import argparse
from pathlib import Path

from mhvae_cli import Pipeline
from mhvae_cli.checkpoints.folder import read_config
from mhvae_cli.training.calibration import calibrate, write_calibration
from mhvae_cli.training.datasets import split
from mhvae_cli.training.train import gather, hold_out

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("model", type=Path)
parser.add_argument("--data", type=Path, action="append", required=True)
parser.add_argument("--hold-out", type=int)
args = parser.parse_args()
training = read_config(args.model)["training"]
samples = hold_out(gather(args.data), args.hold_out)
train, val = split(samples, fraction=training["val_fraction"], seed=training["seed"])
pipeline = Pipeline.load(args.model)
found = calibrate(pipeline.networks, train, val)
if found is None:
    raise SystemExit(f"{args.model}: too few validation images ({len(val)}), or a single-headed VAE")
write_calibration(args.model, found, images=len(val))
print(f"{args.model}: {len(train)} training and {len(val)} validation images", end="")
print("" if found.errors else ", too few objects found for intervals")
