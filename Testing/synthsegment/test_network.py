"""The networks against the published program's tensors, and the slab engine against the plain network."""

from __future__ import annotations

import gzip
import shutil

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mri_deep_tools.errors import WeightsError
from mri_deep_tools.synthsegment.engine import UNetEngine, phase_kernels
from mri_deep_tools.synthsegment.labels import QC_NAMES, V1_CHANNELS, V2_CHANNELS
from mri_deep_tools.synthsegment.network import QCRegressor, QCSpec, UNet, UNetSpec, build_network
from mri_deep_tools.synthsegment.qc import qc_scores
from mri_deep_tools.synthsegment.weights import (
    check_version,
    load_regressor,
    load_states,
    load_unets,
    segmentation_codes,
)

PUBLISHED = [  # specification 2.1: network, trainable and all parameters (batch-norm statistics included)
    (UNetSpec(1, 32), 13_240_616, 13_242_824),
    (UNetSpec(1, 33), 13_240_641, 13_242_849),
    (UNetSpec(1, 5), 13_239_941, 13_242_149),
    (UNetSpec(5, 5, width=16, kernel=5, skipped=2), 27_085_029, 27_086_501),
    (UNetSpec(6, 33), 13_243_881, 13_246_089),
    (UNetSpec(3, 69), 13_242_837, 13_245_045),
]


@pytest.fixture(scope="module")
def weights_file(shared, tmp_path_factory):
    """Return a function that unpacks one golden weights file; conversions are cached beside it."""
    folder = tmp_path_factory.mktemp("weights")

    def unpack(*parts: str):
        target = folder / parts[-1]
        if not target.exists():
            with gzip.open(shared("fixtures", "synthseg", *parts[:-1], parts[-1] + ".gz")) as packed:
                target.write_bytes(packed.read())
        return target

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MRI_DEEP_TOOLS_CACHE", str(folder / "cache"))
        yield unpack


def random_network(spec: UNetSpec, seed: int = 0, *, negative_scales: bool = False) -> UNet:
    torch.manual_seed(seed)
    network = UNet(spec).eval().requires_grad_(False)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm3d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            module.weight.uniform_(-0.3 if negative_scales else 0.5, 1.5)
            module.bias.normal_()
        if isinstance(module, torch.nn.Conv3d):
            module.bias.normal_(0, 0.1)
    return network


def engine_logits(engine: UNetEngine, image: torch.Tensor) -> torch.Tensor:
    out = torch.full((engine.spec.out_channels, image[0].numel()), float("nan"))

    def sink(start: int, stop: int, logits: torch.Tensor) -> None:
        out[:, start:stop] = logits

    engine.run(image, sink)
    return out.view(-1, *image.shape[1:])


@pytest.mark.parametrize(("spec", "trainable", "total"), PUBLISHED)
def test_parameter_counts_of_the_published_networks(spec, trainable, total):
    with torch.device("meta"):
        network = UNet(spec)
    statistics = sum(m.running_mean.numel() * 2 for m in network.modules() if isinstance(m, torch.nn.BatchNorm3d))
    count = sum(p.numel() for p in network.parameters())
    assert (count, count + statistics) == (trainable, total)


def test_parameter_count_of_the_regressor():
    with torch.device("meta"):
        network = QCRegressor(QCSpec())
    statistics = sum(m.running_mean.numel() * 2 for m in network.modules() if isinstance(m, torch.nn.BatchNorm3d))
    assert sum(p.numel() for p in network.parameters()) + statistics == 12_450_663


def test_features_match_the_published_program(shared, weights_file):
    (network,) = load_unets(weights_file("weights", "synthseg_2.0.h5"))
    golden = np.load(shared("fixtures", "synthseg", "unet", "unet_small.npz"))
    seen: dict[str, torch.Tensor] = {}
    for level, block in enumerate(network.encoder):
        block.convs[1].register_forward_hook(
            lambda m, i, y, name=f"unet_conv_downarm_{level}_1": seen.update({name: F.elu(y)})
        )
        block.norm.register_forward_hook(lambda m, i, y, name=f"unet_bn_down_{level}": seen.update({name: y}))
    for j, block in enumerate(network.decoder):
        block.convs[0].register_forward_pre_hook(lambda m, i, name=f"unet_merge_{5 + j}": seen.update({name: i[0]}))
        block.norm.register_forward_hook(lambda m, i, y, name=f"unet_bn_up_{j}": seen.update({name: y}))
    logits = network(torch.from_numpy(golden["input"])[None, None])
    seen |= {"unet_likelihood": logits, "unet_prediction": torch.softmax(logits, 1)}
    tolerance = {"unet_likelihood": 1e-3, "unet_prediction": 2e-4}
    names = [name for name in golden.files if name != "input"]
    assert len(names) == 11
    for name in names:
        ours = seen[name][0].permute(1, 2, 3, 0).numpy()
        if ours.size > 60_000:
            ours = ours[:, :, ::8] if ours.shape[-1] <= 16 else ours[::4, ::4, ::4]
        np.testing.assert_allclose(ours, golden[name], rtol=0, atol=tolerance.get(name, 1e-4), err_msg=name)


