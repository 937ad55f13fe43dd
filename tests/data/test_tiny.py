import torch

from wsss_lab.data.tiny import tiny_features, tiny_image, tiny_mask, tiny_tags, tiny_weights


def test_the_example_tells_the_story_the_book_tells():
    cam = torch.einsum("kd,bdhw->bkhw", tiny_weights(), tiny_features())[0, 0]
    truth = tiny_mask()[0] == 1
    hull, water = cam[2, 0], cam[3, 2]
    assert cam[0, 1] == cam.max()  # the sail leads
    assert truth[2, 0]
    assert not truth[3, 2]
    assert hull < water  # no threshold takes all of the hull and none of the water
    assert tiny_tags().tolist() == [[1.0, 0.0]]
    assert tiny_image().shape == (1, 3, 4, 4)
