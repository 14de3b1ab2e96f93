"""A page of pictures and what a model takes them for: one HTML file that needs no other."""

import base64
import dataclasses
import html
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --bar: #4a7dbd; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem; }
header p { margin: 0; color: #888; font-size: 0.85rem; }
main { display: grid; gap: 1rem; margin-top: 1.5rem; }
main { grid-template-columns: repeat(auto-fill, minmax(17rem, 1fr)); }
figure { margin: 0; border: 1px solid var(--line); border-radius: 8px; padding: 0.8rem; }
img { width: 100%; aspect-ratio: 1; object-fit: contain; image-rendering: auto; border-radius: 4px; }
figcaption { font-size: 0.85rem; overflow-wrap: anywhere; margin: 0.4rem 0; color: #888; }
table { width: 100%; border-collapse: collapse; font-size: 0.9rem; }
th { text-align: left; font-weight: normal; width: 50%; overflow-wrap: anywhere; }
tr:first-child th { font-weight: 600; }
td:last-child { text-align: right; width: 4rem; font-variant-numeric: tabular-nums; }
meter { width: 100%; }
"""


@dataclasses.dataclass(frozen=True)
class Card:
    """A file: its name, what the model saw of it (uint8 [H, W, C]), the likeliest classes."""

    name: str
    seen: np.ndarray
    classes: Sequence[tuple[str, float]]


def page(title: str, about: Sequence[str], cards: Sequence[Card]) -> str:
    """The whole page; nothing in it runs, and nothing is fetched."""
    lines = "".join(f"<p>{html.escape(line)}</p>" for line in about)
    figures = "\n".join(map(_figure, cards))
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        f"<header><h1>{html.escape(title)}</h1>{lines}</header>\n<main>\n{figures}\n</main>\n</body>\n</html>\n"
    )


def _figure(card: Card) -> str:
    name = html.escape(card.name)
    rows = "".join(
        f'<tr><th scope="row">{html.escape(label)}</th>'
        f'<td><meter min="0" max="1" value="{chance:.4f}"></meter></td><td>{100 * chance:.1f} %</td></tr>'
        for label, chance in card.classes
    )
    picture = f'<img alt="{name}" src="data:image/png;base64,{_png(card.seen)}">'
    return f"<figure>{picture}<figcaption>{name}</figcaption><table>{rows}</table></figure>"


def _png(seen: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(seen[:, :, 0] if seen.shape[2] == 1 else seen).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()
