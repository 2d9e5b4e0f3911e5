"""Rows and pages of a review, and a page as a browser's parser sees it."""

import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np

from mhvae_cli.runs.review.page import Review
from mhvae_cli.runs.review.thumbnails import Thumbnail, thumbnail_of

MEASURED = ("width", "height", "area_px", "hc_px", "hc_mm", "hc_mm_low", "hc_mm_high")
COLUMNS = ("input", "page", "output", "status", *MEASURED, "qc", "qc_why", "made_by", "error")
EVIL = [
    "<script>alert(1)</script>.png",
    "\"'><img src=x onerror=alert(1)>&amp;{{rows}}.png",
    "line\nbreak\ttab\x1b[31m.png",
    "txt\u202egnp.exe",
    "half\udcff.png",
    "javascript:alert(1).png",
    "-->]]></table>.png",
]
SQUARE = np.array([[10.0, 20.0], [90.0, 20.0], [90.0, 60.0], [10.0, 60.0]])


def thumb(shade: int = 0) -> Thumbnail:
    return thumbnail_of(np.full((80, 100), shade, np.uint8), [SQUARE], (80, 100))


def result(name: str, **more: Any) -> dict[str, Any]:
    row = {"input": name, "page": 0, "output": f"out/{name}", "status": "ok", "width": 100, "height": 80}
    return (
        row
        | {"area_px": 3200.0, "qc": "ok", "made_by": hashlib.sha256(repr(name).encode()).hexdigest()}
        | more
    )


def failure(name: str, error: str = "truncated PNG") -> dict[str, Any]:
    return {"input": name, "page": 0, "output": None, "status": "failed", "error": error}


def page(path: Path, rows: list[dict[str, Any]], total: int | None = None, **run: Any) -> str:
    review = Review(path, title="mhvae segment", columns=COLUMNS, total=len(rows) if total is None else total)
    for number, row in enumerate(rows):
        review.add(row, None if row["status"] == "failed" else thumb(number % 256))
    review.write(run)
    review.close()
    return path.read_text(encoding="utf-8")


class Parsed(HTMLParser):
    """The tags of a page with their attributes; of each row the class, the values and the cells' text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[dict[str, Any]] = []
        self.inline: dict[str, str] = {"style": "", "script": ""}
        self.inside = ""
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.tags.append((tag, values))
        self.inside = tag if tag in self.inline else self.inside
        if tag == "tr" and "data-v" in values:
            self.rows.append(
                {"kind": values["class"], "values": json.loads(str(values["data-v"])), "cells": []}
            )
        if tag == "td":
            self.rows[-1]["cells"].append("")

    def handle_endtag(self, tag: str) -> None:
        self.inside = "" if tag == self.inside else self.inside

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.inline[self.inside] += data
        else:
            self.text += data
            if self.rows and self.rows[-1]["cells"]:
                self.rows[-1]["cells"][-1] += data


def names(parsed: Parsed) -> list[str]:
    return [row["values"][0] for row in parsed.rows]


def rings_of(outline: str) -> list[np.ndarray]:
    found = []
    for part in re.findall(r"M([^Z]*)Z", outline):
        start, _, moves = part.partition("l")
        points = np.array([start.split(), *np.array(moves.split()).reshape(-1, 2)], float)
        found.append(points.cumsum(0) / 10)
    return found
