import torch
from helpers import forbid_host_sync

from wpl_d2.frameworks.ael.partner_queue import RequestQueue


def ask(queue, images, classes):
    queue.stage(torch.tensor(images), torch.tensor(classes))


def test_a_request_is_served_two_steps_later():
    queue = RequestQueue(2)
    assert queue.coming() == [[], []]
    assert queue.classes.tolist() == [-1, -1]
    ask(queue, [7, 0], [1, 2])
    assert queue.coming() == [[], [7, 0]]  # after the forward
    assert queue.classes.tolist() == [-1, -1]
    with forbid_host_sync():
        queue.after_step()
    assert queue.coming() == [[], [7, 0]]  # between the steps, as after a resume
    ask(queue, [3, 4], [0, 0])
    queue.after_step()
    assert queue.coming() == [[7, 0], [3, 4]]
    assert queue.classes.tolist() == [1, 2]
    queue.after_step()  # a step that asks for nothing, such as one of the burn-in
    assert queue.coming() == [[7, 0], [3, 4]]


def test_each_process_has_its_own_part_of_the_rows(monkeypatch):
    queue = RequestQueue(4)
    queue.rows.copy_(torch.arange(16).view(2, 4, 2))
    monkeypatch.setattr("wpl_d2.frameworks.ael.partner_queue.comm.get_world_size", lambda: 2)
    monkeypatch.setattr("wpl_d2.frameworks.ael.partner_queue.comm.get_rank", lambda: 1)
    assert queue.count == 2
    assert queue.coming() == [[4, 6], [12, 14]]
    assert queue.classes.tolist() == [5, 7]


def test_what_comes_is_part_of_the_state():
    queue, other = RequestQueue(2), RequestQueue(2)
    ask(queue, [7, 0], [1, 2])
    queue.after_step()
    other.load_state_dict(queue.state_dict())
    assert other.coming() == [[], [7, 0]]
