"""The optimiser of the IGUANe trainings against Keras's own updates."""

from __future__ import annotations

import copy

import numpy as np
import torch
from mri_deep_tools.harmonize.optimiser import KerasAdam, linear_rate


def test_updates_equal_those_of_keras(golden):
    data = golden("adam_polynomial.npz")
    weights = torch.nn.Parameter(torch.from_numpy(data["w0"].copy()))
    optimiser = KerasAdam([weights], lambda updates: linear_rate(updates, 12, 2e-4, 2e-5))
    for gradient, expected, rate in zip(data["gradients"], data["w"], data["lr"], strict=True):
        weights.grad = torch.from_numpy(gradient.copy())
        optimiser.step()
        assert abs(optimiser.param_groups[0]["lr"] - rate) < 1e-9
        np.testing.assert_allclose(weights.detach().numpy(), expected, rtol=0, atol=2e-6)
    assert optimiser.updates == 15


def test_a_saved_optimiser_goes_on_where_it_stopped():
    def made(weights):
        return KerasAdam([weights], lambda updates: linear_rate(updates, 6, 1e-2, 1e-3))

    rng = np.random.default_rng(0)
    gradients = torch.from_numpy(rng.normal(size=(6, 10)).astype(np.float32))
    one = torch.nn.Parameter(torch.zeros(10))
    optimiser = made(one)
    for gradient in gradients[:3]:
        one.grad = gradient.clone()
        optimiser.step()
    state, other = copy.deepcopy(optimiser.state_dict()), torch.nn.Parameter(one.detach().clone())
    again = made(other)
    again.load_state_dict(state)
    for gradient in gradients[3:]:
        for weights, chosen in ((one, optimiser), (other, again)):
            weights.grad = gradient.clone()
            chosen.step()
    assert again.updates == 6
    assert torch.equal(one, other)


def test_skipped_steps_leave_the_rate():
    """Mixed precision leaves out a step whose gradient overflowed; the rate is a function of the steps made."""
    weights = torch.nn.Parameter(torch.ones(3))
    optimiser = KerasAdam([weights], lambda updates: linear_rate(updates, 4, 1.0, 0.0))
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
    rates = []
    for factor in (1.0, float("inf"), 1.0):
        optimiser.zero_grad()
        scaler.scale((weights * factor).sum()).backward()
        scaler.step(optimiser)
        scaler.update()
        rates.append(optimiser.param_groups[0]["lr"])
    assert rates == [1.0, 1.0, 0.75]
    assert optimiser.updates == 2
