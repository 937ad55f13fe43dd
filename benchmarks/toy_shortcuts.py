"""What a colour histogram, the water area or the rails area alone knows about the tags.

`python benchmarks/toy_shortcuts.py` prints the average precision (AP) of every class beside its
prior. The calibration record holds the histogram column for the frozen knobs.
"""

import argparse

from wsss_lab.data.toy import TOY_CLASSES, ToyKnobs, render
from wsss_lab.metrics import average_precision
from wsss_lab.studies.toy.shortcuts import histogram_ap


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train", type=int, default=3000)
    parser.add_argument("--test", type=int, default=1000)
    parser.add_argument("--given-other", type=float, default=ToyKnobs.context_given_other)
    parser.add_argument("--share", type=float, default=ToyKnobs.share)
    args = parser.parse_args()
    knobs = ToyKnobs(context_given_other=args.given_other, share=args.share)
    train = render("train", range(args.train), seed=21, knobs=knobs)
    test = render("val", range(args.test), seed=21, knobs=knobs)
    colours = histogram_ap(train["image"], train["tags"], test["image"], test["tags"])
    areas = [(test["context"] == value).float().mean((1, 2)) for value in (1, 2)]
    truth = test["tags"]
    water, rails = (average_precision(area[:, None].expand_as(truth), truth) for area in areas)
    print("class   prior  histogram  water  rails")
    for c, name in enumerate(TOY_CLASSES):
        prior = truth[:, c].mean()
        print(f"{name:6s}  {prior:.3f}  {colours[c]:.3f}      {water[c]:.3f}  {rails[c]:.3f}")
    print(f"highest AP from colours alone: {colours.max():.3f}")


if __name__ == "__main__":
    main()
