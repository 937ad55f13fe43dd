"""A method scored on a data set: one pass, every pixel once, in any number of processes."""

import json
import os
import tempfile

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from pixels import Pixels

from wsss_lab.cam import FUSIONS, cam_to_label
from wsss_lab.evaluate.evaluate import by_shape, evaluate, resolve_crf, score_shard
from wsss_lab.evaluate.inference import LOGIT_FUSIONS, MultiScale, multi_scale_predict
from wsss_lab.evaluate.scores import ORACLE, Scores
from wsss_lab.metrics import ConfusionMatrix, Protocol, mean_iou

K1 = 4
VIEWS = MultiScale(LOGIT_FUSIONS["mean"], FUSIONS["tscd"])


class Photos:
    """Images of several sizes with masks."""

    def __init__(self, count=23):
        rng = np.random.default_rng(3)
        self.samples = []
        for i in range(count):
            h, w = ((24, 32), (32, 24), (24, 40))[rng.integers(3)]
            mask = torch.from_numpy(rng.integers(0, K1, (h, w)))
            mask[torch.from_numpy(rng.random((h, w)) < 0.1)] = 255
            tags = torch.zeros(K1 - 1)
            tags[rng.integers(0, K1 - 1, 2)] = 1
            image = torch.from_numpy(rng.integers(0, 256, (3, h, w), dtype=np.uint8))
            self.samples.append({"image": image, "tags": tags, "name": str(i), "mask": mask})

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        return self.samples[index]


def brute_force(method, dataset, tags_at_test):
    """One image after the other, labels made in full."""
    seg, cam = ConfusionMatrix(K1), ConfusionMatrix(K1)
    for i in range(len(dataset)):
        sample = dataset[i]
        tags = sample["tags"][None]
        output = multi_scale_predict(method.predict, sample["image"][None] / 255, VIEWS)
        logits = output.logits
        if tags_at_test:
            for c in range(K1 - 1):
                if not tags[0, c]:
                    logits[:, c + 1] = -1e9
        else:
            tags = (output.tag_logits > 0).float()
        seg.update(logits.argmax(1)[0], sample["mask"])
        cam.update(cam_to_label(output.cam, tags, 0.37)[0], sample["mask"])
    return seg.compute(), cam.compute()


@pytest.mark.parametrize("tags_at_test", [False, True])
@pytest.mark.parametrize("batch", [1, 4])
def test_scores_are_those_of_a_loop_over_images(tags_at_test, batch):
    method, dataset = Pixels(), Photos()
    found = evaluate(
        method,
        dataset,
        VIEWS,
        num_classes=K1,
        cam_threshold=0.37,
        batch=batch,
        tags_at_test=tags_at_test,
        workers=batch // 4,
    )
    end = ORACLE if tags_at_test else ""
    for kind, confusion in zip(
        ("seg", "cam"), brute_force(method, dataset, tags_at_test), strict=True
    ):
        assert found.reports[kind + end].miou == pytest.approx(float(mean_iou(confusion)[1]))
    pixels = sum(int((s["mask"] != 255).sum()) for s in dataset.samples)
    assert all(sum(report.pixels) == pixels for report in found.reports.values())
    at = found.sweeps["cam" + end].thresholds.tolist().index(np.float32(0.37))
    sweep = found.sweeps["cam" + end]
    assert float(sweep.miou[at]) == pytest.approx(found.reports["cam" + end].miou)


def plain(evaluation):
    return {kind: report.to_json() for kind, report in evaluation.reports.items()}


def test_true_tags_are_used_only_when_asked_and_the_report_says_so():
    method, dataset = Pixels(), Photos()
    honest = evaluate(method, dataset, VIEWS, num_classes=K1, cam_threshold=0.4)
    assert set(honest.reports) == {"seg", "cam"}
    assert all(r.protocol.tags_at_test is False for r in honest.reports.values())
    assert "tags at test: yes" not in honest.table()
    for sample in dataset.samples:  # other tags, same predictions
        sample["tags"] = 1 - sample["tags"]
    again = evaluate(method, dataset, VIEWS, num_classes=K1, cam_threshold=0.4)
    assert plain(again) == plain(honest)
    told = evaluate(method, dataset, VIEWS, num_classes=K1, cam_threshold=0.4, tags_at_test=True)
    assert {k: v for k, v in plain(told).items() if ORACLE not in k} == plain(honest)
    assert set(told.reports) - set(honest.reports) == {f"seg{ORACLE}", f"cam{ORACLE}"}
    assert told.table().count("tags at test: yes") == 2
    assert told.table().count("an oracle") >= 2
    assert told.reports[f"seg{ORACLE}"].miou != told.reports["seg"].miou
    json.dumps(told.as_dict(), allow_nan=False)


