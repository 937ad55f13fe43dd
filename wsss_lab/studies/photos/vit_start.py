"""Calibrate TSCD's labels and ACR's localisation on photographs, before either is trained there.

    python -m wsss_lab.studies.photos.vit_start --root data --out wsss_lab/records/vit_start.json

Both presets `voc-mini` stand on `lite0_vit`, whose blocks know nothing at first. Here two networks
learn tags alone, one with TSCD's head, one with ACR's, on the middle square of every photo, whose
stem is computed once. Then, on photos of the list `train` that they were not trained on:

- TSCD: the best single threshold of the plain maps with true tags, at one scale. (Labels come from
  maps of several scales, see `label_bands`.)
- ACR: every first layer, with and without spreading. The pair with the best maps is taken.

Nothing of what the two papers add takes part, and no photo of `val`.
"""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
import tyro
from jaxtyping import Float, Int
from torch import Tensor, nn

from wsss_lab.cam.maps import normalize_cam
from wsss_lab.config import provenance, write_json
from wsss_lab.data.sampling import weights_of
from wsss_lab.losses import tag_loss
from wsss_lab.methods.acr import values as acr_values
from wsss_lab.methods.acr.localisation import gradient_maps, record_for_localisation, spread
from wsss_lab.methods.tscd import values as tscd_values
from wsss_lab.metrics import ThresholdSweep
from wsss_lab.metrics.tags import tag_map
from wsss_lab.models.heads import TagHead
from wsss_lab.models.weights import pretrained_backbone
from wsss_lab.progress import Countdown
from wsss_lab.ranges import Count, Seed, Settings
from wsss_lab.runs.images import load_data
from wsss_lab.runs.recipe import find_preset, find_recipe
from wsss_lab.runs.settings import plain
from wsss_lab.train.memory import kept_memory

Kind = Literal["patches", "token"]
"""Input of the head: the largest value of every channel over the patches, as TSCD; or the class
token, as ACR."""
SIDE = 224
"""Side of the squares, px."""


@dataclass(frozen=True)
class VitStart(Settings):
    """Calibrate both methods' start."""

    root: Path
    """Folder that has `voc-mini`."""
    out: Path = Path("vit_start.json")
    """The record."""
    steps: Count = 150
    """Steps per network, at the presets' learning rates, which rise in the first 20."""
    batch: Count = 16
    """Photos per step."""
    held: Count = 200
    """Photos of `train`, the first ones, that are left out of training and scored."""
    seed: Seed = 0
    """Of blocks, heads and batches."""


@dataclass(frozen=True)
class Photos:
    """Middle squares of photos."""

    stems: Float[Tensor, "n 1280 gh gw"]
    """Maps of the stem, half precision."""
    tags: Float[Tensor, "n k"]
    """Tags, 0 or 1."""
    masks: Int[Tensor, "m 224 224"]
    """Truth of the first `m` photos, which are held out."""


class Start(nn.Module):
    """Blocks and head that learn tags on the stem's maps.

    Args:
        kind: head.
        classes: foreground classes `k`.
    """

    def __init__(self, kind: Kind, classes: int) -> None:
        super().__init__()
        self.kind = kind
        name = "acr" if kind == "token" else "tscd"
        method: Any = find_recipe(name).build(find_preset(name, "voc-mini"), classes, True)
        network = method if kind == "token" else method.network
        self.backbone: Any = network.backbone
        self.head: TagHead = network.head if kind == "token" else network.tag_head

    def forward(
        self, stem: Float[Tensor, "b 1280 gh gw"]
    ) -> tuple[Float[Tensor, "b k"], Float[Tensor, "b d gh gw"]]:
        """Compute tag logits, and the map that TSCD's head reads."""
        maps, x = self.backbone.run_blocks(*self.backbone.embed_map(stem))
        if self.kind == "token":
            return self.head.linear(x[:, 0]), maps[-1]
        return self.head(maps[-1]), maps[-1]


def square(
    image: Float[Tensor, "b c h w"], side: int = SIDE, nearest: bool = False
) -> Float[Tensor, "b c s s"]:
    """Cut out the middle square and resize it."""
    h, w = image.shape[2:]
    s = min(h, w)
    y, x = (h - s) // 2, (w - s) // 2
    middle = image[:, :, y : y + s, x : x + s]
    if nearest:
        return F.interpolate(middle, (side, side), mode="nearest-exact")
    return F.interpolate(middle, (side, side), mode="bilinear", antialias=True)


@torch.no_grad()
def read(backbone: Any, held: Any, rest: Any, say: Callable[[str], None]) -> Photos:
    """Compute the stem of all photos; `held` are samples with masks, `rest` those to train on."""
    stems, tags, masks = [], [], []
    progress = Countdown("stem", len(held) + len(rest), say)
    for i in range(len(held) + len(rest)):
        sample = held[i] if i < len(held) else rest[i - len(held)]
        image = backbone.normalize(square(sample["image"][None].float() / 255))
        stems.append(backbone.net.patch_embed.backbone(image).half())
        tags.append(sample["tags"])
        if i < len(held):
            masks.append(square(sample["mask"][None, None].float(), nearest=True)[0, 0].long())
        progress.add(1)
    return Photos(torch.cat(stems), torch.stack(tags).float(), torch.stack(masks))


