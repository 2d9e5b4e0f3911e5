"""Model cards say what the configuration knows, and no more."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from support.model_folders import CONFIG

from mhvae_cli.checkpoints import folder as model_folder
from mhvae_cli.checkpoints import model_card, registry
from mhvae_cli.errors import UsageError


def front_and_body(card: str) -> tuple[dict[str, Any], str]:
    _, front, body = card.split("---\n", 2)
    return yaml.safe_load(front), body


def test_the_card_says_what_the_config_knows(folder: Path):
    front, body = front_and_body((folder / "README.md").read_text())
    assert front["license"] == "cc-by-4.0" and front["library_name"] == "mhvae"
    assert "medical" in front["tags"] and front["pipeline_tag"] == "image-segmentation"
    for text in (
        "# heads\n",
        "Research; not a medical device.",
        "- name: HC18 \\| ultrasound\n- images: 999",
        "folds 0-2 train, 3 is held out",
        "Measured on 200 images.\n\n| Metric | Value |\n| --- | --- |\n| hd_mm | - |",
        "### Validation\n\n| Metric | Value |\n| --- | --- |\n| Dice | 0.9723 |",
        "\n| Dice | 0.9723 |\n| Hausdorff distance | 4.9 |",
        "```\nmhvae train-vae --data heads/ --out run/\n```",
        "T. van den Heuvel et al.: HC18",
        "CC BY 4.0",
    ):
        assert text in body, text


@pytest.mark.parametrize(
    ("licence", "front"),
    [
        ("CC BY-NC 4.0", {"license": "cc-by-nc-4.0"}),
        ("Apache-2.0", {"license": "apache-2.0"}),
        ("Our Hospital's: ask\nus", {"license": "other", "license_name": "our-hospital-s-ask-us"}),
    ],
)
def test_licences_are_named_as_the_hub_names_them(licence: str, front: dict[str, str]):
    licensed = {**CONFIG["card"], "license": licence}
    found, _ = front_and_body(model_card.model_card({**CONFIG, "card": licensed}))
    assert {key: found[key] for key in found if key.startswith("license")} == front


def test_a_card_needs_a_licence_and_little_else():
    least = {**CONFIG, "training": {}, "card": {"license": "MIT"}, "figures": {}}
    _, body = front_and_body(model_card.model_card(least))
    assert "## Licence and attribution\n\nLicence of the weights: MIT" in body
    assert "## Evaluation" not in body and "## Training" not in body
    for licence in ({}, {"license": " "}, {"license": None}):
        with pytest.raises(UsageError, match="licence"):
            model_card.model_card({**CONFIG, "card": licence})


def test_a_card_has_a_model_index_of_finite_figures():
    front, _ = front_and_body(model_card.model_card(CONFIG))
    (entry,) = front["model-index"]
    (result,) = entry["results"]
    assert entry["name"] == "heads" and result["task"]["type"] == "image-segmentation"
    assert result["dataset"]["name"] == "HC18 | ultrasound" and result["dataset"]["split"] == "validation"
    assert [(m["type"], m["value"]) for m in result["metrics"]] == [
        ("dice", 0.9723),
        ("hausdorff_distance", 4.9),
    ]
    nothing = {**CONFIG, "figures": {"validation": {"dice": float("nan"), "loss": 0.5}}}
    front, body = front_and_body(model_card.model_card(nothing))
    assert "model-index" not in front and "| Dice | - |" in body
    undescribed = {**CONFIG, "card": {"license": "MIT"}}
    assert "model-index" not in front_and_body(model_card.model_card(undescribed))[0]


@pytest.mark.parametrize("name", registry.bundled())
def test_the_bundled_cards_are_those_of_their_configs(name: str):
    config = model_folder.read_config(registry.MODELS / name)
    text = (registry.MODELS / name / "README.md").read_text()
    assert text == model_card.model_card(config)
    front, body = front_and_body(text)
    squashed, native = front["model-index"][0]["results"]
    held_out = config["figures"]["held-out fold"]
    for result, figures in ((squashed, held_out["paper256"]), (native, held_out["native"])):
        assert result["dataset"]["split"] == "held-out fold 3"
        found = {metric["type"]: metric["value"] for metric in result["metrics"]}
        assert (found["dice"], found["hausdorff_distance"]) == (figures["dice"], figures["hausdorff px"])
    rows = [line for line in body.splitlines() if line.startswith("|")]
    refined = config["figures"].get("refined pictures", {})
    second = refined.keys() - {"fold", "images", "of"}
    assert len(rows) == 2 + 4 + bool(second) * (2 + len(second))
    assert not [row for row in rows if "fold" in row or "paper256" in row]
    assert "fold fold" not in text
    headings = [line[3:] for line in body.splitlines() if line.startswith("## ")]
    assert headings == [
        "Model description",
        "Intended use and limits",
        "Bias",
        "Training data",
        "Training procedure",
        "Evaluation",
        "Licence and attribution",
        "How to use",
    ]


def test_a_card_promises_only_what_the_model_does():
    spline = {**CONFIG, "model": {"image_size": 192, "channels": 3, "warp": {"family": "tps"}}}
    assert "192 x 192 pixels in colour" in model_card.model_card(spline)
    assert "smooth shape" in model_card.model_card(spline)
    affine = {**CONFIG, "model": {"warp": {"family": "affine"}}, "trust": {}}
    assert "always an ellipse" in model_card.model_card(affine)
    assert "`doubtful`" in model_card.model_card(affine) and "pen" not in model_card.model_card(affine)
    drawn = {**affine, "model": {"warp": {"family": "affine"}, "pen": 0.00194}}
    assert "0.194 % of the image's side" in model_card.model_card(drawn)
    reference = {**CONFIG, "model": {"warp": {"family": "affine"}, "reference": 64}}
    assert "a reference mask" in model_card.model_card(reference)
    assert "an ellipse" not in model_card.model_card(reference)
    single = model_card.model_card({**CONFIG, "model": {"single_head": True}})
    assert "mhvae segment" not in single and "reconstruct scan.png --no-refine" in single
    assert "refine=False" in single and ".segment(" not in single
