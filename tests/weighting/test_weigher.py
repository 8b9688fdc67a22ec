from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from helpers import forbid_host_sync

from wpl_d2.benchmark.floor import count_operations
from wpl_d2.structures import IGNORE, Detections, PseudoLabels
from wpl_d2.weighting import SCORE_REGISTRY, Evidence, PixelWeigher, rank_overlap, reliable_mask
from wpl_d2.weighting.scores import ScoreOptions

CLASSES, DIM = 4, 12


def make(**options):
    defaults = {
        "num_classes": CLASSES,
        "dim": DIM,
        "k": 3,
        "bank_size": 8,
        "push_per_image": 2,
        "min_count": 2,
    }
    return PixelWeigher(**defaults | options)


def fill(weigher, counts):
    """Push `counts[c]` random embeddings of each class c, alternately into the two banks."""
    labels = torch.repeat_interleave(torch.arange(CLASSES), torch.tensor(counts))
    features = torch.randn(len(labels), DIM)
    weigher.labeled_bank.push(features[::2], labels[::2])
    weigher.unlabeled_bank.push(features[1::2], labels[1::2])
    return torch.stack([features[labels == c].mean(0) for c in range(CLASSES)]).nan_to_num()


def random_step(images=2, seed=0):
    torch.manual_seed(seed)
    embedding, logits = torch.randn(images, DIM, 5, 6), torch.randn(images, CLASSES, 19, 23) * 4
    return embedding, logits, logits.argmax(dim=1)


def evidence_of(embedding, logits, labels, detections=None):
    pseudo = PseudoLabels.from_logits(logits, torch.ones_like(labels, dtype=torch.bool)).replace(labels=labels)
    return Evidence(pseudo, logits, embedding, detections)


def detections_of(boxes, scores=1.0):
    """What a detector found in each image: (xyxy, class ids) pairs, all with the score."""
    return [Detections(xyxy, torch.full((len(ids),), scores), ids) for xyxy, ids in boxes]


@pytest.mark.parametrize("form", ["paper", "plus_one"])
@pytest.mark.parametrize("resolution", ["stride4", "full"])
def test_weights_are_the_overlap_and_neutral_elsewhere(form, resolution):
    weigher = make(weight_form=form, resolution=resolution)
    embedding, logits, labels = random_step()
    labels[:, :3] = IGNORE
    prototypes = fill(weigher, [5, 2, 1, 0])  # class 2 has fewer than min_count, class 3 none
    weight = weigher.weight(evidence_of(embedding, logits, labels))
    overlap = rank_overlap(embedding, labels, prototypes, 3, resolution=resolution)
    known = (labels == 0) | (labels == 1)
    assert known.any() and (~known).any()
    assert weight[known].equal(overlap[known] + (form == "plus_one"))
    assert (weight[~known] == 1).all()
    assert weigher.max_weight == (2 if form == "plus_one" else 1)
    assert weight.max() <= weigher.max_weight


def test_an_empty_bank_weighs_nothing():
    evidence = evidence_of(*random_step())
    for form in ("paper", "plus_one"):
        assert (make(weight_form=form).weight(evidence) == 1).all()


def test_centering_compares_deviations_from_the_mean_prototype():
    embedding, logits, labels = random_step()
    evidence = evidence_of(embedding, logits, labels)
    weigher, plain = make(centered=True), make()
    prototypes = fill(weigher, [4, 4, 4, 0])
    plain.load_state_dict(weigher.state_dict())
    mean = prototypes[:3].mean(0)
    expected = rank_overlap(embedding - mean[:, None, None], labels, prototypes - mean, 3)
    seen = labels != 3
    assert weigher.weight(evidence)[seen].equal(expected[seen])
    assert not plain.weight(evidence).equal(weigher.weight(evidence))


def test_several_kinds_are_multiplied_and_sharpened():
    evidence = evidence_of(*random_step())
    cosine, both = make(kind="cosine"), make(kind=["cosine", "confidence"], power=2.0)
    fill(cosine, [3, 3, 3, 3])
    both.load_state_dict(cosine.state_dict())
    expected = (cosine.weight(evidence) * evidence.pseudo.confidence) ** 2
    torch.testing.assert_close(both.weight(evidence), expected)


