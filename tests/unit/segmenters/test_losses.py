import math

import pytest
import torch

from segmenters.losses import annotated_log_prob, dice_cross_entropy, loss_of
from segmenters.preprocessing import IGNORED

# two voxels: probabilities of background, first and second structure
PROB = torch.tensor([[0.5, 0.6], [0.3, 0.1], [0.2, 0.3]]).reshape(1, 3, 1, 1, 2)
TARGET = torch.tensor([1, 0]).reshape(1, 1, 1, 2)


def test_fully_annotated_equals_the_plain_loss():
    terms = dice_cross_entropy(PROB.log(), TARGET, torch.tensor([[True, True, True]]))

    assert float(terms.cross_entropy) == pytest.approx(-(math.log(0.3) + math.log(0.6)) / 2)
    # 1 - (2 * 0.3 + 1) / (0.4 + 1 + 1); the second structure does not occur
    assert float(terms.dice) == pytest.approx(1 / 3)


def test_unannotated_structure_counts_as_background_or_unknown():
    terms = dice_cross_entropy(PROB.log(), TARGET, torch.tensor([[True, True, False]]))

    # background-or-unknown has 0.7 and 0.9
    assert float(terms.cross_entropy) == pytest.approx(-(math.log(0.3) + math.log(0.9)) / 2)
    assert float(terms.dice) == pytest.approx(1 / 3)


def test_annotated_structure_never_becomes_background():
    target = torch.tensor([2, 0]).reshape(1, 1, 1, 2)

    first_unknown = annotated_log_prob(PROB.log(), target, torch.tensor([[True, False, True]]))
    all_known = annotated_log_prob(PROB.log(), target, torch.tensor([[True, True, True]]))

    assert first_unknown.exp().flatten().tolist() == pytest.approx([0.2, 0.6 + 0.1])
    assert all_known.exp().flatten().tolist() == pytest.approx([0.2, 0.6])


def test_samples_of_a_batch_keep_their_own_annotation():
    logits = PROB.log().repeat(2, 1, 1, 1, 1)
    targets = torch.cat([TARGET, torch.tensor([2, 0]).reshape(1, 1, 1, 2)])
    known = torch.tensor([[True, True, False], [True, False, True]])

    terms = dice_cross_entropy(logits, targets, known)

    expected = -(math.log(0.3) + math.log(0.9) + math.log(0.2) + math.log(0.7)) / 4
    assert float(terms.cross_entropy) == pytest.approx(expected)
    # each structure only in the sample that annotates it: 1 - 1.6 / 2.4 and 1 - (0.4 + 1) / (0.5 + 1 + 1)
    assert float(terms.dice) == pytest.approx((1 / 3 + (1 - 1.4 / 2.5)) / 2)


def test_moving_mass_between_background_and_unannotated_costs_nothing():
    prob = PROB.clone()
    logits = prob.log().requires_grad_()
    terms = dice_cross_entropy(logits, TARGET, torch.tensor([[True, True, False]]))

    (gradient,) = torch.autograd.grad(terms.dice + terms.cross_entropy, logits)

    # d logit = d p / p along p(background) + e, p(second) - e
    along = gradient[:, 0] / prob[:, 0] - gradient[:, 2] / prob[:, 2]
    torch.testing.assert_close(along, torch.zeros_like(along), atol=1e-6, rtol=0)
    assert float(gradient[:, 1].abs().min()) > 0.01


def test_moving_mass_between_annotated_structures_costs():
    logits = PROB.log().requires_grad_()
    terms = dice_cross_entropy(logits, TARGET, torch.tensor([[True, True, True]]))

    (gradient,) = torch.autograd.grad(terms.dice + terms.cross_entropy, logits)

    along = gradient[:, 0] / PROB[:, 0] - gradient[:, 2] / PROB[:, 2]
    # the second voxel is annotated as background: -1 / (2 * 0.6) of the cross-entropy
    assert float(along[0, 0, 0, 1]) == pytest.approx(-1 / 1.2, abs=1e-5)


