"""Small pictures, and image files made of them."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from mhvae_cli.images.read import read_scan

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (6, 9), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (6, 9, 3), dtype=np.uint8)
DEEP = np.array([[0, 1, 255, 256], [300, 4095, 40000, 65535]], np.uint16)


def saved(picture, form, **options):
    data = io.BytesIO()
    picture.save(data, form, **options)
    return data.getvalue()


def png(width, height, depth, colour, rows=b""):
    """A PNG written by hand: `rows` are the raw bytes, each row with its filter byte."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def tiff(*pages, order="<", photometric=1, orientation=1):
    """A TIFF written by hand: uncompressed grey pages of any dtype, in either byte order."""
    data = (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, 8)
    for number, page in enumerate(pages, 1):
        body = page.astype(page.dtype.newbyteorder(order)).tobytes()
        kind = {"u": 1, "i": 2, "f": 3}[page.dtype.kind]
        height, width = page.shape
        start = len(data) + 2 + 10 * 12 + 4
        tags = [(256, width), (257, height), (258, 8 * page.itemsize), (259, 1), (262, photometric)]
        tags += [(273, start), (274, orientation), (278, height), (279, len(body)), (339, kind)]
        data += struct.pack(order + "H", len(tags))
        for tag, value in tags:
            data += struct.pack(order + "HHII", tag, 4, 1, value)
        data += struct.pack(order + "I", 0 if number == len(pages) else start + len(body)) + body
    return data


def pixels(source, **options):
    return read_scan(source, **options).pixels


SHAPE = np.array([[0, 1, 1, 0], [0, 0, 1, 1], [0, 0, 0, 0]], bool)
JPEG = saved(Image.fromarray(RNG.integers(0, 256, (80, 90, 3), dtype=np.uint8)), "JPEG")
PNG = saved(Image.fromarray(RNG.integers(0, 256, (80, 90, 3), dtype=np.uint8)), "PNG")


def smooth(size, phase=0.0):
    """Waves of some pixels' length over the whole image, in [0, 1]."""
    y, x = np.mgrid[: size[0], : size[1]] / np.max(size)
    return (2 + np.sin(7 * x + 3 * y + phase) + np.cos(5 * y - 4 * x + phase)) / 4


def picture(path: Path, pages: int = 1) -> Path:
    """A small grey image of the type the suffix says; a TIFF may have pages."""
    path.parent.mkdir(parents=True, exist_ok=True)
    images = [Image.fromarray(np.full((6, 8), 40 * (page + 1) % 256, np.uint8)) for page in range(pages)]
    images[0].save(path, **({"save_all": True, "append_images": images[1:]} if pages > 1 else {}))
    return path
