"""Runtimes and weights for the page *Bring your own photo*: size, speed, agreement.

`--rounding` puts rounded weights into the library's network and counts what changes on the open
photos. `--runtimes FOLDER` runs the network in headless Chromium, from disk and on one thread: by
TensorFlow.js as the page does, and by ONNX Runtime Web from FOLDER, in turns. FOLDER is
`node_modules/onnxruntime-web/dist` after `npm install onnxruntime-web@1.30.0`, with `lite0.onnx`
put into it (`--export FOLDER` writes it; needs the pip package onnx). Chromium's processor seconds
are read from /proc.
"""

import argparse
import base64
import dataclasses
import gzip
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from report import report

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "book" / "_ext"), str(ROOT / "tests" / "book")]
import photo_weights as pw  # noqa: E402

from wsss_lab.data.images import read_image  # noqa: E402
from wsss_lab.data.open_photos import open_photos  # noqa: E402
from wsss_lab.evaluate.explain import explain  # noqa: E402
from wsss_lab.models.imagenet import imagenet_classifier  # noqa: E402

STATIC = ROOT / "book" / "_static" / "photo"
SIZES = ((224, 224), (240, 320), (320, 320))
TIMED = ("TensorFlow.js", "ONNX Runtime Web", "six views", "PAR, 10 steps")
"""Two runtimes with one view; then, by the first of them and in JavaScript, the other maps."""


def rounding(pairs: list[tuple[int, int]]) -> dict[str, Any]:
    """Agreement with the library's own weights, by bits (usual layers, depthwise layers)."""
    usual = imagenet_classifier()
    photos = [torch.from_numpy(read_image(p.path).copy()).permute(2, 0, 1) for p in open_photos()]
    before = [explain(usual, photo) for photo in photos]
    found = {}
    for bits, fine in pairs:
        layers = [
            dataclasses.replace(
                la, facts=la.facts | {"bits": fine if la.facts["bits"] == pw.FINE_BITS else bits}
            )
            for la in pw.layers_of(usual.net)
        ]
        script = pw.script(layers)
        net = pw.with_weights(usual.net, pw.read_weights(pw.content_of(script)))
        found[f"{bits}, {fine}"] = {"MB": round(len(script) / 1e6, 2)} | agreement(
            dataclasses.replace(usual, net=net), photos, before
        )
        print(bits, fine, found[f"{bits}, {fine}"], flush=True)
    return found


def agreement(classifier: Any, photos: list[Any], before: list[Any]) -> dict[str, Any]:
    """Same likeliest class, same five; largest differences of a probability and of a map."""
    first = five = 0
    prob = cam = 0.0
    for photo, old in zip(photos, before, strict=True):
        new = explain(classifier, photo, count=20)
        first += new.names[0] == old.names[0]
        five += set(new.names[:5]) == set(old.names)
        for n, name in enumerate(old.names):
            m = new.names.index(name)
            prob = max(prob, abs(new.probs[m] - old.probs[n]))
            cam = max(cam, float((new.maps["CAM"][m] - old.maps["CAM"][n]).abs().max()))
    return {
        "photos": len(photos),
        "same likeliest class": first,
        "same five classes": five,
        "largest difference of a probability": round(prob, 4),
        "largest difference of a map": round(cam, 4),
    }


