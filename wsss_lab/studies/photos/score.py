"""Score a pre-trained `lite0_vit` on held-out photos, and pack its transformer.

    python -m wsss_lab.studies.photos.score VOC_FOLDER --state runs/lite0_vit.pth

Scores are measured on the photos that pre-training left out, after rounding to half precision. Tags
enter here only, in linear probes: frozen features, one logistic regression per class.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
import torch.nn.functional as F
import tyro
from jaxtyping import Float
from torch import Tensor

from wsss_lab.config import provenance, write_atomically, write_text_atomically
from wsss_lab.metrics.tags import average_precision
from wsss_lab.models.base import count_parameters
from wsss_lab.models.lite0_vit import HEADS_PREFIX, PACKAGED, STEM_PREFIX
from wsss_lab.ranges import Batch, Count, Pixels, Settings
from wsss_lab.studies.photos.card import CARD
from wsss_lab.studies.photos.foretell import Foreteller, Teacher, build_pair
from wsss_lab.studies.photos.photos import (
    centre_crop,
    is_held_out,
    list_names,
    read_photos,
    read_tags,
    to_tensor,
)

L2 = (1e-3, 1e-2, 1e-1)
"""Strengths of weight decay that the probe chooses from."""


@dataclass(frozen=True)
class PhotoScore(Settings):
    """Settings of the scores of a student, and their place."""

    photos: tyro.conf.Positional[Path]
    """Folder in VOC layout, as in pre-training."""
    subset: str = "train_tags"
    """List of photos, as in pre-training."""
    state: Path = Path("runs/lite0_vit.pth")
    """Checkpoint of `wsss_lab.studies.photos.pretrain`."""
    side: Pixels = 224
    """Side of the middle square of a photo, px."""
    batch: Batch = 32
    """Photos at a time."""
    threads: Count = 1
    """Threads."""
    out: Path = PACKAGED
    """Target, ending in ``.safetensors``; the card goes beside it."""
    note: str = ""
    """One sentence for the card, for instance what else ran on the machine."""


@dataclass(frozen=True)
class Described:
    """Features and foretellings of a list of photos.

    Attributes:
        features: by name, one row per photo.
        token_agrees: whether the class token's head names the teacher's ImageNet class, (n).
        map_agrees: whether the teacher's classifier does so on the foretold map, (n).
        token_top5: whether the teacher's class is among the head's first five, (n).
        cosine: mean cosine between foretold and true activated map, (n).
    """

    features: dict[str, Tensor]
    token_agrees: Tensor
    map_agrees: Tensor
    token_top5: Tensor
    cosine: Tensor


AGREEMENT = ("token_agrees", "map_agrees", "token_top5", "cosine")


@torch.no_grad()
def describe_batch(
    student: Foreteller, untrained: Foreteller, teacher: Teacher, images: Tensor
) -> Described:
    """Run teacher, student and a random transformer on normalised images."""
    targets = teacher(images)
    stem, true = targets.stem.clone(), F.relu6(targets.last)
    _, x = student.backbone.tokens_of(stem)
    _, other = untrained.backbone.tokens_of(stem)
    told = F.relu6(student.foretell_map(x[:, 1:]))
    top = targets.log_probs.argmax(1)
    logits = student.foretell_classes(x[:, 0])
    features = {
        "Lite0, last map (1280)": true.mean(1),
        "stem (112)": stem.mean(dim=(2, 3)),
        "random transformer, patch tokens (192)": other[:, 1:].mean(1),
        "patch tokens (192)": x[:, 1:].mean(1),
        "class token (192)": x[:, 0],
    }
    return Described(
        {name: value.clone() for name, value in features.items()},
        logits.argmax(1) == top,
        student.classify(told.mean(1)).argmax(1) == top,
        (logits.topk(5).indices == top[:, None]).any(1),
        F.cosine_similarity(told, true, dim=2).mean(1),
    )


def describe(
    students: tuple[Foreteller, Foreteller],
    teacher: Teacher,
    photos: list[Any],
    side: int,
    batch: int,
) -> Described:
    """Run teacher, student and a random transformer on the middle squares of photos."""
    parts = []
    for start in range(0, len(photos), batch):
        crops = [centre_crop(photo, side) for photo in photos[start : start + batch]]
        images = students[0].backbone.normalize(to_tensor(crops))
        images = images.contiguous(memory_format=torch.channels_last)
        parts.append(describe_batch(*students, teacher, images))
    return Described(
        {name: torch.cat([p.features[name] for p in parts]) for name in parts[0].features},
        *(torch.cat([getattr(p, field) for p in parts]) for field in AGREEMENT),
    )


def fit_probe(x: Float[Tensor, "n d"], tags: Float[Tensor, "n k"], decay: float) -> Tensor:
    """Weights (d + 1, k) of one logistic regression per class, on standardised features."""
    x = F.pad(x, (0, 1), value=1.0)
    weight = torch.zeros(x.shape[1], tags.shape[1], requires_grad=True)
    optimizer = torch.optim.LBFGS([weight], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.binary_cross_entropy_with_logits(x @ weight, tags) * tags.shape[1]
        loss = loss + 0.5 * decay * weight[:-1].square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return weight.detach()


def probe(
    train: Float[Tensor, "n d"],
    tags: Float[Tensor, "n k"],
    test: Float[Tensor, "m d"],
    test_tags: Float[Tensor, "m k"],
) -> float:
    """Mean average precision (0..1) of linear tag classifiers on frozen features.

    The strength of weight decay is chosen on every fifth photo of the training part.
    """
    mean, deviation = train.mean(0), train.std(0) + 1e-6
    train, test = (train - mean) / deviation, (test - mean) / deviation
    chosen = torch.arange(len(train)) % 5 == 0

    def precision(weight: Tensor, x: Tensor, truth: Tensor) -> float:
        return average_precision(x @ weight[:-1] + weight[-1], truth).nanmean().item()

    trials = [fit_probe(train[~chosen], tags[~chosen], decay) for decay in L2]
    found = [precision(weight, train[chosen], tags[chosen]) for weight in trials]
    best = L2[found.index(max(found))]
    return precision(fit_probe(train, tags, best), test, test_tags)


def tensors(student: Foreteller) -> dict[str, Tensor]:
    """Return the trained tensors in half precision: transformer and both heads, without stem."""
    net = student.backbone.net.state_dict()
    kept = {name: v for name, v in net.items() if not name.startswith(STEM_PREFIX)}
    for head in ("translate", "describe"):
        own = getattr(student, head).state_dict()
        kept |= {f"{HEADS_PREFIX}{head}.{name}": value for name, value in own.items()}
    return {name: value.half().contiguous() for name, value in kept.items()}


def load_tensors(student: Foreteller, state: dict[str, Tensor]) -> None:
    """Put packed tensors back into a student."""
    for name, value in state.items():
        owner: Any = student.backbone.net
        if name.startswith(HEADS_PREFIX):
            owner, name = student, name.removeprefix(HEADS_PREFIX)
        owner.state_dict()[name].copy_(value)


def scores(settings: PhotoScore, state: dict[str, Tensor]) -> dict[str, Any]:
    """Measure agreement on the held-out photos, and tag probes fitted on all others."""
    names = list_names(settings.photos, settings.subset)
    parts = [[n for n in names if is_held_out(n) == held] for held in (False, True)]
    tags = [read_tags(settings.photos, part) for part in parts]
    torch.manual_seed(0)
    (student, teacher), (untrained, _) = build_pair(), build_pair()
    load_tensors(student.eval(), state)
    untrained.eval()
    teacher.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    fit, test = (
        describe(
            (student, untrained),
            teacher,
            read_photos(settings.photos, part),
            settings.side,
            settings.batch,
        )
        for part in parts
    )
    return {
        "held_out_photos": len(parts[1]),
        **{f: round(getattr(test, f).float().mean().item(), 4) for f in AGREEMENT},
        "tag_mAP": {
            key: round(probe(fit.features[key], tags[0], test.features[key], tags[1]), 4)
            for key in fit.features
        },
    }


def earlier_round(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """Describe the tensors that a run began with; empty if it began at random."""
    if not checkpoint["started_from"]:
        return {}
    card = json.loads(Path(checkpoint["settings"]["start"]).with_suffix(".json").read_text("utf-8"))
    kept = {key: card[key] for key in ("training", "earlier_round", "note") if key in card}
    return {"sha256": checkpoint["started_from"], "git": card["git"]} | kept


def pack(settings: PhotoScore) -> dict[str, Any]:
    """Score a checkpoint and write the file and its card."""
    torch.set_num_threads(settings.threads)
    checkpoint = torch.load(settings.state, weights_only=True)
    student, _ = build_pair()
    student.load_state_dict(checkpoint["student"])
    state = tensors(student)
    used = checkpoint["settings"] | {"photos": settings.photos.name}
    used.pop("state")
    used["start"] = Path(used["start"]).name if checkpoint["started_from"] else ""
    card = {
        "backbone": "lite0_vit",
        "parameters": count_parameters(student.backbone.net),
        "parameters_in_this_file": sum(value.numel() for value in state.values()),
        "training": {key: checkpoint[key] for key in ("step", "crops")}
        | {"seconds": round(checkpoint["seconds"]), "history": checkpoint["history"][::20]},
        "earlier_round": earlier_round(checkpoint),
        "scores": scores(settings, state),
        "note": settings.note,
        **provenance(used, seed=int(used["seed"]), device="cpu"),
    }
    data = safetensors.torch.save(state)
    write_atomically(settings.out, lambda file: file.write(data))
    text = json.dumps(CARD | card, indent=2, ensure_ascii=False)
    write_text_atomically(settings.out.with_suffix(".json"), text + "\n")
    return card


if __name__ == "__main__":
    pack(tyro.cli(PhotoScore))
