"""Weights for another resolution, frame count or tubelet size."""

import jax
import numpy as np

from amd_jax.convert.network import Triple


def cubic_matrix(old: int, new: int) -> np.ndarray:
    """`[new, old]` weights of bicubic interpolation along one axis.

    As torch.nn.functional.interpolate(mode="bicubic", align_corners=False) without antialiasing, which MAE's
    interpolate_pos_embed and transformers use: Keys' kernel with a = -0.75, borders repeated.
    """
    a = -0.75
    at = (np.arange(new) + 0.5) * old / new - 0.5
    first = np.floor(at).astype(int) - 1
    out = np.zeros((new, old))
    for k in range(4):
        x = np.abs(at - (first + k))
        near = ((a + 2) * x - (a + 3)) * x * x + 1
        far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
        np.add.at(out, (np.arange(new), np.clip(first + k, 0, old - 1)), np.where(x <= 1, near, far))
    return out


def linear_matrix(old: int, new: int) -> np.ndarray:
    """`[new, old]` weights of linear interpolation along one axis, with the same convention."""
    at = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
    first = np.minimum(np.floor(at).astype(int), max(old - 2, 0))
    out = np.zeros((new, old))
    np.add.at(out, (np.arange(new), first), 1 - (at - first))
    np.add.at(out, (np.arange(new), np.minimum(first + 1, old - 1)), at - first)
    return out


def antialiased_matrix(old: int, new: int) -> np.ndarray:
    """`[new, old]` weights of the same with antialias=True, which timm uses, and DINOv2 with registers.

    Keys' kernel with a = -0.5, as wide as the new pixels are far apart, cut off at the border.
    """
    return np.asarray(jax.image.resize(np.eye(old, dtype=np.float32), (new, old), "cubic", antialias=True))


def positions(
    table: np.ndarray, cls_token: bool, old: Triple, new: Triple, antialias: bool = False
) -> np.ndarray:
    """A learned table `[(1 +) tokens, width]` for another grid: bicubic in space, linear in time."""
    matrix = antialiased_matrix if antialias else cubic_matrix
    table = table.astype(np.float32)
    cls, patches = table[: int(cls_token)], table[int(cls_token) :]
    x = patches.reshape(*old, -1)
    if old[0] != new[0]:
        x = np.einsum("nt,thwc->nhwc", linear_matrix(old[0], new[0]), x)
    if old[1] != new[1]:
        x = np.einsum("nh,thwc->tnwc", matrix(old[1], new[1]), x)
    if old[2] != new[2]:
        x = np.einsum("nw,thwc->thnc", matrix(old[2], new[2]), x)
    return np.concatenate([cls, x.reshape(-1, table.shape[-1]).astype(np.float32)])


def tubelet(kernel: np.ndarray, old: int, new: int) -> np.ndarray:
    """A patch embedding `[old · h · w · c, width]` for tubelets of `new` frames.

    The kernel is summed over its frames, and spread evenly over the new ones: a video whose frames are all
    equal is embedded as before.
    """
    image = kernel.astype(np.float32).reshape(old, -1, kernel.shape[-1]).sum(axis=0)
    return np.tile(image / new, (new, 1))
