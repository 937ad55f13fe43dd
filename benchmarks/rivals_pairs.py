"""Pairs that `rivals.py` times: our way and another's to the same result, on the same input.

Every function below makes the pairs of one rival and imports it on the way, so that one that is not
installed costs its own rows alone. Transcribed formulas are those of the scripts beside this one.
"""

from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Pair:
    """Two ways to one result."""

    what: str
    """What is computed, and at which size."""
    rival: str
    """Whose way the other one is."""
    ours: Callable[[], Any]
    theirs: Callable[[], Any]
    tolerance: float
    """Largest `gap` at which the results count as the same."""
    unit: str
    """What `gap` measures."""
    gap: Callable[[Any, Any], float]


@dataclass(frozen=True)
class Sizes:
    """How large the inputs are."""

    network: str = "resnet50"
    cam: tuple[int, ...] = (224, 448)
    """Sides of the images whose maps are made, px."""
    photo: tuple[int, int] = (375, 500)
    photos: int = 16
    crop: int = 448
    queue: tuple[int, int] = (200, 784)
    """Rows and values of CoSA's queue on VOC."""
    refine: int = 224
    scd: tuple[int, int] = (320, 40)
    """Side of maps and logits, px; points per axis."""
    grid: int = 32
    acr: tuple[str, int] = ("vit_s16", 224)
    tscd: tuple[str, int] = ("mit_b0", 224)
    cosa: tuple[int, int, int] = (192, 12, 224)
    """Width and depth of the transformer, side of the images, px."""
    asdt: int = 161


FULL = Sizes()
TINY = Sizes(
    network="resnet18",
    cam=(64,),
    photo=(48, 64),
    photos=2,
    crop=56,
    queue=(8, 64),
    refine=32,
    scd=(32, 6),
    grid=6,
    acr=("vit_s16", 32),
    tscd=("mit_b0", 208),
    cosa=(48, 12, 64),
    asdt=65,
)


def largest(a: Any, b: Any) -> float:
    """Largest absolute difference of two arrays."""
    return float((torch.as_tensor(a).double() - torch.as_tensor(b).double()).abs().max())


def mean(a: Any, b: Any) -> float:
    """Mean absolute difference of two arrays."""
    return float((torch.as_tensor(a).double() - torch.as_tensor(b).double()).abs().mean())


def relative(a: Any, b: Any) -> float:
    """Largest difference of two arrays, as a share of the second one's largest value."""
    return largest(a, b) / max(float(torch.as_tensor(b).double().abs().max()), 1e-12)


def relative_of_all(a: dict[str, Any], b: dict[str, Any]) -> float:
    """The same over all entries that both have; NaN if one of them is."""
    return float(torch.tensor([relative(a[key], b[key]) for key in b if key in a]).max())


# --- class maps ---------------------------------------------------------------------------------


def _network(sizes: Sizes, side: int) -> tuple[Any, Tensor, int]:
    """A network with random weights, an image, and the class that it finds likeliest."""
    import timm

    torch.manual_seed(0)
    net = timm.create_model(sizes.network, pretrained=False, zero_init_last=False).eval()
    coarse = torch.randn(1, 3, 8, 8)
    image = F.interpolate(coarse, (side, side), mode="bicubic") + 0.1 * torch.randn(
        1, 3, side, side
    )
    with torch.no_grad():
        return net, image, int(net(image).argmax())


def _our_maps(net: Any, image: Tensor, at: int) -> dict[str, Callable[[], Tensor]]:
    """Raw maps of one class, (1, 1, gh, gw)."""
    from wsss_lab.cam import class_activation_map, grad_cam

    tags = F.one_hot(torch.tensor([at]), net.num_classes)

    @torch.no_grad()
    def features() -> Tensor:
        return net.forward_features(image)

    def by_gradient() -> Tensor:
        last = features().requires_grad_()  # the graph is that of the head alone
        return grad_cam(last, net.forward_head(last), tags)[:, at : at + 1]

    def by_weights() -> Tensor:
        last = features()
        with torch.no_grad():
            net.forward_head(last)  # a user has the logits, too
            return class_activation_map(last, net.fc.weight[at : at + 1])

    return {"Grad-CAM": by_gradient, "CAM": by_weights}


