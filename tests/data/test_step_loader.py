import gc
import multiprocessing
import os
import random
import signal
import sys
import time

import numpy as np
import pytest
import torch
from PIL import Image

from wsss_lab.config import IMAGENET_MEAN
from wsss_lab.data.config import DataConfig
from wsss_lab.data.datasets import ImageTagDataset
from wsss_lab.data.errors import DataError
from wsss_lab.data.loader import StepLoader, StepSampler
from wsss_lab.data.transform import TrainingTransform


class Pictures:
    """Tensors in memory; picklable."""

    def __init__(self, count=20, size=24):
        generator = torch.Generator().manual_seed(0)
        shape = (count, 3, size, size + 4)
        self.images = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        mask = (self.images[i, 0] // 100).long()
        tags = torch.tensor([float(i % 2), float(i % 3 == 0)])
        return {"image": self.images[i], "tags": tags, "name": f"n{i}", "mask": mask}


class Untagged(Pictures):
    """No image has a tag."""

    def __getitem__(self, i):
        return super().__getitem__(i) | {"tags": torch.zeros(2)}


SETTINGS = DataConfig(crop=16, scale=(0.5, 1.5), jitter=0.2, blur=0.5, strong=True)


def loader(workers=0, seed=3, batch=4, **more):
    return StepLoader(Pictures(), batch, seed, TrainingTransform(SETTINGS), workers=workers, **more)


def same(a, b):
    assert a.keys() == b.keys()
    for key in a:
        plain = key in ("names", "max_tags")
        equal = a[key] == b[key] if plain else torch.equal(a[key], b[key])
        assert equal, key


def children():
    gc.collect()
    return [p for p in multiprocessing.active_children() if p.is_alive()]


def test_what_a_batch_holds():
    batch = loader()(0)
    assert batch["images"].shape == batch["strong"].shape == (4, 3, 16, 16)
    assert batch["images"].dtype == torch.float32
    assert batch["images"].is_contiguous(memory_format=torch.channels_last)
    assert 0 <= batch["images"].min() < 0.2 < 0.8 < batch["images"].max() <= 1
    assert batch["masks"].shape == batch["valid"].shape == (4, 16, 16)
    assert batch["masks"].dtype == torch.int64
    assert batch["boxes"].shape == (4, 4)
    assert batch["valid"].sum((1, 2)).tolist() == [
        (y1 - y0) * (x1 - x0) for y0, y1, x0, x1 in batch["boxes"].tolist()
    ]
    assert (batch["masks"] == 255).eq(~batch["valid"]).all()
    chosen = StepSampler(20, 4, 3)[0].tolist()
    assert batch["names"] == [f"n{i}" for i in chosen]
    assert batch["tags"].tolist() == [[i % 2, i % 3 == 0] for i in chosen]


def test_tags_are_counted_before_they_travel():
    pictures = Pictures()
    for step in range(5):
        batch = loader()(step)
        assert type(batch["max_tags"]) is int
        counts = [
            int(pictures[int(name[1:])]["tags"].sum())  # 0, 1 or 2
            for name in batch["names"]
        ]
        assert batch["max_tags"] == max(1, *counts)
    alone = StepLoader(Untagged(), 1, seed=0)(0)
    assert alone["max_tags"] == 1  # what a list of classes is padded to


def test_without_a_transform():
    batch = StepLoader(Pictures(), 4, seed=3)(7)
    chosen = StepSampler(20, 4, 3)[7]
    assert torch.equal(batch["images"], Pictures().images[chosen].float() / 255)
    assert batch["valid"].all()


@pytest.mark.parametrize("workers", [1, 3])
def test_workers_change_nothing(workers):
    alone = loader()
    with loader(workers) as busy:
        for step in (0, 1, 2, 3, 11, 12, 5):  # on, jump ahead, back
            same(alone(step), busy(step))
    assert not children()


def test_restart_changes_nothing():
    with loader(2) as first:
        walked = [first(step) for step in range(6)]
    with loader(2) as second:
        same(second(5), walked[5])
    same(loader()(5), walked[5])


@pytest.mark.parametrize("world", [2, 4])
def test_ranks_together_see_the_one_process_batch(world):
    whole = loader()(9)
    parts = [loader(rank=r, world=world)(9) for r in range(world)]
    for r, part in enumerate(parts):
        own = {k: v[r::world] for k, v in whole.items() if k != "max_tags"}
        own["max_tags"] = max(1, int(own["tags"].sum(1).max()))
        same(own, part)


def test_draws_depend_on_seed_step_and_position():
    class Same(Pictures):
        def __getitem__(self, i):
            return super().__getitem__(0)

    def images(seed, step):
        return StepLoader(Same(), 4, seed, TrainingTransform(SETTINGS))(step)["images"]

    found = [image for seed in (0, 1) for step in (0, 1, 5) for image in images(seed, step)]
    pairs = [torch.equal(a, b) for i, a in enumerate(found) for b in found[:i]]
    assert sum(pairs) == 0


def test_the_global_generators_stay_as_they_are():
    before = torch.get_rng_state(), random.getstate()
    with loader(2) as busy:
        for step in (0, 7):
            same(busy(step), loader()(step))
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == random.getstate()


def test_padding_colour():
    settings = DataConfig(crop=40, scale=(0.5, 0.5), pad="mean")
    batch = StepLoader(Pictures(), 4, 0, TrainingTransform(settings))(0)
    outside = batch["images"].permute(0, 2, 3, 1)[~batch["valid"]]
    assert torch.equal(outside, torch.tensor(IMAGENET_MEAN).expand_as(outside))
    settings = DataConfig(crop=40, scale=(0.5, 0.5))
    black = StepLoader(Pictures(), 4, 0, TrainingTransform(settings))(0)
    assert not black["images"].permute(0, 2, 3, 1)[~black["valid"]].any()
    inside = batch["valid"][:, None].expand_as(batch["images"])
    assert torch.equal(batch["images"][inside], black["images"][inside])


def test_no_worker_outlives_its_loader():
    busy = loader(2)
    busy(0)
    assert len(children()) == 2
    del busy
    assert not children()


@pytest.fixture
def photos(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    for i in range(6):
        photo = Image.fromarray(rng.integers(0, 256, (40, 50, 3), dtype=np.uint8))
        photo.save(tmp_path / "images" / f"p{i}.jpg")
    rows = "".join(f"p{i},1\n" for i in range(6))
    (tmp_path / "tags.csv").write_text("name,thing\n" + rows)
    return tmp_path


@pytest.mark.parametrize("workers", [0, 2])
def test_a_truncated_file_is_named(photos, workers):
    broken = photos / "images" / "p3.jpg"
    broken.write_bytes(broken.read_bytes()[:-200])
    data = ImageTagDataset.folder(photos / "images", photos / "tags.csv")
    made = StepLoader(data, 2, 0, TrainingTransform(SETTINGS), workers=workers)
    with pytest.raises(DataError, match=r"p3\.jpg: cannot be read as an image") as caught:
        [made(step) for step in range(3)]
    assert caught.value.problem.file == str(broken)
    assert not children()


class Odd:
    """A transform that fails."""

    def __call__(self, sample, rng, step_rng):
        raise RuntimeError("no")


@pytest.mark.parametrize("workers", [0, 1])
def test_a_failing_transform_names_image_and_step(workers):
    made = StepLoader(Pictures(), 4, 3, Odd(), workers=workers)
    first = StepSampler(20, 4, 3)[2][0]
    with pytest.raises(RuntimeError) as caught:
        made(2)
    told = str(caught.value) + "".join(getattr(caught.value, "__notes__", []))
    assert f"image 'n{first}' for step 2" in told
    assert not children()


def test_images_of_several_sizes_need_a_crop(photos):
    photo = photos / "images" / "p1.jpg"
    Image.open(photo).resize((30, 30)).save(photo)
    data = ImageTagDataset.folder(photos / "images", photos / "tags.csv")
    with pytest.raises(ValueError, match=r"must have one size, got .* pass a transform that crops"):
        StepLoader(data, 6)(0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"workers": -1}, "workers: expected 0 or more processes, got -1"),
        ({"ahead": 0}, "ahead: expected at least 1"),
        ({"run_batch": 0}, "run_batch: expected at least 1 image per step, got 0"),
        ({"run_batch": 21}, "a batch takes 21 images, but there are only 20"),
        ({"run_batch": 4, "world": 3}, "4 images cannot be shared equally by 3 processes"),
        ({"rank": 2, "world": 2}, r"rank: expected 0\.\.world-1, got rank 2 of world 2"),
        ({"world": 0}, "rank: expected"),
        ({"seed": -1}, "seed: expected 0 or more"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        StepLoader(Pictures(), **{"run_batch": 4, **arguments})


def test_empty_data_set():
    with pytest.raises(ValueError, match="only 0"):
        StepLoader(Pictures(0), 1)


def test_negative_step():
    with pytest.raises(ValueError, match="step: expected 0 or more, got -1"):
        loader()(-1)


def train_for_ever(pipe):
    """A program of its own session, so that Ctrl-C can be sent to it and its workers alone."""
    os.setsid()
    # a shell starts jobs in the background with Ctrl-C ignored, and their children inherit that
    signal.signal(signal.SIGINT, signal.default_int_handler)
    made = loader(2)
    made(0)
    try:  # the signal may come while the message is on its way
        pipe.send([p.pid for p in multiprocessing.active_children()])
        for step in range(1, 10**9):
            made(step)
    except KeyboardInterrupt:
        made.close()
        pipe.send(len(multiprocessing.active_children()))


def gone(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:  # a zombie has ended, nobody has asked for it yet
            return file.read().rsplit(")", 1)[1].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


@pytest.mark.skipif(sys.platform != "linux", reason="forks, and reads /proc")
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_workers_end_with_the_program(sent):
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    program = context.Process(target=train_for_ever, args=(theirs,))
    program.start()
    try:
        assert ours.poll(60)
        workers = ours.recv()
        assert len(workers) == 2
        if sent == signal.SIGINT:
            os.killpg(program.pid, sent)
            assert ours.poll(30)
            assert ours.recv() == 0
        else:
            program.kill()
        program.join(30)
    finally:  # a program that missed its signal would train for ever
        if program.is_alive():
            os.killpg(program.pid, signal.SIGKILL)
    assert program.exitcode == (0 if sent == signal.SIGINT else -signal.SIGKILL)
    deadline = time.monotonic() + 30
    while not all(map(gone, workers)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert all(map(gone, workers))
