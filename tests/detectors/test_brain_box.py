"""Tests of the box that networks see: tight round all brains, and on the coarsest grid."""

import torch

from atypia.detectors.brain_box import box_of


def test_the_box_begins_on_the_coarsest_grid_and_holds_the_brain() -> None:
    brain = torch.zeros(1, 1, 20, 30, 40, dtype=torch.bool)
    brain[..., 7:12, 9:29, 1:5] = True
    box = box_of(brain, 4.0, (2.0, 2.0, 4.0), 4)
    assert [(part.start, part.stop) for part in box[2:]] == [(4, 16), (4, 32), (0, 8)]
    assert int(brain[box].sum()) == int(brain.sum())


def test_the_box_of_a_batch_holds_every_brain() -> None:
    brains = torch.zeros(2, 1, 12, 12, 12, dtype=torch.bool)
    brains[0, 0, 2:4, 5, 5] = True
    brains[1, 0, 8, 5, 5:7] = True
    box = box_of(brains, 0.0, (1.0, 1.0, 1.0))
    assert [(part.start, part.stop) for part in box[2:]] == [(2, 9), (5, 6), (5, 7)]


def test_nothing_is_cut_off_where_there_is_no_brain() -> None:
    empty = torch.zeros(1, 1, 4, 5, 6, dtype=torch.bool)
    assert empty[box_of(empty, 4.0, (1.0, 1.0, 1.0), 4)].shape == empty.shape