@pytest.mark.parametrize("name", ["wl2_001", "dice_002"])
def test_training_checkpoints_match(shared, weights_file, name):
    (network,) = load_unets(weights_file("training_checkpoint", f"{name}.h5"))
    assert network.spec == UNetSpec(1, 32, levels=3, width=4)
    golden = np.load(shared("fixtures", "synthseg", "training_checkpoint", f"{name}_forward.npz"))
    image = torch.from_numpy(golden["input"])
    for logits in (network(image[None, None])[0], engine_logits(UNetEngine(network), image[None])):
        every_2 = logits.permute(1, 2, 3, 0)[::2, ::2, ::2]
        np.testing.assert_allclose(every_2, golden["likelihood_every2"], rtol=0, atol=1e-3)
        np.testing.assert_allclose(torch.softmax(every_2, -1), golden["prediction_every2"], rtol=0, atol=2e-4)


@pytest.mark.parametrize(
    ("file", "prefixes"),
    [
        ("synthseg_1.0.h5", {"unet": UNetSpec(1, 32, width=8)}),
        ("synthseg_parc_2.0.h5", {"unet_parc": UNetSpec(3, 69, width=8)}),
        (
            "synthseg_robust_2.0.h5",
            {
                "unet": UNetSpec(1, 5, width=8),
                "l2l": UNetSpec(5, 5, width=4, kernel=5, skipped=2),
                "unet2": UNetSpec(6, 33, width=8),
            },
        ),
        ("synthseg_qc_2.0.h5", {"qc": QCSpec(width=4)}),
    ],
)
def test_every_file_is_understood_by_its_shapes(weights_file, file, prefixes):
    path = weights_file("weights", file)
    networks = [load_regressor(path)] if "qc" in prefixes else load_unets(path, list(prefixes))
    assert [network.spec for network in networks] == list(prefixes.values())


def test_version_is_told_by_the_head(weights_file):
    (one,) = load_unets(weights_file("weights", "synthseg_1.0.h5"))
    assert segmentation_codes(one, "a.h5") == V1_CHANNELS
    check_version(V1_CHANNELS, "1.0", "a.h5")
    check_version(V2_CHANNELS, None, "a.h5")
    with pytest.raises(WeightsError, match=r"a\.h5 is of version 1\.0, not 2\.0"):
        check_version(V1_CHANNELS, "2.0", "a.h5")


def test_wrong_file_is_named_for_what_it_is(weights_file):
    with pytest.raises(WeightsError, match=r"parc_2\.0\.h5 does not hold the segmentation U-Net, but the cort"):
        load_unets(weights_file("weights", "synthseg_parc_2.0.h5"))
    with pytest.raises(WeightsError, match="the three networks of the robust chain"):
        load_regressor(weights_file("weights", "synthseg_robust_2.0.h5"))


def test_missing_layer_and_bad_shape_are_errors(weights_file, tmp_path):
    import h5py

    broken = tmp_path / "broken.h5"
    shutil.copy(weights_file("weights", "synthseg_2.0.h5"), broken)
    with h5py.File(broken, "a") as file:
        names = [name for name in file.attrs["layer_names"] if b"bn_up_2" not in name]
        file.attrs["layer_names"] = names
    with pytest.raises(WeightsError, match=r"layer unet_bn_up_2 is missing in broken\.h5"):
        load_unets(broken)
    state = UNet(UNetSpec(1, 3, levels=2, width=4)).state_dict()
    state["decoder.0.convs.1.weight"] = torch.zeros(4, 5, 3, 3, 3)
    with pytest.raises(WeightsError, match="do not fit"):
        build_network(state)


