"""Two examples of each verb, as they stand at the end of its help."""

EXAMPLES = {
    "segment": (
        "mhvae segment scans/ --recursive --out masks/ --overlay",
        "mhvae segment scans/ --out masks/ --measure fetal-head --spacing 0.12",
    ),
    "evaluate": (
        "mhvae evaluate masks/ truth/ --csv scores.csv",
        "mhvae evaluate masks/ truth/ --compare theirs/ --profile paper256",
    ),
    "reconstruct": (
        "mhvae reconstruct scans/ --out again/ --sheet sheet.png",
        "mhvae reconstruct a.png --draws 3 --steps 50 --out draws/",
    ),
    "swap-style": (
        "mhvae swap-style a.png b.png --out swapped/",
        "mhvae swap-style scans/ --style b.png --mix 0.5 --out blended/",
    ),
    "interpolate": (
        "mhvae interpolate a.png b.png --gif --out way/",
        "mhvae interpolate a.png b.png --grid --frames 5 --out grid/",
    ),
    "warp": (
        "mhvae warp a.png --rotate 45 --scale 0.7 --out warped/",
        "mhvae warp a.png --shift 3mm,-2mm --spacing 0.12 --keep-background",
    ),
    "sample": (
        "mhvae sample -n 100 --min-dice 0.9 --tries 4 --out set/",
        "mhvae sample -n 8 --model skin-lesion --layout nnunet --out Dataset001/",
    ),
    "inspect": (
        "mhvae inspect a.png scans/",
        "mhvae inspect fetal-head --json",
    ),
    "models": (
        "mhvae models list",
        "mhvae models show fetal-head",
    ),
    "doctor": (
        "mhvae doctor",
        "mhvae doctor --device cpu --json",
    ),
    "train-vae": (
        "mhvae train-vae --data DIR --out RUN/ --warp affine --max-time 2h",
        "mhvae train-vae --data DIR --out RUN/ --resume",
    ),
    "train-cddpm": (
        "mhvae train-cddpm --model RUN/ --data DIR --out RUN2/",
        "mhvae train-cddpm --model fetal-head --data DIR --hold-out 3 --out RUN2/",
    ),
    "cross-validate": (
        "mhvae cross-validate --data DIR --folds 5 --out CV/",
        "mhvae cross-validate --data DIR --only 0 --max-time 90m --out CV/",
    ),
}


def epilog(verb: str) -> str:
    """The end of a verb's help, a line a paragraph, as Typer splits it."""
    return "\n\n".join(["Examples:", *EXAMPLES[verb]])
