"""The colours of page and figures, light and dark.

λ goes from dark blue to coral in its order, in steps of lightness that survive colour blindness and grey print; line
style and marker say the same once more.
"""

from __future__ import annotations

import colorsys
from typing import Any

import matplotlib
from matplotlib.colors import LinearSegmentedColormap, to_hex, to_rgb

INK, QUIET, GRID, GROUND = "#1c2024", "#5b6168", "#dfe2e6", "#ffffff"
LINES = ["-", "--", "-.", ":", (0, (6, 1.5, 1, 1.5, 1, 1.5)), (0, (2, 1))]
MARKERS = ["o", "s", "^", "D", "v", "P", "X"]
SHADES = 12  # steps between the ground and the deepest colour of a heat map

_DEEPEST = {"light": "#8fb4de", "dark": "#2c5c95"}
_DARK = {INK: "#e6e8ea", QUIET: "#a3aab2", GRID: "#333940", GROUND: "#14171a"}


def series(index: int, of: int) -> dict[str, Any]:
    """Colour, line style and marker of the λ at this place of ``of`` values in ascending order."""
    place = index / (of - 1) if of > 1 else 0.0
    return {
        "color": to_hex(matplotlib.colormaps["plasma"](0.02 + 0.62 * place)),  # up to 3:1 against white
        "linestyle": LINES[index % len(LINES)],
        "marker": MARKERS[index % len(MARKERS)],
        "markersize": 4.5,
    }


def control(index: int) -> dict[str, Any]:
    """The look of a control: grey, dotted, hollow markers of its own."""
    look = {"color": QUIET, "linestyle": ":", "markersize": 6, "markerfacecolor": "none"}
    return look | {"marker": MARKERS[-1 - index % len(MARKERS)]}


def shade(share: float) -> str:
    """The colour of a share, 0..1, in a heat map: ink stays readable on it.

    >>> shade(0.0), shade(1.0)
    ('#ffffff', '#8fb4de')
    """
    return _SHADES["light"][round(share * (SHADES - 1))]


def dark(colour: str) -> str:
    """What a colour of a figure is on the dark page.

    >>> dark(INK), dark("#0d0887")
    ('#e6e8ea', '#8d88f8')
    """
    if colour in _DARK:
        return _DARK[colour]
    hue, lightness, saturation = colorsys.rgb_to_hls(*to_rgb(colour))
    return to_hex(colorsys.hls_to_rgb(hue, 0.88 - 0.45 * lightness, saturation))


def _between(first: str, last: str) -> list[str]:
    """``SHADES`` colours from the first to the last."""
    scale = LinearSegmentedColormap.from_list("", [first, last], SHADES)
    return [to_hex(scale(place)) for place in range(SHADES)]


_SHADES = {"light": _between(GROUND, _DEEPEST["light"]), "dark": _between(_DARK[GROUND], _DEEPEST["dark"])}
_DARK |= dict(zip(_SHADES["light"], _SHADES["dark"], strict=True))
