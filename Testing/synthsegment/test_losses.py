"""Losses and their gradients against the original program."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from mri_deep_tools.synthsegment.losses import cross_entropy_and_dice, dice_loss, wl2_loss


@pytest.fixture(scope="module")
def case(shared):
    golden = np.load(shared("fixtures", "synthseg", "generator", "pieces.npz"))
    values = golden["loss_labels"]
    index = torch.as_tensor(golden["loss_gt"]).long()
    target = torch.nn.functional.one_hot(index, len(values)).permute(3, 0, 1, 2)[None].float()
    logits = torch.as_tensor(golden["loss_logits"]).permute(3, 0, 1, 2)[None]
    return golden, target, logits


def test_dice_and_gradient(case):
    golden, target, logits = case
    posterior = logits.softmax(1).requires_grad_()
    loss = dice_loss(posterior, target)
    assert loss.item() == pytest.approx(float(golden["dice_loss"]), rel=1e-5)
    loss.backward()
    found = posterior.grad[0].permute(1, 2, 3, 0)[5].numpy()
    np.testing.assert_allclose(found, golden["dice_grad_slice"], atol=1e-6)


def test_dice_options(case):
    golden, target, logits = case
    posterior = logits.softmax(1)
    assert dice_loss(posterior, target, class_weights=-1).item() == pytest.approx(
        float(golden["dice_loss_dynamic"]), rel=1e-5
    )
    assert dice_loss(posterior, target, boundary_weight=10, boundary_distance=3).item() == pytest.approx(
        float(golden["dice_loss_boundary"]), rel=1e-5
    )


def test_wl2_and_gradient(case):
    golden, target, logits = case
    likelihood = logits.clone().requires_grad_()
    loss = wl2_loss(likelihood, target)
    assert loss.item() == pytest.approx(float(golden["wl2_loss"]), rel=1e-5)
    loss.backward()
    found = likelihood.grad[0].permute(1, 2, 3, 0)[5].numpy()
    np.testing.assert_allclose(found, golden["wl2_grad_slice"], atol=1e-6)


def test_absent_label_gets_no_weight(case):
    _, target, logits = case
    target = target.clone()
    target[:, 3] = 0
    assert torch.isfinite(dice_loss(logits.softmax(1), target, class_weights=-1))


def test_compact_loss_is_zero_for_a_perfect_answer():
    target = torch.arange(5).repeat(20)
    logits = torch.nn.functional.one_hot(target, 5).float() * 50
    assert cross_entropy_and_dice(logits, target).item() < 1e-6