def grad_cam_pairs(sizes: Sizes, folder: Path) -> list[Pair]:
    """Maps enlarged to the image; CAM is Grad-CAM of such a network, without a backward pass."""
    import cv2
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    from wsss_lab.cam import Normalization, normalize_cam

    cv2.setNumThreads(torch.get_num_threads())
    rule = Normalization(True, True, 0.0, "class", "grad-cam")
    pairs = []
    for side in sizes.cam:
        net, image, at = _network(sizes, side)
        tool = GradCAM(net, [net.layer4[-1]])

        def theirs(tool: Any = tool, image: Tensor = image, at: int = at) -> Tensor:
            return torch.from_numpy(tool(image, [ClassifierOutputTarget(at)]))

        for kind, raw in _our_maps(net, image, at).items():

            def ours(raw: Callable[[], Tensor] = raw, side: int = side) -> Tensor:
                large = F.interpolate(raw().relu(), (side, side), mode="bilinear")
                return normalize_cam(large, rule)[:, 0]

            what = f"{kind}, {sizes.network}, {side} px, enlarged"
            unit = "largest, of maps in 0..1"
            pairs.append(Pair(what, "grad-cam, GradCAM", ours, theirs, 1e-4, unit, largest))
    return pairs


def torchcam_pairs(sizes: Sizes, folder: Path) -> list[Pair]:
    """Maps on the network's own grid."""
    from torchcam.methods import CAM, GradCAM

    from wsss_lab.cam import Normalization, normalize_cam

    rule = Normalization(True, True, 0.0, "class", "torch-cam")
    pairs = []
    for side in sizes.cam:
        net, image, at = _network(sizes, side)
        ours = _our_maps(net, image, at)
        for kind, tool in (("Grad-CAM", GradCAM), ("CAM", CAM)):
            # hooks of one extractor would slow all others: they are there for one call only
            def theirs(kind: str = kind, tool: Any = tool, net: Any = net,
                       image: Tensor = image, at: int = at) -> Tensor:  # fmt: skip
                head = {"fc_layer": "fc"} if kind == "CAM" else {}
                with tool(net, "layer4", **head) as extractor:
                    with torch.set_grad_enabled(kind == "Grad-CAM"):
                        scores = net(image)
                    return extractor(at, scores)[0]

            def mine(raw: Callable[[], Tensor] = ours[kind]) -> Tensor:
                return normalize_cam(raw(), rule)[:, 0]

            what, unit = f"{kind}, {sizes.network}, {side} px", "largest, of maps in 0..1"
            rival = f"torch-cam, {tool.__name__}"
            pairs.append(Pair(what, rival, mine, theirs, 1e-4, unit, largest))
    return pairs


# --- refinement, thresholds, scores -------------------------------------------------------------


def crf_pairs(sizes: Sizes, folder: Path) -> list[Pair]:
    """One photo, 21 classes, as a user calls it: the lattice is built anew."""
    from pydensecrf import densecrf, utils
    from refine_global import cpp_crf, scene

    from wsss_lab.runs.recipe import find_crf

    image, probs = scene(1, sizes.photo, 4.0)
    pairs = []
    for preset in ("tscd-cam", "tscd-eval", "asdt-seg"):
        crf: Any = find_crf(preset)
        h, w = sizes.photo
        pairs.append(
            Pair(
                f"dense CRF, {preset}, 21 x {h} x {w}, {crf.iterations} iterations",
                "pydensecrf2 (C++)",
                lambda crf=crf: crf(image, probs)[0],  # type: ignore[misc]
                lambda crf=crf: cpp_crf((densecrf, utils), crf, image, probs),  # type: ignore[misc]
                1e-4,
                "largest, of probabilities",
                largest,
            )
        )
    return pairs


def mixture_pairs(sizes: Sizes, folder: Path) -> list[Pair]:
    """Three Gaussians of the values in CoSA's queue, as its released code starts and stops."""
    from sklearn.mixture import GaussianMixture

    from wsss_lab.methods.cosa.mixture import fit_mixture

    torch.manual_seed(0)
    rows, width = sizes.queue
    humps = torch.tensor([0.1, 0.35, 0.8])[torch.randint(0, 3, (rows, width))]
    values = (humps + 0.1 * torch.randn(rows, width)).clamp(0, 1)

    def ours(tol: float) -> Tensor:
        exact = values.double()
        fit = fit_mixture(exact, exact > 0.05, 3, tol=tol)
        return torch.cat([fit.weights, fit.means, fit.variances, fit.n_iter[None]])

    def theirs(tol: float) -> np.ndarray:
        x = values.double().numpy().ravel()
        x = x[x > 0.05][:, None]
        start = [[x.min()], [np.median(x)], [x.max()]]
        fit = GaussianMixture(3, weights_init=[1 / 3] * 3, means_init=start, max_iter=100,
                              precisions_init=[[[1.0]]] * 3, tol=tol).fit(x)  # fmt: skip
        spread = fit.covariances_.ravel()
        return np.concatenate([fit.weights_, fit.means_.ravel(), spread, [fit.n_iter_]])

    return [
        Pair(
            f"three Gaussians of {rows * width} values, tol {tol:g}",
            "scikit-learn, GaussianMixture",
            lambda tol=tol: ours(tol),  # type: ignore[misc]
            lambda tol=tol: theirs(tol),  # type: ignore[misc]
            1e-6,
            "largest, of weights, means, variances and number of iterations",
            largest,
        )
        for tol in (1e-3, 1e-6)
    ]


