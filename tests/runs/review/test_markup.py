"""Rows become markup: names are text, links lead down only, and nothing is fetched."""

import base64
import hashlib
import json
import re
from pathlib import Path

import pytest
from support.review_pages import EVIL, Parsed, failure, names, page, result


def test_names_are_text_and_nothing_more(tmp_path: Path) -> None:
    rows = [result(name, qc="warn", qc_why="<b>" + name.replace(";", "")) for name in EVIL]
    rows += [failure(f"bad{name}", error=f"<s>{name}") for name in EVIL]
    text = page(tmp_path / "night.html", rows, **{"<u>": "<script>alert(2)</script>"})
    text.encode()  # no half of a surrogate pair is left
    parsed = Parsed(text)
    assert names(parsed) == [*EVIL, *(f"bad{name}" for name in EVIL)]  # in data, to the letter
    assert [tag for tag, _ in parsed.tags].count("script") == 1
    assert not {"b", "s", "u", "img", "iframe", "object", "link", "base"} & {tag for tag, _ in parsed.tags}
    plain = Parsed(page(tmp_path / "plain.html", [result(f"{i}.png") for i in range(2)]))
    known = {name for _, attrs in plain.tags for name in attrs}
    assert {name for _, attrs in parsed.tags for name in attrs} <= known | {"data-text"}
    shown = [row["cells"][2] for row in parsed.rows]
    assert shown[0].startswith(EVIL[0]) and "break\\u0009tab\\u001b[31m" in shown[2]
    assert not re.search(r"[\u202a-\u202e\u2066-\u2069\x00-\x09\x0b-\x1f]", text)
    assert all("\n" not in cell for row in parsed.rows for cell in row["cells"][2:3])


def test_the_page_asks_for_nothing(tmp_path: Path) -> None:
    parsed = Parsed(page(tmp_path / "night.html", [result("a.png"), failure("b.png")]))
    for tag, attrs in parsed.tags:
        assert not {"src", "srcset", "action", "style", "poster"} & attrs.keys(), tag
        assert not [name for name in attrs if name.startswith("on")], tag
        address = attrs.get("href") or "data:image/jpeg"
        assert address.startswith("data:image/jpeg" if tag != "a" else "./"), address
    policy = next(a["content"] for t, a in parsed.tags if t == "meta" and "http-equiv" in a)
    rules = dict(rule.strip().split(" ", 1) for rule in str(policy).split(";"))
    assert rules.pop("default-src") == "'none'" and rules.pop("img-src") == "data:"
    for tag in ("style", "script"):
        digest = base64.b64encode(hashlib.sha256(parsed.inline[tag].encode()).digest()).decode()
        assert rules.pop(f"{tag}-src") == f"'sha256-{digest}'"
    assert set(rules.values()) == {"'none'"}
    assert not re.search(
        r"url\(|@import|https?:|fetch\(|XMLHttp|WebSocket|eval\(|innerHTML", "".join(parsed.inline.values())
    )


def test_measurements_in_mm_where_known_else_px(tmp_path: Path) -> None:
    known = {"hc_px": 2000.0, "hc_mm": 284.34, "hc_mm_low": 279.06, "hc_mm_high": 290.21}
    rows = [result("mm.png", **known), result("px.png", hc_px=1500.2), result("nan.png", hc_px=float("nan"))]
    parsed = Parsed(page(tmp_path / "night.html", rows))
    cells = [row["cells"][3] for row in parsed.rows]
    assert cells == ["HC 284.3 mm279.1 – 290.2", "HC 1,500 px", ""]
    table = next(attrs for tag, attrs in parsed.tags if tag == "table")
    columns = json.loads(str(table["data-columns"]))
    assert parsed.rows[0]["values"][columns.index("hc_mm_low")] == 279.06
    assert parsed.rows[2]["values"][columns.index("hc_px")] is None


def test_links_lead_down_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    names = ["in/a b#?%.png", "../secret/b.png", str(tmp_path / "c.png"), "in/d.dcm", "in/half\udcff.png"]
    parsed = Parsed(page(Path("night.html"), [result(name, output=None) for name in names]))
    links = [attrs["href"] for tag, attrs in parsed.tags if tag == "a"]
    assert links == ["./in/a%20b%23%3F%25.png", "./in/half%FF.png"]
