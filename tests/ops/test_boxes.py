import torch

from boxcycle.ops.boxes import covered_fraction, whole_image


def test_covered_fraction_is_of_the_box_not_of_the_region() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [5, 5, 7, 7], [20, 20, 20, 30]])
    regions = torch.tensor([[5.0, 0, 100, 100], [0, 0, 1, 1]])
    expected = torch.tensor([[0.5, 0.01], [1.0, 0.0], [0.0, 0.0]])  # the third box has no area
    torch.testing.assert_close(covered_fraction(boxes, regions), expected)


def test_the_box_around_an_image():
    box = whole_image((30, 40), torch.zeros(1, dtype=torch.float64))
    assert box.tolist() == [0, 0, 40, 30]
    assert box.dtype == torch.float64