def test_safetensors_round_trip(tmp_path):
    from safetensors.torch import save_file

    network = random_network(UNetSpec(1, 3, levels=2, width=4))
    save_file(network.state_dict(), tmp_path / "mine.safetensors")
    assert list(load_states(tmp_path / "mine.safetensors")) == ["unet"]
    (again,) = load_unets(tmp_path / "mine.safetensors")
    image = torch.randn(1, 1, 4, 4, 4)
    assert torch.equal(network(image), again(image))
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "mine.safetensors").read_bytes()[:500])
    with pytest.raises(WeightsError, match=r"cut\.safetensors is not a complete"):
        load_states(tmp_path / "cut.safetensors")


@pytest.mark.parametrize("kernel", [3, 5])
def test_phase_kernels_equal_upsampling_then_convolution(kernel):
    weight, low = torch.randn(2, 3, kernel, kernel, kernel), torch.randn(1, 3, 5, 4, 6)
    wanted = F.conv3d(F.interpolate(low, scale_factor=2, mode="nearest"), weight, padding=kernel // 2)
    phases = phase_kernels(weight)
    assert len(phases) == 8
    assert {k.shape[2] for _, _, k in phases} == {(kernel + 1) // 2}
    for parity, offset, small in phases:
        padded = F.pad(low, (2,) * 6)
        index = [slice(2 + o, 2 + o + n + small.shape[2] - 1) for o, n in zip(offset, low.shape[2:], strict=True)]
        ours = F.conv3d(padded[(slice(None), slice(None), *index)], small)
        torch.testing.assert_close(
            ours, wanted[:, :, parity[0] :: 2, parity[1] :: 2, parity[2] :: 2], rtol=0, atol=1e-4
        )


@pytest.mark.parametrize("slab_bytes", [1, 1 << 26])
@pytest.mark.parametrize(
    ("spec", "shape"),
    [
        (UNetSpec(1, 7, levels=3, width=8), (16, 24, 20)),
        (UNetSpec(2, 5, levels=4, width=8, kernel=5, skipped=2), (24, 16, 32)),
        (UNetSpec(1, 7, levels=5, width=4), (32, 16, 48)),
    ],
)
def test_engine_equals_the_plain_network(spec, shape, slab_bytes):
    network = random_network(spec, negative_scales=True)
    image = torch.randn(spec.in_channels, *shape)
    torch.testing.assert_close(
        engine_logits(UNetEngine(network, slab_bytes=slab_bytes), image), network(image[None])[0], rtol=0, atol=2e-5
    )


def test_mirrored_engine_equals_flipping_the_image():
    network = random_network(UNetSpec(1, 6, levels=3, width=8))
    image, order = torch.randn(1, 16, 12, 8), [0, 4, 5, 3, 1, 2]
    wanted = network(image[None].flip(2))[0].flip(1)[order]
    torch.testing.assert_close(engine_logits(UNetEngine(network, mirror=order), image), wanted, rtol=0, atol=1e-5)


def test_engine_reports_progress_and_half_precision_stays_close():
    network = random_network(UNetSpec(1, 4, levels=3, width=8))
    image, seen = torch.randn(1, 16, 16, 16), []
    out = torch.empty(4, 4096)
    UNetEngine(network, slab_bytes=1).run(image, lambda a, b, logits: out[:, a:b].copy_(logits), seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == pytest.approx(1.0)
    half = engine_logits(UNetEngine(network, dtype=torch.bfloat16), image)
    assert (half.flatten(1) - out).abs().max() < 0.05 * out.abs().max()


@pytest.mark.parametrize("corner", [(20, 30, 24), (0, 50, 41), (47, 0, 0)])
def test_quality_scores_equal_those_of_the_plain_regressor(corner):
    torch.manual_seed(0)
    network = QCRegressor(QCSpec(width=4)).eval().requires_grad_(False)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm3d):
            module.running_mean.normal_(0, 0.1)
            module.bias.normal_(0, 0.1)
    groups = np.zeros((96, 96, 96), dtype=np.uint8)
    x, y, z = corner
    groups[x : x + 49, y : y + 40, z : z + 31] = np.random.default_rng(0).integers(0, 9, (49, 40, 31))
    onehot = F.one_hot(torch.from_numpy(groups).long(), 9).permute(3, 0, 1, 2)[None].float()
    wanted = network(onehot)[0, 1:].clamp(0, 1).tolist()
    assert max(wanted) > 0
    assert list(qc_scores(network, groups).values()) == pytest.approx(wanted, abs=1e-6)
    assert list(qc_scores(network, np.zeros((48, 48, 48), np.uint8))) == list(QC_NAMES)
