"""What the diffusion tests share."""

from __future__ import annotations

import tarfile
from pathlib import Path

import numpy as np


def unpack(archive: Path, folder: Path) -> Path:
    with tarfile.open(archive, "r:*") as tar:
        tar.extractall(folder, filter="data")
    return folder


def axes_of(affine: np.ndarray) -> np.ndarray:
    """Return the unit directions (columns, RAS) in which the voxel axes of an image run."""
    return affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)


def fsl_of(world: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Return FSL's bvecs (n, 3): along the voxel axes, x negated where the determinant is positive."""
    vectors = world @ axes_of(affine)
    return vectors * ([-1, 1, 1] if np.linalg.det(affine[:3, :3]) > 0 else [1, 1, 1])


def world_of_fsl(vectors: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Return world directions (n, 3) of FSL's bvecs."""
    vectors = vectors * ([-1, 1, 1] if np.linalg.det(affine[:3, :3]) > 0 else [1, 1, 1])
    return vectors @ axes_of(affine).T


def rotation(seed: int, degrees: float) -> np.ndarray:
    """Return a rotation (3, 3) by so many degrees around an arbitrary axis."""
    axis = np.random.default_rng(seed).normal(size=3)
    x, y, z = np.radians(degrees) * axis / np.linalg.norm(axis)
    angle = np.hypot(np.hypot(x, y), z)
    k = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]]) / angle
    return np.eye(3) + np.sin(angle) * k + (1 - np.cos(angle)) * k @ k


def directions(count: int, seed: int = 0) -> np.ndarray:
    """Return random unit vectors (n, 3)."""
    vectors = np.random.default_rng(seed).normal(size=(count, 3))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


AXES = np.array([[0.8, 0.5, 0.33], [-0.3, 0.85, 0.43], [0.2, -0.5, 0.84]])
"""Main directions in the world: at positions with x < 0, with x >= 0 and y < 0, and elsewhere."""
AXES /= np.linalg.norm(AXES, axis=1, keepdims=True)


def region_of(shape: tuple[int, ...], affine: np.ndarray) -> np.ndarray:
    """Return which of the three fibres is at each voxel, by its place in the world."""
    voxels = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    x, y, _ = np.moveaxis(voxels @ affine[:3, :3].T + affine[:3, 3], -1, 0)
    return np.where(x < 0, 0, np.where(y < 0, 1, 2))


def fibres(shape: tuple[int, ...], affine: np.ndarray, world: np.ndarray, bvals: np.ndarray) -> np.ndarray:
    """Return the signal (X, Y, Z, n), float32, of one tensor per voxel with its main direction as ``AXES`` says."""
    along, across = 1.6e-3, 0.3e-3
    shares = (AXES @ world.T) ** 2  # (fibre, volume)
    signal = 1000 * np.exp(-bvals * (across + (along - across) * shares))
    return signal[region_of(shape, affine)].astype(np.float32)


def centred(matrix: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return an affine whose grid has its middle near the origin."""
    affine = np.eye(4)
    affine[:3, :3] = matrix
    affine[:3, 3] = -matrix @ (np.array(shape) / 2 - 0.4)
    return affine
