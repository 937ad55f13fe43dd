"""The truth of a toy scene: tags, borders, parts, contexts, paired controls, repeatability."""

import numpy as np
import pytest

from wsss_lab import IGNORE
from wsss_lab.data.catalog import TOY_CLASSES
from wsss_lab.data.toy import PART_KINDS, SPLITS, TAG_SHARE, ToyKnobs, scene
from wsss_lab.data.toy.rng import WINDOW, Stream, uniform

BOAT, TRAIN = TOY_CLASSES.index("boat") + 1, TOY_CLASSES.index("train") + 1
MANY = [scene(5, i) for i in range(60)]


def splitmix(state: int):
    """The published generator in plain integers."""
    wrap = 2**64 - 1
    while True:
        state = (state + 0x9E3779B97F4A7C15) & wrap
        z = state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & wrap
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & wrap
        yield z ^ (z >> 31)


def test_uniform_is_splitmix64():
    numbers = splitmix(0)
    expected = [(next(numbers) >> 11) / 2**53 for _ in range(100)]
    assert uniform((), 100).tolist() == expected
    keyed = splitmix(next(splitmix(12345)))
    assert uniform((12345,), 5).tolist() == [(next(keyed) >> 11) / 2**53 for _ in range(5)]


def test_uniform_depends_on_every_key_and_is_flat():
    base = uniform((1, 2, 3), 20000)
    assert not np.array_equal(base, uniform((1, 3, 2), 20000))
    assert base.min() >= 0
    assert base.max() < 1
    assert np.abs(np.histogram(base, 10, (0, 1))[0] - 2000).max() < 200


def test_stream_reads_its_own_window():
    table = [float(k) for k in range(3 * WINDOW)]
    stream = Stream(table, 1)
    assert [stream.unit() for _ in range(WINDOW + 1)] == [*table[WINDOW : 2 * WINDOW], WINDOW]


@pytest.mark.parametrize("size", [40, 96, 128, 160, 224, 321])
def test_shapes_and_types(size):
    s = scene(1, 2, size=size)
    assert s.image.shape == (size, size, 3)
    for name in ("mask", "distinctive", "context", "instance", "part"):
        assert getattr(s, name).shape == (size, size)
    assert {s.image.dtype, s.mask.dtype, s.tags.dtype, s.context.dtype} == {np.dtype(np.uint8)}
    assert s.distinctive.dtype == bool
    assert s.boxes.shape[1] == 5
    assert s.image.std() > 5


def test_the_same_scene_at_two_sizes():
    for i in range(6):
        small, large = scene(2, i, size=96), scene(2, i, size=192)
        halved = large.instance[::2, ::2]
        assert (halved == small.instance).mean() > 0.96
        difference = large.image[::2, ::2].astype(int) - small.image
        assert np.abs(difference).mean() < 20


def test_tag_if_and_only_if_enough_of_the_mask():
    for s in MANY:
        counts = np.bincount(s.mask.ravel(), minlength=256)
        for c in range(10):
            assert s.tags[c] == (counts[c + 1] >= TAG_SHARE * s.mask.size)
            assert s.tags[c] or counts[c + 1] == 0


def test_slivers_become_void():
    found = 0
    knobs = ToyKnobs(min_side=0.1, max_side=0.14)
    for i in range(60):
        s = scene(6, i, knobs, size=64)
        visible = (s.instance > 0) & ~np.isin(s.mask, np.flatnonzero(s.tags) + 1)
        assert (s.mask[visible] == IGNORE).all()
        found += int(visible.any() and not s.tags.all())
    assert found > 10


def test_mask_agrees_with_instances():
    for s in MANY:
        assert set(np.unique(s.mask)) <= {*range(11), IGNORE}
        assert (s.instance[s.mask == 0] == 0).all()
        assert (s.instance[(s.mask > 0) & (s.mask < IGNORE)] > 0).all()
        for value in range(1, 5):
            classes = set(np.unique(s.mask[s.instance == value])) - {IGNORE}
            assert len(classes) <= 1


