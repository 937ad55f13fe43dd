"""The network runtime of the page on photos, as a script that a page opened from disk can read.

    npm pack @tensorflow/tfjs-core@4.22.0 @tensorflow/tfjs-backend-wasm@4.22.0
    python book/_ext/photo_runtime.py FOLDER     reads the two packages there

writes book/_static/photo/runtime.js: three files of TensorFlow.js as they were published, each gzip
and base64. Nothing of them is changed; their hashes are below, and a test compares.
"""

import argparse
import base64
import gzip
import hashlib
import json
import tarfile
from pathlib import Path

FILE = Path(__file__).parents[1] / "_static" / "photo" / "runtime.js"
VERSION = "4.22.0"
FILES = {
    "core": (
        "tensorflow-tfjs-core",
        "dist/tf-core.es2017.min.js",
        "c55367325aa628ed685164d5c4210892e31c6d2d0e8c163a827b15ad330d1eba",
    ),
    "backend": (
        "tensorflow-tfjs-backend-wasm",
        "dist/tf-backend-wasm.es2017.min.js",
        "bdd8c3c1fb0b37601bc2a122efa20b8d78e2936d104b03a44591be4188c63f65",
    ),
    "wasm": (
        "tensorflow-tfjs-backend-wasm",
        "dist/tfjs-backend-wasm-simd.wasm",
        "77ebb28a6d34f371dbbf2086b7f2de8994acd8ea5a3cf1fa24d2c26c840cac7b",
    ),
}
"""Name in the page -> package, file in it, SHA-256."""


def read_files(folder: Path) -> dict[str, bytes]:
    """Take the files out of the packages, and check them.

    Raises:
        ValueError: a file is not the one that was tested.
    """
    found = {}
    for name, (package, file, known) in FILES.items():
        with tarfile.open(folder / f"{package}-{VERSION}.tgz") as archive:
            data = archive.extractfile(f"package/{file}").read()
        if (digest := hashlib.sha256(data).hexdigest()) != known:
            raise ValueError(f"{package} {VERSION}, {file}: SHA-256 is {digest}, not {known}")
        found[name] = data
    return found


def script(files: dict[str, bytes]) -> str:
    """The script that hands the files to the page."""
    texts = {
        name: base64.b64encode(gzip.compress(data, 9, mtime=0)).decode("ascii")
        for name, data in files.items()
    }
    return f"wsssPhoto.runtime = {json.dumps({'version': VERSION, 'files': texts})};\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="where `npm pack` wrote the packages")
    FILE.write_text(script(read_files(parser.parse_args().folder)), encoding="ascii")
    print(f"{FILE.name}: {FILE.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
