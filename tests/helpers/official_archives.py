"""Small archives in the formats of the official ones, and a web server with chosen faults."""

import hashlib
import io
import json
import tarfile
import threading
import zipfile
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from PIL import Image

from wsss_lab.data.catalog import (
    COCO_CLASSES,
    COCO_IDS,
    STUFF_182_NAMES,
    VOC_CLASSES,
    Archive,
    voc_palette,
)
from wsss_lab.data.errors import DataError


def jpeg(height=12, width=16, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return encoded(Image.fromarray(pixels), "JPEG")


def encoded(image, form):
    out = io.BytesIO()
    image.save(out, form)
    return out.getvalue()


def palette_png(label):
    image = Image.fromarray(np.asarray(label, dtype=np.uint8))
    image.putpalette(voc_palette().tobytes())
    return encoded(image, "PNG")


def tar_of(files, mode):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def zip_of(files):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return out.getvalue()


def mat(**variables):
    from scipy.io import savemat

    out = io.BytesIO()
    savemat(out, variables)
    return out.getvalue()


def entry(name, data, url="http://127.0.0.1:1/", md5=True):
    """A catalogue entry that fits `data`."""
    found = hashlib.md5(data).hexdigest() if md5 else None
    size = len(data) if md5 else None
    return Archive(name, url + name, size, found, "test licence", f"test archive {name}")


def catalogue(files, url="http://127.0.0.1:1/", md5=True):
    return {name: entry(name, data, url, md5) for name, data in files.items()}


def place(files, root):
    """Puts archives where a user would put them by hand."""
    (root / "archives").mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (root / "archives" / name).write_bytes(data)


VOC_TRAIN, VOC_VAL = ["2007_000001", "2007_000002"], ["2007_000003", "2008_000004"]
SBD_TRAIN, SBD_VAL = ["2007_000001", "2008_000005"], ["2007_000003", "2008_000006"]
TRAIN_AUG = ["2007_000001", "2007_000002", "2008_000005", "2008_000006"]
EVERYONE = sorted({*VOC_TRAIN, *VOC_VAL, *SBD_TRAIN, *SBD_VAL})
BOXES = {
    "2007_000001": [("person", 0), ("dog", 0)],
    "2007_000002": [("cat", 0), ("chair", 1)],  # the chair is difficult
    "2007_000003": [("aeroplane", 0)],
    "2008_000004": [("tvmonitor", 0), ("tvmonitor", 0)],
    "2008_000005": [("bus", 0)],
    "2008_000006": [("sheep", 0)],
}


def xml(objects):
    """One annotation; the first object has a body part, whose name is no class."""
    part = "<part><name>head</name></part>"
    items = "".join(
        f"<object>{part if i == 0 else ''}<name>{n}</name><difficult>{d}</difficult></object>"
        for i, (n, d) in enumerate(objects)
    )
    return f"<annotation><filename>x.jpg</filename>{items}</annotation>".encode()


def voc_mask(name, value=None):
    label = np.zeros((12, 16), dtype=np.uint8)
    label[2:8, 3:9] = VOC_CLASSES.index(BOXES[name][0][0]) + 1 if value is None else value
    label[8, 3:9] = 255
    return label


def sbd_mask(name):
    label = voc_mask(name)
    label[8, 3:9] = 0  # no void border
    label[0, 0] = 20  # so that it differs from VOC's
    return label


def voc_files():
    base = "VOCdevkit/VOC2012"
    files = {f"{base}/JPEGImages/{n}.jpg": jpeg(seed=i) for i, n in enumerate(EVERYONE)}
    files |= {f"{base}/Annotations/{n}.xml": xml(BOXES[n]) for n in EVERYONE}
    files |= {
        f"{base}/SegmentationClass/{n}.png": palette_png(voc_mask(n)) for n in VOC_TRAIN + VOC_VAL
    }
    files |= {f"{base}/SegmentationObject/{VOC_TRAIN[0]}.png": b"not needed"}
    lists = {"train": VOC_TRAIN, "val": VOC_VAL, "trainval": sorted(VOC_TRAIN + VOC_VAL)}
    for split, names in lists.items():
        files[f"{base}/ImageSets/Segmentation/{split}.txt"] = "".join(
            f"{n}\n" for n in names
        ).encode()
    return files


def sbd_files():
    base = "benchmark_RELEASE/dataset"
    files = {}
    for name in sorted({*SBD_TRAIN, *SBD_VAL}):
        files[f"{base}/cls/{name}.mat"] = mat(GTcls={"Segmentation": sbd_mask(name)})
        files[f"{base}/img/{name}.jpg"] = b"not needed"
    files[f"{base}/train.txt"] = "\n".join(SBD_TRAIN).encode()
    files[f"{base}/val.txt"] = "\n".join(SBD_VAL).encode()
    return files


def voc_archives():
    return {
        "VOCtrainval_11-May-2012.tar": tar_of(voc_files(), "w"),
        "benchmark.tgz": tar_of(sbd_files(), "w:gz"),
    }


def rle_counts(mask):
    """Uncompressed COCO RLE by hand: run lengths down the columns, background first."""
    runs, last, length = [], 0, 0
    for value in mask.astype(int).T.ravel():
        if value != last:
            runs.append(length)
            last, length = value, 0
        length += 1
    return {"size": list(mask.shape), "counts": [*runs, length]}


def coco_json(split, images, annotations):
    return json.dumps(
        {
            "images": [
                {"id": i, "file_name": f"COCO_{split}2014_{i:012d}.jpg", "height": h, "width": w}
                for i, h, w in images
            ],
            "annotations": annotations,
            "categories": [
                {"id": i, "name": n} for i, n in zip(COCO_IDS, COCO_CLASSES, strict=True)
            ],
        }
    ).encode()


def coco_archives():
    """Two training photos, one of them without any object, and one validation photo."""
    big, small = np.zeros((10, 14), bool), np.zeros((10, 14), bool)
    big[1:9, 1:9], small[3:5, 3:5] = True, True
    crowd = np.zeros((10, 14), bool)
    crowd[0:2, 10:14] = True
    train = [
        # the small one comes first and must still end on top
        dict(id=1, image_id=9, category_id=90, area=4, iscrowd=0, segmentation=rle_counts(small)),
        dict(id=2, image_id=9, category_id=1, area=64, iscrowd=0, segmentation=rle_counts(big)),
        dict(id=3, image_id=9, category_id=13, area=8, iscrowd=1, segmentation=rle_counts(crowd)),
    ]
    box = [[2.0, 1.0, 6.0, 1.0, 6.0, 4.0, 2.0, 4.0], [0.0, 0.0, 1.0, 1.0]]
    val = [dict(id=4, image_id=5, category_id=18, area=12, iscrowd=0, segmentation=box)]
    annotations = {
        "annotations/instances_train2014.json": coco_json(
            "train", [(9, 10, 14), (10, 8, 8)], train
        ),
        "annotations/instances_val2014.json": coco_json("val", [(5, 9, 11)], val),
        "annotations/captions_train2014.json": b"{}",
    }
    return {
        "annotations_trainval2014.zip": zip_of(annotations),
        "train2014.zip": zip_of(
            {
                "train2014/COCO_train2014_000000000009.jpg": jpeg(10, 14),
                "train2014/COCO_train2014_000000000010.jpg": jpeg(8, 8),
            }
        ),
        "val2014.zip": zip_of({"val2014/COCO_val2014_000000000005.jpg": jpeg(9, 11)}),
    }


STUFF = {
    "COCO_train2014_000000000077": [[0, 1, 182], [92, 13, 13]],  # 13: stop sign
    "COCO_train2014_000000000099": [[90, 90, 0], [157, 157, 157]],  # 90: toothbrush, 157: sky
}
NAMES_V11 = np.array(STUFF_182_NAMES, dtype=object)
NAMES_V10 = np.array(["unlabeled", *(f"name {i}" for i in range(171))], dtype=object)


def stuff_archive(names=NAMES_V11, dtype=np.float64, labels=STUFF, test=1):
    """COCO-Stuff 10K v1.1 as it is published, all fields of its annotations included.

    Args:
        names: class names in the annotations.
        dtype: of the label map S.
        labels: image name -> S.
        test: so many images, the last ones, are the test list.
    """
    files = {}
    for i, (name, label) in enumerate(labels.items()):
        s = np.array(label, dtype=dtype)
        regions = np.arange(s.size, dtype=np.uint16).reshape(s.shape) + 1  # superpixels, from 1
        files[f"images/{name}.jpg"] = jpeg(*s.shape, seed=i)
        files[f"annotations/{name}.mat"] = mat(
            S=s,
            names=names.reshape(-1, 1),
            captions=np.array([["a caption"], ["another one"]], dtype=object),
            regionMapStuff=regions,
            regionLabelsStuff=s.reshape(-1, 1).astype(np.uint16),
        )
    lists = {"train": list(labels)[:-test], "test": list(labels)[-test:], "all": list(labels)}
    for split, stems in lists.items():
        files[f"imageLists/{split}.txt"] = "".join(f"{stem}\n" for stem in stems).encode()
    return {"cocostuff-10k-v1.1.zip": zip_of(files)}


@contextmanager
def serve(files, ranges=True, cut_after=None, page=None):
    """Serves `files` at a local address.

    Args:
        files: content by name.
        ranges: answer Range requests.
        cut_after: break every connection after so many bytes of body.
        page: send this with status 200 for every address.

    Yields:
        the address with a slash at its end, and the list of (path, Range header) received.
    """
    log = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked = self.headers.get("Range")
            log.append((self.path, asked))
            data = page if page is not None else files.get(self.path[1:])
            if self.path.startswith("/to-ftp/"):
                self.send_response(302)
                self.send_header("Location", "ftp://127.0.0.1:1/thing.zip")
                self.end_headers()
                return
            if data is None:
                self.send_error(404)
                return
            start = 0
            if asked and ranges:
                start = int(asked.removeprefix("bytes=").rstrip("-"))
                if start >= len(data):
                    self.send_response(416)
                    self.send_header("Content-Range", f"bytes */{len(data)}")
                    self.end_headers()
                    return
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
            else:
                self.send_response(200)
            self.send_header("Content-Length", str(len(data) - start))
            self.end_headers()
            body = data[start:]
            self.wfile.write(body if cut_after is None else body[:cut_after])

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/", log
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def prepare_served(prepare, files, root, md5=True, **settings):
    """Runs a `prepare_...` that fetches its archives from a local server; returns its report."""
    with serve(files) as (url, _):
        return prepare(root, archives=catalogue(files, url, md5), **settings)


def require_refused(prepare, files, folder, message, **settings):
    """Wrong archives are an error that says so, and nothing is written outside the root."""
    place(files, folder / "root")
    with pytest.raises(DataError, match=message):
        prepare(folder / "root", False, archives=catalogue(files), **settings)
    assert [path.name for path in folder.iterdir()] == ["root"]
