"""README.md of a model folder: a card as the Hugging Face Hub reads it, from the configuration alone."""

import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from ..errors import UsageError

HUB_LICENSES = {"apache-2.0", "mit", "bsd-3-clause", "gpl-3.0", "cc0-1.0"} | {
    f"cc-by{terms}-4.0" for terms in ("", "-sa", "-nd", "-nc", "-nc-sa", "-nc-nd")
}

MIN_FOLLOWS = 0.25
"""A model whose validation figure `follows` is smaller does not follow its images."""

INTENDED_USE = "Research; not a medical device."

BIAS = (
    "The model was trained only on the images listed under Training data. Its accuracy has not been measured"
    " separately by patient group, device or site, and may be lower for those missing from the training data."
    " Evaluate it on your own images before you rely on it."
)

METRICS = {
    "dice": ("dice", "Dice"),
    "hd": ("hausdorff_distance", "Hausdorff distance"),
    "hausdorff px": ("hausdorff_distance", "Hausdorff distance (px)"),
    "hd95 px": ("hd95", "95th percentile Hausdorff distance (px)"),
    "assd px": ("assd", "Average symmetric surface distance (px)"),
    "val_dice": ("dice", "Dice"),
    "val_hd": ("hausdorff_distance", "Hausdorff distance (px of 256 x 256)"),
}
"""Keys of config["figures"] that score masks: the metric's type in the model-index, and its name."""

GROUPS = {
    "held-out fold": "Segmentation of held-out images",
    "refined pictures": "Generated images, refined by the cDDPM",
    "validation": "Validation",
    "paper256": "Squashed to 256 x 256",
    "native": "Native size",
}
LABELS = {
    "epoch": "Epoch",
    "score": "Score by which the epoch was chosen",
    "val_recon": "Reconstruction loss",
    "follows": "Share of the variance of position and size that is explained",
    "dice reconstruct": "`reconstruct`: Dice of the requested and the found mask",
    "dice swap-style": "`swap-style`: Dice of the requested and the found mask",
    "dice warp 45 degrees 0.7": "`warp --rotate 45 --scale 0.7`: Dice of the requested and the found mask",
    "style found after warp": "Rate at which the style is recognised after `warp`",
    "power spectrum, of the VAE's distance": "Distance of the power spectrum to real images, VAE alone = 1",
    "patches, of the VAE's distance": "Distance of patches to real images, VAE alone = 1",
} | {key: name for key, (_, name) in METRICS.items()}
FACTS = ("images", "fold", "of")
"""Keys of a group of figures that say what was measured: these become a sentence."""


def model_card(config: Mapping[str, Any]) -> str:
    """README.md of a model: YAML front matter with a model-index, then what `config` says of the model.

    From config["card"]: license (required: UsageError), attribution, data, splits, intended_use; from
    config["training"], and ["cddpm"]["training"] if it has one: command, and splits if the card has none;
    config["figures"]: numbers, in groups or not.
    """
    licence = _line(config["card"].get("license") or "")
    if not licence:
        raise UsageError("a model needs a licence", hint='name that of its weights, such as "CC BY 4.0"')
    second = config.get("cddpm", {}).get("training", {})
    commands = [_line(part["command"]) for part in (config["training"], second) if part.get("command")]
    attribution = _prose(config["card"].get("attribution"))
    sections = {
        "Model description": _description(config),
        "Intended use and limits": _use_and_limits(config),
        "Bias": BIAS,
        "Training data": _training_data(config),
        "Training procedure": "\n".join(["```", *commands, "```"]) if commands else "",
        "Evaluation": _evaluation(config["figures"]),
        "Licence and attribution": f"Licence of the weights: {licence}\n\n{attribution}".rstrip(),
        "How to use": _how_to_use(config),
    }
    body = [f"## {title}\n\n{text}" for title, text in sections.items() if text]
    return "\n".join([_front_matter(config, licence), "\n\n".join([f"# {_line(config['name'])}", *body]), ""])


