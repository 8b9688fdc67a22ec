from collections import deque

import pytest
import torch
from detectron2.evaluation import inference_context
from helpers import AEL, SMALL, SMALL_DETECTOR, forbid_host_sync
from steps import losses_of, make

from wpl_d2 import build_framework
from wpl_d2.data import build_train_loader
from wpl_d2.frameworks.micro_batches import split_batch
from wpl_d2.losses import reduce_term
from wpl_d2.structures import IGNORE, PseudoLabels

PLAIN = [*AEL, "WEIGHTING.ENABLED", False]


def make_with_partners(tree, *opts):
    """A framework and a batch with partners that were chosen for class 1."""
    framework, batch = make(tree, *opts)
    queue = deque([[4, 0], [1, 2]])
    batch["partners"] = next(build_train_loader(tree.cfg(*SMALL, *opts), 0, queue))["partners"]
    framework.queue.rows.copy_(torch.tensor([[[4, 1], [0, 1]], [[1, 1], [2, 1]]]))
    return framework, batch


def terms_of(framework, batch):
    torch.manual_seed(5)
    return {term.name: term for term in framework.terms(batch)[0]}


def label_all(framework, monkeypatch, labels, **fields):
    """Let the teacher say the same of all unlabeled images: labels (H, W)."""

    def make_pseudo_labels(items, prediction):
        count = len(items)
        known = {
            "labels": labels,
            "confidence": torch.full(labels.shape, 0.9),
            "valid": labels != IGNORE,
            "reliable": torch.zeros(labels.shape, dtype=torch.bool),
            "weight": torch.ones(labels.shape),
        } | fields
        return PseudoLabels(**{key: field.expand(count, *labels.shape) for key, field in known.items()})

    monkeypatch.setattr(framework, "make_pseudo_labels", make_pseudo_labels)


def test_terms_and_coefficients_are_the_published_ones(tree):
    framework, batch = make_with_partners(tree, *PLAIN, "MODEL.AUX_HEAD.ENABLED", True)
    found = [(term.name, term.coefficient) for term in framework.terms(batch)[0]]
    assert found == [("loss_sem_seg", 1.0), ("loss_aux", 0.4), ("loss_consistency", 1.0), ("loss_unsup", 1.0)]


def test_squared_confidence_and_sampling_are_in_both_parts_of_the_fraction(tree, monkeypatch):
    framework, _ = make(tree, *PLAIN, "FRAMEWORK.THRESHOLD", 0.6)
    valid = torch.tensor([[[True, True, True, False]]])
    pseudo = PseudoLabels(
        labels=torch.tensor([[[0, 1, 2, IGNORE]]]),
        confidence=torch.tensor([[[0.9, 0.5, 0.8, 0.7]]]),
        valid=valid,
        reliable=~valid,
        weight=torch.tensor([[[0.2, 0.4, 0.6, 1.0]]]),
    )
    monkeypatch.setattr(framework, "_sample_pixels", lambda logits: torch.tensor([[[True, True, False, True]]]))
    term = framework._consistency("loss", torch.randn(1, 3, 1, 4), pseudo, weight=pseudo.weight)
    # The second pixel is not sure enough to train, but counts; the third is not sampled, the fourth is padding.
    torch.testing.assert_close(term.norm, torch.tensor([[[0.81, 0.25, 0.0, 0.0]]]))
    torch.testing.assert_close(term.mask, torch.tensor([[[0.81, 0.0, 0.0, 0.0]]]))
    loss = -term.logits.log_softmax(1)[0, 0, 0, 0] * 0.81
    torch.testing.assert_close(reduce_term(term), 0.2 * loss / (0.81 + 0.25))
    torch.testing.assert_close(reduce_term(term, "weight_sum"), 0.2 * loss / (0.2 * 0.81 + 0.4 * 0.25))


def test_pixels_are_kept_by_the_uncertainty_of_the_class_that_the_student_predicts(tree):
    framework, _ = make(tree, *PLAIN)
    framework.confidence.confidence.copy_(torch.tensor([0.9, 0.6, 0.2]))
    predicted = torch.arange(3).repeat_interleave(20_000).view(1, 300, 200)
    logits = torch.nn.functional.one_hot(predicted, 3).permute(0, 3, 1, 2).float()
    torch.manual_seed(0)
    with forbid_host_sync():
        kept = framework._sample_pixels(logits)
    found = [kept[predicted == kind].float().mean().item() for kind in range(3)]
    assert found == pytest.approx([1 / 8, 1 / 2, 1.0], abs=0.01)