def test_perfect_prediction_costs_nothing_and_nothing_annotated_has_no_dice():
    perfect = torch.nn.functional.one_hot(TARGET, 3).permute(0, 4, 1, 2, 3).float() * 60

    terms = dice_cross_entropy(perfect, TARGET, torch.tensor([[True, True, True]]))
    nothing = dice_cross_entropy(perfect, TARGET * 0, torch.tensor([[True, False, False]]))

    assert float(terms.dice + terms.cross_entropy) == pytest.approx(0.0, abs=1e-6)
    assert float(nothing.dice) == 0.0
    assert float(nothing.cross_entropy) == pytest.approx(0.0, abs=1e-6)


def test_structure_absent_from_the_batch_is_left_to_the_cross_entropy():
    known = torch.tensor([[True, True, True]])
    logits = PROB.log().requires_grad_()

    (gradient,) = torch.autograd.grad(dice_cross_entropy(logits, TARGET * 0, known).dice, logits)

    assert not gradient.any()


def test_extreme_logits_stay_finite():
    logits = torch.tensor([[1e4, -1e4], [-1e4, 1e4], [0.0, 0.0]]).reshape(1, 3, 1, 1, 2).requires_grad_()
    terms = dice_cross_entropy(logits, TARGET, torch.tensor([[True, False, True]]))

    (gradient,) = torch.autograd.grad(terms.dice, logits)

    assert torch.isfinite(gradient).all()


def test_each_level_counts_half_of_the_one_above_and_the_coarsest_nothing():
    known = torch.tensor([[True, True, True]])
    finest = PROB.log()
    target = TARGET
    coarse = torch.tensor([0.1, 0.7, 0.2]).log().reshape(1, 3, 1, 1, 1)

    terms = loss_of([finest, coarse, torch.full((1, 3, 1, 1, 1), torch.nan)], target, known)

    # at half the resolution the second voxel is the nearest: background
    expected = 2 / 3 * -(math.log(0.3) + math.log(0.6)) / 2 + 1 / 3 * -math.log(0.1)
    assert float(terms.cross_entropy) == pytest.approx(expected)
    assert float(terms.dice) == pytest.approx(2 / 3 * 1 / 3)


def test_the_loss_of_one_level_is_the_plain_one():
    known = torch.tensor([[True, True, True]])

    terms, plain = loss_of(PROB.log(), TARGET, known), dice_cross_entropy(PROB.log(), TARGET, known)

    assert float(terms.cross_entropy) == pytest.approx(float(plain.cross_entropy))
    assert float(terms.dice) == pytest.approx(float(plain.dice))


def test_coarser_levels_learn():
    known = torch.tensor([[True, True, True]])
    levels = [torch.zeros(1, 3, *shape, requires_grad=True) for shape in ((1, 1, 2), (1, 1, 1), (1, 1, 1))]
    terms = loss_of(levels, TARGET, known)

    torch.autograd.backward(terms.dice + terms.cross_entropy)

    assert bool(levels[1].grad.any())
    assert levels[2].grad is None


KNOWN = torch.tensor([[True, True, True]])


def test_weights_of_one_change_nothing():
    plain = dice_cross_entropy(PROB.log(), TARGET, KNOWN)
    weighted = dice_cross_entropy(PROB.log(), TARGET, KNOWN, weight=torch.ones(1, 3))

    assert (plain.dice, plain.cross_entropy) == (weighted.dice, weighted.cross_entropy)


def test_a_doubtful_structure_counts_by_its_weight():
    terms = dice_cross_entropy(PROB.log(), TARGET, KNOWN, weight=torch.tensor([[0.5, 0.25, 1.0]]))

    # the first voxel is labelled with the first structure, the second with background
    assert float(terms.cross_entropy) == pytest.approx(-(0.25 * math.log(0.3) + 0.5 * math.log(0.6)) / 2)
    # weighted overlap 0.3 / 4 and sizes 1 / 4 and 0.4 / 4, and a quarter of the loss
    assert float(terms.dice) == pytest.approx(0.25 * (1 - (2 * 0.075 + 1) / (0.25 + 0.1 + 1)))


