"""PAR on class maps before a threshold: what it leaves alone, and what it is for."""

import pytest
import torch

from wsss_lab.cam import cam_to_label
from wsss_lab.config import RunConfig
from wsss_lab.data.catalog import TOY_CLASSES
from wsss_lab.data.config import DataConfig
from wsss_lab.data.toy import ToyWorld
from wsss_lab.evaluate.evaluate import evaluate
from wsss_lab.evaluate.map_refinement import MapRefinement, map_refinement
from wsss_lab.evaluate.predict import toy_classifier
from wsss_lab.recipes.cam_baseline.config import Config, TestConfig
from wsss_lab.recipes.cam_baseline.recipe import train
from wsss_lab.refine import PAR
from wsss_lab.runs.weights import load_trained, score_config, score_weights


@pytest.fixture
def case():
    """Two noisy images of a light square, and maps that miss its outline by 4 px."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 40, (2, 3, 48, 48), generator=generator, dtype=torch.uint8)
    images[..., 12:36, 12:36] += 150
    maps = torch.zeros(2, 3, 48, 48)
    maps[:, 1, 16:40, 16:40] = 0.9
    maps[:, 2] = torch.rand(2, 48, 48, generator=generator)
    tags = torch.tensor([[0.0, 1.0, 0.0], [0.0, 1.0, 1.0]])
    return images, maps, tags


def test_steps_add_up(case):
    images, maps, tags = case
    once = MapRefinement(7)(images, maps, tags)
    twice = MapRefinement(4)(images, MapRefinement(3)(images, maps, tags), tags)
    torch.testing.assert_close(once, twice, rtol=1e-4, atol=1e-6)
    assert map_refinement(0) is None
    assert map_refinement(7) == MapRefinement(7)
    with pytest.raises(ValueError, match="at least 1"):
        map_refinement(-1)


def test_a_constant_map_stays_what_it_is(case):
    """So that a threshold means the same before and after."""
    images, maps, tags = case
    found = MapRefinement(20)(images, torch.full_like(maps, 0.37), tags)
    torch.testing.assert_close(found[1, 1], torch.full((48, 48), 0.37))
    assert (found[tags == 0] == 0).all()
    every = MapRefinement(20)(images, torch.full_like(maps, 0.37), None)
    torch.testing.assert_close(every, torch.full_like(maps, 0.37))


def test_a_threshold_afterwards_is_a_background_refined_with_the_maps(case):
    images, maps, tags = case
    background = torch.full_like(maps[:, :1], 0.4)
    stack = PAR(iterations=10)(images.float() / 255, torch.cat([background, maps], 1))
    absent = torch.nn.functional.pad(tags <= 0, (1, 0))[:, :, None, None]
    wanted = stack.masked_fill(absent, -1).max(1).indices
    found = cam_to_label(MapRefinement(10)(images, maps, tags), tags, 0.4)
    assert (found == wanted).float().mean() > 0.999  # a tie in rounding
    assert 0.1 < (wanted > 0).float().mean() < 0.9


def test_edges_move_to_those_of_the_image(case):
    images, maps, tags = case
    square = torch.zeros(48, 48, dtype=torch.bool)
    square[12:36, 12:36] = True

    def iou(label):
        return float(((label == 2) & square).sum() / ((label == 2) | square).sum())

    before = iou(cam_to_label(maps, tags, 0.4)[0])
    after = iou(cam_to_label(MapRefinement(10)(images, maps, tags), tags, 0.4)[0])
    assert before < 0.6
    assert after > before + 0.15


def test_images_without_tags_become_background(case):
    images, maps, tags = case
    assert not MapRefinement(3)(images, maps, torch.zeros_like(tags)).any()


def test_every_image_and_map_is_refined_on_its_own(case, monkeypatch):
    """Bit for bit, with few classes and with many, whichever tags are asked for."""
    images, maps, tags = case
    for few in (6, 0):
        monkeypatch.setattr("wsss_lab.evaluate.map_refinement.FEW", few)
        found = MapRefinement(5)(images, maps, None)
        for tagged in (tags, torch.eye(3)[:2]):
            part = MapRefinement(5)(images, maps, tagged)
            assert torch.equal(part, found * tagged[:, :, None, None])
        alone = [MapRefinement(5)(images[i : i + 1], maps[i : i + 1], None) for i in range(2)]
        assert torch.equal(torch.cat(alone), found)


def test_refinement_for_both_scores_at_once_changes_neither():
    """Maps are refined once for the tags that are named and for the true ones."""
    world, network = ToyWorld("val", 4, masks=True), toy_classifier()
    options = {"num_classes": len(TOY_CLASSES) + 1, "cam_threshold": 0.4, "batch": 2}
    calls = []

    class Counted(MapRefinement):
        def __call__(self, images, maps, tags):
            calls.append(tags)
            return super().__call__(images, maps, tags)

    both = evaluate(network, world, refine=Counted(5), tags_at_test=True, **options)
    assert len(calls) == 2  # batches
    plain = evaluate(network, world, refine=Counted(5), **options)
    assert torch.equal(plain.sweeps["cam"].confusion, both.sweeps["cam"].confusion)
    named, true = calls[2:], [world[i]["tags"] for i in range(4)]
    for union, tags, two in zip(calls[:2], named, (true[:2], true[2:]), strict=True):
        assert torch.equal(union, torch.maximum(tags, torch.stack(two)))


def test_reports_say_that_maps_were_refined():
    world, network = ToyWorld("val", 2, masks=True), toy_classifier()
    options = {"num_classes": len(TOY_CLASSES) + 1, "cam_threshold": 0.4, "tags_at_test": True}
    plain = evaluate(network, world, **options)
    refined = evaluate(network, world, refine=MapRefinement(5), **options)
    for kind, report in refined.reports.items():
        assert report.protocol.thresholds == "fixed at 0.4, after PAR, 5 steps"
        assert plain.reports[kind].protocol.thresholds == "fixed at 0.4"
        assert report.miou != plain.reports[kind].miou


def test_weights_are_scored_with_the_refinement_of_their_run(world, tmp_path):
    """Otherwise `eval` and `metrics.json` would give one network two numbers."""
    config = Config(
        data=DataConfig(name="voc", root=world, train_split="train", crop=48),
        run=RunConfig(steps=2, batch=2, log_every=0),
        cam_scales=(1.0,),
        refine_steps=3,
        report_train=0,
        until="tags",
        test=TestConfig(tags_at_test=True),
    )
    run = train(config, tmp_path / "run", log=lambda line: None)
    trained = load_trained(tmp_path / "run" / "tags")
    scored = score_weights(trained, score_config(config), log=lambda line: None)
    for kind in ("cam", "cam+true tags"):
        one, other = run["results"]["val"][kind], scored["results"][kind]
        assert other["miou"] == one["miou"]
        assert other["protocol"] == one["protocol"]
        assert "after PAR, 3 steps" in other["protocol"]["thresholds"]
