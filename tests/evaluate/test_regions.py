"""Context and coverage of toy scenes, against loops; in evaluations, and where they stay out."""

import json

import numpy as np
import pytest
import torch

from wsss_lab.cam import normalize_cam
from wsss_lab.data.catalog import TOY_CLASSES, TOY_CONTEXTS
from wsss_lab.data.config import DataConfig
from wsss_lab.data.toy import ToyWorld
from wsss_lab.evaluate.evaluate import evaluate, score_shard
from wsss_lab.evaluate.inference import MultiScale
from wsss_lab.evaluate.regions import RegionCounts, regions_of
from wsss_lab.methods.common.base import Method, SegOutput
from wsss_lab.runs.images import InMemory, load_data

SIDE, COUNT = 64, 10


@pytest.fixture(scope="module")
def world():
    return load_data(DataConfig(val_count=COUNT, size=SIDE), "val")


class Guess(Method):
    """A fixed map per image, recognised by its first pixels."""

    def __init__(self, world):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        g = torch.Generator().manual_seed(0)
        self.keys = torch.stack([s["image"] for s in world]).float() / 255
        self.logits = torch.rand(len(self.keys), 11, SIDE, SIDE, generator=g)
        self.cam = torch.rand(len(self.keys), 10, SIDE, SIDE, generator=g)
        self.tags = torch.randn(len(self.keys), 10, generator=g)

    def predict(self, images, tags=None):
        rows = [int((self.keys - x).abs().flatten(1).sum(1).argmin()) for x in images]
        return SegOutput(self.logits[rows], self.cam[rows], self.tags[rows])


def near(mask, radius):
    """Pixels within a king's distance, by shifting."""
    out, padded = np.zeros_like(mask), np.pad(mask, radius)
    for y in range(2 * radius + 1):
        for x in range(2 * radius + 1):
            out |= padded[y : y + mask.shape[0], x : x + mask.shape[1]]
    return out


def by_loops(world, claims, label):
    """Context (claims[i][c] are maps) and coverage, one scene and class after the other."""
    sums = {}

    def add(name, values):
        total = sums.setdefault(name, [0.0, 0])
        total[0] += float(values.sum())
        total[1] += values.size

    for i in range(len(world)):
        sample = {k: v.numpy() for k, v in world[i].items() if torch.is_tensor(v)}
        away = ~near(sample["instance"] > 0, 4)
        for name, (what, value) in TOY_CONTEXTS.items():
            c, there = TOY_CLASSES.index(name), (sample["context"] == value) & away
            if sample["tags"][c] and there.any():
                add(f"{name}_{what}", claims[i][c][there])
                add(f"{name}_other", claims[i][c][away & ~there])
        for c in np.flatnonzero(sample["tags"]):
            own = sample["mask"] == c + 1
            part = sample["distinctive"].astype(bool) & near(own, 2)
            if part.any():
                hit = label[i] == c + 1
                add("near", hit[own & near(part, 4)])
                add("far", hit[own & ~near(part, 10)])
    return {name: total / count if count else None for name, (total, count) in sums.items()}


def test_all_kinds_against_loops(world):
    method = Guess(world)
    found = evaluate(
        method, world, num_classes=11, cam_threshold=0.9, tags_at_test=True, batch=4
    ).as_dict()
    json.dumps(found)
    truth = torch.stack([s["tags"] for s in world])
    for end, allowed in (("", (method.tags > 0).float()), ("+true tags", truth)):
        seen = torch.cat([torch.ones(COUNT, 1), truth], 1) if end else torch.ones(COUNT, 11)
        seg = method.logits.masked_fill(seen[:, :, None, None] <= 0, -9).argmax(1)
        cam = normalize_cam(method.cam, "plain") * allowed[:, :, None, None]
        label = torch.where(cam.amax(1) > 0.9, cam.argmax(1) + 1, 0)
        hard = torch.stack([(seg == c + 1).float() for c in range(10)], 1)
        for kind, claims, chosen in (("seg", hard, seg), ("cam", cam, label)):
            got = found[f"{kind}{end}"]
            wanted = by_loops(world, claims.numpy(), chosen.numpy())
            flat = got["context"] | got["coverage"]
            assert {k: v for k, v in flat.items() if v is not None} == pytest.approx(wanted)
            assert {"near", "far", "boat_water", "boat_other"} <= set(flat)


def test_without_threshold_maps_have_no_coverage(world):
    found = evaluate(Guess(world), world, num_classes=11).as_dict()
    assert "coverage" not in found["cam"]
    assert "context" in found["cam"]
    assert set(found["seg"]["coverage"]) == {"near", "far"}


def test_a_perfect_label_claims_nothing_and_covers_all(world):
    samples = [world[i] for i in range(COUNT)]
    truth, tags = (torch.stack([s[name] for s in samples]) for name in ("mask", "tags"))
    counts = RegionCounts()
    counts.add(regions_of(samples, truth, tags), truth)
    found = counts.as_dict()
    assert set(found["context"].values()) <= {0.0, None}
    assert found["coverage"] == {"near": 1.0, "far": 1.0}
    assert RegionCounts().as_dict() == {"context": dict.fromkeys(found["context"])}


def test_shards_add_up(world):
    options = {"thresholds": [0.0, 0.5], "cam_threshold": 0.5}
    whole = score_shard(Guess(world), world, MultiScale(), 11, **options)
    parts = [
        score_shard(Guess(world), world, MultiScale(), 11, rank=r, world=3, **options)
        for r in range(3)
    ]
    total = parts[0].merge(parts[1]).merge(parts[2])
    assert set(total.regions) == set(whole.regions) == {"seg", "cam"}
    for kind, counts in whole.regions.items():
        torch.testing.assert_close(total.regions[kind].context, counts.context)
        assert torch.equal(total.regions[kind].coverage, counts.coverage)


def test_other_images_have_no_regions(world):
    plain = InMemory(ToyWorld("val", 2, size=SIDE, masks=True))
    assert set(plain[0]) == {"image", "tags", "name", "mask"}
    found = evaluate(Guess(plain), plain, num_classes=11).as_dict()
    assert "context" not in found["seg"]
    assert set(load_data(DataConfig(count=2, size=SIDE), "train")[0]) == {"image", "tags", "name"}
    assert {"context", "distinctive", "instance"} < set(world[0])
