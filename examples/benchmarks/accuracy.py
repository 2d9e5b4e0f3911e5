"""Dice and Hausdorff distance of a model on one fold of a data folder.

    python examples/benchmarks/accuracy.py --data DIR --fold K --model REF [--looks 1] [--out FOLDER]

DIR holds images/, masks/ and index.csv with the columns id and fold. The fold's images go through `mhvae
segment --from-file`, their masks and the true ones through `mhvae evaluate`, in the profiles native (the
scans' own pixels) and paper256 (as the paper's tables). With --out the masks, the list and the folder of
true masks stay there, for `mhvae evaluate --compare`. The figures mean something only if the model was not
trained on the fold.
"""

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from common import MHVAE, held_out_arguments, table

METRICS = {"dice": ".4f", "iou": ".4f", "hausdorff": ".2f", "hd95": ".2f", "assd": ".2f"}


def fold(data: Path, number: int) -> list[tuple[Path, Path]]:
    """The images of a fold and their masks."""
    with open(data / "index.csv", newline="") as file:
        stems = [row["id"] for row in csv.DictReader(file) if row["fold"] == str(number)]
    folders = ({path.stem: path for path in (data / name).iterdir()} for name in ("images", "masks"))
    images, masks = folders
    if missing := [stem for stem in stems if stem not in images or stem not in masks]:
        sys.exit(f"{data}: no image or no mask of {missing[0]!r}")
    return [(images[stem], masks[stem]) for stem in stems]


def mhvae(*arguments: str) -> str:
    """Run the command; its stdout. Ends this program if the command fails."""
    ended = subprocess.run([MHVAE, *arguments], stdout=subprocess.PIPE, text=True)
    if ended.returncode:
        sys.exit(ended.returncode)
    return ended.stdout


def measure(pairs: list[tuple[Path, Path]], model: str, looks: int, out: Path) -> None:
    """Segment, evaluate, print."""
    (out / "truth").mkdir(parents=True, exist_ok=True)
    names = out / "images.txt"
    names.write_text("".join(f"{image}\n" for image, _ in pairs))
    for _, mask in pairs:
        shutil.copy(mask, out / "truth" / mask.name)
    pred = str(out / "pred")
    options = ("-m", model, "--looks", str(looks), "--existing", "overwrite")
    mhvae("segment", "--from-file", str(names), "-o", f"{pred}/", *options)
    rows = []
    for profile in ("native", "paper256"):
        report = json.loads(mhvae("evaluate", pred, str(out / "truth"), "--profile", profile, "--json"))
        for metric, digits in METRICS.items():
            spread = report["summary"][metric]
            figures = (format(spread[key], digits) for key in ("mean", "sd", "median"))
            rows.append([f"{profile} {metric}", str(spread["n"]), *figures])
        print(f"{profile}: {', '.join(f'{key} {value}' for key, value in report['counts'].items())}")
    table(["", "n", "mean", "sd", "median"], *rows)


def main() -> None:
    """Read the options."""
    parser = held_out_arguments(__doc__)
    parser.add_argument("--looks", type=int, choices=(1, 2), default=2)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    pairs = fold(args.data, args.fold)
    if not pairs:
        sys.exit(f"{args.data / 'index.csv'}: no images of fold {args.fold}")
    print(f"{args.model} on fold {args.fold} of {args.data}: {len(pairs)} images")
    if args.out is not None:
        measure(pairs, args.model, args.looks, args.out)
        return
    with TemporaryDirectory() as folder:
        measure(pairs, args.model, args.looks, Path(folder))


if __name__ == "__main__":
    main()