def export(folder: Path) -> None:
    """Write the network as ONNX, for the comparison only."""
    net = imagenet_classifier().net

    class Both(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            features = self.net.forward_features(x)
            return self.net.forward_head(features), features

    axes = {"x": {2: "h", 3: "w"}, "f": {2: "gh", 3: "gw"}}
    torch.onnx.export(
        Both(), (torch.rand(1, 3, 240, 320),), str(folder / "lite0.onnx"), dynamo=False,
        input_names=["x"], output_names=["y", "f"], dynamic_axes=axes, opset_version=17,
    )  # fmt: skip


START = """async () => {
  const raw = async (t) =>
    new Uint8Array(await (await fetch('data:application/octet-stream;base64,' + t)).arrayBuffer());
  const zip = async (t) => new Uint8Array(await new Response(new Blob([await raw(t)]).stream()
    .pipeThrough(new DecompressionStream('gzip'))).arrayBuffer());
  const {files} = wsssPhoto.runtime;
  for (const name of ['core', 'backend']) await new Promise(async (done) => {
    const script = document.createElement('script');
    script.src = URL.createObjectURL(new Blob([await zip(files[name])], {type: 'text/javascript'}));
    script.onload = done; document.head.append(script); });
  const {layers, data} = wsssPhoto.weights;
  const maps = wsssMaps();
  const net = wsssNet(tf); await net.start(await zip(files.wasm), layers, await zip(data));
  ort.env.wasm.numThreads = 1; ort.env.wasm.proxy = false;
  ort.env.wasm.wasmBinary = await raw(other.wasm);
  ort.env.wasm.wasmPaths = {mjs: URL.createObjectURL(
    new Blob([await raw(other.mjs)], {type: 'text/javascript'}))};
  const session = await ort.InferenceSession.create(await raw(other.onnx),
    {executionProviders: ['wasm']});
  window.run = {
    'TensorFlow.js': async (image, chw) => { net.features(image); },
    'ONNX Runtime Web': async (image, chw) => { await session.run(
      {x: new ort.Tensor('float32', chw, [1, 3, image.height, image.width])}); },
    'six views': async (image) => { for (const scale of [1, 0.5, 1.5])
      for (const mirrored of [false, true]) net.features(maps.view(image, scale, mirrored)); },
    'PAR, 10 steps': async (image) => { maps.refine(image.data.subarray(0, image.data.length / 3),
      maps.affinity(image), image.height, image.width, 10); },
  };
}"""
RUN = """async ([name, height, width, times]) => {
  const data = new Float32Array(height * width * 3).map(() => Math.random());
  const chw = new Float32Array(data.length);
  for (let i = 0; i < height * width; i++)
    for (let c = 0; c < 3; c++) chw[c * height * width + i] = data[3 * i + c] * 2 - 1;
  const found = [];
  for (let i = 0; i < times; i++) {
    const start = performance.now();
    await run[name]({data, height, width}, chw);
    found.push(performance.now() - start);
  }
  return Math.min(...found) / 1000;
}"""


def processor_seconds() -> float:
    """User and system time so far of all processes below this one that render pages."""
    parents, times = {}, {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            fields = (path / "stat").read_text().rpartition(")")[2].split()
            parents[int(path.name)] = int(fields[1])
            if b"--type=renderer" in (path / "cmdline").read_bytes():
                times[int(path.name)] = int(fields[11]) + int(fields[12])
        except OSError:
            continue  # it has ended
    total = 0
    for pid, ticks in times.items():
        above = pid
        while above in parents and above != os.getpid():
            above = parents[above]
        total += ticks * (above == os.getpid())
    return total / os.sysconf("SC_CLK_TCK")


def runtimes(folder: Path, rounds: int, times: int) -> dict[str, Any]:
    """Seconds of one look at a picture, by size and runtime, and what each has to load."""
    import browser as look

    parts = {
        "wasm": (folder / "ort-wasm-simd-threaded.wasm").read_bytes(),
        "mjs": (folder / "ort-wasm-simd-threaded.mjs").read_bytes(),
        "onnx": (folder / "lite0.onnx").read_bytes(),
    }
    texts = {name: base64.b64encode(data).decode() for name, data in parts.items()}
    own = [(STATIC / f"{n}.js").as_uri() for n in ("maps", "net", "runtime", "weights")]
    scripts = [*own, (folder / "ort.wasm.min.js").as_uri()]
    loaded = sum(len(gzip.compress(parts[n], 9)) for n in ("wasm", "mjs"))
    found: dict[str, Any] = {
        "MB as text, gzip and base64": {
            "TensorFlow.js": round((STATIC / "runtime.js").stat().st_size / 1e6, 2),
            "ONNX Runtime Web": round(loaded * 4 / 3 / 1e6, 2),
        }
    }
    with tempfile.TemporaryDirectory() as room, look.chromium() as browser:
        page = Path(room) / "page.html"
        tags = "".join(f'<script src="{name}"></script>' for name in scripts)
        page.write_text(
            "<!doctype html><script>var wsssPhoto = {}, other = "
            f"{json.dumps(texts)};</script>{tags}"
        )
        visit = look.Visit(browser)
        visit.open(page)
        visit.page.evaluate(START)
        for height, width in SIZES:
            best: dict[str, dict[str, float]] = {}
            for _ in range(rounds):
                for name in TIMED:
                    start = processor_seconds()
                    wall = visit.page.evaluate(RUN, [name, height, width, times])
                    cpu = (processor_seconds() - start) / times
                    old = best.get(name, {"processor s": cpu, "wall s": wall})
                    best[name] = {
                        "processor s": round(min(old["processor s"], cpu), 3),
                        "wall s": round(min(old["wall s"], wall), 3),
                    }
            found[f"{height}x{width}"] = best
    return found


def main() -> None:
    """Print what was asked for as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounding", action="store_true")
    parser.add_argument("--runtimes", type=Path)
    parser.add_argument("--export", type=Path)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--times", type=int, default=8)
    parser.add_argument("--json", type=Path, help="write the result here too")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.export:
        export(options.export)
        return
    result: dict[str, Any] = {"torch": torch.__version__, "load": round(os.getloadavg()[0], 1)}
    if options.runtimes:
        result["runtimes"] = runtimes(options.runtimes, options.rounds, options.times)
    if options.rounding:
        result["rounding"] = rounding([(8, 16), (10, 16), (11, 16), (12, 16)])
    report(result, options.json)


if __name__ == "__main__":
    main()
