"""Schedule, training pairs, posterior and sampling against the published program (golden data) and theory."""

from __future__ import annotations

import pytest
import torch
from mri_deep_tools.errors import RequestError
from mri_deep_tools.translate.checkpoint import load_generator
from mri_deep_tools.translate.diffusion import Draws, Schedule, draw, sample

SCHEDULES = {
    "T4": Schedule(),
    "T2": Schedule(2),
    "T8": Schedule(8),
    "T4_geo": Schedule(4, 0.1, 0.9, geometric=True),
    "T4_b": Schedule(4, 0.2, 12.0),
}
TABLES = {
    "time": "times",
    "betas": "betas",
    "sigmas": "sigmas",
    "a_s": "a",
    "a_s_cum": "a_cum",
    "sigmas_cum": "sigmas_cum",
    "post_posterior_mean_coef1": "coef_clean",
    "post_posterior_mean_coef2": "coef_noisy",
    "post_posterior_variance": "variance",
    "post_posterior_log_variance_clipped": "log_variance",
}


@pytest.mark.parametrize("prefix", SCHEDULES)
def test_tables(golden_arrays, prefix):
    data, schedule = golden_arrays("schedule_tables.npz"), SCHEDULES[prefix]
    assert {key.split("__")[0] for key in data} == set(SCHEDULES)
    for theirs, ours in TABLES.items():
        wanted, made = data[f"{prefix}__{theirs}"], getattr(schedule, ours)
        assert made.dtype == wanted.dtype
        assert float((made - wanted).abs().max()) < 1e-6, theirs


def test_pair_and_posterior(golden_arrays):
    data, schedule = golden_arrays("q_and_posterior.npz"), Schedule()
    x_t, x_next = schedule.pair(data["x0"], data["t"], data["noise_t"], data["noise_pair"])
    assert float((x_t - data["x_t"]).abs().max()) < 1e-6
    assert float((x_next - data["x_tp1"]).abs().max()) < 1e-6
    made = schedule.posterior(data["x0"], data["x_tp1"], data["t"], data["noise_post"])
    assert float((made - data["x_post"]).abs().max()) < 1e-6


def test_trajectory(golden_arrays, golden_weights):
    data, schedule = golden_arrays("trajectory_small.npz"), Schedule()
    network = load_generator(golden_weights("gen_diffusive_1_small.pth"))
    steps = []

    def generate(x: torch.Tensor, t: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        steps.append((x[:, :1], network(x, t, z)))
        return steps[-1][1]

    with torch.inference_mode():
        made = sample(
            generate,
            schedule,
            data["source"],
            start=data["noise_init"],
            latents=data["z"],
            noises=data["noise"],
        )
    assert float((made - data["sample"]).abs().max()) < 2e-5
    for number, (x, clean) in enumerate(steps):
        assert float((clean[:, :1] - data["x0_pred"][number]).abs().max()) < 2e-5
        if number:
            assert float((x - data["x_step"][number - 1]).abs().max()) < 2e-5


def test_first_step_gives_the_clean_image():
    for schedule in SCHEDULES.values():
        x0, noise = torch.rand(1, 1, 2, 2), torch.randn(1, 1, 2, 2)
        t = torch.zeros(1, dtype=torch.int64)
        assert torch.equal(schedule.pair(x0, t, noise, noise)[0], x0)
        torch.testing.assert_close(schedule.posterior(x0, noise, t, noise), x0)


@pytest.mark.parametrize("t", range(4))
def test_posterior_is_the_way_back(t):
    """Noise an image, take a posterior step with the true image: mean and variance are those of step t."""
    schedule, generator = Schedule(), torch.Generator().manual_seed(t)
    count = 200_000
    x0 = torch.full((1, 1, 1, count), 0.7)
    steps = torch.tensor([t])
    normal = (torch.randn(1, 1, 1, count, generator=generator) for _ in range(3))
    x_t, x_next = schedule.pair(x0, steps, next(normal), next(normal))
    back = schedule.posterior(x0, x_next, steps, next(normal))
    for made in (x_t, back):
        assert float(made.mean()) == pytest.approx(0.7 * float(schedule.a_cum[t]), abs=0.01)
        assert float(made.std(correction=0)) == pytest.approx(float(schedule.sigmas_cum[t]), abs=0.01)


def test_order_of_the_draws_is_the_published_one():
    made = draw((2, 3, 5), 2, 4, torch.Generator().manual_seed(42))
    generator = torch.Generator().manual_seed(42)
    assert torch.equal(made.start, torch.randn(2, 1, 3, 5, generator=generator))
    for step in range(2):
        assert torch.equal(made.latents[step], torch.randn(2, 4, generator=generator))
        assert torch.equal(made.noises[step], torch.randn(2, 1, 3, 5, generator=generator))
    torch.manual_seed(42)
    assert torch.equal(draw((2, 3, 5), 2, 4).start, made.start)


def test_sampling_takes_each_step_once():
    schedule, seen = Schedule(3), []

    def generate(x: torch.Tensor, t: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        seen.append((int(t[0]), float(z[0, 0])))
        return torch.cat([x[:, 1:], torch.full_like(x[:, 1:], torch.nan)], dim=1)  # the second channel is not used

    source = torch.rand(1, 1, 2, 2)
    draws = Draws(torch.randn(1, 1, 2, 2), torch.tensor([[[2.0]], [[1.0]], [[0.0]]]), torch.randn(3, 1, 1, 2, 2))
    made = sample(generate, schedule, source, start=draws.start, latents=draws.latents, noises=draws.noises)
    assert seen == [(2, 2.0), (1, 1.0), (0, 0.0)]
    torch.testing.assert_close(made, source)


@pytest.mark.parametrize(
    "numbers", [{"steps": 0}, {"beta_min": 0.0}, {"beta_min": 21.0}, {"geometric": True}, {"steps": 5000}]
)
def test_numbers_that_make_no_diffusion(numbers):
    with pytest.raises(RequestError):
        Schedule(**numbers)


def test_options_make_the_schedule_again():
    schedule = Schedule(8, 0.2, 12.0)
    assert torch.equal(Schedule(**schedule.options()).coef_noisy, schedule.coef_noisy)
    assert schedule.to("cpu").steps == 8
