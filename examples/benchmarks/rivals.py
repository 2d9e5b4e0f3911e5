"""Table 1 and 2 of the paper: its rivals and our models, trained and tested in the same way.

    pip install --no-deps -r examples/benchmarks/rivals/requirements.txt
    python examples/benchmarks/rivals.py --data DIR --models all --fold 3 --minutes 20 --size 128 --out OUT/
    python examples/benchmarks/rivals.py --data DIR --fold 3 --size 128 --out OUT/ --robustness --test 60
    python examples/benchmarks/rivals.py --smoke

Each model is trained for the same time, or with --images N on as many images, from the same images (those
outside the fold, less a part for validation, whole subjects), with the same augmentation, batch and size; the
fold is segmented once, by the weights that were best on validation. Optimiser, schedule and loss are those
that each rival's paper names (rivals/nets.py). All start from random weights but `ours-shipped`.

OUT/rivals.csv gets a row per model and fold as it ends, OUT/rivals.md is made of it, OUT/pairs.csv has paired
differences from --reference, OUT/NAME/pred the masks and OUT/NAME/scores.csv the scores of each image:
`mhvae evaluate OUT/unet++/pred OUT/truth --compare OUT/ours-tps/pred`. A run that was cut goes on where it
was. --robustness disturbs test images: OUT/robustness.csv, OUT/robustness.png.
"""

import common  # noqa: F401  # first: see there

# isort: split
from rivals.command import main

if __name__ == "__main__":
    main(__doc__)
