"""Names in the released checkpoints of ACR -> names in this library."""

from wsss_lab.models.keymaps import Table

KEYMAP: Table = [
    (r"pretrained\.model\.(?:bkg_token|head\.(?:weight|bias))", None),
    (r"scratch\.layer[1-4]_rn\.weight", None),  # rest of a depth decoder, never used
    (r"pretrained\.act_postprocess\d\.\d\.(?:weight|bias)", None),  # the same
    (
        r"pretrained\.model\.((?:cls_token|pos_embed)|(?:patch_embed|blocks|norm)\..+)",
        r"backbone/net.\1",
    ),
    (r"cls_head\.(.+)", r"tag_head/linear.\1"),
]
"""ACR's ``*_last.pth`` (hybrid, ViT-B, DeiT-B); parts backbone, tag_head."""