def train(
    kind: Kind, photos: Photos, weights: Tensor, settings: VitStart, say: Callable[[str], None]
) -> Start:
    """Train blocks and head on the photos that are not held out, drawn by weight."""
    torch.manual_seed(settings.seed)
    network = Start(kind, photos.tags.shape[1])
    optim = find_preset("tscd" if kind == "patches" else "acr", "voc-mini").optim
    rates = {"backbone": optim.lr, "head": optim.lr * optim.head_lr_factor}
    groups = [{"params": getattr(network, part).parameters(), "part": part} for part in rates]
    optimiser = torch.optim.AdamW(groups, weight_decay=optim.weight_decay)
    draw = torch.Generator().manual_seed(settings.seed)
    progress = Countdown(kind, settings.steps, say)
    for step in range(settings.steps):
        factor = min(1, (step + 1) / 20) * (1 - step / settings.steps) ** 0.9
        for group in optimiser.param_groups:
            group["lr"] = factor * rates[group["part"]]
        index = torch.multinomial(weights, settings.batch, generator=draw) + len(photos.masks)
        logits, _ = network(photos.stems[index].float())
        loss = tag_loss(logits, photos.tags[index])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        progress.add(1)
    return network.eval()


def token_maps(
    network: Start, stem: Tensor, tags: Tensor
) -> tuple[Mapping[str, Float[Tensor, "1 k gh gw"]], Tensor]:
    """Raw maps of ACR's localisation by first layer, with " spread" behind it if spread."""
    depth, grid = len(network.backbone.net.blocks), stem.shape[2:]
    found = {}
    for first in range(-depth, 0):
        with record_for_localisation(network, first) as trace:
            logits, _ = network(stem)
        maps = gradient_maps(logits, trace.attention, tags)
        found[f"{first}"] = maps.unflatten(2, grid)
        found[f"{first} spread"] = spread(maps, trace.affinity).unflatten(2, grid)
    return found, logits.detach()


def patch_maps(
    network: Start, stem: Tensor, tags: Tensor
) -> tuple[Mapping[str, Float[Tensor, "1 k gh gw"]], Tensor]:
    """Raw class maps of TSCD's head, 0 or more."""
    with torch.no_grad():
        logits, last = network(stem)
        return {"cam": network.head.cam(last).relu()}, logits


def score(kind: Kind, network: Start, photos: Photos) -> Mapping[str, Any]:
    """Score tags (mean average precision, 0..1) and maps with true tags of the photos held out.

    Returns:
        ``tag_map`` and, by name of the maps, the best ``threshold`` and the ``miou`` there, 0..1.
    """
    rule = acr_values.NORMALIZATION if kind == "token" else tscd_values.NORMALIZATION
    sweeps: dict[str, ThresholdSweep] = {}
    logits = []
    for i, mask in enumerate(photos.masks):
        stem, tags = photos.stems[i : i + 1].float(), photos.tags[i : i + 1]
        maps, logit = (token_maps if kind == "token" else patch_maps)(network, stem, tags)
        logits.append(logit)
        for name, raw in maps.items():
            large = F.interpolate(raw, mask.shape, mode="bilinear", align_corners=False)
            sweep = sweeps.setdefault(name, ThresholdSweep(tags.shape[1] + 1))
            sweep.update(normalize_cam(large, rule).clamp(0, 1), tags, mask[None])
    held = photos.tags[: len(photos.masks)]
    found: dict[str, Any] = {"tag_map": float(tag_map(torch.cat(logits), held))}
    for name, sweep in sweeps.items():
        result = sweep.compute()
        best, miou = float(result.best_threshold), float(result.best_miou)
        found[name] = {"threshold": best, "miou": miou}
    return found


def best_maps(scores: Mapping[str, Any]) -> tuple[int, bool]:
    """Return ACR's first layer and whether to spread: the maps with the highest mean IoU."""
    names = [name for name in scores if name != "tag_map"]
    layer, *spreading = max(names, key=lambda name: scores[name]["miou"]).split()
    return int(layer), bool(spreading)


def main(options: VitStart, say: Callable[[str], None] = print) -> None:
    """Train both networks, score their maps, write the record."""
    torch.set_num_threads(1)
    data = dataclasses.replace(find_preset("tscd", "voc-mini").data, root=options.root)
    labelled = load_data(dataclasses.replace(data, val_split="train"), "val", masks=True)
    held = [labelled[i] for i in range(options.held)]
    names = {sample["name"] for sample in held}
    everything = load_data(data, "train", masks=False)
    rest = [i for i, name in enumerate(everything.names) if name not in names]
    weights = torch.as_tensor(weights_of(everything))[rest]
    with kept_memory():
        photos = read(pretrained_backbone("lite0_vit"), held, _Some(everything, rest), say)
        found: dict[str, Any] = {}
        kind: Kind
        for kind in ("patches", "token"):
            network = train(kind, photos, weights, options, say)
            found[kind] = score(kind, network, photos)
            say(str(found[kind]))
    write(options, len(rest), found)


def write(options: VitStart, trained_on: int, found: Mapping[str, Any]) -> None:
    """Write the record; `found` is what `score` found, by kind."""
    settings = plain(dataclasses.replace(options, root=Path("VOC_MINI"), out=Path()))
    facts = provenance(settings, seed=options.seed, device="cpu")
    write_json(options.out, {"photos": options.held, "trained_on": trained_on, **found, **facts})


@dataclass(frozen=True)
class _Some:
    """Some samples of a data set."""

    samples: Any
    index: list[int]

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, i: int) -> Any:
        return self.samples[self.index[i]]


if __name__ == "__main__":
    main(tyro.cli(VitStart, description=__doc__))
