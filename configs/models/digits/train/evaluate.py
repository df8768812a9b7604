"""Measures the accuracy on the odd rows, per way of making a picture, through ONNX Runtime."""

import pathlib
import sys

import numpy as np
import onnxruntime
from sklearn.datasets import load_digits

import pipeline
import variants

SIZES = ((8, 8), (9, 9), (12, 12), (16, 16), (20, 30), (28, 28), (37, 41), (64, 64), (100, 40), (128, 128), (256, 256))
LARGE = ((1000, 1000), (4000, 4000), (4000, 8))


def session(path):
    s = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda x: s.run(["logits"], {"image": x.reshape(-1, 1, 8, 8)})[0].argmax(axis=1)


def cases():
    """Name, largest number of rows, and the function from digit to picture file."""
    for light in (False, True):
        ground = "light ground" if light else "dark ground"
        for size in SIZES:
            for name in variants.FILTERS:
                yield f"{size[0]}x{size[1]}", ground, name, None, _png(size, name, light, "L")
        for size in LARGE:
            for name in ("nearest", "bicubic"):
                yield f"{size[0]}x{size[1]}", ground, name, 25, _png(size, name, light, "L")
        for kind in variants.PNG_KINDS:
            for size in ((8, 8), (64, 64), (100, 100)):
                yield f"PNG {kind}", ground, str(size), None, _png(size, "bicubic", light, kind)
        for quality in variants.JPEG_QUALITIES:
            for size in ((8, 8), (16, 16), (32, 32), (100, 100)):
                yield f"JPEG quality {quality}", ground, str(size), None, _jpeg(size, light, quality)
        for size in ((16, 16), (64, 64)):
            yield "WebP quality 80", ground, str(size), None, _webp(size, light)


def _png(size, name, light, kind):
    return lambda d: variants.encode_png(variants.picture(d, *size, name, light), kind)


def _jpeg(size, light, quality):
    return lambda d: variants.encode_jpeg(variants.picture(d, *size, "bilinear", light), quality, quality % 2 == 1)


def _webp(size, light):
    return lambda d: variants.encode_webp(variants.picture(d, *size, "bilinear", light))


def main(model):
    predict = session(model)
    data = load_digits()
    digits, labels = data.images[1::2], data.target[1::2]
    plain = np.array([pipeline.from_luma(d * 255 / 16) for d in digits])
    print(f"odd rows as they are: {100 * (predict(plain) == labels).mean():.2f} %")

    table = {}
    for group, ground, detail, most, make in cases():
        step = 1 if most is None else len(digits) // most
        x = np.array([pipeline.run(make(d)) for d in digits[::step]])
        right = (predict(x) == labels[::step]).mean()
        table.setdefault(group, {}).setdefault(ground, []).append((right, detail))
    print("\n| pictures | dark ground: worst, mean | light ground: worst, mean | worst case |")
    print("|---|---|---|---|")
    for group, grounds in table.items():
        cells = [f"{100 * min(g)[0]:.1f} %, {100 * np.mean([r for r, _ in g]):.1f} %" for g in grounds.values()]
        worst = min(min(g) for g in grounds.values())
        print(f"| {group} | {' | '.join(cells)} | {worst[1]} |")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else pathlib.Path(__file__).resolve().parent.parent / "model.onnx")
