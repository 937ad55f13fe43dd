import pytest
import torch

from wsss_lab.data.transforms import denormalise, denormalise_u8, normalise


def test_normalise_against_hand_arithmetic():
    image = torch.tensor([0, 128, 255], dtype=torch.uint8).view(3, 1, 1)
    expected = [(0 - 123.675) / 58.395, (128 - 116.28) / 57.12, (255 - 103.53) / 57.375]
    assert normalise(image).flatten().tolist() == pytest.approx(expected, abs=1e-6)


def test_round_trip_is_exact_when_rounded_and_off_by_at_most_one_when_cut():
    image = torch.arange(256, dtype=torch.uint8).expand(3, 1, 256)
    back = normalise(image)
    assert torch.equal(denormalise(back).round().to(torch.uint8), image)
    difference = image.int() - denormalise_u8(back).int()
    assert set(difference.unique().tolist()) <= {0, 1}
    assert denormalise_u8(back + 100).unique().tolist() == [255]


@pytest.mark.parametrize("function", [normalise, denormalise, denormalise_u8])
def test_channels_last_is_refused(function):
    with pytest.raises(ValueError, match=r"\(4, 5, 3\).*permute"):
        function(torch.zeros(4, 5, 3))