def test_no_class_is_left_out_at_the_start_and_a_sure_one_at_the_end(tree):
    framework, _ = make(tree, *PLAIN)
    logits = torch.randn(1, 3, 8, 8)
    assert framework._sample_pixels(logits).all()
    framework.confidence.confidence.fill_(1.0)
    assert not framework._sample_pixels(logits).any()


def test_padding_of_labeled_images_never_trains(tree):
    framework, batch = make(tree, *PLAIN, "INPUT.PASTE.PROB", 0.0)
    for item in batch["labeled"]:
        item["valid"][:, 30:] = False
        item["sem_seg"][:5] = IGNORE  # nobody annotated it, but it is part of the image, and the teacher labels it
    term = terms_of(framework, batch)["loss_consistency"]
    assert not term.norm[:, :, 30:].any() and not term.mask[:, :, 30:].any()
    assert (term.target[:, :, 30:] == IGNORE).all() and (term.norm[:, :, :30] > 0).all()


def test_teacher_and_student_see_the_pasted_images(tree, monkeypatch):
    framework, batch = make(tree, *PLAIN, "INPUT.PASTE.PROB", 1.0, "INPUT.PASTE.SCALE_RANGE", (1.0, 1.0))
    seen = {"student": [], "teacher": []}
    for name, images in seen.items():
        model = getattr(framework, name)
        encode = model.encode
        monkeypatch.setattr(model, "encode", lambda x, images=images, encode=encode: images.append(x) or encode(x))
    target = terms_of(framework, batch)["loss_sem_seg"].target
    assert torch.equal(seen["student"][0], seen["teacher"][0])
    assert not torch.equal(seen["student"][0], framework.images(batch["labeled"], "image"))
    assert not torch.equal(target, torch.stack([item["sem_seg"] for item in batch["labeled"]]))


@pytest.mark.parametrize("pasted", [0, 1, 2])
def test_head_classes_are_never_pasted(tree, pasted):
    excluded = tuple({0, 1, 2} - {pasted})
    opts = ["INPUT.PASTE.PROB", 1.0, "FRAMEWORK.AEL.HEAD_CLASSES", excluded, "FRAMEWORK.AEL.PASTE_CLASSES", 3]
    framework, batch = make(tree, *PLAIN, *opts)
    for item in batch["labeled"]:
        item["sem_seg"][:], item["paste"]["sem_seg"] = IGNORE, torch.randint(0, 3, (48, 64))
    target = terms_of(framework, batch)["loss_sem_seg"].target
    assert target.unique().tolist() == [pasted, IGNORE]


def test_the_class_of_which_the_student_is_least_sure_is_pasted_most(tree):
    framework, batch = make(tree, *PLAIN, "INPUT.PASTE.PROB", 1.0)
    framework.confidence.confidence.copy_(torch.tensor([1.0, 0.0, 1.0]))
    item = batch["labeled"][0]
    item["sem_seg"][:], item["paste"]["sem_seg"] = IGNORE, torch.arange(3).repeat(1024).view(48, 64)
    counts = torch.zeros(3)
    torch.manual_seed(0)
    for _ in range(400):
        (found,) = framework._paste([item], framework.random_samples(1, (48, 64)))
        counts[found["sem_seg"].unique()[0]] += 1
    expected = torch.tensor([0.0, 1.0, 0.0]).softmax(0)
    assert (counts / 400).tolist() == pytest.approx(expected.tolist(), abs=0.07)


def test_the_box_around_the_class_comes_from_the_partner(tree, monkeypatch):
    framework, batch = make_with_partners(tree, *PLAIN)
    labels = torch.zeros(48, 64, dtype=torch.int64)
    labels[8:20, 4:32] = 1
    label_all(framework, monkeypatch, labels)
    images, _ = framework._mix(batch["unlabeled"], batch["partners"], framework.random_samples(2, (48, 64)))
    for mixed, own, partner in zip(images, batch["unlabeled"], batch["partners"], strict=True):
        expected = own["image"].clone()
        expected[:, 8:20, 4:32] = partner["image"][:, 8:20, 4:32]
        assert torch.equal(mixed, expected)