@pytest.mark.parametrize(("size", "width"), [(40, 1), (96, 1), (128, 2), (224, 2), (321, 4)])
def test_void_band_along_every_border(size, width):
    s = scene(1, 2, size=size)
    changes = s.instance[:, 1:] != s.instance[:, :-1]
    void = s.mask == IGNORE
    assert changes.any()
    assert (void[:, 1:] | void[:, :-1])[changes].all()
    if width > 1:
        assert (void[:, 1:] & void[:, :-1])[changes].all()
    # no void farther than the band from a border
    edge = np.zeros_like(void)
    edge[:, 1:] |= changes
    edge[:, :-1] |= changes
    down = s.instance[1:] != s.instance[:-1]
    edge[1:] |= down
    edge[:-1] |= down
    near = edge.copy()
    for dy in range(-width, width + 1):
        for dx in range(-width, width + 1):
            near |= np.roll(edge, (dy, dx), (0, 1))
    tagged = np.isin(s.boxes[:, 4], np.flatnonzero(s.tags) + 1).all()
    assert tagged
    assert near[void].all()


def test_boxes_bound_their_instances():
    for s in MANY:
        assert set(s.boxes[:, 4]) == set(np.flatnonzero(s.tags) + 1)
        for x0, y0, x1, y1, label in s.boxes:
            inside = s.mask[y0:y1, x0:x1]
            assert (inside == label).any() or (inside == IGNORE).any()
            assert 0 <= x0 < x1 <= 128
            assert 0 <= y0 < y1 <= 128


@pytest.mark.parametrize("name", TOY_CLASSES)
def test_every_class_has_three_parts_and_a_small_distinctive_one(name):
    knobs = ToyKnobs(classes=(name,), clutter=0)
    scenes = [scene(9, i, knobs, split="pretrain") for i in range(12)]
    objects = sum((s.instance > 0).sum() for s in scenes)
    share = sum(s.distinctive.sum() for s in scenes) / objects
    assert 0.03 < share < 0.25
    for s in scenes:
        assert s.tags.sum() == 1
        assert s.tags[TOY_CLASSES.index(name)] == 1
        assert s.distinctive.any()
        assert (s.instance[s.distinctive] > 0).all()
        kinds = set(np.unique(s.part)) - {0}
        assert len(kinds) >= 3
        assert max(kinds) < len(PART_KINDS)
        assert ((s.part > 0) == (s.instance > 0)).all()


def test_cat_and_dog_differ_in_their_ears_alone():
    for i in range(4):
        pair = [
            scene(3, i, ToyKnobs(classes=(name,), share=1.0, clutter=0), split="pretrain")
            for name in ("cat", "dog")
        ]
        bodies = [np.isin(s.part, [PART_KINDS.index(k) for k in ("body", "tail")]) for s in pair]
        areas = [b.sum() for b in bodies]
        assert abs(areas[0] - areas[1]) < 0.25 * max(areas)  # a dog's box is lower, so it is larger
        ears = PART_KINDS.index("ears")
        for s in pair:
            assert set(np.unique(s.part[s.distinctive])) == {ears}


def test_contexts_are_background_and_follow_their_probability():
    knobs = ToyKnobs(context_given_class=1.0, context_given_other=0.0, clutter=0)
    for i in range(40):
        s = scene(4, i, knobs)
        assert (s.instance[s.context > 0] == 0).all()
        for value, label in ((1, BOAT), (2, TRAIN)):
            if s.tags[label - 1]:
                assert (s.context == value).any()
            if (s.context == value).any():  # the object may be hidden, never absent
                assert s.tags[label - 1] or (s.mask == IGNORE).any()
    none = ToyKnobs(context_given_class=0.0, context_given_other=0.0)
    assert not any(scene(4, i, none).context.any() for i in range(20))
    without = ToyKnobs(context_given_other=1.0, classes=("cat",))
    assert all(set(np.unique(scene(4, i, without).context)) == {0, 1, 2} for i in range(6))


