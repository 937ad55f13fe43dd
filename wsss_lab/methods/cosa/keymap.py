"""Names in the released checkpoints of CoSA -> names in this library."""

from wsss_lab.models.keymaps import Table

KEYMAP: Table = [
    (r"encoder\.head\.(weight|bias)", None),  # ImageNet classifier, never used
    (r"encoder\.((?:cls_token|pos_embed)|(?:patch_embed|blocks|norm)\..+)", r"backbone/net.\1"),
    (r"decoder\.conv6\.(.+)", r"seg_head/conv1.\1"),
    (r"decoder\.conv7\.(.+)", r"seg_head/conv2.\1"),
    (r"decoder\.conv8\.(.+)", r"seg_head/classify.\1"),
    (r"classifier\.(.+)", r"tag_head/linear.\1"),
    (r"aux_classifier\.(.+)", r"aux_head/linear.\1"),
]
"""CoSA's ``model`` entry; parts backbone, seg_head, tag_head, aux_head."""