def score_pairs(sizes: Sizes, folder: Path) -> list[Pair]:
    """Confusion matrix of one photo, and the mean IoU of eight."""
    from metrics import CLASSES, scene
    from torchmetrics.classification import MulticlassConfusionMatrix, MulticlassJaccardIndex

    from wsss_lab.metrics import ConfusionMatrix, mean_iou

    _, _, truth, pred = scene()
    wide = truth.long()
    rival = {"num_classes": CLASSES, "ignore_index": 255}

    def ours_iou() -> Tensor:
        matrix = ConfusionMatrix(CLASSES)
        for shift in range(8):
            matrix.update(pred.roll(shift, -1), truth)
        return mean_iou(matrix.compute(), "nanmean")[1]

    def theirs_iou() -> Tensor:
        metric = MulticlassJaccardIndex(average="macro", **rival)
        for shift in range(8):
            metric.update(pred.roll(shift, -1), wide)
        return metric.compute()

    def theirs(checked: bool) -> Tensor:
        metric = MulticlassConfusionMatrix(validate_args=checked, **rival)
        metric.update(pred, wide)
        return metric.compute()

    def ours() -> Tensor:
        return ConfusionMatrix(CLASSES).update(pred, truth).compute()[:, :CLASSES]

    what, unit = "confusion matrix, 21 classes, 375 x 500", "largest, of counts"
    return [
        Pair(what, "torchmetrics", ours, lambda: theirs(True), 0, unit, largest),
        Pair(what, "torchmetrics, no checks", ours, lambda: theirs(False), 0, unit, largest),
        Pair("mean IoU of 8 such photos", "torchmetrics, MulticlassJaccardIndex", ours_iou,
             theirs_iou, 1e-6, "of mIoU in 0..1", largest),
    ]  # fmt: skip


# --- photos -------------------------------------------------------------------------------------


