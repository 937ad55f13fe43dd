"""Mix your own: techniques of four papers on one common base, switched on by settings alone.

============  ======================================================================================
`config`      the base's settings, and a group of settings for every technique; the preset `toy`
`method`      `Mix`: the base and its step; start reading here
`technique`   what a technique is: hooks, the state of a step, `register_technique`
`techniques`  those of the papers, each calling its paper's own functions
`network`     backbone, tag classifier, segmentation head
============  ======================================================================================

This folder is no paper's and may import theirs. From data to `metrics.json`:
`wsss_lab.recipes.mix`.
"""
