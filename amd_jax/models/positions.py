"""Fixed position tables and rotary angles, as the published models compute them."""

import numpy as np


def sincos_1d(positions: int, width: int) -> np.ndarray:
    """VideoMAE's and AMD's table over flattened tokens: sine on even features, cosine on odd ones.

    Source: VideoMAE `modeling_finetune.py`, `get_sinusoid_encoding_table`. Returns `[positions, width]`.
    """
    feature = np.arange(width)
    angle = np.arange(positions)[:, None] / np.power(10000, 2 * (feature // 2) / width)
    table = np.where(feature % 2 == 0, np.sin(angle), np.cos(angle))
    return table.astype(np.float32)


def sincos_2d(grid: tuple[int, int], width: int) -> np.ndarray:
    """MAE's table: the first half of the features encodes the width index, the second the height index.

    Source: MAE `util/pos_embed.py`. `grid` is (height, width) in tokens; returns `[height * width, width]`.
    """
    omega = 1 / 10000 ** (np.arange(width // 4) / (width / 4))

    def encode(index: np.ndarray) -> np.ndarray:
        angle = index.reshape(-1)[:, None] * omega
        return np.concatenate([np.sin(angle), np.cos(angle)], axis=1)

    rows, columns = np.meshgrid(np.arange(grid[0]), np.arange(grid[1]), indexing="ij")
    return np.concatenate([encode(columns), encode(rows)], axis=1).astype(np.float32)


def rotary(grid: tuple[int, int, int], head_width: int, theta: float) -> np.ndarray:
    """DINOv3's angles `[tokens, head_width / 2]`: half of them turn with the height, half with the width.

    A token's place is its centre, from -1 to 1 over the image, so that another grid needs no interpolation.
    Every frame of a video has the same. Source: DINOv3 `rope_position_encoding.py`.
    """
    turns = 2 * np.pi / theta ** np.arange(0, 1, 4 / head_width)
    rows, columns = (2 * (np.arange(n) + 0.5) / n - 1 for n in grid[1:])
    height, width = (place.reshape(-1, 1) * turns for place in np.meshgrid(rows, columns, indexing="ij"))
    return np.tile(np.concatenate([height, width], axis=1), (grid[0], 1)).astype(np.float32)


def table(kind: str, grid: tuple[int, int, int], width: int) -> np.ndarray:
    """The fixed table `[tokens, width]` of `kind` for `grid` tokens along (t, h, w)."""
    if kind == "sincos_1d":
        return sincos_1d(grid[0] * grid[1] * grid[2], width)
    if kind == "sincos_2d":
        # MAE has images only; on a video every frame gets the same table.
        return np.tile(sincos_2d(grid[1:], width), (grid[0], 1))
    raise ValueError(f"no fixed position table is called {kind!r}")