def test_a_micro_batch_is_mixed_by_the_classes_of_its_own_partners(tree, monkeypatch):
    framework, batch = make_with_partners(tree, *PLAIN)
    labels = torch.zeros(48, 64, dtype=torch.int64)
    labels[8:20, 4:32] = 1
    label_all(framework, monkeypatch, labels)
    framework.queue.rows[0, :, 1] = torch.tensor([2, 1])  # class 2 is nowhere
    for number, (items, framework.micro_batch) in enumerate(split_batch(batch, 2)):
        samples = framework.random_samples(1, (48, 64))
        images, _ = framework._mix(items["unlabeled"], items["partners"], samples)
        box = torch.zeros(48, 64, dtype=torch.bool)
        box[8:20, 4:32] = True
        box = box if number else samples.boxes[0]
        own, partner = (batch[stream][number]["image"] for stream in ("unlabeled", "partners"))
        assert torch.equal(images[0], torch.where(box, partner, own))


def test_all_that_is_known_moves_with_the_pixels(tree):
    framework, batch = make_with_partners(tree, *AEL)
    samples = framework.random_samples(2, (48, 64))
    framework.queue.rows.fill_(-1)  # the boxes are those that were drawn
    items = [*batch["unlabeled"], *batch["partners"]]
    both = framework.make_pseudo_labels(items, framework.teacher_forward(items))
    coded = both.replace(reliable=both.labels == 0, weight=both.confidence + 1)
    framework.make_pseudo_labels = lambda *args: coded
    _, mixed = framework._mix(batch["unlabeled"], batch["partners"], samples)
    assert samples.boxes.any() and not samples.boxes.all()
    for name in ("labels", "confidence", "valid", "reliable", "weight"):
        field = getattr(coded, name)
        assert torch.equal(getattr(mixed, name), torch.where(samples.boxes, field[2:], field[:2]))


def test_the_first_images_are_mixed_with_each_other(tree):
    framework, batch = make(tree, *PLAIN)
    assert batch["partners"] == []
    samples = framework.random_samples(2, (48, 64))
    images, _ = framework._mix(batch["unlabeled"], [], samples)
    first, second = (item["image"] for item in batch["unlabeled"])
    assert torch.equal(images[0], torch.where(samples.boxes[0], second, first))
    assert torch.equal(images[1], torch.where(samples.boxes[1], first, second))


def test_one_image_alone_stays_as_it_is(tree):
    framework, batch = make(tree, *PLAIN)
    images, _ = framework._mix(batch["unlabeled"][:1], [], framework.random_samples(1, (48, 64)))
    assert torch.equal(images[0], batch["unlabeled"][0]["image"])


def test_partners_are_images_that_show_an_uncertain_class(tree):
    framework, batch = make_with_partners(tree, *PLAIN)
    framework.confidence.confidence.copy_(torch.tensor([1.0, 1.0, -50.0]))  # class 2 is sure to be drawn
    framework.presence.present[3, 2] = True
    assert framework.partner_indices() == [[4, 0], [1, 2]]
    losses_of(framework, batch)
    assert framework.partner_indices() == [[1, 2], [3, 3]]
    framework.after_step()
    assert framework.partner_indices() == [[1, 2], [3, 3]]
    assert framework.queue.rows[1].tolist() == [[3, 2], [3, 2]]


def test_the_banks_learn_from_the_step(tree, monkeypatch):
    framework, batch = make_with_partners(tree, *PLAIN)
    labels = torch.zeros(48, 64, dtype=torch.int64)
    labels[:, 20:] = 2
    label_all(framework, monkeypatch, labels)
    losses_of(framework, batch)
    framework.after_step()
    shown = {item["index"] for item in [*batch["unlabeled"], *batch["partners"]]}
    expected = [[index in shown, False, index in shown] for index in range(5)]
    assert framework.presence.present.tolist() == expected
    assert (framework.confidence.confidence > 0).all()