def _front_matter(config: Mapping[str, Any], licence: str) -> str:
    slug = _slug(licence)
    lines = [f"license: {slug}"] if slug in HUB_LICENSES else ["license: other", f'license_name: "{slug}"']
    lines += ["library_name: mhvae", "pipeline_tag: image-segmentation"]
    lines += ["tags:", *(f"- {tag}" for tag in _tags(config))]
    results = list(_results(config))
    if results:
        lines += ["model-index:", f"- name: {_quoted(_plain(config['name']))}", "  results:", *results]
    return "\n".join(["---", *lines, "---", ""])


def _tags(config: Mapping[str, Any]) -> list[str]:
    return ["mhvae", "medical", "segmentation", "vae", *(["diffusion"] if "cddpm" in config else [])]


def _results(config: Mapping[str, Any]) -> Iterator[str]:
    """The lines of the model-index's results, one result per data set, split and size of the masks scored."""
    data = _dataset(config)
    for name, group in config["figures"].items():
        if not (data and isinstance(group, Mapping)):
            continue
        split = _plain(name) + (f" {group['fold']}" if "fold" in group else "")
        for size, column in _columns(group).items():
            scores = {key: column[key] for key in METRICS if _is_finite(column.get(key))}
            if scores:
                yield from ["  - task:", "      type: image-segmentation", "      name: Image segmentation"]
                yield from [
                    "    dataset:",
                    f"      name: {_quoted(data)}",
                    f"      type: {_quoted(_slug(data))}",
                ]
                yield from [f"      config: {_quoted(GROUPS.get(size, size))}"] if size else []
                yield from [f"      split: {_quoted(split)}", "    metrics:"]
                for key, value in scores.items():
                    kind, label = METRICS[key]
                    yield from [
                        f"    - type: {kind}",
                        f"      value: {value:.4g}",
                        f"      name: {_quoted(label)}",
                    ]


def _dataset(config: Mapping[str, Any]) -> str:
    """The data set's name: what stands before the colon, or after "10 images of 8 subjects from"."""
    data = config["card"].get("data")
    name = data.get("name") if isinstance(data, Mapping) else data
    return _plain(name).partition(":")[0].rpartition(" from ")[2] if isinstance(name, str) else ""


def _description(config: Mapping[str, Any]) -> str:
    model = config["model"]
    if model.get("single_head"):
        parts = [
            "A single-headed variational autoencoder (VAE) of 2-D medical images, without a segmentation head"
        ]
    else:
        parts = [
            "A multi-headed variational autoencoder (VAE) that segments one object in a 2-D medical image"
        ]
        start = "a reference mask" if model.get("reference") else "a disc"
        families = {"affine": "an affine map", "tps": "a thin-plate spline"}
        family = families.get(model.get("warp", {}).get("family"), "a smooth map")
        parts.append(f"by warping {start} with {family}")
    refined = ". A conditional diffusion model (cDDPM) sharpens the images that it generates"
    text = " ".join(parts) + (refined if "cddpm" in config else "") + "."
    if "image_size" in model:
        colour = {1: " in grey", 3: " in colour"}.get(model.get("channels"), "")
        side = model["image_size"]
        text += f" Images are resized to {side} x {side} pixels{colour}; masks and generated images have the"
        text += " size of the input."
    return text


def _use_and_limits(config: Mapping[str, Any]) -> str:
    model, limits = config["model"], []
    if not model.get("single_head"):
        limits.append("Each image is assumed to show exactly one object.")
        if not model.get("reference"):
            affine = model.get("warp", {}).get("family") == "affine"
            shape = "an ellipse" if affine else "a single smooth shape without holes"
            limits.append(f"The mask is always {shape}.")
    if model.get("pen"):
        limits.append(
            f"Masks include the pen that drew the training masks: head measurements are taken"
            f" {_line(100 * model['pen'])} % of the image's side (the root of its area) inside the mask's"
            " outline, where the official figures were. Area and perimeter are those of the mask."
        )
    if config["figures"].get("validation", {}).get("follows", 1.0) < MIN_FOLLOWS:
        limits.append("It predicts nearly the same mask for every image: do not use it.")
    if "trust" in config:
        limits.append(
            "The column `foreign` of results.csv flags images unlike those of the validation set, `doubtful`"
            " results whose expected Dice is low."
        )
    limits.append(
        "Generated images are synthetic: their fine texture is invented. Do not use them for diagnosis."
    )
    intended = _prose(config["card"].get("intended_use") or INTENDED_USE)
    return "\n".join([intended, "", *(f"- {limit}" for limit in limits)])


