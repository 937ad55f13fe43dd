"""Images a second and core of the toy world: `python benchmarks/toy.py`."""

import time

from wsss_lab.data.toy import ToyKnobs, scene


def rate(count: int, size: int, knobs: ToyKnobs) -> float:
    """Scenes a second of process CPU time; the textures are made beforehand."""
    for index in range(10):
        scene(7, index, knobs, size=size)
    start = time.process_time()
    for index in range(count):
        scene(8, index, knobs, size=size)
    return count / (time.process_time() - start)


def main() -> None:
    """Prints one line a setting."""
    for name, knobs in (("multi-object", ToyKnobs()), ("single object", ToyKnobs(single=True))):
        for size in (128, 224, 321):
            count = 600 if size == 128 else 150
            print(f"{name:14s} {size:4d} px  {rate(count, size, knobs):7.0f} images/s/core")


if __name__ == "__main__":
    main()
