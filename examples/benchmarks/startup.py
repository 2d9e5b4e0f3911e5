"""How long the command takes to start, against importing what it stands on.

    python examples/benchmarks/startup.py [--model REF] [--repeats 7]

Whole processes, wall time, medians of interleaved runs with warm file caches: `mhvae --help` against
`python -c "import typer, rich"`, `mhvae segment` of one 256 x 256 scan against `python -c "import torch"`,
and `mhvae reconstruct` of it, refined, against `mhvae segment`. Also checks that --help imports no torch.
Targets: 3 x, 1.6 x and 10 x.
"""

import argparse
import subprocess
import sys
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from common import MHVAE, interleaved, run, scans, table, verdict

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--model", default="fetal-head")
parser.add_argument("--repeats", type=int, default=7)
args = parser.parse_args()

with TemporaryDirectory() as folder:
    [scan] = scans(Path(folder), 1, (256, 256))
    words = (str(scan), "-o", f"{folder}/", "--model", args.model, "--existing", "overwrite")
    commands = {
        "import typer, rich": (sys.executable, "-c", "import typer, rich"),
        "mhvae --help": (MHVAE, "--help"),
        "import torch": (sys.executable, "-c", "import torch"),
        "mhvae segment ONE": (MHVAE, "segment", *words),
        "mhvae reconstruct ONE": (MHVAE, "reconstruct", *words),
    }
    tasks = {name: partial(run, *command) for name, command in commands.items()}
    seconds = interleaved(tasks, args.repeats)

table(["process", "seconds"], *([name, f"{value:.3f}"] for name, value in seconds.items()))
verdict("mhvae --help / import typer, rich", seconds["mhvae --help"] / seconds["import typer, rich"], 3)
verdict("mhvae segment ONE / import torch", seconds["mhvae segment ONE"] / seconds["import torch"], 1.6)
ratio = seconds["mhvae reconstruct ONE"] / seconds["mhvae segment ONE"]
verdict("mhvae reconstruct ONE, refined in 20 evaluations / mhvae segment ONE", ratio, 10)

imports = subprocess.run(
    [sys.executable, "-X", "importtime", MHVAE, "--help"],
    stdout=subprocess.DEVNULL,
    stderr=subprocess.PIPE,
    text=True,
    check=True,
)
modules = {line.rsplit("|", 1)[-1].strip() for line in imports.stderr.splitlines()}
if "mhvae_cli.cli" not in modules:
    sys.exit("the import trace is not mhvae's: nothing can be said of torch")
print("--help imports torch:", "YES, it must not" if "torch" in modules else "no")
