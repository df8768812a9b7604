"""A small convolutional net in numpy: forward, backward, Adam, and export to ONNX.

  x [N,1,8,8] -> conv 3x3 -> relu -> conv 3x3 -> relu -> max pool 2x2 -> dense -> relu -> dense -> logits [N,10]
"""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

C1, C2, HIDDEN, CLASSES, SIDE = 24, 32, 96, 10, 8


class Net:
    def __init__(self, rng):
        def he(shape, fan_in):
            return (rng.standard_normal(shape) * np.sqrt(2.0 / fan_in)).astype(np.float32)

        flat = C2 * (SIDE // 2) ** 2
        self.p = {
            "conv1.w": he((C1, 1, 3, 3), 9),
            "conv1.b": np.zeros(C1, np.float32),
            "conv2.w": he((C2, C1, 3, 3), 9 * C1),
            "conv2.b": np.zeros(C2, np.float32),
            "fc1.w": he((flat, HIDDEN), flat),
            "fc1.b": np.zeros(HIDDEN, np.float32),
            "fc2.w": he((HIDDEN, CLASSES), HIDDEN),
            "fc2.b": np.zeros(CLASSES, np.float32),
        }

    def forward(self, x, rng=None, drop=0.0):
        """Logits, and what backward needs. Dropout applies only when rng is given."""
        p, n = self.p, len(x)
        cols1 = im2col(x)
        a1 = np.maximum(cols1 @ p["conv1.w"].reshape(C1, -1).T + p["conv1.b"], 0)
        cols2 = im2col(to_image(a1, n))
        a2 = np.maximum(cols2 @ p["conv2.w"].reshape(C2, -1).T + p["conv2.b"], 0)
        windows = to_image(a2, n).reshape(n, C2, SIDE // 2, 2, SIDE // 2, 2)
        windows = windows.transpose(0, 1, 2, 4, 3, 5).reshape(n, -1, 4)
        best = windows.argmax(axis=2)
        flat = np.take_along_axis(windows, best[:, :, None], axis=2)[:, :, 0]
        keep0 = mask(flat.shape, rng, drop)
        flat = flat * keep0
        h = np.maximum(flat @ p["fc1.w"] + p["fc1.b"], 0)
        keep1 = mask(h.shape, rng, drop)
        h = h * keep1
        return h @ p["fc2.w"] + p["fc2.b"], (n, cols1, a1, cols2, a2, best, flat, keep0, h, keep1)

    def gradients(self, x, target, rng, drop):
        """Mean cross entropy and the gradient of every parameter."""
        p = self.p
        z, (n, cols1, a1, cols2, a2, best, flat, keep0, h, keep1) = self.forward(x, rng, drop)
        z = z - z.max(axis=1, keepdims=True)
        prob = np.exp(z)
        prob /= prob.sum(axis=1, keepdims=True)
        loss = float(-(target * np.log(prob + 1e-9)).sum() / n)
        dz = (prob - target) / n
        g = {"fc2.w": h.T @ dz, "fc2.b": dz.sum(0)}
        dh = (dz @ p["fc2.w"].T) * keep1 * (h > 0)
        g["fc1.w"], g["fc1.b"] = flat.T @ dh, dh.sum(0)
        dflat = (dh @ p["fc1.w"].T) * keep0
        dwin = np.zeros((*dflat.shape, 4), np.float32)
        np.put_along_axis(dwin, best[:, :, None], dflat[:, :, None], axis=2)
        half = SIDE // 2
        dimg = dwin.reshape(n, C2, half, half, 2, 2).transpose(0, 1, 2, 4, 3, 5).reshape(n, C2, SIDE, SIDE)
        d2 = dimg.transpose(0, 2, 3, 1).reshape(-1, C2) * (a2 > 0)
        g["conv2.w"], g["conv2.b"] = (d2.T @ cols2).reshape(C2, C1, 3, 3), d2.sum(0)
        d1 = col2im(d2 @ p["conv2.w"].reshape(C2, -1), n, C1).transpose(0, 2, 3, 1).reshape(-1, C1) * (a1 > 0)
        g["conv1.w"], g["conv1.b"] = (d1.T @ cols1).reshape(C1, 1, 3, 3), d1.sum(0)
        return loss, g

    def predict(self, x):
        return np.concatenate([self.forward(x[i : i + 512])[0] for i in range(0, len(x), 512)]).argmax(axis=1)


def mask(shape, rng, drop):
    if rng is None or drop == 0:
        return np.float32(1)
    return ((rng.random(shape, dtype=np.float32) >= drop) / (1 - drop)).astype(np.float32)


def im2col(x):
    n, c = x.shape[:2]
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    view = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    return np.ascontiguousarray(view.transpose(0, 2, 3, 1, 4, 5)).reshape(n * SIDE * SIDE, c * 9)


def col2im(cols, n, c):
    cols = cols.reshape(n, SIDE, SIDE, c, 3, 3).transpose(0, 3, 1, 2, 4, 5)
    out = np.zeros((n, c, SIDE + 2, SIDE + 2), np.float32)
    for i in range(3):
        for j in range(3):
            out[:, :, i : i + SIDE, j : j + SIDE] += cols[:, :, :, :, i, j]
    return out[:, :, 1:-1, 1:-1]


def to_image(rows, n):
    return rows.reshape(n, SIDE, SIDE, -1).transpose(0, 3, 1, 2)


class Adam:
    def __init__(self, params, decay):
        self.m = {k: np.zeros_like(v) for k, v in params.items()}
        self.v = {k: np.zeros_like(v) for k, v in params.items()}
        self.t, self.decay = 0, decay

    def step(self, params, grads, rate):
        self.t += 1
        for k, g in grads.items():
            self.m[k] += 0.1 * (g - self.m[k])
            self.v[k] += 0.001 * (g * g - self.v[k])
            m, v = self.m[k] / (1 - 0.9**self.t), self.v[k] / (1 - 0.999**self.t)
            params[k] -= (rate * (m / (np.sqrt(v) + 1e-8) + self.decay * params[k])).astype(np.float32)


def export(params, path):
    """Writes the net with a free first dimension named "batch"."""
    init = [numpy_helper.from_array(v.astype(np.float32), k) for k, v in params.items()]
    conv = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    nodes = [
        helper.make_node("Conv", ["image", "conv1.w", "conv1.b"], ["c1"], **conv),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("Conv", ["r1", "conv2.w", "conv2.b"], ["c2"], **conv),
        helper.make_node("Relu", ["c2"], ["r2"]),
        helper.make_node("MaxPool", ["r2"], ["p2"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Flatten", ["p2"], ["flat"]),
        helper.make_node("Gemm", ["flat", "fc1.w", "fc1.b"], ["h"]),
        helper.make_node("Relu", ["h"], ["hr"]),
        helper.make_node("Gemm", ["hr", "fc2.w", "fc2.b"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "digits",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 1, SIDE, SIDE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", CLASSES])],
        init,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], producer_name="sluice digits")
    model.ir_version = 8
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
