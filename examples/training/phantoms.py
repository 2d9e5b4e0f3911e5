"""Write a data folder of synthetic images with exact masks, for train-vae.

python examples/training/phantoms.py fetal-head 80 phantom-heads
"""

import sys
from pathlib import Path

from mhvae_cli.training.phantoms import write_phantoms

SIZES = {"fetal-head": (270, 400), "skin-lesion": (240, 320), "optic-disc": (256, 256)}
kind, count, folder = sys.argv[1:]
write_phantoms(Path(folder), kind, int(count), seed=0, size=SIZES[kind])
