"""Weights of EfficientNet-Lite0 as a script that a page opened from disk can read.

    python book/_ext/photo_weights.py            writes book/_static/photo/weights.js

A page from disk may read no file but scripts, so the numbers travel as text. Each convolution takes
in the batch normalisation after it; then every row of weights (one output channel) is rounded to
whole multiples of its largest value / (2^(bits - 1) - 1). These steps and the biases stay float32.

The bytes, before gzip and base64: layer by layer the upper 8 bits of every weight, one byte each,
and the lower bits, packed; then all steps; then all biases. Weights lie as in PyTorch, output
channel first.
"""

import base64
import copy
import gzip
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from wsss_lab.models.imagenet import imagenet_classifier
from wsss_lab.models.lite0 import LITE0_TAG

FILE = Path(__file__).parents[1] / "_static" / "photo" / "weights.js"
BITS, FINE_BITS = 11, 16
"""Of a weight; the second for depthwise layers and the first one, which are few and sensitive."""
ACTIVE = {nn.ReLU6: True, nn.Identity: False}


@dataclass(frozen=True)
class Layer:
    """A convolution with the normalisation after it, or the classifier.

    Attributes:
        weight: (out, in / groups, kernel, kernel), float64.
        bias: (out,), float64.
        facts: what the page has to know to run it.
    """

    weight: torch.Tensor
    bias: torch.Tensor
    facts: dict[str, Any]


def layers_of(net: Any) -> list[Layer]:
    """Layers of timm's EfficientNet-Lite0 in the order in which they run, the classifier last."""
    found = [_layer("stem", net.conv_stem, net.bn1)]
    for s, stage in enumerate(net.blocks):
        for b, block in enumerate(stage):
            names = (
                ("conv_pw", "conv_dw", "conv_pwl")
                if hasattr(block, "conv_pwl")
                else ("conv_dw", "conv_pw")
            )
            for n, name in enumerate(names, 1):
                last = block.has_skip and n == len(names)
                norm = getattr(block, f"bn{n}")
                place = f"blocks.{s}.{b}"
                found.append(_layer(f"{place}.{name}", getattr(block, name), norm, place, last))
    found.append(_layer("head", net.conv_head, net.bn2))
    if isinstance(head := net.get_classifier(), nn.Linear):
        found.append(classifier_layer(head.weight, head.bias))
    return found


def classifier_layer(weight: torch.Tensor, bias: torch.Tensor) -> Layer:
    """The linear layer behind the mean of the last map."""
    facts = {"name": "classifier", "kind": "linear", "in": weight.shape[1], "out": len(weight)}
    facts["bits"] = BITS
    return Layer(weight.detach().double()[:, :, None, None], bias.detach().double(), facts)


def _layer(name: str, conv: nn.Conv2d, norm: Any, block: str = "", add: bool = False) -> Layer:
    weight, bias = fuse_conv_bn_weights(
        conv.weight.double(), None, norm.running_mean.double(), norm.running_var.double(),
        norm.eps, norm.weight.double(), norm.bias.double(),
    )  # fmt: skip
    facts = {
        "name": name,
        "kind": "depthwise" if conv.groups > 1 else "conv",
        "in": conv.in_channels,
        "out": conv.out_channels,
        "kernel": conv.kernel_size[0],
        "stride": conv.stride[0],
        "dilation": conv.dilation[0],
        "relu6": ACTIVE[type(norm.act)],
        "block": block,
        "add": add,
        "bits": FINE_BITS if conv.groups > 1 or name == "stem" else BITS,
    }
    return Layer(weight.detach(), bias.detach(), facts)