def test_kinds_without_the_bank_weigh_from_the_first_step():
    evidence = evidence_of(*random_step())
    assert make(kind="confidence").weight(evidence).equal(evidence.pseudo.confidence)
    assert (make(kind=["confidence", "rank"]).weight(evidence) == 1).all()


def test_per_class_divides_by_the_running_mean_of_the_class():
    weigher = make(kind="confidence", per_class=True, momentum=0.75)
    mean = {}
    for step in range(3):
        embedding, logits, labels = random_step(seed=step)
        labels[labels == 3] = IGNORE if step < 2 else 3
        evidence = evidence_of(embedding, logits, labels)
        weight, confidence = weigher.weight(evidence), evidence.pseudo.confidence
        for c in range(CLASSES):
            own = labels == c
            torch.testing.assert_close(weight[own], confidence[own] / mean.get(c, 1.0))
            if own.any():
                new = confidence[own].mean().item()
                mean[c] = 0.75 * mean[c] + 0.25 * new if c in mean else new
        assert (weight[labels == IGNORE] == 1).all()
        weigher.after_step()
    torch.testing.assert_close(weigher.class_means.mean, torch.tensor([mean[c] for c in range(CLASSES)]))


def test_staged_labeled_pixels_are_right_and_confident():
    torch.manual_seed(0)
    weigher = make(push_per_image=50, bank_size=200, labeled_conf=0.9)
    number = torch.arange(2 * 5 * 6.0).view(2, 1, 5, 6).expand(-1, DIM, -1, -1)
    logits, target = torch.randn(2, CLASSES, 5, 6) * 4, torch.randint(0, CLASSES, (2, 5, 6))
    target[0, 0] = IGNORE
    weigher.stage_labeled(number, logits, target)
    weigher.after_step()
    confidence, predicted = logits.softmax(1).max(1)
    for c in range(CLASSES):
        expected = number[:, 0][(target == c) & (predicted == c) & (confidence > 0.9)]
        held = weigher.labeled_bank.ring[c, : weigher.labeled_bank.counts[c], 0]
        assert held.sort().values.equal(expected.sort().values)
    assert weigher.labeled_bank.counts.sum() > 0 and not weigher.unlabeled_bank.counts.any()


def test_staged_reliable_pixels_go_to_the_other_bank_at_most_n_each():
    weigher = make()
    embedding, _, labels = random_step(images=3)
    weigher.stage_reliable(embedding, labels, labels != 2)
    weigher.after_step()
    assert weigher.unlabeled_bank.counts.tolist() == [6, 6, 0, 6]  # 2 an image
    assert not weigher.labeled_bank.counts.any()


def test_what_is_staged_is_stored_once():
    weigher = make()
    embedding, logits, labels = random_step()
    before = {name: value.clone() for name, value in weigher.state_dict().items()}
    weigher.stage_labeled(embedding, logits, labels)
    weigher.stage_reliable(embedding, labels, labels >= 0)
    assert weigher.state_dict().keys() == before.keys()
    torch.testing.assert_close(dict(weigher.state_dict()), before, rtol=0, atol=0)
    weigher.after_step()
    counts = weigher.unlabeled_bank.pushed.clone()
    weigher.after_step()
    assert counts.any() and weigher.unlabeled_bank.pushed.equal(counts)


def test_state_dict_round_trip_keeps_the_weights():
    weigher, other = make(), make()
    evidence = evidence_of(*random_step())
    fill(weigher, [9, 7, 5, 3])
    assert set(weigher.state_dict()) == {
        f"{bank}_bank.{name}" for bank in ("labeled", "unlabeled") for name in ("ring", "pushed")
    }
    other.load_state_dict(weigher.state_dict())
    assert other.weight(evidence).equal(weigher.weight(evidence))


def test_running_figures_are_part_of_the_state():
    weigher, other = (make(kind=["softmatch", "confidence"], per_class=True, momentum=0.5) for _ in range(2))
    weigher.weight(evidence_of(*random_step()))
    weigher.after_step()
    assert weigher.scores["softmatch"].variance < 1 and weigher.class_means.seen.all()
    other.load_state_dict(weigher.state_dict())
    evidence = evidence_of(*random_step(seed=1))
    assert other.weight(evidence).equal(weigher.weight(evidence))
    weigher.after_step()
    before = weigher.scores["softmatch"].mean.clone()
    weigher.after_step()
    assert weigher.scores["softmatch"].mean.equal(before)


