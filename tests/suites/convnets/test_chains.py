"""From files to answers: boxes by hand, suppression beside a plain loop, stages that follow on each other."""

import pytest
import torch

from suites.common.picture_chain import CANDIDATES, KEPT, decoded, decoded_boxes, overlaps, scaled, suppressed
from suites.convnets.chains import detector_chain, road_chain


def answer(chain):
    value = chain.example_request(3)
    with torch.inference_mode():
        for _, stage in chain.stages():
            value = stage(value)
    return value


def test_a_box_is_its_distances_in_strides_around_the_middle_of_its_place():
    said = torch.zeros(4, 8 * 8 + 4 * 4 + 2 * 2)
    said[:, 9] = torch.tensor([1.0, 0.5, 2.0, 0.0])  # second row, second place at stride 8
    said[:, 64 + 16 + 3] = 1.0  # the last place at stride 32
    found = decoded_boxes(said, 64)
    assert found[9].tolist() == [12 - 8, 12 - 4, 12 + 16, 12]
    assert found[-1].tolist() == [48 - 32, 48 - 32, 48 + 32, 48 + 32]
    assert found[0].tolist() == [4, 4, 4, 4]


def test_overlaps_by_hand():
    boxes = torch.tensor([[0.0, 0, 2, 2], [1, 0, 3, 2], [5, 5, 6, 6]])
    assert torch.allclose(overlaps(boxes)[0], torch.tensor([1.0, 2 / 6, 0.0]))


def test_a_better_box_of_its_class_hides_a_box_as_a_plain_loop_has_it():
    generator = torch.Generator().manual_seed(0)
    corner = 20 * torch.rand(40, 2, generator=generator)
    boxes = torch.cat((corner, corner + 5 + 5 * torch.rand(40, 2, generator=generator)), 1)
    scores, kinds = torch.rand(40, generator=generator), torch.randint(0, 3, (40,), generator=generator)
    expected, left = [], scores.argsort(descending=True).tolist()
    while left:
        best = left.pop(0)
        expected.append(best)
        left = [i for i in left if kinds[i] != kinds[best] or overlaps(boxes[[best, i]])[0, 1] <= 0.3]
    found = suppressed(boxes, scores, kinds, 0.3).tolist()
    assert found == expected and 3 < len(found) < 40


@pytest.mark.usefixtures("timm")
def test_files_become_boxes_within_limits_and_edges_of_every_way_are_the_same():
    chain = detector_chain(side=64)
    pixels = decoded(chain.example_request(0))
    assert pixels.shape == (3, 360, 480) and scaled((360, 480), 64) == (48, 64)
    square = chain.prepare(pixels)
    assert square.shape == (1, 3, 64, 64)
    assert torch.allclose(square[0, :, :8], torch.tensor(114 / 255)) and square[0, :, 8:56].std() > 0.05
    boxes = answer(chain)
    assert 0 < len(boxes) <= KEPT < CANDIDATES and boxes.shape[1] == 6
    ways = [road_chain(form=form, vertices=3, side=32) for form in ("batched", "sequential")]
    ways[1].load_state_dict(ways[0].state_dict())
    one, other = map(answer, ways)
    assert [edge[0] for edge in one] == [edge[0] for edge in other]
    assert torch.allclose(
        torch.tensor([edge[1:] for edge in one]), torch.tensor([edge[1:] for edge in other]), atol=1e-4
    )
