"""DMRIUpsample: more diffusion directions from few, by the published recurrent autoencoder or spherical harmonics."""

from __future__ import annotations