def photo_pairs(sizes: Sizes, folder: Path) -> list[Pair]:
    """Decode, scale by 0.5..2, mirror, cut: the same windows on both sides; then colours."""
    from data import HEIGHT, WIDTH, write_photos
    from PIL import Image
    from torchvision.io import decode_jpeg, read_file
    from torchvision.transforms.v2 import functional as v2

    from wsss_lab.data.crops import draw_window, scaled_size, view, view_released
    from wsss_lab.data.images import read_image
    from wsss_lab.data.transform import STRONG_OPS, jitter, strong, strong_released

    paths, rng = write_photos(folder, sizes.photos), np.random.default_rng(0)
    scaled = [scaled_size(HEIGHT, WIDTH, float(f)) for f in rng.uniform(0.5, 2, len(paths))]
    windows = [draw_window(size, sizes.crop, rng.random(3)) for size in scaled]

    def read(path: Path) -> Tensor:
        return torch.from_numpy(read_image(path)).permute(2, 0, 1)

    def floats(crops: list[Tensor]) -> Tensor:
        return torch.stack(crops).float().div_(255)

    def ours(cut: Callable[..., Tensor]) -> Tensor:
        return floats([cut(read(p), w) for p, w in zip(paths, windows, strict=True)])

    def theirs(pillow: bool) -> Tensor:
        crops = []
        for path, at in zip(paths, windows, strict=True):
            image: Any = Image.open(path) if pillow else decode_jpeg(read_file(str(path)))
            image = v2.resize(image, [at.height, at.width], antialias=True)
            image = v2.horizontal_flip(image) if at.flip else image
            image = v2.crop(image, at.top, at.left, at.side, at.side)
            crops.append(v2.pil_to_tensor(image) if pillow else image)
        return floats(crops)

    crop = view(read(paths[0]), draw_window((HEIGHT, WIDTH), sizes.crop, np.full(3, 0.4)))

    def colours() -> Tensor:
        image = v2.adjust_brightness(crop, 0.9)
        return v2.adjust_saturation(v2.adjust_contrast(image, 0.9), 1.2)

    def all_strong(operation: Callable[..., Tensor]) -> Tensor:
        return torch.stack([operation(crop, name, 5) for name in STRONG_OPS])

    count, side = len(paths), sizes.crop
    levels = "largest, of 256 grey levels"
    mean_level = "mean, of grey levels in 0..1; ours cuts on whole pixels before it scales"
    cut = f"decode, scale, mirror and cut {count} photos to {side} px"
    return [
        Pair(f"decode {count} photos", "torchvision, decode_jpeg",
             lambda: torch.stack([read(p) for p in paths]),
             lambda: torch.stack([decode_jpeg(read_file(str(p))) for p in paths]),
             3, levels, largest),
        Pair(cut, "torchvision v2, tensors", lambda: ours(view), lambda: theirs(False),
             0.02, mean_level, mean),
        Pair(f"{cut}, form released", "torchvision v2, Pillow", lambda: ours(view_released),
             lambda: theirs(True), 0, "largest, of values in 0..1", largest),
        Pair(f"brightness, contrast, saturation of {side} px", "torchvision v2",
             lambda: jitter(crop, np.array([0.9, 0.9, 1.2])), colours, 2,
             "mean, of 256 grey levels; torchvision rounds down after each of the three", mean),
        Pair(f"the {len(STRONG_OPS)} operations of the strong view, {side} px", "torchvision v2",
             lambda: all_strong(strong_released), lambda: all_strong(strong), 1, levels, largest),
    ]  # fmt: skip


# --- formulas, transcribed literally --------------------------------------------------------------


def refinement_pairs(sizes: Sizes, folder: Path) -> list[Pair]:
    """PAR, VARM, PAMR against stacking the 48 neighbours."""
    from refine_local import METHODS, job, scene

    images, masks = scene(1, 21, sizes.refine)
    what = f"1 x 21 x {sizes.refine} x {sizes.refine}, 10 iterations"
    return [
        Pair(f"{name}, {what}", "formula, 48 neighbours stacked", job(name, "ours", images, masks),
             job(name, "textbook", images, masks), 1e-5, "largest, of masks in 0..1", largest)
        for name in METHODS
    ]  # fmt: skip


