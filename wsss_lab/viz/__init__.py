"""Pictures for the book: palettes, overlays, grids, and sweeps that work without a kernel.

Every function takes NumPy arrays or tensors and returns an array, a figure or a `FrameStrip`; none
draws into global state. The same input gives the same bytes.

Images are `(h, w, 3)` or `(3, h, w)`, `uint8` in 0..255 or float in [0, 1]. Label maps are integer
`(h, w)` with 0 background and 255 ignored. Maps in [0, 1] are float `(h, w)`.
"""

from wsss_lab.viz.arrays import HEAT, heat, overlay, palette_image, rgb
from wsss_lab.viz.figures import (
    COLOURS,
    Sheet,
    cam_grid,
    heat_legend,
    image_grid,
    label_legend,
    plot_style,
    png_bytes,
)
from wsss_lab.viz.method_map import Arrow, Box, MethodMap, method_map
from wsss_lab.viz.page import Photo, Table, claim, jpeg, table
from wsss_lab.viz.runs import curve_sheets, example_picture, gallery, shown_classes, training_curves
from wsss_lab.viz.strip import FrameStrip, data_uri, explorer, frame_strip
from wsss_lab.viz.studies import DifferenceRow, difference_plot

__all__ = [
    "COLOURS",
    "HEAT",
    "Arrow",
    "Box",
    "DifferenceRow",
    "FrameStrip",
    "MethodMap",
    "Photo",
    "Sheet",
    "Table",
    "cam_grid",
    "claim",
    "curve_sheets",
    "data_uri",
    "difference_plot",
    "example_picture",
    "explorer",
    "frame_strip",
    "gallery",
    "heat",
    "heat_legend",
    "image_grid",
    "jpeg",
    "label_legend",
    "method_map",
    "overlay",
    "palette_image",
    "plot_style",
    "png_bytes",
    "rgb",
    "shown_classes",
    "table",
    "training_curves",
]
