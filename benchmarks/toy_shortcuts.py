"""What a colour histogram, the water area or the object count alone knows about the tags.

A toy world with such shortcuts would teach nothing about localisation. `python
benchmarks/toy_shortcuts.py` prints the average precision (AP) of every class beside its prior.
Needs scikit-learn.
"""

import argparse

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from sklearn.preprocessing import StandardScaler

from wsss_lab.data.toy import TOY_CLASSES, ToyKnobs, render


def histogram(images: np.ndarray, cells: int = 4) -> np.ndarray:
    """Share of the pixels (n, cells^3) in every cell of the RGB cube; images uint8 (n, 3, h, w)."""
    level = images.astype(np.int64) * cells // 256
    code = ((level[:, 0] * cells + level[:, 1]) * cells + level[:, 2]).reshape(len(images), -1)
    counts = np.stack([np.bincount(row, minlength=cells**3) for row in code])
    return np.sqrt(counts / code.shape[1])


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train", type=int, default=3000)
    parser.add_argument("--test", type=int, default=1000)
    parser.add_argument("--given-other", type=float, default=ToyKnobs.context_given_other)
    args = parser.parse_args()
    knobs = ToyKnobs(context_given_other=args.given_other)
    train = render("train", range(args.train), seed=21, knobs=knobs)
    test = render("val", range(args.test), seed=21, knobs=knobs)
    scaler = StandardScaler()
    x = scaler.fit_transform(histogram(train["image"].numpy()))
    z = scaler.transform(histogram(test["image"].numpy()))
    area = (test["context"].numpy() == 1).mean((1, 2))
    rails = (test["context"].numpy() == 2).mean((1, 2))
    y, truth = train["tags"].numpy(), test["tags"].numpy()
    print("class   prior  histogram  water  rails")
    worst = 0.0
    for c, name in enumerate(TOY_CLASSES):
        found = 0.0
        for strength in (0.003, 0.03, 0.3):
            model = LogisticRegression(C=strength, max_iter=300).fit(x, y[:, c])
            score = average_precision_score(truth[:, c], model.decision_function(z))
            found = max(found, float(score))
        water = average_precision_score(truth[:, c], area)
        track = average_precision_score(truth[:, c], rails)
        worst = max(worst, found)
        print(f"{name:6s}  {truth[:, c].mean():.3f}  {found:.3f}      {water:.3f}  {track:.3f}")
    print(f"highest AP from colours alone: {worst:.3f}")


if __name__ == "__main__":
    main()
