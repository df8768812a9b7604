"""Pictures that people and programs make from an 8x8 digit: sizes, filters, polarity, formats.

A digit is an 8x8 array of 0..16, light ink on a dark ground, as scikit-learn has it.
"""

import io

import numpy as np
from PIL import Image

FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "box": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "hamming": Image.Resampling.HAMMING,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
PNG_KINDS = ("L", "LA", "P", "RGB", "RGBA", "I;16", "1", "clear", "pale", "dim", "colour")
JPEG_QUALITIES = (50, 60, 75, 85, 95)


def picture(digit, width, height, resample, light=False, gain=255.0 / 16.0):
    """A grey picture of the digit; light means dark ink on a light ground."""
    a = np.clip(np.rint(digit * gain), 0, 255).astype(np.uint8)
    im = Image.fromarray(a, "L")
    if (width, height) != im.size:
        im = im.resize((width, height), FILTERS[resample])
    return im.point(lambda v: 255 - v) if light else im


def encode_png(im, kind):
    out = io.BytesIO()
    if kind == "I;16":
        Image.fromarray(np.asarray(im).astype(np.uint16) * 257).save(out, "PNG")
    elif kind == "clear":  # ink on nothing: the ground is transparent
        a = np.asarray(im)
        ring = np.concatenate([a[0], a[-1], a[1:-1, 0], a[1:-1, -1]])
        light = np.median(ring) > 127
        ink = np.full_like(a, 0 if light else 255)
        Image.merge("LA", [Image.fromarray(ink), Image.fromarray(255 - a if light else a)]).save(out, "PNG")
    elif kind == "pale":  # half the contrast
        im.point(lambda v: 64 + v // 2).save(out, "PNG")
    elif kind == "dim":  # the raw values 0..16, nearly black
        im.point(lambda v: (v + 8) // 16).save(out, "PNG")
    elif kind == "colour":  # from dark blue to yellow
        t = np.asarray(im).astype(np.float64)[:, :, None] / 255.0
        rgb = np.array([20, 30, 90]) * (1 - t) + np.array([250, 230, 60]) * t
        Image.fromarray(np.rint(rgb).astype(np.uint8), "RGB").save(out, "PNG")
    elif kind == "1":
        im.point(lambda v: 255 if v >= 112 else 0).convert("1", dither=Image.Dither.NONE).save(out, "PNG")
    else:
        im.convert(kind).save(out, "PNG")
    return out.getvalue()


def encode_jpeg(im, quality, colour=False):
    out = io.BytesIO()
    (im.convert("RGB") if colour else im).save(out, "JPEG", quality=quality)
    return out.getvalue()


def encode_webp(im, quality=80, lossless=False):
    out = io.BytesIO()
    im.convert("RGB").save(out, "WEBP", quality=quality, lossless=lossless)
    return out.getvalue()


def encode_any(im, rng):
    """One random format, for training."""
    roll = rng.random()
    if roll < 0.45:
        return encode_png(im, PNG_KINDS[rng.integers(len(PNG_KINDS))])
    if roll < 0.9:
        return encode_jpeg(im, int(rng.integers(40, 97)), bool(rng.integers(2)))
    return encode_webp(im, int(rng.integers(40, 96)))


def random_picture(digit, rng):
    """One random picture file of the digit, for training."""
    if rng.random() < 0.5:
        width = height = int(np.rint(2 ** rng.uniform(3, 6.5)))
    else:
        width, height = (int(np.rint(2 ** rng.uniform(3, 6.5))) for _ in range(2))
    names = tuple(FILTERS)
    gain = rng.choice([255.0 / 16.0, 16.0, 15.0])
    im = picture(digit, width, height, names[rng.integers(len(names))], bool(rng.integers(2)), gain)
    if rng.random() < 0.25:  # scaled twice
        side = [max(8, int(v * rng.uniform(0.5, 2))) for v in (width, height)]
        im = im.resize(side, FILTERS[names[rng.integers(len(names))]])
    return encode_any(im, rng)
