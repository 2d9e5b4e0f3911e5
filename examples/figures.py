"""The paper's figures 3 to 10 as sheets, by the bundled models on any images; by default on phantoms.

    python examples/figures.py figures/ [--heads DIR] [--lesions DIR] [--diffusevae RUN] [--only 5,9]

DIR holds images. `--diffusevae` names a model folder trained with `train-vae --single-head` and `train-cddpm
--process diffusevae` on lesions: figures 3 and 4 then compare with it. Cyan is the outline that was asked
for, yellow the one that the model finds again in the picture.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np

from mhvae_cli import Pipeline
from mhvae_cli.config import WarpConfig
from mhvae_cli.filesystem import write_atomic
from mhvae_cli.images.encode import encode_png
from mhvae_cli.images.read import SUFFIXES
from mhvae_cli.images.render import YELLOW, draw_grid, overlay, sheet
from mhvae_cli.images.transforms import to_native
from mhvae_cli.inference.synthesis import GeneratedImage, Source, draft_of, interpolate_codes, make
from mhvae_cli.vae.fitting import fit
from mhvae_cli.vae.warp import Warp, pixel_centres

HERE = Path(__file__).parent
Rows = tuple[list[list[np.ndarray]], list[str]]


def load(pipeline: Pipeline, folder: Path, count: int) -> list[Source]:
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    return [pipeline.source(path) for path in paths[:: max(1, len(paths) // count)][:count]]


def vae(picture: GeneratedImage) -> np.ndarray:
    return to_native(picture.recon, picture.code.size)


def found(pipeline: Pipeline, picture: GeneratedImage) -> np.ndarray:
    """The picture with the outline that was asked for and the one that is found in it."""
    code = picture.code
    asked = pipeline.networks.contour(code.theta, code.size, code.pose)
    return overlay(overlay(picture.pixels, asked), pipeline.segment(picture.pixels).contour(), colour=YELLOW)


def outlined(pipeline: Pipeline, source: Source) -> np.ndarray:
    code = source.code
    return overlay(source.scan.pixels, pipeline.networks.contour(code.theta, code.size, code.pose))


def figure3(lesions: Pipeline, sources: list[Source], rival: Pipeline | None) -> Rows:
    rows = []
    for source in sources:
        picture = make(lesions.networks, [draft_of(source)])[0]
        row = [outlined(lesions, source), vae(picture), found(lesions, picture)]
        if rival is not None:
            other = rival.reconstruct(source.scan)
            row += [vae(other), overlay(other.pixels, lesions.segment(other.pixels).contour(), colour=YELLOW)]
        rows.append(row)
    names = ["image", "multi-headed VAE", "cDDPM"]
    return rows, names + (["single-headed VAE", "DiffuseVAE"] if rival is not None else [])


def figure4(lesions: Pipeline, sources: list[Source], rival: Pipeline | None) -> Rows:
    rows = []
    for source in sources[2:4]:
        drawn = [make(lesions.networks, [draft_of(source, draw=k)])[0] for k in range(5)]
        rows.append([outlined(lesions, source), *(found(lesions, picture) for picture in drawn)])
        if rival is not None:
            others = [rival.reconstruct(source.scan, seed=k).pixels for k in range(5)]
            drawings = [overlay(o, lesions.segment(o).contour(), colour=YELLOW) for o in others]
            rows.append([outlined(lesions, source), *drawings])
    return rows, ["image", *(f"draw {k + 1}" for k in range(5))]


def figure5(lesions: Pipeline, sources: list[Source]) -> Rows:
    rows = []
    for a, b in zip(sources[::2], sources[1::2], strict=False):
        for content, style in ((a, b), (b, a)):
            invented, carried = (
                lesions.swap_style(content.scan, style.scan, carry=on) for on in (False, True)
            )
            row = [outlined(lesions, content), style.scan.pixels, vae(invented)]
            rows.append([*row, found(lesions, invented), found(lesions, carried)])
    return rows, ["image", "style", "VAE", "invented (paper)", "carried"]


def figure8(heads: Pipeline, sources: list[Source]) -> Rows:
    rows = []
    for source in sources:
        row = [outlined(heads, source)]
        for edit in ({"rotate": 45.0}, {"scale": 0.7}):
            invented, carried = (heads.warp(source.scan, **edit, carry=on) for on in (False, True))
            row += [vae(invented), found(heads, invented), found(heads, carried)]
        rows.append(row)
    edits = [
        title
        for name in ("rotated by 45", "scaled by 0.7")
        for title in (f"{name}, VAE", "invented", "carried")
    ]
    return rows, ["image", *edits]


def figure7() -> Rows:
    """Two merged circles, deformed to the disc by both layouts of control points."""
    size = (256, 256)
    centres = pixel_centres(size)
    apart = [np.hypot(centres[:, 0] - x, centres[:, 1]) < 0.4 for x in (-0.3, 0.3)]
    mask = (apart[0] | apart[1]).reshape(size)
    row = [np.where(mask, np.uint8(255), np.uint8(0))]
    for points in ("uniform", "circular"):
        warp = Warp(WarpConfig(points=points))
        parameters = warp._identity + fit(warp, mask)
        grid = warp.sources(centres, parameters).reshape(*size, 2)
        inside = np.hypot(grid[..., 0], grid[..., 1]) < 0.5
        row.append(draw_grid(np.where(inside, np.uint8(200), np.uint8(60)), grid))
    return [row], ["two merged circles", "uniform, 25 points", "circular, 20 points"]


def figure9(lesions: Pipeline, a: Source, b: Source, count: int = 5) -> Rows:
    """The paper's grid, and below it the one that carries both images' pixels."""
    shares, rows = np.linspace(0, 1, count), []
    for carry in (False, True):
        for position in shares:
            drafts = [
                interpolate_codes(lesions.networks, a, b, style=style, position=position, carry=carry)
                for style in shares
            ]
            rows.append([picture.pixels for picture in make(lesions.networks, drafts)])
        blank = [np.full_like(a.scan.pixels, 255)] * (count - 2)
        for row, first in zip(rows[-count:], [a.scan.pixels, *blank, b.scan.pixels], strict=True):
            row.insert(0, first)
    return rows, ["the two images", *(f"style {share:.2f}" for share in shares)]


def figure10(pipelines: list[Pipeline], sizes: list[tuple[int, int]], count: int = 12) -> Rows:
    rows = []
    for pipeline, size in zip(pipelines, sizes, strict=True):
        made = [found(pipeline, p) for p in pipeline.sample(count, size=size)]
        rows += [made[i : i + 6] for i in range(0, count, 6)]
    return rows, []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--heads", type=Path, default=HERE / "heads/images")
    parser.add_argument("--lesions", type=Path, default=HERE / "lesions/images")
    parser.add_argument("--head-model", default="fetal-head")
    parser.add_argument("--lesion-model", default="skin-lesion")
    parser.add_argument("--diffusevae")
    parser.add_argument("--only", default="3,4,5,6,7,8,9,10")
    parser.add_argument("--cell", type=int, default=192)
    given = parser.parse_args()
    heads, lesions = Pipeline.load(given.head_model), Pipeline.load(given.lesion_model)
    rival = Pipeline.load(given.diffusevae) if given.diffusevae else None
    skulls, skins = load(heads, given.heads, 6), load(lesions, given.lesions, 8)
    sizes = [skulls[0].code.size, skins[0].code.size]
    figures: dict[str, Callable[[], Rows]] = {
        "3": lambda: figure3(lesions, skins, rival),
        "4": lambda: figure4(lesions, skins, rival),
        "5": lambda: figure5(lesions, skins[:4]),
        "6": lambda: figure8(heads, skulls[:1]),
        "7": figure7,
        "8": lambda: figure8(heads, skulls[1:]),
        "9": lambda: figure9(lesions, skins[0], skins[1]),
        "10": lambda: figure10([heads, lesions], sizes),
    }
    for number in given.only.split(","):
        rows, titles = figures[number]()
        path = given.out / f"figure{int(number):02d}.png"
        write_atomic(path, encode_png(sheet(rows, titles, cell=given.cell)))
        print(path)


if __name__ == "__main__":
    main()
