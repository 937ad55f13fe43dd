"""Tensor names in checkpoints of ASDT's released code -> names in `ASDTNetwork`."""

from wsss_lab.models.keymaps import Table, wrn38_rows

KEYMAP: Table = [
    *wrn38_rows("backbone/net."),
    (r"fc8\.(weight)", r"tag_head/linear.\1"),
    (r"fc8_seg_conv([12])\.(.+)", r"seg_head/conv\1.\2"),
    (r"fc8_seg_conv([34])\.(.+)", lambda m: f"student_head/conv{int(m[1]) - 2}.{m[2]}"),
]
"""Parts: backbone, tag_head (teacher A), seg_head (teacher B) and student_head."""
