"""Order and augmentation of an epoch. Oracles: sets and counts, one process against W faked ones, the epoch again."""

import math

import pytest
import torch

from netslim.data.order import Batches, draws, plain

INDICES = torch.arange(100, 200)


def batches(indices=INDICES, *, batch_size=16, train=True, epoch=0, seed=3, world=1, rank=0):
    sampler = Batches(
        indices, batch_size=batch_size, train=train, seed=seed, padding=2, flip=True, num_replicas=world, rank=rank
    )
    sampler.set_epoch(epoch)
    result = list(sampler)
    assert len(result) == len(sampler)
    return result


def test_an_epoch_visits_every_image_once_in_another_order_each_time():
    first, second = (torch.cat(batches(epoch=epoch))[:, 0] for epoch in (0, 1))
    assert sorted(first.tolist()) == sorted(second.tolist()) == INDICES.tolist()
    assert first.tolist() != second.tolist() != INDICES.tolist()


def test_crops_and_flips_take_every_value_about_equally_often():
    table = draws(torch.arange(30_000), seed=0, epoch=0, padding=1, flip=True)
    crops = (3 * table[:, 1] + table[:, 2]).bincount(minlength=9)
    flips = table[:, 3].bincount(minlength=2)
    assert ((crops - 30_000 / 9).abs() < 5 * math.sqrt(30_000 * 8 / 81)).all()  # five standard deviations
    assert ((flips - 15_000).abs() < 5 * math.sqrt(30_000 / 4)).all()


def test_without_crops_and_flips_the_table_leaves_the_images_alone():
    table = draws(INDICES, seed=0, epoch=0, padding=0, flip=False)
    assert (table[:, 1:] == 0).all()
    assert (plain(INDICES, padding=4) == torch.stack([INDICES, *(torch.full((100,), v) for v in (4, 4, 0))], 1)).all()


def test_the_order_is_the_same_with_and_without_augmentation():
    tables = [draws(INDICES, seed=1, epoch=2, padding=p, flip=f) for p, f in ((0, False), (4, True))]
    assert (tables[0][:, 0] == tables[1][:, 0]).all()


def test_an_epoch_depends_on_seed_and_epoch_and_on_no_global_state():
    torch.manual_seed(1)
    once = torch.cat(batches(epoch=5))
    torch.manual_seed(2)
    batches(epoch=4)
    state = torch.get_rng_state()
    assert (torch.cat(batches(epoch=5)) == once).all()
    assert (torch.get_rng_state() == state).all()  # and it leaves none
    assert (torch.cat(batches(epoch=5, seed=4)) != once).any()


@pytest.mark.parametrize("world", [2, 4])
def test_a_global_batch_of_w_processes_is_the_batch_of_one(world):
    whole = batches(batch_size=16)
    parts = [batches(batch_size=16 // world, world=world, rank=rank) for rank in range(world)]
    assert [len(part) for part in parts] == [len(whole)] * world
    for step, batch in enumerate(whole):
        assert (torch.cat([part[step] for part in parts]) == batch).all()
        sizes = [len(part[step]) for part in parts]
        assert max(sizes) - min(sizes) <= (0 if step < len(whole) - 1 else 1)


def test_the_last_training_batch_is_smaller_and_kept():
    assert [len(batch) for batch in batches(batch_size=16)] == [16] * 6 + [4]
    assert len(Batches(torch.arange(50_000), batch_size=64, train=True, seed=0, padding=0, flip=False)) == 782


def test_a_rest_with_fewer_images_than_processes_is_left_out():
    parts = [batches(torch.arange(10), batch_size=2, world=4, rank=rank) for rank in range(4)]
    assert [[len(batch) for batch in part] for part in parts] == [[2]] * 4


@pytest.mark.parametrize(("count", "world"), [(100, 1), (100, 3), (97, 4), (1, 1), (4, 4)])
def test_evaluation_sees_every_image_once_in_as_many_batches_on_every_process(count, world):
    parts = [batches(torch.arange(count), batch_size=16, train=False, world=world, rank=rank) for rank in range(world)]
    assert len({len(part) for part in parts}) == 1
    assert all(0 < len(batch) <= 16 for part in parts for batch in part)
    seen = torch.cat([batch for part in parts for batch in part])
    assert sorted(seen[:, 0].tolist()) == list(range(count))
    assert (seen[:, 1:] == torch.tensor([2, 2, 0])).all()
