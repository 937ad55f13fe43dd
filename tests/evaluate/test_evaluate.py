"""Two folders in, a report out; every problem named at once."""

import json
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from wsss_lab.data.catalog import voc_palette
from wsss_lab.evaluate import evaluate
from wsss_lab.evaluate.evaluate import evaluate_directories, read_names, run_eval
from wsss_lab.metrics import ConfusionMatrix, Protocol, mean_iou

K1 = 6


def save(path, labels, mode="P"):
    image = Image.fromarray(labels.astype(np.uint8))
    if mode == "P":
        image.putpalette(voc_palette().flatten().tolist())
    image.save(path)


@pytest.fixture
def folders(tmp_path):
    """40 images of different sizes; truth as palette PNG, predictions as grey PNG."""
    rng = np.random.default_rng(0)
    names, pairs = [f"2007_{i:06d}" for i in range(40)], []
    for folder in ("pred", "truth"):
        (tmp_path / folder).mkdir()
    for name in names:
        shape = tuple(rng.integers(5, 20, 2))
        truth = rng.integers(0, K1, shape)
        pred = np.where(rng.random(shape) < 0.6, truth, rng.integers(0, K1, shape))
        truth[rng.random(shape) < 0.1] = 255
        save(tmp_path / "truth" / f"{name}.png", truth)
        save(tmp_path / "pred" / f"{name}.png", pred, mode="L")
        pairs.append((pred, truth))
    (tmp_path / "val.txt").write_text("\n".join(names) + "\n\n")
    return tmp_path, names, pairs


def arguments(root):
    return root / "pred", root / "truth", root / "val.txt", K1


@pytest.mark.parametrize("workers", [1, 4])
def test_scores_are_those_of_all_pixels(folders, workers):
    root, _, pairs = folders
    report = evaluate_directories(*arguments(root), workers=workers)
    matrix = ConfusionMatrix(K1)
    for pred, truth in pairs:
        matrix.update(torch.from_numpy(pred), torch.from_numpy(truth))
    assert report.miou == pytest.approx(float(mean_iou(matrix.compute())[1]))
    assert sum(report.pixels) == int(matrix.compute().sum())


def test_protocol_is_completed_and_not_overwritten(folders):
    root, names, _ = folders
    report = evaluate_directories(*arguments(root))
    assert report.protocol.images == len(names)
    assert report.protocol.split == "val"
    assert report.protocol.resolution == "original"
    assert report.protocol.tags_at_test == "not stated"
    stated = Protocol(split="VOC 2012 val", resolution="448x448", absent_classes="zero")
    report = evaluate_directories(*arguments(root), protocol=stated)
    assert report.protocol.split == "VOC 2012 val"
    assert report.protocol.resolution == "448x448"
    assert report.protocol.absent_classes == "zero"


def test_lists_with_paths_and_two_columns(folders):
    root, names, _ = folders
    lines = [f"/JPEGImages/{n}.jpg /SegmentationClassAug/{n}.png" for n in names]
    (root / "paths.txt").write_text("\n".join(lines))
    assert read_names(root / "paths.txt") == names
    (root / "dots.txt").write_text("a.b\nc\n")
    assert read_names(root / "dots.txt") == ["a.b", "c"]


def test_all_problems_in_one_error(folders):
    root, names, pairs = folders
    (root / "pred" / f"{names[0]}.png").unlink()
    (root / "truth" / f"{names[1]}.png").unlink()
    save(root / "pred" / f"{names[2]}.png", pairs[2][0][:, 1:], mode="L")
    Image.new("RGB", pairs[3][0].shape[::-1]).save(root / "pred" / f"{names[3]}.png")
    save(root / "pred" / f"{names[4]}.png", np.full_like(pairs[4][0], K1))
    (root / "truth" / f"{names[5]}.png").write_bytes(b"no picture")
    unlabelled = pairs[6][0].copy()
    unlabelled[pairs[6][1] < K1] = 255
    save(root / "pred" / f"{names[6]}.png", unlabelled)
    with pytest.raises(ValueError, match="7 of 40 images") as caught:
        evaluate_directories(*arguments(root))
    message = str(caught.value)
    for name, reason in (
        (names[0], "is not there"),
        (names[1], "is not there"),
        (names[2], "but the truth is"),
        (names[3], "image mode RGB"),
        (names[4], f"class ids [{K1}]"),
        (names[5], "cannot be read"),
        (names[6], "255 on"),
    ):
        line = next(line for line in message.splitlines() if name in line)
        assert reason in line