def loss_pairs(sizes: Sizes, folder: Path) -> list[Pair]:
    """Two losses of TSCD with their gradients."""
    from tscd_literal import literal_affinity, literal_scd

    from wsss_lab.methods.tscd.labels import affinity_label
    from wsss_lab.methods.tscd.losses import affinity_loss, correspondence, scd_loss
    from wsss_lab.methods.tscd.views import sample_points
    from wsss_lab.refine import grid_label, radius_mask

    torch.manual_seed(0)
    (side, points), grid = sizes.scd, sizes.grid
    maps = [torch.rand(2, 20, side, side) for _ in range(2)]
    logits = [torch.randn(2, 21, side, side, requires_grad=True) for _ in range(2)]
    where = [torch.rand(2, points, points, 2) * 2 - 1 for _ in range(2)]
    affinity = torch.rand(2, grid**2, grid**2, requires_grad=True)
    labels = torch.randint(0, 21, (2, grid // 2, grid // 2)).repeat_interleave(32, 1)
    labels = labels.repeat_interleave(32, 2)
    labels[:, : 16 * grid // 4] = 255
    near = radius_mask(grid, grid, 8)

    def our_scd() -> Tensor:
        pairs = [
            correspondence(*(sample_points(x, p) for x, p in zip(views, where, strict=True)))
            for views in (maps, logits)
        ]
        return scd_loss(*pairs)

    def our_affinity() -> Tensor:
        return affinity_loss(affinity, affinity_label(grid_label(labels, (grid, grid)), near))

    def both_ways(loss: Callable[[], Tensor], of: Tensor) -> Callable[[], dict[str, Tensor]]:
        def run() -> dict[str, Tensor]:
            value = loss()
            (gradient,) = torch.autograd.grad(value, of)
            return {"loss": value.detach(), "gradient": gradient}

        return run

    unit = "relative, of loss and gradient"
    return [
        Pair(f"SCD loss and gradient, {points**2} points in two views of 2 x 20 x {side} x {side}",
             "formula, transcribed", both_ways(our_scd, logits[0]),
             both_ways(lambda: literal_scd(maps, logits, where), logits[0]),
             1e-3, unit, relative_of_all),
        Pair(f"affinity loss and gradient, all pairs of 2 x {grid} x {grid} cells",
             "formula, transcribed", both_ways(our_affinity, affinity),
             both_ways(lambda: literal_affinity(affinity, labels, near), affinity),
             1e-4, unit, relative_of_all),
    ]  # fmt: skip


def acr_pairs(sizes: Sizes, folder: Path) -> list[Pair]:
    """Training step with all-pairs consistency, and localisation of three classes."""
    import acr

    work = acr.jobs(*sizes.acr, 1)
    network, side = sizes.acr
    return [
        Pair(f"ACR, {name}, {network}, {side} px, float32", "released step, transcribed",
             work[name], work[f"{name}, transcribed"], 1e-3, "relative, of " + of, relative)
        for name, of in (("step", "the loss"), ("localise", "maps in 0..1"))
    ]  # fmt: skip


def tscd_pairs(sizes: Sizes, folder: Path) -> list[Pair]:
    """One step of either preset with its backward pass."""
    import tscd

    backbone, side = sizes.tscd
    options = Namespace(backbone=backbone, size=side, classes=20)
    return [
        Pair(f"TSCD, step, {preset}, {backbone}, 2 x {side} px", "released step, transcribed",
             tscd.job("ours", preset, options), tscd.job("literal", preset, options),
             1e-3, "relative, of all losses and the gradient's norm", relative_of_all)
        for preset in ("voc", "voc-released")
    ]  # fmt: skip


def cosa_pairs(sizes: Sizes, folder: Path) -> list[Pair]:
    """One step with AdamW and the slow average."""
    import cosa

    width, depth, side = sizes.cosa
    options = Namespace(width=width, heads=3, depth=depth, size=side, batch=2)
    ours, literal = (cosa.arm(options, f"{who}/released/main")[0] for who in ("ours", "literal"))
    what = f"CoSA, step, transformer of width {width}, 2 x {side} px, float32"
    unit = "relative, of all losses"
    return [Pair(what, "released step, transcribed", ours, literal, 1e-3, unit, relative_of_all)]


def asdt_pairs(sizes: Sizes, folder: Path) -> list[Pair]:
    """One step inside a pulse, with the labels of both teachers."""
    import asdt

    from wsss_lab.refine import DenseEnergyLoss

    options = Namespace(backbone="toy_cnn", width_factor=1, hidden=64, size=sizes.asdt, batch=2)
    method: Any = asdt.build(options, asdt.ASDT, "voc-released")
    method.energy = DenseEnergyLoss()  # as the literal one: not the old way of halving
    batch: Any = asdt.scene(options)
    literal = asdt.Literal(method)

    def run(loss: Callable[[], Tensor]) -> Callable[[], Tensor]:
        def one() -> Tensor:
            torch.manual_seed(1)
            method.zero_grad()
            value = loss()
            value.backward()
            return value.detach()

        return one

    by = "pydensecrf2" if asdt.densecrf else "our CRF, image by image"
    return [
        Pair(f"ASDT, step in a pulse, toy_cnn, 2 x {sizes.asdt} px",
             f"released step, transcribed, CRF by {by}",
             run(lambda: method.training_step(batch, 3).loss), run(lambda: literal(batch, True)[0]),
             1e-4, "relative, of the loss", relative)
    ]  # fmt: skip


Make = Callable[[Sizes, Path], list[Pair]]
GROUPS: dict[str, tuple[str, Make]] = {
    "grad-cam": ("grad-cam", grad_cam_pairs),
    "torch-cam": ("torchcam", torchcam_pairs),
    "crf": ("pydensecrf2", crf_pairs),
    "mixture": ("scikit-learn", mixture_pairs),
    "scores": ("torchmetrics", score_pairs),
    "photos": ("torchvision", photo_pairs),
    "refinement": ("", refinement_pairs),
    "losses": ("", loss_pairs),
    "acr": ("", acr_pairs),
    "tscd": ("", tscd_pairs),
    "cosa": ("", cosa_pairs),
    "asdt": ("", asdt_pairs),
}
"""Name -> what pip calls the rival ("" for a formula, which needs nothing), its pairs."""