def test_methods_whose_maps_need_tags_are_asked_twice():
    class Told(Pixels):
        uses_tags = True

        def predict(self, images, tags=None):
            output = super().predict(images)
            if tags is not None:
                output.cam.mul_(0)
            return output

    found = evaluate(Told(), Photos(), VIEWS, num_classes=K1, cam_threshold=0.4, tags_at_test=True)
    assert found.reports["cam"].recall[0] < 1
    assert found.reports[f"cam{ORACLE}"].recall[0] == 1  # maps without anything: all background


def test_crf_hook_gets_bytes_and_probabilities():
    seen = []

    def sure_of_class_2(images, probs):
        seen.append((images.dtype, probs.shape[1]))
        torch.testing.assert_close(probs.sum(1), torch.ones_like(probs[:, 0]))
        out = torch.zeros_like(probs)
        out[:, 2] = 1
        return out

    found = evaluate(Pixels(), Photos(), VIEWS, num_classes=K1, crf=sure_of_class_2)
    assert set(seen) == {(torch.uint8, K1)}
    assert found.reports["seg+crf"].recall[2] == 1
    assert found.reports["seg+crf"].protocol.crf == "sure_of_class_2"
    assert found.reports["seg"].protocol.crf == "none"
    assert resolve_crf("none") == (None, "none")
    with pytest.raises(ValueError, match=r"crf must be one of.*got 'sharper'"):
        resolve_crf("sharper")


def test_groups_have_one_size_and_nothing_is_lost():
    samples = Photos(50).samples
    groups = list(by_shape(iter(samples), batch=4, waiting=7))
    assert sorted(int(s["name"]) for g in groups for s in g) == list(range(50))
    assert all(len({s["image"].shape for s in group}) == 1 for group in groups)
    assert max(len(group) for group in groups) == 4
    shapes = {s["image"].shape for s in samples}
    full = list(by_shape(iter(samples), batch=4))
    assert sum(len(g) < 4 for g in full) <= len(shapes)


def shard(rank, world, address, folder):
    os.environ["OMP_NUM_THREADS"] = "1"
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=world)
    found = evaluate(
        Pixels(),
        Photos(5),
        VIEWS,
        num_classes=K1,
        cam_threshold=0.4,
        tags_at_test=True,
        rank=rank,
        world=world,
    )
    with open(f"{folder}/{rank}.json", "w") as file:
        json.dump(found.as_dict(), file)
    dist.destroy_process_group()


def test_two_processes_count_what_one_counts():
    """Five images on two processes: three and two, no padding."""
    alone = evaluate(
        Pixels(), Photos(5), VIEWS, num_classes=K1, cam_threshold=0.4, tags_at_test=True
    )
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(shard, (2, f"file://{folder}/store", folder), nprocs=2)
        for rank in range(2):
            with open(f"{folder}/{rank}.json") as file:
                assert json.load(file) == json.loads(json.dumps(alone.as_dict()))


def test_shards_without_a_process_group_can_be_merged():
    method, dataset = Pixels(), Photos(7)
    options = {"thresholds": [0.2, 0.5], "batch": 2}
    whole = score_shard(method, dataset, VIEWS, K1, **options)
    total = Scores(K1, options["thresholds"])
    for rank in range(9):  # two ranks get nothing
        total.merge(score_shard(method, dataset, VIEWS, K1, **options, rank=rank, world=9))
    assert total.images == whole.images == 7
    assert torch.equal(total.labels["seg"].counts, whole.labels["seg"].counts)
    assert torch.equal(total.sweeps["cam"].histogram, whole.sweeps["cam"].histogram)


def test_protocol_keeps_what_is_stated():
    stated = Protocol(split="toy val", label_source="procedural", absent_classes="zero")
    report = evaluate(Pixels(), Photos(3), VIEWS, num_classes=K1, protocol=stated).reports["seg"]
    assert (report.protocol.split, report.protocol.absent_classes) == ("toy val", "zero")
    assert report.protocol.images == 3
    assert report.protocol.flip is True
    assert set(report.protocol.scales) == {1.0, 0.5, 1.5}


def test_bad_input():
    method, dataset = Pixels(), Photos(3)
    with pytest.raises(ValueError, match="for 4 classes with background, the data set has 7"):
        evaluate(method, dataset, VIEWS, num_classes=7)
    with pytest.raises(ValueError, match=r"cam_threshold must be in 0\.\.1"):
        evaluate(method, dataset, VIEWS, num_classes=K1, cam_threshold=2)
    with pytest.raises(ValueError, match=r"rank must be in 0\.\.1, got 2"):
        evaluate(method, dataset, VIEWS, num_classes=K1, rank=2, world=2)
    del dataset.samples[1]["mask"]
    with pytest.raises(ValueError, match="1 has none; make it with masks=True"):
        evaluate(method, dataset, VIEWS, num_classes=K1)


def test_training_mode_is_restored():
    method = Pixels().train()
    evaluate(method, Photos(2), VIEWS, num_classes=K1)
    assert method.training
