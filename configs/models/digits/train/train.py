"""Trains the digits model and writes model.onnx, samples/, testdata/ and the figures.

  python3 -m venv venv && venv/bin/pip install -r requirements.txt && venv/bin/python train.py

Rows of scikit-learn's digits with an even index train, rows with an odd index only test. Training
sees each even row as many picture files (variants.py) that went through the pre-processing of
config.json (pipeline.py), so the net learns what the pipeline makes of them.
"""

import argparse
import pathlib

import numpy as np
from scipy import ndimage
from sklearn.datasets import load_digits

import assets
import evaluate
import net
import pipeline
import variants

HERE = pathlib.Path(__file__).resolve().parent
PACKAGE = HERE.parent
SEED = 20240607


def warp(digit, rng):
    """The digit slightly turned, slanted, scaled and shifted, as another hand would write it."""
    turn, slant = np.deg2rad(rng.uniform(-12, 12)), rng.uniform(-0.15, 0.15)
    zoom = rng.uniform(0.88, 1.12, 2)
    m = np.array([[np.cos(turn), -np.sin(turn) + slant], [np.sin(turn), np.cos(turn)]]) / zoom
    centre = np.array([3.5, 3.5])
    offset = centre - m @ centre + rng.uniform(-0.6, 0.6, 2)
    return np.clip(ndimage.affine_transform(digit, m, offset, order=1), 0, 16)


def pool(rows, per_row, rng):
    x, y = [], []
    for digit, label in rows:
        for i in range(per_row):
            d = digit if i % 3 == 0 else warp(digit, rng)
            x.append(pipeline.run(variants.random_picture(d, rng)))
            y.append(label)
    return np.array(x, np.float32).reshape(-1, 1, 8, 8), np.array(y)


def fit(x, y, epochs, rng):
    model = net.Net(rng)
    adam = net.Adam(model.p, decay=0.01)
    average = {k: v.copy() for k, v in model.p.items()}
    target = np.full((len(y), 10), 0.005, np.float32)
    target[np.arange(len(y)), y] = 0.955
    batch, step = 128, 0
    steps = epochs * (len(x) // batch)
    for epoch in range(epochs):
        order = rng.permutation(len(x))
        losses = []
        for i in range(0, len(x) - batch + 1, batch):
            at = order[i : i + batch]
            rate = 0.002 * 0.5 * (1 + np.cos(np.pi * step / steps))
            noisy = x[at] + rng.normal(0, 0.08, x[at].shape).astype(np.float32)
            loss, g = model.gradients(noisy, target[at], rng, drop=0.3)
            adam.step(model.p, g, rate)
            step += 1
            keep = min(0.999, step / (step + 10))
            for k, v in model.p.items():
                average[k] += (1 - keep) * (v - average[k])
            losses.append(loss)
        print(f"epoch {epoch + 1}/{epochs}: loss {np.mean(losses):.4f}", flush=True)
    model.p = average
    return model


def main():
    args = argparse.ArgumentParser()
    args.add_argument("--per-row", type=int, default=96)
    args.add_argument("--epochs", type=int, default=14)
    args.add_argument("--model", type=pathlib.Path, default=PACKAGE / "model.onnx")
    args = args.parse_args()

    rng = np.random.default_rng(SEED)
    data = load_digits()
    rows = list(zip(data.images, data.target))
    x, y = pool(rows[0::2], args.per_row, rng)
    print(f"{len(x)} pictures from {len(rows[0::2])} rows", flush=True)
    model = fit(x, y, args.epochs, rng)
    net.export(model.p, args.model)
    assets.main()
    evaluate.main(args.model)


if __name__ == "__main__":
    main()
