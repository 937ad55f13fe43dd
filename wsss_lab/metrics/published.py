"""Published results to compare a run with, each with its protocol as far as it is known.

Only numbers from sources we have read are here. A question mark stands for what the source does not
state. Do not compare two rows without comparing their columns: pre-training, stages, multi-scale,
CRF and true tags at test time each move mIoU by points.
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """One published mIoU with its protocol."""

    method: str
    data: str
    """A name of `wsss_lab.data.config.DataConfig`."""
    split: str
    what: str
    """"segmentation", or "labels": maps of images whose tags are given."""
    miou: float
    """Per cent."""
    network: str
    protocol: str
    """Multi-scale, CRF, true tags at test time, as far as it is known."""
    source: str


_TSCD = "arXiv 2302.13765, as three later papers quote it"
_COSA_ORACLE = "true tags mask the logits (released code); multi-scale; CRF none in that code"
_COSA_COCO = "true tags mask the logits (released code); multi-scale"
_COSA_LOG = "its released log, teacher"
_ASDT_LIST = "result table of gyguo/awesome-weakly-supervised-semantic-segmentation"
_IRN = "Ahn et al. 2019; quoted in issue 4 of jiwoon-ahn/irn"
_RRM = "abstract of RRM (Zhang et al., AAAI 2020)"
_WRN_DEEPLAB, _WRN_PSP = "WRN-38, then DeepLabV2-R101", "WRN-38, then PSPNet-Res2Net101"
_MIT, _VIT = "MiT-B1, ImageNet-1k", "ViT-B, ImageNet-21k and 1k"
_R101 = "ViT-hybrid, then DeepLabV2-R101"

PUBLISHED: tuple[Published, ...] = (
    Published("CAM (IRN)", "voc", "train", "labels", 48.3, "ResNet-50", "threshold: ?", _IRN),
    Published(
        "ACR", "voc", "train", "labels", 67.3, "ViT-hybrid", "?", "arXiv 2308.04321, abstract"
    ),
    Published("AFA", "voc", "val", "segmentation", 66.0, _MIT, "CRF", "arXiv 2203.02664, abstract"),
    Published(
        "TSCD",
        "voc",
        "val",
        "segmentation",
        67.3,
        _MIT,
        "CRF; better of maps and network (the author, issue 11)",
        _TSCD,
    ),
    Published(
        "AFA",
        "voc",
        "val",
        "segmentation",
        63.9,
        _MIT,
        "single scale, no CRF, no true tags; best of ten looks",
        "its released log, step 18 000",
    ),
    Published("RRM", "voc", "val", "segmentation", 62.6, "WRN-38, one stage", "CRF", _RRM),
    Published("ASDT", "voc", "val", "segmentation", 69.7, _WRN_DEEPLAB, "retrained; ?", _ASDT_LIST),
    Published("ASDT", "voc", "val", "segmentation", 71.1, _WRN_PSP, "retrained; ?", _ASDT_LIST),
    Published(
        "ToCo",
        "voc",
        "val",
        "segmentation",
        69.8,
        "DeiT-B, ImageNet-1k",
        "multi-scale, CRF",
        "its README",
    ),
    Published("CoSA", "voc", "val", "segmentation", 76.2, _VIT, _COSA_ORACLE, "its README"),
    Published(
        "CoSA",
        "voc",
        "val",
        "segmentation",
        73.7,
        _VIT,
        "no true tags; multi-scale, no CRF; 1448 images",
        f"{_COSA_LOG}, step 24 000",
    ),
    Published(
        "CoSA",
        "voc",
        "val",
        "segmentation",
        75.7,
        _VIT,
        "the same network and images, TRUE TAGS",
        f"{_COSA_LOG}, step 24 000",
    ),
    Published(
        "full masks",
        "voc",
        "val",
        "segmentation",
        78.7,
        "MiT-B1",
        "?",
        "Table 3 of DuPL (CVPR 2024)",
    ),
    Published("AFA", "coco", "val", "segmentation", 38.9, _MIT, "?", "arXiv 2203.02664"),
    Published("TSCD", "coco", "val", "segmentation", 40.1, _MIT, "?", _TSCD),
    Published(
        "ToCo", "coco", "val", "segmentation", 41.3, "DeiT-B", "multi-scale, CRF", "its README"
    ),
    Published("ACR", "coco", "val", "segmentation", 45.0, _R101, "?", "paperswithcode"),
    Published("CoSA", "coco", "val", "segmentation", 51.0, _VIT, _COSA_COCO, "its README"),
    Published(
        "CoSA",
        "coco",
        "val",
        "segmentation",
        48.5,
        _VIT,
        "no true tags; multi-scale, no CRF; 5000 of the images",
        f"{_COSA_LOG}, step 30 000",
    ),
)
"""Image-level labels only. ACR is Sun et al. (arXiv 2308.04321), not the method of the same name by
Kweon et al. (CVPR 2023) that most tables mean. None for COCO-Stuff 10K: we found no number with a
protocol."""


def beside(
    miou: float,
    protocol: str,
    data: str,
    split: str,
    what: str = "segmentation",
    name: str = "here",
) -> str:
    """Format a table of a result and the published ones of the same data, split and kind.

    Args:
        miou: mIoU of the run, 0..1.
        protocol: the run's protocol, in a few words.
        data: name of the data set.
        split: name of the list.
        what: "segmentation" or "labels".
        name: name of the run in the table.
    """
    return rows_beside([(miou, name, protocol)], data, split, what)


def rows_beside(
    own: Sequence[tuple[float, str, str]], data: str, split: str, what: str = "segmentation"
) -> str:
    """Format a table of several results of a run and the published ones of the same kind.

    Args:
        own: mIoU in 0..1, name and protocol in a few words, of each result.
        data: name of the data set.
        split: name of the list.
        what: "segmentation" or "labels".
    """
    same = [p for p in PUBLISHED if (p.data, p.split, p.what) == (data, split, what)]
    rows: list[Sequence[str]] = [("mIoU %", "method", "network", "protocol", "source")]
    for miou, name, protocol in own:
        rows.append((f"{100 * miou:.1f}", name, "", protocol, "this run"))
    rows += [(f"{p.miou:.1f}", p.method, p.network, p.protocol, p.source) for p in same]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [f"{what}, {data} {split}"]
    for row in rows:
        cells = (text.ljust(width) for text, width in zip(row, widths, strict=True))
        lines.append("  ".join(cells).rstrip())
    if not same:
        lines.append("no published number for this data, list and kind is known to us")
    return "\n".join(lines)


def protocol_in_words(protocol: dict[str, object]) -> str:
    """Format in one line the switches of a `metrics.json` protocol that move the number most."""
    scales = protocol["scales"]
    many = isinstance(scales, list | tuple) and len(scales) > 1
    flip = protocol["flip"] is True
    views = ["multi-scale"] * many + ["flip"] * flip or ["single scale"]
    crf = "no CRF" if protocol["crf"] == "none" else f"CRF {protocol['crf']}"
    tags = "TRUE TAGS" if protocol["tags_at_test"] is True else "no true tags"
    threshold = [] if protocol["thresholds"] == "none" else [f"threshold {protocol['thresholds']}"]
    return ", ".join([*views, crf, tags, *threshold])
