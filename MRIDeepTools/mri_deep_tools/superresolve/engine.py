"""A network on its device: cubes in, cubes out, in batches that suit the device."""

from __future__ import annotations

import numpy as np
import torch

from .network import ResUNet

__all__ = ["PatchEngine"]

_CPU_BATCH, _GPU_BATCH = 8, 128


class PatchEngine:
    """Runs a network on batches of cubes; never with TF32, so that results do not depend on the device.

    Parameters
    ----------
    network : moved to the device.
    device, dtype : where and with which arithmetic it runs.

    """

    def __init__(
        self, network: ResUNet, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> None:
        self.device, self.dtype = torch.device(device), dtype
        self.patch = network.spec.patch
        self.network = network.to(self.device, dtype, memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        self.batch = _CPU_BATCH if self.device.type == "cpu" else _GPU_BATCH

    def __call__(self, cubes: np.ndarray) -> np.ndarray:
        """Map cubes (N, 2, P, P, P) float32 to (N, P, P, P) float32."""
        with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            x = torch.from_numpy(cubes).to(self.device, self.dtype)
            y = self.network(x.contiguous(memory_format=torch.channels_last_3d))
            return np.asarray(y[:, 0].float().cpu().numpy())
