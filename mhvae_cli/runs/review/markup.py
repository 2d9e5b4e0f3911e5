"""Rows, columns and texts of a run as the HTML of its review page (`review.html`)."""

import html
import json
import os
import re
import unicodedata
from base64 import b64encode
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ...hashing import sha256_of

KINDS = ("flagged", "failed", "ok", "done")
"""Kinds of rows, in the order of the page; "done" was not checked, as the model has no QC statistics."""
MEASURES = {
    "hc": "HC",
    "bpd": "BPD",
    "ofd": "OFD",
    "vcdr": "Vertical C/D",
    "acdr": "Area C/D",
    "area": "Area",
    "perimeter": "Perimeter",
    "major": "Long axis",
    "minor": "Short axis",
}
UNITS = {"_mm": "mm", "_mm2": "mm²", "_px": "px", "": ""}
"""Suffixes of measurement columns and their units, in order of preference."""
MAX_MEASURES = 5
"""Number of measurements that fit on a screen beside image, flag and name."""

_IDENTITY = ("input", "page", "output", "width", "height", "area_px", "made_by")
_VIEWABLE = frozenset((".png", ".jpg", ".jpeg", ".gif", ".webp", ".avif", ".bmp", ".svg"))
_TAGS = {"flagged": "flagged", "failed": "failed", "ok": "ok", "done": "not checked"}
_BUTTONS = {"": "all", "flagged": "flagged", "failed": "failed", "ok": "ok", "done": "not checked"}
_HIDDEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}
_JOINERS = "\u200c\u200d"  # part of words in many scripts


def escaped(text: object) -> str:
    """Text for an element or an attribute: markup is escaped; control characters, bidirectional marks, lone
    surrogates and line separators are written as \\uXXXX."""
    return html.escape(
        "".join(
            f"\\u{ord(sign):04x}" if unicodedata.category(sign) in _HIDDEN and sign not in _JOINERS else sign
            for sign in str(text)
        )
    )


def attribute(values: object) -> str:
    """ASCII JSON for an attribute in single quotes."""
    text = json.dumps(values, separators=(",", ":"))
    return text.replace("&", "&amp;").replace("'", "&#39;").replace("<", "&lt;").replace(">", "&gt;")


def content_security_policy(template: str) -> str:
    """The page's Content-Security-Policy: no external content; only the template's style and script."""
    hashes = {}
    for tag in ("style", "script"):
        inline = template.partition(f"<{tag}>")[2].partition(f"</{tag}>")[0]
        hashes[tag] = b64encode(bytes.fromhex(sha256_of(inline.encode()))).decode()
    allowed = "".join(f"; {tag}-src 'sha256-{digest}'" for tag, digest in hashes.items())
    return f"default-src 'none'; img-src data:{allowed}; base-uri 'none'; form-action 'none'"


def fill_template(template: str, parts: Mapping[str, str]) -> bytes:
    """The template with each {{name}} replaced, in one pass: inserted text is not expanded again."""
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], template).encode()


def key_of(values: Mapping[str, object]) -> str:
    """The key of a result, distinct for results of the same input: 16 hexadecimal digits."""
    text = json.dumps([values.get(name) for name in _IDENTITY])
    return sha256_of(text.encode())[:16]


def choose_measures(names: Sequence[str]) -> dict[str, str]:
    """The measurements to show as columns, among those with values: base name and label."""
    present = {base: label for base, label in MEASURES.items() if any(base + unit in names for unit in UNITS)}
    return dict(list(present.items())[:MAX_MEASURES])


def header_cells(measures: Mapping[str, str]) -> str:
    """The header cells of the table."""
    cells = ["<th></th>", _head("", "Flag"), _head("input page", "File")]
    for base, label in measures.items():
        cells.append(_head(" ".join(base + unit for unit in UNITS), label, "number"))
    return "".join([*cells, "<th></th>"])


def buttons(counts: Mapping[str, int]) -> str:
    """One filter button per kind of row, with its count."""
    shown = {"": sum(counts.values())} | {
        kind: n for kind, n in counts.items() if n or kind in ("flagged", "failed")
    }
    return "\n".join(
        f'<button data-kind="{kind}" aria-pressed="{str(not kind).lower()}">{_BUTTONS[kind]} {n:,}</button>'
        for kind, n in shown.items()
    )


def definitions(facts: Mapping[str, object]) -> str:
    """The entries of a definition list: mappings are written out, None and empty ones are omitted."""
    return "".join(
        f"<dt>{escaped(name.replace('_', ' '))}</dt><dd>{escaped(_as_text(value))}</dd>"
        for name, value in facts.items()
        if value not in (None, {})
    )


