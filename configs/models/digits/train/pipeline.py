"""Reference of the image pre-processing that config.json declares.

It follows the stages in the comment of spec.Image to the letter, in float64, for the settings that
the digits model uses: one channel, background auto, invert auto, area resize, contrast stretch.
The Go codec is tested against what this file computes (testdata/golden.json).
"""

import io

import numpy as np
from PIL import Image, ImageOps

SIDE = 8
MEAN, STD = 0.30, 0.37


def decode(data):
    """Stages 1 to 4: bytes of a picture to its luma, float64 on the scale 0..255."""
    with Image.open(io.BytesIO(data)) as im:
        im.load()
        im = ImageOps.exif_transpose(im)
        return composite(*planes(im))


def planes(im):
    """Luma and alpha (0..1), or None where the picture has no alpha."""
    if im.mode in ("I;16", "I;16B", "I;16L", "I"):
        return np.asarray(im).astype(np.float64) / 257.0, None
    if im.mode == "P":
        im = im.convert("RGBA" if "transparency" in im.info else "RGB")
    if im.mode == "LA":
        a = np.asarray(im).astype(np.float64)
        return a[:, :, 0], a[:, :, 1] / 255.0
    if im.mode == "RGBA":
        a = np.asarray(im).astype(np.float64)
        return luma(a[:, :, :3]), a[:, :, 3] / 255.0
    if im.mode in ("1", "L"):
        return np.asarray(im.convert("L")).astype(np.float64), None
    return luma(np.asarray(im.convert("RGB")).astype(np.float64)), None


def luma(rgb):
    return rgb @ np.array([0.299, 0.587, 0.114])


def composite(y, alpha):
    """Stage 3 with background auto. It is linear, so the luma may be composited instead of the colours."""
    if alpha is None:
        return y
    seen = alpha.sum()
    background = 255.0 if seen > 0 and (y * alpha).sum() / seen < 127.5 else 0.0
    return y * alpha + background * (1.0 - alpha)


def light_background(y):
    """Stage 5."""
    h, w = y.shape
    ring = [y[0]]
    if h > 1:
        ring.append(y[-1])
    if h > 2:
        ring.append(y[1:-1, 0])
        if w > 1:
            ring.append(y[1:-1, -1])
    ring = np.sort(np.concatenate(ring))
    return ring[(len(ring) - 1) // 2] > (y.min() + y.max()) / 2


def area_weights(source, target):
    """Row i holds the share of each source pixel in output pixel i."""
    edges = np.arange(target + 1) * (source / target)
    low, high = edges[:-1, None], edges[1:, None]
    at = np.arange(source)[None, :]
    cover = np.clip(np.minimum(high, at + 1) - np.maximum(low, at), 0.0, None)
    return cover / cover.sum(axis=1, keepdims=True)


def resize_area(y, height, width):
    """Stage 7, fit stretch."""
    return area_weights(y.shape[0], height) @ y @ area_weights(y.shape[1], width).T


def stretch(y):
    """Stage 9."""
    low, high = y.min(), y.max()
    return (y - low) * (255.0 / (high - low)) if high > low else np.zeros_like(y)


def from_luma(y):
    """Stages 5 to 10."""
    small = resize_area(y, SIDE, SIDE)
    if light_background(y):
        small = 255.0 - small
    return ((stretch(small) / 255.0 - MEAN) / STD).astype(np.float32).reshape(-1)


def run(data):
    """Bytes of a picture to the 64 input values of the model."""
    return from_luma(decode(data))
