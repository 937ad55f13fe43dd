"""CoSA as a whole: its step written out, its presets, its state."""

import copy

import pytest
import torch
import torch.nn.functional as F
from tiny_cosa import SIDE, START, K, batch, make, settings, step

from wsss_lab import IGNORE
from wsss_lab.cam import cam_to_pseudo_label
from wsss_lab.methods.cosa.config import PRESETS, CoSAConfig
from wsss_lab.methods.cosa.labels import soft_target
from wsss_lab.methods.cosa.method import CoSA
from wsss_lab.methods.cosa.network import CoSANetwork, cosa_backbone
from wsss_lab.models.backbones import build_backbone


@pytest.mark.parametrize("preset", list(PRESETS))
def test_every_preset_steps(preset):
    method = make(preset)
    out = step(method)
    out.loss.backward()
    assert out.loss.isfinite()
    for name, weight in method.online.named_parameters():
        if weight.requires_grad:
            assert weight.grad is not None, name
            assert weight.grad.isfinite().all(), name
    assert not any(p.requires_grad for p in method.assignment.parameters())


@pytest.mark.parametrize("preset", ["voc-released", "voc"])
def test_training_step_is_that_written_out(preset):
    """The step against its definition, one image, scale and mirror image at a time."""
    method = make(preset, separation="none", perplexity=False, search="none", full_warmup=True)
    data, config, quirks = batch(), method.config, method.config.quirks
    out = step(method)
    mean, std = (
        torch.tensor(v)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    )
    images, strong = ((data[name] - mean) / std for name in ("images", "strong"))
    labels, targets = [], []
    for i, tags in enumerate(data["tags"]):
        y0, y1, x0, x1 = data["boxes"][i]
        valid = torch.zeros(1, SIDE, SIDE, dtype=torch.bool)
        valid[:, y0:y1, x0:x1] = True
        seg, maps = 0, []
        for which in ("cam", "aux_cam"):
            fused = 0
            for scale in config.scales:
                view = F.interpolate(images[i : i + 1], scale_factor=scale, mode="bilinear")
                pair = [method.assignment(view), method.assignment(view.flip(-1))]
                full = [
                    F.interpolate(getattr(s, which), (SIDE, SIDE), mode="bilinear") for s in pair
                ]
                one = torch.maximum(full[0], full[1].flip(-1)).relu()
                fused = one if which == "aux_cam" and quirks.aux_last_scale else fused + one
                if which == "cam":
                    up = [F.interpolate(s.seg_logits, (SIDE, SIDE), mode="bilinear") for s in pair]
                    seg = seg + up[0] + up[1].flip(-1)
            region = fused if quirks.use_padding else fused[:, :, y0:y1, x0:x1]
            fused = fused - region.amin((2, 3), keepdim=True)
            region = fused if quirks.use_padding else fused[:, :, y0:y1, x0:x1]
            maps.append(fused / (region.amax((2, 3), keepdim=True) + 1e-5))
        limits = ((config.low, config.high), (config.aux_low, config.aux_high))
        labels.append(
            [
                cam_to_pseudo_label(
                    m if quirks.use_padding else m * valid, tags[None], *t, valid=valid
                )
                for m, t in zip(maps, limits, strict=True)
            ]
        )
        soft = soft_target(seg, tags[None], config.temperature)[:, 1:]
        targets.append(F.interpolate(soft, (4, 4), mode="bilinear"))
    student = method.online(strong)
    full = F.interpolate(student.seg_logits, (SIDE, SIDE), mode="bilinear")
    seg_loss = 0
    for which in (0, 1):
        label = torch.cat([pair[which] for pair in labels])
        wrong = (label != out.panels["labels"][:, which]).float().mean()
        assert wrong < 1e-3
        each = F.cross_entropy(full, label, ignore_index=IGNORE, reduction="none")
        front = (label > 0) & (label != IGNORE)
        seg_loss = seg_loss + 0.25 * (each[label == 0].mean() + each[front].mean())
    torch.testing.assert_close(out.parts["seg"], seg_loss, rtol=1e-3, atol=1e-4)
    logits = student.cam.relu() if quirks.cam_floor else student.cam
    cam_loss = F.binary_cross_entropy_with_logits(logits, torch.cat(targets), reduction="none")
    if not quirks.use_padding:
        inside = torch.ones(3, 4, 4, dtype=torch.bool)
        centres = torch.arange(4) * 16 + 8
        rows, cols = (centres >= 8) & (centres < 50), centres < 40
        inside[1] = rows[:, None] & cols
        cam_loss = cam_loss.mean(1)[inside]
    torch.testing.assert_close(out.parts["cam"], cam_loss.mean(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("preset", ["voc-released", "voc"])
def test_loss_is_the_weighted_sum_of_its_parts(preset):
    """Terms as large as here show every weight; the energy of a small picture does not."""
    method = make(preset)
    big = dict(zip(("seg", "cam", "energy", "separation"), (7.0, 11.0, 130.0, 17.0), strict=True))
    if method.config.separation == "none":
        del big["separation"]
    big = {name: torch.tensor(value) for name, value in big.items()}
    method._swapped_losses = lambda *_: big
    out = step(method)
    weights = method.config.weights
    wanted = out.parts["tags"] + out.parts["aux_tags"]
    for name, value in big.items():
        wanted = wanted + getattr(weights, name) * value
    torch.testing.assert_close(out.loss, wanted)
    warm = step(make(preset), at=START)
    torch.testing.assert_close(warm.loss, warm.parts["tags"] + warm.parts["aux_tags"])


def test_labels_and_losses_stay_in_float32_under_autocast():
    exact = step(make())
    with torch.autocast("cpu", torch.bfloat16):
        mixed = step(make())
    for name, value in mixed.parts.items():
        assert value.dtype == torch.float32, name
        torch.testing.assert_close(value, exact.parts[name], rtol=0.1, atol=0.02, msg=name)
    assert mixed.panels["target"].dtype == mixed.panels["cam"].dtype == torch.float32
    mixed.loss.backward()


def test_missing_views_and_boxes_fall_back():
    method, data = make(search="none"), batch()
    plain = {name: data[name] for name in ("images", "tags")}
    full = torch.tensor([[0, SIDE, 0, SIDE]]).repeat(3, 1)
    explicit = plain | {"strong": data["images"], "boxes": full, "max_tags": 2}
    torch.testing.assert_close(
        method.training_step(plain, START + 1).loss, method.training_step(explicit, START + 1).loss
    )


def test_image_without_tags_is_background():
    data = batch()
    data["tags"][2] = 0
    out = make(search="none").training_step(data, START + 1)
    assert (out.panels["labels"][2] == 0).all()
    assert out.loss.isfinite()


def test_a_resumed_run_goes_on_bit_for_bit():
    def train(method, optimizer, steps):
        for at in steps:
            optimizer.zero_grad()
            method.training_step(batch(seed=at), at).loss.backward()
            optimizer.step()
            method.after_step(at)

    def optim(method):
        return torch.optim.AdamW(method.param_groups(1e-3, 1e-2, 0.01))

    whole = make()
    one = optim(whole)
    train(whole, one, range(START, START + 2))
    saved = copy.deepcopy((whole.state_dict(), one.state_dict()))
    train(whole, one, range(START + 2, START + 4))
    resumed = make(seed=5)
    other = optim(resumed)
    resumed.load_state_dict(saved[0])
    other.load_state_dict(saved[1])
    train(resumed, other, range(START + 2, START + 4))
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    assert any(name.startswith("assignment.network.") for name in saved[0])
    assert any(name.endswith("queue.values") for name in saved[0])


def test_one_batch_can_be_learned():
    method = make(warmup=0, decay=0.8)
    optimizer = torch.optim.AdamW(method.param_groups(1e-3, 3e-3, 0.0))
    first = last = None
    for at in range(25):
        out = method.training_step(batch(), at)
        optimizer.zero_grad()
        out.loss.backward()
        optimizer.step()
        method.after_step(at)
        last = out.parts["tags"].item() + out.parts["aux_tags"].item()
        first = first or last
    assert last < 0.3 * first


@torch.no_grad()
def test_prediction_is_the_teacher_s():
    method = make(independent_start=True)
    images = batch()["images"]
    out = method.eval().predict(images)
    assert out.logits.shape == (3, K + 1, 4, 4)
    assert out.cam.shape == (3, K, 4, 4)
    method.online.seg_head.classify.weight.zero_()
    assert torch.equal(out.logits, method.predict(images, torch.ones(3, K)).logits)


def test_toy_backbones_fit():
    method = CoSA(cosa_backbone(PRESETS["toy"], "random"), K, settings("toy"))
    out = method.training_step(batch(), START + 1)
    assert out.panels["student_cam"].shape == (3, K, 8, 8)
    method = CoSA(build_backbone("toy_cnn"), K, settings("toy"))
    assert method.training_step(batch(), START + 1).loss.isfinite()


def test_bad_settings_are_refused():
    with pytest.raises(ValueError, match="low, high"):
        CoSAConfig(low=0.8, high=0.7)
    with pytest.raises(ValueError, match="separation"):
        CoSAConfig(separation="strong")
    with pytest.raises(ValueError, match="search: expected one of none, bands, mixture, split"):
        make(search="guess")
    with pytest.raises(ValueError, match="two maps"):
        CoSANetwork(build_backbone("vit_b16", embed_dim=48, depth=1, num_heads=3), K)


def test_main_names_are_in_the_package():
    import wsss_lab.methods.cosa as package

    assert package.CoSA is CoSA
    assert all(getattr(package, name) is not None for name in package.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Cosa'"):
        package.Cosa  # noqa: B018


def test_a_toy_transformer_gives_the_auxiliary_level_unless_told_otherwise():
    toy = settings("toy", backbone="toy_vit", aux_level=-2)
    assert cosa_backbone(toy, "random").levels == (2,)  # of four blocks
    assert cosa_backbone(toy, "random", levels=(-3,)).levels == (1,)