def _as_text(value: object) -> str:
    if not isinstance(value, Mapping):
        return str(value)
    return ", ".join(f"{name} {each}" for name, each in value.items() if each is not None)


def row_of(entry: Mapping[str, Any], names: Sequence[str], measures: Mapping[str, str], folder: str) -> bytes:
    """A row of the table, as one line of HTML.

    `entry`: kind, why (reasons), values (by column), thumbnail ([JPEG in base64, (h, w), outline] or None),
    earlier; `names` are the columns kept on the page, `folder` is the absolute path of its folder.
    """
    kind, values, thumbnail = entry["kind"], entry["values"], entry["thumbnail"]
    cells = [
        f'<td class="thumbnail">{_figure(*thumbnail) if thumbnail else ""}</td>',
        f"<td>{_flag(kind, entry['why'], values)}</td>",
        f'<td class="file">{_file(values, entry["earlier"], folder)}</td>',
    ]
    if kind == "failed":
        cells.append(f'<td class="reason">{escaped(values.get("error") or "")}</td>')
    else:
        cells += [_measure(base, label, values) for base, label in measures.items()]
    cells.append('<td class="mark"><input type="checkbox" aria-label="needs review"></td>')
    data = attribute([_as_int_if_whole(values.get(name)) for name in names])
    return f'<tr class="{kind}" data-k="{key_of(values)}" data-v=\'{data}\'>{"".join(cells)}</tr>\n'.encode()


def _head(keys: str, label: str, kind: str = "text") -> str:
    return f'<th class="{kind}"><button data-sort="{keys}">{label}</button></th>'


def _figure(jpeg: str, size: tuple[int, int], outline: str) -> str:
    height, width = (10 * side for side in size)
    image = f'<image width="{width}" height="{height}" href="data:image/jpeg;base64,{jpeg}"/>'
    return f'<svg viewBox="0 0 {width} {height}">{image}<path d="{outline}"/></svg>'


def _flag(kind: str, reasons: Sequence[str], values: Mapping[str, Any]) -> str:
    missed = [values["error"]] if kind == "flagged" and not reasons and values.get("error") else []
    why = escaped(", ".join([*reasons, *missed]))
    return f'<span class="tag">{_TAGS[kind]}</span>' + (f"<small>{why}</small>" if why else "")


def _file(values: Mapping[str, Any], earlier: bool, folder: str) -> str:
    name, output = values["input"] or "", values["output"] or ""
    facts = [f"page {values['page'] + 1:.0f}"] if values.get("page") else []
    if values.get("width"):
        facts.append(f"{values['width']:.0f} × {values['height']:.0f} px")
    if values.get("spacing_x"):
        across, down = values["spacing_x"], values["spacing_y"]
        facts.append(f"{across:.3g} mm/px" if across == down else f"{across:.3g} × {down:.3g} mm/px")
    facts += [f"no mm: {escaped(values['spacing_note'])}"] if values.get("spacing_note") else []
    facts += ["earlier run"] if earlier else []
    facts += [f'<a href="{result}" target="_blank">result</a>'] if (result := _link(output, folder)) else []
    shown = f"<bdi>{escaped(name)}</bdi>"
    if scan := _link(name, folder):
        shown = f'<a href="{scan}" target="_blank">{shown}</a>'
    return shown + (f"<small>{' · '.join(facts)}</small>" if facts else "")


def _link(name: str, folder: str) -> str:
    """The URL, relative to the page's folder, of a file below it that a browser can show; else "", as a path
    upwards would reveal the names of other folders."""
    if not name or Path(name).suffix.lower() not in _VIEWABLE:
        return ""
    path = os.path.relpath(os.path.abspath(name), folder)
    if path.startswith(os.pardir) or os.path.isabs(path):
        return ""
    return "./" + quote(os.fsencode(path.replace(os.sep, "/")))


def _measure(base: str, label: str, values: Mapping[str, Any]) -> str:
    for ending, unit in UNITS.items():
        value = values.get(base + ending)
        if value is not None:
            low, high = (values.get(f"{base}{ending}_{end}") for end in ("low", "high"))
            between = f"<small>{_number(low)} – {_number(high)}</small>" if None not in (low, high) else ""
            return f'<td class="number"><i>{label}</i> {_number(value)} {unit}{between}</td>'
    return '<td class="number"></td>'


def _number(value: object) -> str:
    if not isinstance(value, float):
        return escaped(value)
    return f"{value:,.{0 if abs(value) >= 1000 else 1 if abs(value) >= 10 else 2}f}"


def _as_int_if_whole(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value