def test_what_is_judged_moves_no_running_figures():
    weigher = make(kind=["softmatch", "confidence"], per_class=True, momentum=0.5).eval()
    before = {name: value.clone() for name, value in weigher.state_dict().items()}
    weigher.weight(evidence_of(*random_step()))
    weigher.train().after_step()
    torch.testing.assert_close(dict(weigher.state_dict()), before, rtol=0, atol=0)


@pytest.mark.parametrize("with_boxes", [False, True])
def test_pixels_in_boxes_of_their_class_are_reliable_if_rppi_is_on(with_boxes):
    weigher = make(reliable_conf=0.6, box_score=0.5 if with_boxes else None)
    embedding, logits, labels = random_step()
    fill(weigher, [3, 3, 3, 3])
    valid = torch.ones(2, 19, 23, dtype=torch.bool)
    valid[:, 15:] = False
    pseudo = PseudoLabels.from_logits(logits, valid).replace(labels=labels)  # labels in padding, too
    box = torch.tensor([[0.0, 0, 23, 19], [2, 2, 9, 9]]), torch.tensor([0, 1])
    boxes = [box, (torch.zeros(0, 4), torch.zeros(0).long())]
    evidence = Evidence(pseudo, logits, embedding, detections_of(boxes))
    found = weigher.reliable(evidence)
    if with_boxes:
        expected = reliable_mask(pseudo.labels, pseudo.confidence, boxes, 0.6) & valid
        assert found.equal(expected) and expected.any()
    else:
        assert not found.any()


@pytest.mark.parametrize("per_class", [False, True])
@pytest.mark.parametrize("kind", [score.kind for _, score in SCORE_REGISTRY])
def test_a_whole_step_without_host_sync_or_gradient(kind, per_class, monkeypatch):
    weigher = make(kind=kind, per_class=per_class, box_score=0.5, objects=(0, 1))
    embedding, logits, labels = random_step()
    images, segment = torch.rand(len(logits), 3, *logits.shape[-2:]), torch.nn.Conv2d(3, CLASSES, 1)
    embedding.requires_grad_()
    logits.requires_grad_()
    fill(weigher, [3, 3, 0, 1])
    box = torch.tensor([[0.0, 0, 23, 19]]), torch.tensor([0])
    detections = detections_of([box, box])
    # Dropping boxes of low scores waits for the device, as a detector's own inference does many times.
    monkeypatch.setattr("wpl_d2.weighting.weigher.class_boxes", lambda *_: [box, box])
    with forbid_host_sync():
        pseudo = PseudoLabels.from_logits(logits, torch.ones_like(labels, dtype=torch.bool))
        pseudo.confidence.requires_grad_()  # which `PseudoLabels.from_logits` gives none
        evidence = Evidence(pseudo, logits, embedding, detections, images, segment)
        weight, reliable = weigher.weight(evidence), weigher.reliable(evidence)
        weigher.stage_labeled(embedding, logits, labels)
        weigher.stage_reliable(embedding, pseudo.labels, reliable)
        weigher.after_step()
    state = weigher.state_dict(keep_vars=True).values()
    assert not any(value.requires_grad for value in (weight, *state))


def test_half_precision_embeddings_are_stored_in_float32():
    weigher = make()
    embedding, logits, labels = random_step()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        weigher.stage_labeled(embedding.bfloat16(), logits.bfloat16(), labels)
        weigher.after_step()
        weight = weigher.weight(evidence_of(embedding.bfloat16(), logits.bfloat16(), labels))
    assert weigher.labeled_bank.ring.dtype == weight.dtype == torch.float32
    assert weigher.labeled_bank.counts.any()


