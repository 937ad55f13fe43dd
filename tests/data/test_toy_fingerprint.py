"""The toy world is pinned: masks to the bit, pixels to one grey level.

`python tests/data/test_toy_fingerprint.py` records it anew; only together with a new
`TOY_VERSION`.
"""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from wsss_lab.data.toy import TOY_VERSION, ToyKnobs, scene

FILE = Path(__file__).parent / "toy_fingerprint.json"
SETTINGS = {
    "128": (128, "train", ToyKnobs(), 32),
    "128 single": (128, "pretrain", ToyKnobs(share=0.0, contrast=0.2), 12),
    "96": (96, "val", ToyKnobs(clutter=8), 12),
    "321": (321, "train", ToyKnobs(), 4),
}


def fingerprint(setting: str) -> dict[str, str]:
    """Hash of all masks; 16 pixels a scene as hexadecimal bytes."""
    size, split, knobs, count = SETTINGS[setting]
    scenes = [scene(20, i, knobs, size=size, split=split) for i in range(count)]
    masks = hashlib.sha256(b"".join(s.mask.tobytes() for s in scenes)).hexdigest()
    at = [(size * (2 * k + 1) // 8) for k in range(4)]
    pixels = np.stack([s.image[np.ix_(at, at)] for s in scenes])
    return {"masks": masks, "pixels": pixels.tobytes().hex()}


@pytest.mark.parametrize("setting", SETTINGS)
def test_pinned(setting):
    recorded = json.loads(FILE.read_text())
    assert recorded["version"] == TOY_VERSION
    expected, got = recorded[setting], fingerprint(setting)
    pixels = [
        np.frombuffer(bytes.fromhex(f["pixels"]), np.uint8).astype(int) for f in (expected, got)
    ]
    np.testing.assert_allclose(pixels[0], pixels[1], atol=1, rtol=0)
    assert got["masks"] == expected["masks"]


def main() -> None:
    record = {"version": TOY_VERSION, **{name: fingerprint(name) for name in SETTINGS}}
    FILE.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