def quantise(weight: torch.Tensor, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """Round every row to whole multiples of its own step.

    Returns:
        int16 (out, rest), and the steps, float32 (out,). A row of zeros has the step 0.
    """
    rows = weight.flatten(1).double().numpy()
    step = (np.abs(rows).max(1) / (2 ** (bits - 1) - 1)).astype(np.float32)
    exact = np.where(step > 0, step, 1).astype(np.float64)[:, None]
    return np.rint(rows / exact).astype(np.int16), step


def pack(numbers: np.ndarray, bits: int) -> bytes:
    """Signed numbers of `bits` bits, int16: a byte each for the upper 8, then the lower bits."""
    low = bits - 8
    planes = (numbers.astype(np.int16).ravel()[:, None] >> np.arange(low)) & 1
    lower = np.packbits(planes.astype(np.uint8), bitorder="little")
    return (numbers >> low).astype(np.int8).tobytes() + lower.tobytes()


def unpack(data: np.ndarray, count: int, bits: int) -> np.ndarray:
    """Undo `pack`: int16 (count,) from the first bytes of `data`."""
    low = bits - 8
    planes = np.unpackbits(data[count : packed_size(count, bits)], bitorder="little")
    lower = planes[: count * low].reshape(count, low).astype(np.int16) @ (1 << np.arange(low))
    return ((data[:count].view(np.int8).astype(np.int16) << low) + lower).astype(np.int16)


def packed_size(count: int, bits: int) -> int:
    """Bytes that `pack` makes of so many numbers."""
    return count + -(-count * (bits - 8) // 8)


def script(layers: list[Layer]) -> str:
    """The script that hands the weights to the page."""
    pairs = [quantise(layer.weight, layer.facts["bits"]) for layer in layers]
    data = b"".join(pack(q, la.facts["bits"]) for (q, _), la in zip(pairs, layers, strict=True))
    floats = [step for _, step in pairs] + [la.bias.float().numpy() for la in layers]
    data += np.concatenate(floats).astype("<f4").tobytes()
    content = {"tag": LITE0_TAG, "layers": [la.facts for la in layers], "data": text_of(data)}
    return f"wsssPhoto.weights = {json.dumps(content)};\n"


def text_of(data: bytes) -> str:
    """Bytes as text: gzip, then base64; the same every time."""
    return base64.b64encode(gzip.compress(data, 9, mtime=0)).decode("ascii")


def content_of(script: str) -> dict[str, Any]:
    """What a script hands to the page."""
    return json.loads(script.partition(" = ")[2].rstrip(";\n"))


def read_weights(content: dict[str, Any]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Weights (out, rest) and biases (out,) that the page will use, float32, by layer."""
    data = np.frombuffer(gzip.decompress(base64.b64decode(content["data"])), np.uint8)
    layers, numbers = content["layers"], []
    for facts in layers:
        count = facts["out"] * width(facts)
        numbers.append(unpack(data, count, facts["bits"]))
        data = data[packed_size(count, facts["bits"]) :]
    ends = np.cumsum([facts["out"] for facts in layers] * 2)[:-1]
    floats = np.split(np.frombuffer(data.tobytes(), "<f4"), ends)
    steps, biases = floats[: len(layers)], floats[len(layers) :]
    return [
        (q.reshape(len(step), -1) * step[:, None].astype(np.float32), bias)
        for q, step, bias in zip(numbers, steps, biases, strict=True)
    ]


def with_weights(net: Any, weights: list[tuple[np.ndarray, np.ndarray]]) -> Any:
    """A copy of the network with the weights of the page; its normalisations only add biases."""
    net = copy.deepcopy(net)
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    convs = [m for m in net.modules() if isinstance(m, nn.Conv2d)]
    with torch.no_grad():
        for conv, norm, (weight, bias) in zip(convs, norms, weights[:-1], strict=True):
            conv.weight.copy_(torch.from_numpy(weight).view_as(conv.weight))
            norm.running_mean.zero_(), norm.running_var.fill_(1 - norm.eps)
            norm.weight.fill_(1), norm.bias.copy_(torch.tensor(bias))
        head, (weight, bias) = net.get_classifier(), weights[-1]
        head.weight.copy_(torch.from_numpy(weight)), head.bias.copy_(torch.tensor(bias))
    return net


def width(facts: dict[str, Any]) -> int:
    """Weights per output channel."""
    inputs = 1 if facts["kind"] == "depthwise" else facts["in"]
    return int(inputs * facts.get("kernel", 1) ** 2)


if __name__ == "__main__":
    FILE.write_text(script(layers_of(imagenet_classifier().net)), encoding="ascii")
    print(f"{FILE.name}: {FILE.stat().st_size / 1e6:.2f} MB")