def test_config_names_every_option():
    weighting = SimpleNamespace(
        KIND=("cosine", "object"), CENTERED=True, K=7, WEIGHT_FORM="plus_one", TOPK_RES="full", BANK_SIZE=9,
        PUSH_PER_IMAGE=3, MIN_COUNT=4, LABELED_CONF=0.5, POWER=3.0, PER_CLASS=True, OBJECT="class", MOMENTUM=0.9,
        CALIBRATED=SimpleNamespace(SCORES=["tta"]),
    )  # fmt: skip
    head = SimpleNamespace(NUM_CLASSES=5, CONVS_DIM=6, ALIGN_CORNERS=True)
    model = SimpleNamespace(SEM_SEG_HEAD=head, DETECTOR=SimpleNamespace(CLASSES=(1, 3)))
    cfg = SimpleNamespace(WEIGHTING=weighting, RPPI=SimpleNamespace(CONF=0.6, BOX_SCORE=0.7, ENABLED=True), MODEL=model)
    weigher = PixelWeigher.from_config(cfg)
    assert weigher.labeled_bank.ring.shape == weigher.unlabeled_bank.ring.shape == (5, 9, 6)
    assert list(weigher.scores) == ["cosine", "object"]
    assert weigher.options == ScoreOptions(5, (1, 3), 7, True, "full", True, "class", 0.9, ("tta",))
    numbers = (weigher.push_per_image, weigher.min_count, weigher.labeled_conf, weigher.reliable_conf)
    assert numbers == (3, 4, 0.5, 0.6)
    assert (weigher.box_score, weigher.power, weigher.weight_form) == (0.7, 3.0, "plus_one")
    assert weigher.class_means is not None
    cfg.RPPI.ENABLED = False
    assert PixelWeigher.from_config(cfg).box_score is None


@pytest.mark.parametrize(
    "option, message",
    [
        ({"kind": "cosin"}, r"WEIGHTING\.KIND: 'cosin' .* did you mean cosine"),
        ({"kind": ["rank", "object", "rank"]}, r"WEIGHTING\.KIND: names rank twice"),
        ({"kind": []}, r"WEIGHTING\.KIND: names nothing; give one or more of .*knn_margin"),
        ({"object_region": "image"}, r"WEIGHTING\.OBJECT: .*component"),
        ({"weight_form": "plusone"}, r"WEIGHTING\.WEIGHT_FORM: .*plus_one"),
        ({"resolution": "stride8"}, r"WEIGHTING\.TOPK_RES: .*stride4"),
        ({"k": 0}, r"WEIGHTING\.K: 0 is too small"),
        ({"min_count": 17}, r"WEIGHTING\.MIN_COUNT: .* at most 16"),
        ({"bank_size": 0}, r"WEIGHTING\.BANK_SIZE"),
    ],
)
def test_bad_options_are_named(option, message):
    with pytest.raises(ValueError, match=message):
        make(**option)


def update_on(rank, world, folder):
    """One rank's three steps; its banks are saved to `folder`."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world)
    weigher = make()
    for step in range(3):
        embedding, logits, labels = random_step(seed=10 * step + rank)
        weigher.stage_labeled(embedding, logits, labels)
        weigher.stage_reliable(embedding, labels, labels != 3)
        staged = [[torch.cat(rows) for rows in zip(*calls, strict=True)] for calls in weigher._staged.values()]
        torch.save(staged, f"{folder}/staged{step}_{rank}.pth")
        weigher.after_step()
    torch.save(weigher.state_dict(), f"{folder}/banks_{rank}.pth")
    dist.destroy_process_group()


def test_a_step_takes_few_operations():
    """On a GPU their number is what weights cost."""
    weigher = make()
    fill(weigher, [5, 4, 3, 2])
    embedding, logits, labels = random_step()
    evidence = evidence_of(embedding, logits, labels)

    def step():
        weigher.stage_labeled(embedding, logits, labels)
        weigher.weight(evidence)
        weigher.after_step()

    step()  # makes what is kept
    assert count_operations(step) <= 75


@pytest.mark.slow
def test_two_ranks_have_the_same_banks_in_rank_order(tmp_path):
    mp.spawn(update_on, args=(2, tmp_path), nprocs=2)
    first, second = (torch.load(tmp_path / f"banks_{rank}.pth") for rank in range(2))
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    expected = make()
    for step in range(3):
        for rank in range(2):
            staged = torch.load(tmp_path / f"staged{step}_{rank}.pth")
            expected.labeled_bank.push(*staged[0])
            expected.unlabeled_bank.push(*staged[1])
    torch.testing.assert_close(first, dict(expected.state_dict()), rtol=0, atol=0, check_stride=False)
    assert expected.labeled_bank.counts.sum() > 0
