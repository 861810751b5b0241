"""Knowledge: entries stay together, and object k of the merged targets is entry k."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ciod_core.model.knowledge import Knowledge
from tests.helpers.scenes import make_targets, random_gfl_output, random_output


def make_knowledge() -> Knowledge:
    """Five boxes in images 0, 0, 1, 1, 3."""
    return Knowledge(
        boxes_K4=torch.tensor(
            [
                [0.0, 0.0, 10.0, 10.0],
                [20.0, 0.0, 30.0, 10.0],
                [0.0, 0.0, 10.0, 10.0],
                [5.0, 5.0, 15.0, 15.0],
                [0.0, 0.0, 10.0, 10.0],
            ]
        ),
        labels_K=torch.tensor([0, 1, 2, 1, 0]),
        class_logits_KC=torch.arange(15.0).view(5, 3),
        responses={"objectness": torch.arange(5.0)},
        scores_K=torch.arange(5.0) / 10,
        image_K=torch.tensor([0, 0, 1, 1, 3]),
        anchor_K=torch.tensor([7, 12, 0, 3, 9]),
    )


def assert_entries(found: Knowledge, numbers: list[int]) -> None:
    everything = make_knowledge()
    assert len(found) == len(numbers)
    for name, tensor in _tensors(found).items():
        assert torch.equal(tensor, _tensors(everything)[name][numbers]), name


def _tensors(knowledge: Knowledge) -> dict[str, Tensor]:
    fields = vars(knowledge) | knowledge.responses
    return {name: value for name, value in fields.items() if isinstance(value, Tensor)}


def test_boxes_of_the_class_of_the_ground_truth_can_be_kept() -> None:
    # Entry 0 is of class 0 and entry 1 of class 1; entries 2 and 4 lie there too, in other images.
    targets = make_targets([(0, (0.0, 0.0, 10.0, 10.0), 0), (0, (20.0, 0.0, 30.0, 10.0), 0)])
    assert_entries(make_knowledge().without_overlap(targets, 0.9), [2, 3, 4])
    assert_entries(make_knowledge().without_overlap(targets, 0.9, keep_same_class=True), [0, 2, 3, 4])


def test_pick_by_mask_and_by_index() -> None:
    knowledge = make_knowledge()
    assert_entries(knowledge.pick(torch.tensor([True, False, True, False, True])), [0, 2, 4])
    assert_entries(knowledge.pick(torch.tensor([3, 1])), [3, 1])
    assert_entries(knowledge.pick(torch.zeros(5, dtype=torch.bool)), [])


def test_knowledge_comes_before_ground_truth() -> None:
    knowledge = make_knowledge()
    targets = make_targets([(0, (1.0, 2.0, 3.0, 4.0), 7), (2, (5.0, 6.0, 7.0, 8.0), 8)])
    merged = knowledge.before(targets)
    assert merged.labels_N.tolist() == [0, 1, 2, 1, 0, 7, 8]
    assert merged.image_N.tolist() == [0, 0, 1, 1, 3, 0, 2]
    assert torch.equal(merged.boxes_N4[:5], knowledge.boxes_K4)
    assert torch.equal(merged.boxes_N4[5:], targets.boxes_N4)


def test_boxes_over_ground_truth_of_their_own_image_are_dropped() -> None:
    # IoU 0.8 with entries 0, 2 and 4, were it their image; it is the image of entries 2 and 3.
    targets = make_targets([(1, (0.0, 0.0, 10.0, 8.0), 5)])
    assert_entries(make_knowledge().without_overlap(targets, 0.7), [0, 1, 3, 4])


def test_an_iou_at_the_threshold_is_dropped_too() -> None:
    # IoU exactly 0.5 with entry 4.
    targets = make_targets([(3, (0.0, 0.0, 10.0, 5.0), 5)])
    assert_entries(make_knowledge().without_overlap(targets, 0.5), [0, 1, 2, 3])
    assert_entries(make_knowledge().without_overlap(targets, 0.51), [0, 1, 2, 3, 4])


def test_nothing_to_compare_with_keeps_everything() -> None:
    assert_entries(make_knowledge().without_overlap(make_targets([]), 0.5), [0, 1, 2, 3, 4])
    nothing = make_knowledge().pick(torch.zeros(5, dtype=torch.bool))
    assert len(nothing.without_overlap(make_targets([(0, (0.0, 0.0, 9.0, 9.0), 1)]), 0.5)) == 0
    assert len(nothing.before(make_targets([])).labels_N) == 0


def test_scores_split_as_a_student_splits_them() -> None:
    with_objectness, without = random_output(1, 3, 32, seed=0), random_gfl_output(1, 3, 32, seed=0)
    known = replace(make_knowledge(), class_logits_KC=torch.randn(5, 3), responses={"objectness": torch.randn(5)})
    assert known.in_terms_of(with_objectness) is known
    scores_KC = known.class_logits_KC.sigmoid() * known.responses["objectness"].sigmoid().unsqueeze(1)
    joined = known.in_terms_of(without)
    assert joined.responses == {} and joined.in_terms_of(without) is joined
    torch.testing.assert_close(joined.class_logits_KC.sigmoid(), scores_KC)
    split = joined.in_terms_of(with_objectness)
    presence_K = split.responses["objectness"].sigmoid()
    torch.testing.assert_close(presence_K, scores_KC.amax(dim=1))
    torch.testing.assert_close(
        split.class_logits_KC.sigmoid() * presence_K.unsqueeze(1), scores_KC, rtol=1e-3, atol=1e-4
    )
    torch.testing.assert_close(split.scores_K, known.scores_K)
