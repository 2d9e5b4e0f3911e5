"""The model card: README.md in the Hub's format, generated from the model's configuration."""

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from ..errors import UsageError

HUB_LICENSES = {"apache-2.0", "mit", "bsd-3-clause", "gpl-3.0", "cc0-1.0"} | {
    f"cc-by{terms}-4.0" for terms in ("", "-sa", "-nd", "-nc", "-nc-sa", "-nc-nd")
}


INTENDED_USE = "Research; not a medical device."


def model_card(config: Mapping[str, Any]) -> str:
    """README.md of a model: YAML front matter for the Hub, then sections generated from `config`.

    Uses config["card"]: license (required: UsageError), attribution, data, splits, intended_use;
    config["training"], and config["cddpm"]["training"] if present: command, and splits if the card has none;
    config["figures"]: numbers, possibly in nested groups.
    """
    card, training = config["card"], config["training"]
    second = config.get("cddpm", {}).get("training", {})
    licence = _line(card.get("license") or "")
    if not licence:
        raise UsageError("a model needs a licence", hint='name the licence of its weights, e.g. "CC BY 4.0"')
    slug = re.sub(r"[^a-z0-9.]+", "-", licence.lower()).strip("-")
    front = [f"license: {slug}"] if slug in HUB_LICENSES else ["license: other", f'license_name: "{slug}"']
    front += [
        "library_name: mhvae",
        "pipeline_tag: image-segmentation",
        "tags: [mhvae, medical, segmentation]",
    ]
    rows = [f"| {_line(name)} | {_line(value)} |" for name, value in _flat(config["figures"])]
    verbs = ["segment scan.png", "reconstruct scan.png"] if "cddpm" in config else ["segment scan.png"]
    uses = [f"mhvae {verb} --model {_line(config['name'])} -o results/" for verb in verbs]
    commands = [_line(part["command"]) for part in (training, second) if part.get("command")]
    sections = {
        "Use": "\n".join(["```", *uses, "```"])
        + "\nInstead of the name, --model also takes the model folder, or ORG/NAME on the Hub.",
        "Intended use": _prose(card.get("intended_use") or INTENDED_USE),
        "Data": _prose(card.get("data")),
        "Splits": _prose(card.get("splits") or training.get("splits")),
        "The cDDPM's data": _prose(card.get("cddpm_data") or second.get("data")),
        "The cDDPM's splits": _prose(second.get("splits")),
        "Figures": "\n".join(["| | |", "|---|---|", *rows]) if rows else "",
        "Training": "\n".join(["```", *commands, "```"]) if commands else "",
        "Attribution": _prose(card.get("attribution")),
        "Licence": licence,
    }
    body = [f"## {title}\n\n{text}" for title, text in sections.items() if text]
    about = f"# {_line(config['name'])}\n\nA multi-headed VAE that finds one object in a 2-D medical image"
    about += ", and a diffusion model that sharpens its images." if "cddpm" in config else "."
    return "\n".join(["---", *front, "---", "", "\n\n".join([about, *body]), ""])


def _line(value: object) -> str:
    if value is None or isinstance(value, float):
        return "-" if value is None or not math.isfinite(value) else f"{value:.4g}"
    return " ".join(str(value).split()).replace("|", "\\|")


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key} ")
        else:
            yield prefix + key, value


def _prose(value: object) -> str:
    """Text unchanged; an object or a list as bullet points."""
    if isinstance(value, Mapping):
        return "\n".join(f"- {_line(key)}: {_line(item)}" for key, item in _flat(value))
    return (
        "\n".join(f"- {_line(item)}" for item in value)
        if isinstance(value, list | tuple)
        else str(value or "")
    )