def _training_data(config: Mapping[str, Any]) -> str:
    card, training = config["card"], config["training"]
    second = config.get("cddpm", {}).get("training", {})
    parts = [_prose(card.get("data")), _split(card.get("splits") or training.get("splits"))]
    of_second = [_prose(card.get("cddpm_data") or second.get("data")), _split(second.get("splits"))]
    if any(of_second):
        parts += ["### cDDPM", *of_second]
    return "\n\n".join(filter(None, parts))


def _split(value: object) -> str:
    return f"Split: {value}" if value and isinstance(value, str) else _prose(value)


def _evaluation(figures: Mapping[str, Any]) -> str:
    loose = {key: value for key, value in figures.items() if not isinstance(value, Mapping)}
    parts = [_measured(loose), _table(loose)] if loose else []
    for name, group in figures.items():
        if isinstance(group, Mapping):
            parts += [f"### {GROUPS.get(name, _line(name))}", _measured(group), _table(group)]
    return "\n\n".join(filter(None, parts))


def _measured(group: Mapping[str, Any]) -> str:
    """What the figures of a group were measured on: "198 images of fold 3. The figures are those of ..."."""
    what = [f"{_line(group['images'])} images"] if "images" in group else []
    what += [f"fold {_line(group['fold'])}"] if "fold" in group else []
    text = f"Measured on {' of '.join(what)}." if what else ""
    return f"{text} The figures are those of {_line(group['of'])}.".strip() if "of" in group else text


def _table(group: Mapping[str, Any]) -> str:
    columns = _columns(group)
    keys = dict.fromkeys(key for column in columns.values() for key in column)
    if not keys:
        return ""
    heads = [GROUPS.get(name, _line(name)) or "Value" for name in columns]
    rows = [["Metric", *heads], ["---"] * (len(heads) + 1)]
    for key in keys:
        cells = [_line(column[key]) if key in column else "" for column in columns.values()]
        rows.append([LABELS.get(key, _line(key)), *cells])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _columns(group: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """A group's figures by column: "" for those of its own, then one for each group inside it."""
    own = {k: v for k, v in group.items() if k not in FACTS and not isinstance(v, Mapping)}
    inner = {k: dict(_flat(v)) for k, v in group.items() if isinstance(v, Mapping)}
    return ({"": own} if own else {}) | inner


def _how_to_use(config: Mapping[str, Any]) -> str:
    name, single = _line(config["name"]), config["model"].get("single_head")
    verbs = [] if single else ["segment scan.png"]
    verbs += (
        ["reconstruct scan.png"] if "cddpm" in config else ["reconstruct scan.png --no-refine"] * bool(single)
    )
    uses = [f"mhvae {verb} --model {name} --out results/" for verb in verbs]
    call = f"Pipeline.load({json.dumps(name, ensure_ascii=False)})"
    python = f'mask = {call}.segment("scan.png").mask'
    if single:
        python = f'image = {call}.reconstruct("scan.png", refine={"cddpm" in config}).pixels'
    code = ["```", *uses, "```", "", "```python", "from mhvae_cli import Pipeline", "", python, "```", ""]
    return "\n".join(
        [*code, "Instead of the name, you can give the path of this folder, or ORG/NAME on the Hub."]
    )


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-")


def _quoted(text: str) -> str:
    """A YAML string: JSON's are YAML's too."""
    return json.dumps(text, ensure_ascii=False)


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _line(value: object) -> str:
    if value is None or isinstance(value, float):
        return "-" if value is None or not math.isfinite(value) else f"{value:.4g}"
    return _plain(value).replace("|", "\\|")


def _plain(value: object) -> str:
    return " ".join(str(value).split())


def _flat(values: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key} ")
        else:
            yield prefix + key, value


def _prose(value: object) -> str:
    """Text as it is, an object or a list as bullets."""
    if isinstance(value, Mapping):
        return "\n".join(f"- {_line(key)}: {_line(item)}" for key, item in _flat(value))
    return (
        "\n".join(f"- {_line(item)}" for item in value)
        if isinstance(value, list | tuple)
        else str(value or "")
    )