def test_the_sample_with_more_weight_has_more_of_the_gradient():
    logits = PROB.log().repeat(2, 1, 1, 1, 1).requires_grad_()
    weight = torch.tensor([[1.0, 1.0, 1.0], [0.1, 0.1, 0.1]])
    terms = dice_cross_entropy(logits, TARGET.repeat(2, 1, 1, 1), KNOWN.repeat(2, 1), weight=weight)

    (gradient,) = torch.autograd.grad(terms.dice + terms.cross_entropy, logits)

    torch.testing.assert_close(gradient[1], 0.1 * gradient[0])


def test_weights_reach_every_level():
    weight = torch.tensor([[0.5, 0.5, 0.5]])
    levels = [PROB.log(), PROB.log(), PROB.log()]

    terms, plain = loss_of(levels, TARGET, KNOWN, weight=weight), loss_of(levels, TARGET, KNOWN)

    assert float(terms.cross_entropy) == pytest.approx(0.5 * float(plain.cross_entropy))


class TestIgnoredSlices:
    LOGITS = torch.randn(2, 3, 4, 3, 5, generator=torch.Generator().manual_seed(1))
    WEIGHT = torch.tensor([[0.5, 0.25, 1.0], [1.0, 1.0, 0.5]])
    KNOWN = torch.tensor([[True, True, True], [True, True, False]])

    def targets(self) -> torch.Tensor:
        return torch.randint(0, 2, (2, 4, 3, 5), generator=torch.Generator().manual_seed(0))

    @pytest.mark.parametrize("weight", [None, WEIGHT])
    def test_what_is_predicted_outside_changes_nothing_and_is_pulled_nowhere(self, weight):
        targets, found = self.targets(), []
        targets[:, [0, 3]] = IGNORED
        for shift in (0.0, 5.0):
            logits = self.LOGITS.clone()
            logits[:, 1, [0, 3]] += shift
            logits.requires_grad_()
            terms = dice_cross_entropy(logits, targets, self.KNOWN, weight=weight)
            (gradient,) = torch.autograd.grad(terms.dice + terms.cross_entropy, logits)
            assert not gradient[:, :, [0, 3]].any()
            assert gradient[:, :, [1, 2]].any()
            found.append((terms.dice.item(), terms.cross_entropy.item(), gradient))
        assert found[0][:2] == found[1][:2]
        assert torch.equal(found[0][2], found[1][2])

    @pytest.mark.parametrize("weight", [None, WEIGHT])
    def test_the_loss_is_that_of_the_annotated_slices_alone(self, weight):
        targets = self.targets()
        inside = dice_cross_entropy(self.LOGITS[:, :, 1:3], targets[:, 1:3], self.KNOWN, weight=weight)
        targets[:, [0, 3]] = IGNORED
        found = dice_cross_entropy(self.LOGITS, targets, self.KNOWN, weight=weight)
        assert float(found.dice) == pytest.approx(float(inside.dice))
        assert float(found.cross_entropy) == pytest.approx(float(inside.cross_entropy))

    def test_coarser_levels_ignore_them_too(self):
        targets = torch.full((2, 4, 3, 5), IGNORED)
        targets[:, :2] = self.targets()[:, :2]
        logits = self.LOGITS.clone().requires_grad_()
        half = torch.nn.functional.interpolate(logits, scale_factor=(0.5, 1, 1))
        terms = loss_of([logits, half, half], targets, self.KNOWN)
        (gradient,) = torch.autograd.grad(terms.dice + terms.cross_entropy, logits)
        assert not gradient[:, :, 2:].any()
        assert gradient[:, :, :2].any()

    def test_a_batch_without_an_annotated_voxel_has_no_loss(self):
        logits = self.LOGITS.clone().requires_grad_()
        terms = dice_cross_entropy(logits, torch.full((2, 4, 3, 5), IGNORED), self.KNOWN)
        (gradient,) = torch.autograd.grad(terms.dice + terms.cross_entropy, logits)
        assert (terms.dice.item(), terms.cross_entropy.item()) == (0.0, 0.0)
        assert not gradient.any()
