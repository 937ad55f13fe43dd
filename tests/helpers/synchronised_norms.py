"""Script: normalise in one process and in two, and print how far apart all numbers are as JSON.

Run as `synchronised_norms.py FOLDER`.
"""

import copy
import json
import os
import socket
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from timm.layers import BatchNormAct2d
from torch import nn

from wsss_lab.train.norms import synchronise


class Net(nn.Module):
    """All kinds of layers: plain, with an activation inside, cumulative, frozen, without affine."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 6, 3, bias=False),
            nn.BatchNorm2d(6),
            nn.ReLU(),
            nn.Conv2d(6, 6, 1),
            BatchNormAct2d(6),
            nn.Conv2d(6, 6, 1),
            nn.BatchNorm2d(6, momentum=None),
            nn.BatchNorm2d(6, affine=False, track_running_stats=False),
            nn.BatchNorm2d(6),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(2),
            nn.BatchNorm1d(6),
        )

    def train(self, mode=True):
        super().train(mode)
        self.layers[8].eval()
        return self

    def forward(self, images):
        return self.layers(images)


def net():
    torch.manual_seed(0)
    made = Net()
    for layer in made.layers:
        if isinstance(layer, nn.modules.batchnorm._BatchNorm) and layer.affine:
            nn.init.normal_(layer.weight)
            nn.init.normal_(layer.bias)
    return made


def run(model, images, share=slice(None), world=1):
    """Output, gradients and state after two steps whose loss is a mean over images."""
    images = images[:, share].clone().requires_grad_()
    outputs = []
    for batch in images:
        output = model(batch)
        per_image = (output.sin() * torch.arange(1.0, 25).view(6, 4)).mean((1, 2))
        (per_image.sum() * world / 8).backward()
        outputs.append(output.detach())
    return {
        "outputs": torch.stack(outputs),
        "images": images.grad / world,
        "weights": [p.grad for p in model.parameters() if p.grad is not None],
        "state": dict(model.state_dict()),
    }


def rank(number, port, folder, images, share):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    dist.init_process_group("gloo", rank=number, world_size=2)
    model = net()
    before = [id(layer) for layer in model.modules()]
    synchronise(model)
    synchronise(model)  # a second stage does it again
    assert before == [id(layer) for layer in model.modules()]
    model = copy.deepcopy(model)
    found = run(model, images, share, 2)
    for gradient in found["weights"]:
        dist.all_reduce(gradient)
        gradient /= 2
    model.eval()
    found["eval"] = model(images[0]).detach()
    torch.save(found, folder / f"{number}.pt")
    dist.destroy_process_group()


def in_two(folder, images, shares):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    pids = []
    for number in range(2):
        if pid := os.fork():
            pids.append(pid)
            continue
        try:
            rank(number, port, folder, images, shares[number])
            os._exit(0)
        except BaseException as error:
            print(repr(error), file=sys.stderr)
            os._exit(1)
    assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids] == [0, 0]
    return [torch.load(folder / f"{number}.pt") for number in range(2)]


def apart(one, other):
    return ((one - other).abs().max() / other.abs().max().clamp(min=1)).item()


def main(folder):
    torch.set_num_threads(1)
    images = 10 + 3 * torch.randn(2, 8, 3, 9, 7, generator=torch.Generator().manual_seed(1))
    model = net()
    alone = run(model, images)
    alone["eval"] = model.eval()(images[0]).detach()
    found = {}
    for name, shares in {
        "even": (slice(0, None, 2), slice(1, None, 2)),
        "uneven": (slice(0, 2), slice(2, None)),
    }.items():
        pair = in_two(folder, images, shares)
        found[name] = {
            key: max(apart(p[key], alone[key][:, s]) for p, s in zip(pair, shares, strict=True))
            for key in ("outputs", "images")
        }
        for p in pair:
            found[name]["weights"] = max(map(apart, p["weights"], alone["weights"]))
            state = [apart(v.float(), alone["state"][k].float()) for k, v in p["state"].items()]
            found[name]["state"] = max(state)
            found[name]["eval"] = apart(p["eval"], alone["eval"])
    share = run(net(), images, slice(0, None, 2))
    found["own_share"] = apart(share["outputs"], alone["outputs"][:, ::2])
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
