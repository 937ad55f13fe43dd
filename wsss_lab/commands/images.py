"""Commands on images and masks: `predict`, `explain`, and `eval` of label images."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import Positional

from wsss_lab.ranges import Count, Pixels, Range, Settings, Share


@dataclass(frozen=True)
class Predict(Settings):
    """Name and outline what is in images, without tags: masks and overlays."""

    images: Positional[Path]
    """An image file, or a folder of them. One of more pixels than the network's setting
    `test.most_pixels`, usually 1048576, is shrunk for the network; its mask has its own size."""
    out: Path
    """Folder for the masks and overlays."""
    weights: Path | None = None
    """Folder of a trained run, its model.safetensors, or a released checkpoint; or a network of the
    package: `voc-mini` finds the 20 classes of VOC in photos, `toy` those of drawings of the toy
    world. Without it, `toy` for the images of an exported toy world and `voc-mini` for others; a
    line says which."""
    threshold: Share = 0.4
    """Background threshold on normalised class activation maps, 0..1."""
    soft: bool = False
    """Also write the class probabilities, <name>.npz; of an image that is shrunk, at the smaller
    size."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute."""
    overwrite: bool = False
    """Replace masks and overlays that are there already. Images are never replaced."""

    def run(self) -> int:
        """Write `<name>.png` and `<name>_overlay.jpg` per image."""
        from wsss_lab.evaluate.predict_command import run_predict
        from wsss_lab.registry import used_files
        from wsss_lab.runs import default_network

        inputs, note = used_files(), ""
        if self.weights is None or default_network.is_packaged_name(self.weights):
            network = (
                default_network.default_network(self.images)
                if self.weights is None
                else default_network.packaged_network(str(self.weights))
            )
            trained, note = network.trained, network.note
        else:
            from wsss_lab.runs.contents import files_beside
            from wsss_lab.runs.weights import load_trained

            trained = load_trained(self.weights)
            inputs += files_beside(self.weights)
        options: dict[str, Any] = {"trained": trained, "soft": self.soft, "device": self.device}
        options |= {"overwrite": self.overwrite, "inputs": inputs, "note": note}
        return run_predict(self.images, self.out, self.threshold, **options)


@dataclass(frozen=True)
class Explain(Settings):
    """Name the likeliest ImageNet classes of a photo, and show where the network sees them."""

    photo: Positional[Path]
    """An image file."""
    out: Path | None = None
    """PNG or HTML file to write; else PHOTO_explained.png in the current folder."""
    backbone: str = "lite0"
    """lite0, or any classifier of timm as timm:NAME."""
    weights: str = ""
    """A file with the network's weights; else those of the pip package for lite0, timm's for
    others."""
    classes: Count = 5
    """Number of classes."""
    side: Pixels = 320
    """Long side at which the photo is looked at, px."""
    overwrite: bool = False
    """Replace the file, if there is one."""

    def run(self) -> int:
        """Print the classes and write their maps."""
        from wsss_lab.evaluate.explain import explain_file
        from wsss_lab.registry import used_files

        for line in explain_file(
            self.photo, self.out, self.backbone, self.weights, self.classes, self.side,
            overwrite=self.overwrite, inputs=used_files(),
        ):  # fmt: skip
            print(line)
        return 0


@dataclass(frozen=True)
class Eval(Settings):
    """Compare masks with the truth, class by class; or `eval METHOD --weights FILE` a network."""

    pred: Path
    """Folder of predicted masks, `<name>.png`, palette or grey; of a run: its labels."""
    truth: Path
    """Folder of true masks, `<name>.png`; pixels of 255 are left out."""
    list: Path
    """Text file with one image name a line."""
    classes: Annotated[int, Range("[2, 255]")] | None = None
    """Number of classes with background. None: as many as the masks or a classes.txt name, else
    the 21 of VOC."""
    json: bool = False
    """Print machine-readable JSON instead of the table."""
    unlabelled: Literal["wrong", "ignored", "error"] = "wrong"
    """Predicted pixels of 255, as pseudo-labels have them: count them as wrong, leave them out of
    the score, or refuse them."""
    ignore: Annotated[int, Range("[0, 255]")] | None = None
    """Value of pixels without a class in both folders, for example 255; those of the predictions
    are left out, as with `--unlabelled ignored`."""

    def run(self) -> int:
        """Print the report."""
        from wsss_lab.evaluate.eval_command import run_eval
        from wsss_lab.metrics import Protocol

        reading = self.unlabelled if self.ignore is None else "ignored"
        return run_eval(
            self.pred,
            self.truth,
            self.list,
            self.classes,
            as_json=self.json,
            protocol=Protocol(unlabelled=reading),
            ignore=255 if self.ignore is None else self.ignore,
        )
