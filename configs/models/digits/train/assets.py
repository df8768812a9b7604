"""Writes samples/ (pictures to try the model with) and testdata/ (what the Go codec is tested against).

All digits come from odd rows, which the model never trained on.
"""

import io
import json
import pathlib

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

import pipeline
import variants

PACKAGE = pathlib.Path(__file__).resolve().parent.parent

# Decoders of lossy formats may differ by a few levels of 255; the others are exact.
EXACT, LOSSY = 1e-4, 0.12


def golden_cases():
    """File name, tolerance and the function from an 8x8 digit to the file."""

    def png(kind, width, height, name, light=False):
        return lambda d: variants.encode_png(variants.picture(d, width, height, name, light), kind)

    def jpeg(width, height, quality, light=False, colour=False):
        return lambda d: variants.encode_jpeg(variants.picture(d, width, height, "bicubic", light), quality, colour)

    yield "grey-8.png", EXACT, png("L", 8, 8, "nearest")
    yield "grey-8-light.png", EXACT, png("L", 8, 8, "nearest", True)
    yield "grey-9x13.png", EXACT, png("L", 9, 13, "bilinear")
    yield "grey-64-light.png", EXACT, png("L", 64, 64, "bicubic", True)
    yield "grey-1000.png", EXACT, png("L", 1000, 1000, "nearest")
    yield "rgb-100x40.png", EXACT, png("RGB", 100, 40, "bilinear")
    yield "rgba-28-light.png", EXACT, png("RGBA", 28, 28, "lanczos", True)
    yield "greyalpha-16.png", EXACT, png("LA", 16, 16, "box")
    yield "transparent-32.png", EXACT, png("clear", 32, 32, "bicubic")
    yield "transparent-32-light.png", EXACT, png("clear", 32, 32, "bicubic", True)
    yield "palette-50-light.png", EXACT, png("P", 50, 50, "bilinear", True)
    yield "deep-32.png", EXACT, png("I;16", 32, 32, "bilinear")
    yield "bits-40-light.png", EXACT, png("1", 40, 40, "bicubic", True)
    yield "dim-24.png", EXACT, png("dim", 24, 24, "nearest")
    yield "colour-33x47.png", EXACT, png("colour", 33, 47, "bicubic")
    yield "grey-64-q75.jpg", LOSSY, jpeg(64, 64, 75)
    yield "rgb-16-q50-light.jpg", LOSSY, jpeg(16, 16, 50, True, True)
    yield "rgb-120x90-q90.jpg", LOSSY, jpeg(120, 90, 90, False, True)
    yield "turned-48.jpg", LOSSY, turned_jpeg
    yield "lossless-20.webp", EXACT, lambda d: variants.encode_webp(variants.picture(d, 20, 20, "box"), lossless=True)
    yield "lossy-64-light.webp", LOSSY, lambda d: variants.encode_webp(variants.picture(d, 64, 64, "bicubic", True))


def turned_jpeg(digit):
    """A picture that lies on its side and whose EXIF says so (orientation 6)."""
    im = variants.picture(digit, 48, 48, "bicubic").rotate(90, expand=True)
    exif = Image.Exif()
    exif[0x0112] = 6
    out = io.BytesIO()
    im.save(out, "JPEG", quality=90, exif=exif)
    return out.getvalue()


def main():
    data = load_digits()
    digits, labels = data.images[1::2], data.target[1::2]

    samples = PACKAGE / "samples"
    samples.mkdir(exist_ok=True)
    for label in range(10):
        rows = np.flatnonzero(labels == label)
        typical = digits[rows].mean(axis=0)
        row = rows[np.abs(digits[rows] - typical).sum(axis=(1, 2)).argmin()]  # the most ordinary one
        (samples / f"{label}.png").write_bytes(
            variants.encode_png(variants.picture(digits[row], 128, 128, "bicubic", light=True), "L")
        )

    testdata = PACKAGE / "testdata"
    testdata.mkdir(exist_ok=True)
    for old in testdata.iterdir():
        old.unlink()
    cases = []
    for i, (name, tolerance, make) in enumerate(golden_cases()):
        row = 20 + 7 * i
        file = make(digits[row])
        (testdata / name).write_bytes(file)
        values = [round(float(v), 6) for v in pipeline.run(file)]
        cases.append({"file": name, "label": str(labels[row]), "tolerance": tolerance, "input": values})
    lines = ",\n".join(" " + json.dumps(c) for c in cases)
    (testdata / "golden.json").write_text(f"[\n{lines}\n]\n")
    write_rows(testdata, digits, labels)


def write_rows(folder, digits, labels):
    """All odd rows with their values 0..16 as one picture, 30 digits in a row, and their labels."""
    across = 30
    sheet = np.zeros((8 * -(-len(digits) // across), 8 * across), np.uint8)
    for i, d in enumerate(digits):
        y, x = 8 * (i // across), 8 * (i % across)
        sheet[y : y + 8, x : x + 8] = d
    Image.fromarray(sheet, "L").save(folder / "odd-rows.png", "PNG", optimize=True)
    (folder / "odd-rows.txt").write_text("".join(str(v) for v in labels) + "\n")


if __name__ == "__main__":
    main()