def test_paired_control_changes_the_context_only():
    seen = 0
    knobs = ToyKnobs(classes=("boat", "train", "dog"))
    for i in range(12):
        there, gone = (scene(8, i, knobs, context=c) for c in (True, False))
        for name in ("mask", "tags", "distinctive", "instance", "part", "boxes"):
            np.testing.assert_array_equal(getattr(there, name), getattr(gone, name))
        assert not gone.context.any()
        expected = {v for v, c in ((1, BOAT), (2, TRAIN)) if there.tags[c - 1]}
        assert set(np.unique(there.context)) - {0} >= expected
        objects = there.instance > 0
        assert (there.image[objects] == gone.image[objects]).mean() > 0.9  # all but soft borders
        seen += bool(expected)
    assert seen > 6


def test_context_by_name():
    knobs = ToyKnobs(classes=("cat",))
    assert set(np.unique(scene(1, 1, knobs, context=("water",)).context)) == {0, 1}
    assert set(np.unique(scene(1, 1, knobs, context=("rails",)).context)) == {0, 2}
    assert set(np.unique(scene(1, 1, knobs, context=()).context)) == {0}


@pytest.mark.parametrize(
    "change", [{"clutter": 0}, {"contrast": 0.9}, {"context_given_other": 1.0}]
)
def test_a_knob_changes_its_own_aspect_only(change):
    base = ToyKnobs(clutter=0) if "clutter" not in change else ToyKnobs(clutter=8)
    for i in range(8):
        one = scene(11, i, base)
        two = scene(11, i, ToyKnobs(**{"clutter": base.clutter, **change}))
        if "clutter" in change:  # things in front may hide objects, never move them
            both = (one.instance > 0) & (two.instance > 0)
            assert (one.instance[both] == two.instance[both]).mean() > 0.97
        else:
            np.testing.assert_array_equal(one.instance, two.instance)


def test_scenes_repeat_and_differ():
    np.testing.assert_array_equal(scene(3, 4).image, scene(3, 4).image)
    images = [scene(3, 4, ToyKnobs(single=True), split=s).image for s in SPLITS]
    images += [scene(3, 5).image, scene(4, 4).image]
    for k, one in enumerate(images):
        assert all((one != other).any() for other in images[k + 1 :])


def test_object_count_and_size():
    assert max(s.instance.max() for s in MANY) <= 4
    assert all(scene(2, i, ToyKnobs(single=True)).instance.max() == 1 for i in range(10))
    assert all(scene(2, i, ToyKnobs(max_objects=2)).instance.max() <= 2 for i in range(20))
    sides = [max(b[2] - b[0], b[3] - b[1]) / 128 for s in MANY for b in s.boxes]
    assert max(sides) < 0.9
    tagged = [int(s.tags.sum()) for s in MANY]
    assert {1, 2, 3} <= set(tagged)


@pytest.mark.parametrize(
    ("knob", "value"),
    [
        ("share", 1.5), ("share", -0.1), ("context_given_class", 2.0),
        ("context_given_other", float("nan")), ("contrast", -1), ("clutter", 9),
        ("clutter", 1.5), ("max_objects", 0), ("max_objects", 5), ("classes", ()),
        ("classes", ("unicorn",)), ("classes", "cat"), ("min_side", 0.9), ("max_side", 1.2),
    ],
)  # fmt: skip
def test_wrong_knobs(knob, value):
    with pytest.raises(ValueError, match=knob):
        ToyKnobs(**{knob: value})


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"seed": -1}, "seed"), ({"index": -1}, "index"), ({"size": 8}, "size"),
        ({"split": "test"}, "split"), ({"context": ("fog",)}, "context"),
        ({"context": "water"}, "context"),
    ],
)  # fmt: skip
def test_wrong_arguments(change, word):
    with pytest.raises(ValueError, match=word):
        scene(**{"seed": 0, "index": 0, **change})