def test_a_list_of_one_image(tree):
    (tree.root / "unlabeled.txt").write_text("unlabeled3")
    framework, batch = make(tree, *PLAIN)
    for _ in range(3):
        losses_of(framework, batch)
        framework.after_step()
    assert framework.partner_indices() == [[0, 0], [0, 0]]


def test_the_teacher_follows_the_mode_and_an_evaluation_puts_it_back(tree):
    framework, _ = make(tree, *PLAIN)
    assert framework.teacher.training
    with inference_context(framework.eval_models()["teacher"]):
        assert not framework.teacher.training
    assert all(module.training for module in framework.teacher.modules())
    framework.eval()
    assert not framework.teacher.training


def test_the_teachers_statistics_are_its_own(tree):
    framework, batch = make(tree, *PLAIN)
    names = [name for name, _ in framework.teacher.named_buffers() if name.endswith("running_mean")]
    before = {name: framework.teacher.get_buffer(name).clone() for name in names}
    losses_of(framework, batch)
    moved = {name: framework.teacher.get_buffer(name).clone() for name in names}
    assert names and not any(torch.equal(before[name], moved[name]) for name in names)
    framework.after_step()
    for name in names:
        assert torch.equal(framework.teacher.get_buffer(name), moved[name])
        assert not torch.equal(moved[name], framework.student.get_buffer(name))


def test_the_teachers_embeddings_are_computed_once(tree, monkeypatch):
    framework, batch = make(tree, *AEL, "WEIGHTING.LABELED_FROM", "teacher")
    sizes, staged = [], []
    encode, stage = framework.teacher.encode, framework.weigher.stage_labeled
    monkeypatch.setattr(framework.teacher, "encode", lambda images: sizes.append(len(images)) or encode(images))
    monkeypatch.setattr(framework.weigher, "stage_labeled", lambda *args: staged.append(args[0]) or stage(*args))
    losses_of(framework, batch)
    assert sizes == [2, 2]  # labeled, weak
    assert not staged[0].requires_grad


def test_with_a_shared_detector_boxes_are_pasted_too(tree):
    opts = [*SMALL_DETECTOR, "INPUT.PASTE.PROB", 1.0, "INPUT.PASTE.SCALE_RANGE", (1.0, 1.0)]
    framework, batch = make_with_partners(tree, *AEL, *opts, "FRAMEWORK.AEL.HEAD_CLASSES", (0, 1))
    pasted = framework._paste(batch["labeled"], framework.random_samples(2, (48, 64)))
    joined = 0
    for item, found in zip(batch["labeled"], pasted, strict=True):
        objects = framework.student.detector.object_classes[item["paste"]["instances"].gt_classes]
        assert len(found["instances"]) == len(item["instances"]) + (objects == 2).sum()
        joined += int((objects == 2).sum())
    assert joined
    losses = losses_of(framework, batch)
    assert {"loss_rpn_cls", "loss_box_reg", "loss_consistency", "loss_unsup"} <= losses.keys()
    assert all(loss.isfinite() for loss in losses.values())


@pytest.mark.parametrize("head", [(0, 1, 2), (3,), (-1,)])
def test_head_classes_that_do_not_exist_or_are_all_are_refused(tree, head):
    cfg = tree.cfg(*SMALL, *AEL, "FRAMEWORK.AEL.HEAD_CLASSES", head)
    with pytest.raises(
        ValueError, match=r"FRAMEWORK\.AEL\.HEAD_CLASSES: .*, but the 3 classes have the ids 0 to 2; name"
    ):
        build_framework(cfg)


def test_strong_views_are_refused(tree):
    with pytest.raises(ValueError, match=r"INPUT\.STRONG\.VIEWS: 1, but AEL needs 0; set it to that"):
        build_framework(tree.cfg(*SMALL, *AEL, "INPUT.STRONG.VIEWS", 1))


def test_a_whole_step_with_partners_never_waits_for_the_device(tree):
    framework, batch = make_with_partners(tree, *AEL, "INPUT.PASTE.PROB", 1.0)
    with forbid_host_sync():
        losses = losses_of(framework, batch)
        sum(losses.values()).backward()
        framework.after_step()
