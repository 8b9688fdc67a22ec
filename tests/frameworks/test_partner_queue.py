import torch
from helpers import forbid_host_sync

from wpl_d2.frameworks.ael.partner_queue import PartnerQueue


def choose(queue, images, classes):
    queue.stage(torch.tensor(images), torch.tensor(classes))


def test_a_partner_comes_two_steps_later():
    queue = PartnerQueue(2)
    assert queue.upcoming() == [[], []]
    assert queue.classes.tolist() == [-1, -1]
    choose(queue, [7, 0], [1, 2])
    assert queue.upcoming() == [[], [7, 0]]  # after the forward
    assert queue.classes.tolist() == [-1, -1]
    with forbid_host_sync():
        queue.after_step()
    assert queue.upcoming() == [[], [7, 0]]  # between the steps, as after a resume
    choose(queue, [3, 4], [0, 0])
    queue.after_step()
    assert queue.upcoming() == [[7, 0], [3, 4]]
    assert queue.classes.tolist() == [1, 2]
    queue.after_step()  # a step without new partners, such as one of the burn-in
    assert queue.upcoming() == [[7, 0], [3, 4]]


def test_each_process_has_its_own_part_of_the_rows(monkeypatch):
    queue = PartnerQueue(4)
    queue.rows.copy_(torch.arange(16).view(2, 4, 2))
    monkeypatch.setattr("wpl_d2.frameworks.ael.partner_queue.comm.get_world_size", lambda: 2)
    monkeypatch.setattr("wpl_d2.frameworks.ael.partner_queue.comm.get_rank", lambda: 1)
    assert queue.count == 2
    assert queue.upcoming() == [[4, 6], [12, 14]]
    assert queue.classes.tolist() == [5, 7]


def test_what_comes_is_part_of_the_state():
    queue, other = PartnerQueue(2), PartnerQueue(2)
    choose(queue, [7, 0], [1, 2])
    queue.after_step()
    other.load_state_dict(queue.state_dict())
    assert other.upcoming() == [[], [7, 0]]
