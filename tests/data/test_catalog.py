import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from wsss_lab.data import catalog


def test_class_lists():
    assert len(catalog.VOC_CLASSES) == 20
    assert list(catalog.VOC_CLASSES) == sorted(catalog.VOC_CLASSES)
    assert len(set(catalog.COCO_CLASSES)) == len(catalog.COCO_IDS) == 80
    assert dict(zip(catalog.COCO_IDS, catalog.COCO_CLASSES, strict=True))[90] == "toothbrush"
    assert len(set(catalog.STUFF_CLASSES)) == len(catalog.STUFF_IDS) == 171
    by_id = dict(zip(catalog.STUFF_IDS, catalog.STUFF_CLASSES, strict=True))
    assert (by_id[1], by_id[92], by_id[182]) == ("person", "banner", "wood")
    assert sum(name.startswith("unused-") for name in catalog.STUFF_182_NAMES) == 11


def test_archives_are_complete():
    for kind, facts in catalog.DATASETS.items():
        assert facts.counts, kind
        for name in facts.archives:
            archive = catalog.ARCHIVES[name]
            assert archive.url.endswith(name)
            assert archive.md5 is None or (len(archive.md5) == 32 and archive.size)


def metadata(request, *names):
    """Files of a folder `metadata` beside the photos, or a skip."""
    photos = request.config.getoption("--photos")
    paths = [Path(photos).parent / "metadata" / name for name in names]
    if not photos or not all(path.is_file() for path in paths):
        pytest.skip("no folder metadata with official lists beside --photos")
    return [path.read_text().splitlines() for path in paths]


def test_against_official_stuff_labels(request):
    (lines,) = metadata(request, "cocostuff10k/cocostuff-labels.txt")
    names = {int(n): name.strip() for n, _, name in (line.partition(":") for line in lines if line)}
    assert tuple(names[i] for i in catalog.STUFF_IDS) == catalog.STUFF_CLASSES


def test_against_official_voc_lists(request):
    lists = metadata(request, *(f"voc/{s}.txt" for s in ("train", "val", "trainval", "train_aug")))
    train, val, trainval, aug = (set(names) for names in lists)
    counts = catalog.DATASETS["voc"].counts
    assert [len(names) for names in lists] == [
        counts[s] for s in ("train", "val", "trainval", "train_aug")
    ]
    assert train <= aug
    assert not aug & val
    assert train | val == trainval
    assert lists[3] == sorted(aug)


def test_palette_bits():
    palette = catalog.voc_palette()
    assert palette[[0, 1, 2, 15, 255]].tolist() == [
        *([0, 0, 0], [128, 0, 0], [0, 128, 0], [192, 128, 128], [224, 224, 192])
    ]
    assert len(np.unique(palette, axis=0)) == 256


def test_readers_import_no_heavy_modules():
    code = (
        "import sys, wsss_lab.data.datasets, wsss_lab.data.prepare, wsss_lab.data.transform\n"
        "print(sorted({'scipy', 'pycocotools', 'timm', 'lightning'} & set(sys.modules)))"
    )
    root = Path(__file__).parents[2]
    out = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert out.stdout.strip() == "[]", out.stderr
