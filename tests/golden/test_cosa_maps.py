"""CoSA: the teacher's fused maps, from the whole (small) model."""

import pytest
import torch
from test_cosa_network import AUX_LEVEL, HEADS

from wsss_lab.cam import fuse_cams, multi_scale_cam, normalize_cam, present_classes
from wsss_lab.methods.cosa import values
from wsss_lab.methods.cosa.labels import sampled_target, soft_target, teacher_cam
from wsss_lab.methods.cosa.network import CoSANetwork, forward_views
from wsss_lab.methods.cosa.released import load_released
from wsss_lab.models.backbones import build_backbone
from wsss_lab.runs.recipe import find_preset


def tiny_network(weights):
    """A `CoSANetwork` of the recorded size, with the recorded weights."""
    state = {key: torch.from_numpy(value).float() for key, value in weights.items()}
    width, _, patch, _ = state["encoder.patch_embed.proj.weight"].shape
    depth = len({key.split(".")[2] for key in state if key.startswith("encoder.blocks.")})
    backbone = build_backbone(
        "vit_b16",
        levels=(AUX_LEVEL,),
        train_pos_embed=False,
        patch_size=patch,
        img_size=patch * round((state["encoder.pos_embed"].shape[1] - 1) ** 0.5),
        embed_dim=width,
        depth=depth,
        num_heads=HEADS,
    )
    hidden = state["decoder.conv6.weight"].shape[0]
    network = CoSANetwork(backbone, state["classifier.weight"].shape[0], hidden)
    load_released(network, state)
    return network


@pytest.fixture
def network(golden):
    return tiny_network(golden("cosa")("tiny_weights.npz"))


def close(got, expected, atol=2e-5):
    scale = float(expected.abs().max())
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=atol * max(scale, 1e-6))


@torch.no_grad()
def test_cosa_maps_of_the_training_step(golden, network):
    z = {k: torch.from_numpy(v) for k, v in golden("cosa")("multi_scale_cam.npz").items()}
    size = tuple(z["x"].shape[-2:])
    scales = find_preset("cosa", "voc-released").method.scales
    views = forward_views(network, z["x"], scales)
    everything = torch.ones(z["cam"].shape[:2])
    index, present = present_classes(everything)
    close(teacher_cam([v.cam for v in views], index, present, size, scales), z["cam"])
    aux = teacher_cam([views[-1].aux_cam], index, present, size, scales[-1:])
    close(aux, z["cam_aux"])
    seg = [v.seg_logits for v in views]
    close(fuse_cams(seg, size, values.SEG_FUSION), z["seg"])
    # what the step computes instead of the last one: the same, at the cells of the student
    tags = torch.zeros_like(everything)
    tags[:, ::7] = 1
    index, present = present_classes(tags)
    for grid in ((4, 4), (7, 5), size):
        full = soft_target(z["seg"], tags)[:, 1:]
        expected = torch.nn.functional.interpolate(full, grid, mode="bilinear")
        expected = expected.gather(1, index[:, :, None, None].expand(-1, -1, *grid))
        got = sampled_target(seg, index, present, size, grid)
        torch.testing.assert_close(got, expected, rtol=0, atol=2e-3)


@torch.no_grad()
def test_cosa_maps_of_the_evaluation(golden, network):
    z = {k: torch.from_numpy(v) for k, v in golden("cosa")("multi_scale_cam_eval.npz").items()}
    x, rule, norm = z["x"], values.EVAL_CAM_FUSION, values.NORMALIZATION
    close(
        multi_scale_cam(lambda v: network(v).cam, x, rule, normalize=norm),
        z["eval5_cam"],
    )
    last = type(rule)(rule.scales, fuse_scale="last")
    aux = multi_scale_cam(lambda v: network(v).aux_cam, x, last, normalize=norm)
    close(aux, z["eval5_cam_aux"])
    total = type(rule)(rule.scales, fuse_flip="sum", relu="none")
    close(
        multi_scale_cam(lambda v: network(v).seg_logits, x, total, normalize=None), z["eval5_seg"]
    )
    views = forward_views(network, x, rule.scales)
    for name in ("cls", "cls_aux"):
        field = {"cls": "tag_logits", "cls_aux": "aux_logits"}[name]
        close(sum(getattr(v, field) for v in views).sum(0, keepdim=True), z[f"eval5_{name}"])


@torch.no_grad()
def test_cosa_variants_of_the_fusion(golden, network):
    z = {k: torch.from_numpy(v) for k, v in golden("cosa")("multi_scale_cam_eval.npz").items()}
    x, scales = z["x"], values.CAM_FUSION.scales
    flipmax = type(values.CAM_FUSION)(scales, relu="none")
    got = multi_scale_cam(lambda v: network(v).seg_logits, x, flipmax, normalize=None)
    close(got, z["v2_seg_flipmax"])
    maps = multi_scale_cam(lambda v: network(v).cam, x, values.CAM_FUSION, normalize=None)
    tags = z["cls_labels"][:, :, None, None]
    variants = [normalize_cam(m, values.IMAGE_NORMALIZATION) for m in (maps, maps * tags)]
    assert min((v * t - z["v4_cam"]).abs().max() for v in variants for t in (1, tags)) < 1e-4
