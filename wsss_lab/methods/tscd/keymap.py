"""Names of tensors in released checkpoints of TSCD and AFA -> names in this library."""

from wsss_lab.models.keymaps import Table, mit_rows

KEYMAP: Table = [
    *mit_rows(r"(?:module\.)?encoder\.", "backbone/net."),
    (
        r"(?:module\.)?decoder\.linear_c([1-4])\.proj\.(.+)",
        lambda m: f"seg_head/lateral.{int(m[1]) - 1}.{m[2]}",
    ),
    (r"(?:module\.)?decoder\.linear_fuse\.conv\.(.+)", r"seg_head/fuse.\1"),
    (r"(?:module\.)?decoder\.linear_fuse\.bn\.(.+)", r"seg_head/norm.\1"),
    (r"(?:module\.)?decoder\.linear_pred\.(.+)", r"seg_head/classify.\1"),
    (r"(?:module\.)?classifier\.(.+)", r"tag_head/linear.\1"),
    (r"(?:module\.)?attn_proj\.(.+)", r"affinity_head/\1"),
]
"""TSCD's and AFA's ``*_iter_*.pth``; parts backbone, seg_head, tag_head, affinity_head."""