def test_a_truncated_file_is_named(folders):
    root, names, _ = folders
    path = root / "truth" / f"{names[7]}.png"
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(ValueError, match=f"{names[7]}.*cannot be read"):
        evaluate_directories(*arguments(root))


def test_a_long_list_of_problems_is_cut(folders):
    root, names, _ = folders
    for name in names:
        (root / "pred" / f"{name}.png").unlink()
    with pytest.raises(ValueError, match=f"and {len(names) - evaluate.SHOWN} more"):
        evaluate_directories(*arguments(root))


def grey_png(rows, width, bits):
    """A grey PNG of less than 8 bits per pixel, which Pillow cannot write itself."""
    chunks = b"\x89PNG\r\n\x1a\n"
    header = struct.pack(">IIBBBBB", width, len(rows), bits, 0, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    for kind, body in ((b"IHDR", header), (b"IDAT", data), (b"IEND", b"")):
        chunks += struct.pack(">I", len(body)) + kind + body
        chunks += struct.pack(">I", zlib.crc32(kind + body))
    return chunks


def test_grey_images_of_few_bits_are_refused(folders):
    """Pillow stretches 4-bit grey to 0..255, so that class 1 would become class 17."""
    root, names, _ = folders
    path = root / "truth" / f"{names[0]}.png"
    path.write_bytes(grey_png([b"\x01\x01"] * 4, 4, 4))
    with Image.open(path) as image:
        assert set(np.unique(image)) == {0, 17}
    with pytest.raises(ValueError, match=f"{names[0]}.*less than 8 bits"):
        evaluate_directories(*arguments(root))


def test_unlabelled_predictions_follow_the_protocol(folders):
    root, names, pairs = folders
    for name, (pred, _) in zip(names, pairs, strict=True):
        unlabelled = pred.copy()
        unlabelled[0] = 255
        save(root / "pred" / f"{name}.png", unlabelled)
    with pytest.raises(ValueError, match='"wrong" or "ignored"'):
        evaluate_directories(*arguments(root))
    wrong, ignored = (
        evaluate_directories(*arguments(root), protocol=Protocol(unlabelled=policy))
        for policy in ("wrong", "ignored")
    )
    assert wrong.miou < ignored.miou
    assert sum(wrong.pixels) > sum(ignored.pixels)


def test_bad_lists(folders):
    root, names, _ = folders
    with pytest.raises(ValueError, match="list_file must be a text file"):
        read_names(root / "nothing.txt")
    (root / "empty.txt").write_text("\n\n")
    with pytest.raises(ValueError, match="is empty"):
        read_names(root / "empty.txt")
    (root / "twice.txt").write_text(f"{names[0]}\n{names[1]}\n{names[0]}\n")
    with pytest.raises(ValueError, match=f"repeats.*{names[0]}"):
        read_names(root / "twice.txt")


def test_command_prints_a_table_or_json(folders, capsys):
    root, names, _ = folders
    assert run_eval(*arguments(root)) == 0
    table = capsys.readouterr().out
    assert "mIoU" in table
    assert f"images: {len(names)}" in table
    assert run_eval(*arguments(root), as_json=True) == 0
    values = json.loads(capsys.readouterr().out)
    assert f"{100 * values['miou']:.2f}" in table


def test_command_reports_refusal_on_standard_error(folders, capsys):
    root, names, _ = folders
    (root / "pred" / f"{names[0]}.png").unlink()
    assert run_eval(*arguments(root)) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert names[0] in printed.err


class ManySizes:
    """Images of 60 sizes, none of which fills a batch."""

    def __len__(self):
        return 60

    def __getitem__(self, index):
        shape = (33 + index // 10, 33 + index % 10)
        sample = {"image": torch.zeros(3, *shape, dtype=torch.uint8), "name": str(index)}
        return sample | {"mask": torch.zeros(shape).long(), "tags": torch.ones(10)}


def test_images_that_wait_for_others_of_their_size_hold_no_files_open():
    """What workers send lies in shared memory: an open file a tensor, 768 at 256 images."""
    from torch.utils.data import DataLoader

    loader = DataLoader(ManySizes(), batch_size=None, num_workers=1)
    groups = list(evaluate.by_shape(iter(loader), 8))
    assert sum(map(len, groups)) == 60
    assert not any(
        value.is_shared()
        for group in groups
        for sample in group
        for value in sample.values()
        if isinstance(value, torch.Tensor)
    )
