"""Pictures of cells under a microscope, drawn: what a threshold alone does not find."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8

_BASE = 128
"""The size in pixels for which lengths are given below."""

_GROUND = (0.55, 0.85, 1.0)
_CELL = (1.0, 0.78, 0.92)
"""How strongly each channel shows the background and the cells, where there are several."""


@dataclass(frozen=True)
class _Cell:
    """A wavy ellipse; lengths in pixels, angles in radians."""

    y: float
    x: float
    long: float
    short: float
    angle: float
    waves: tuple[tuple[int, float, float], ...]
    """How often each goes round, how high it is, where it begins."""
    light: float
    nucleus: float
    """How much darker it is; negative: brighter."""
    rim: float


def draw(
    rng: np.random.Generator, size: int, channels: int
) -> tuple[UInt8[np.ndarray, "size size channels"], UInt8[np.ndarray, "size size"]]:
    """A picture and its labels: 1 in cells, 0 elsewhere.

    Args:
        size: height and width in pixels.
        channels: 1 for grey; of others each is its own mixture.
    """
    scale = size / _BASE
    ground = _ground(rng, size)
    light = np.zeros((size, size))
    labels = np.zeros((size, size), np.uint8)
    for cell in _scattered(rng, size, scale):
        _add(cell, light, labels, scale)
    light *= 0.85 + 0.3 * _clouds(rng, size, 24)
    distraction = _distraction(rng, size, scale)
    noise = 0.012 + 0.05 * rng.random()
    picture = np.empty((size, size, channels))
    for channel in range(channels):
        tone = (_GROUND[channel % 3], _CELL[channel % 3]) if channels > 1 else (1.0, 1.0)
        shown = tone[0] * ground + tone[1] * light + distraction
        grain = rng.standard_normal((size, size))
        picture[:, :, channel] = shown + noise * np.sqrt(0.3 + np.clip(shown, 0, 1)) * grain
    return np.clip(np.rint(255 * picture), 0, 255).astype(np.uint8), labels


def _clouds(rng: np.random.Generator, size: int, knots: int) -> Float[np.ndarray, "size size"]:
    """Smooth noise from 0 to 1 that changes about `knots` times across the picture."""
    place = np.linspace(0, knots - 1, size)
    left = np.minimum(place.astype(int), knots - 2)
    part = place - left
    part = part * part * (3 - 2 * part)
    knot = rng.random((knots, knots))  # no matrix product: its last digits differ between machines
    rows = knot[left] * (1 - part)[:, None] + knot[left + 1] * part[:, None]
    return rows[:, left] * (1 - part) + rows[:, left + 1] * part


def _ground(rng: np.random.Generator, size: int) -> Float[np.ndarray, "size size"]:
    """Tissue that is lit from one side, with brighter and darker stretches as bright as cells."""
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    angle = rng.uniform(0, 2 * np.pi)
    slope = rng.uniform(0.05, 0.16) * (np.cos(angle) * x + np.sin(angle) * y)
    texture = 0.26 * _clouds(rng, size, 5) + 0.12 * _clouds(rng, size, 13) + 0.06 * _clouds(rng, size, 40)
    return rng.uniform(0.08, 0.2) + slope + texture - rng.uniform(0.02, 0.1) * (x * x + y * y)


def _scattered(rng: np.random.Generator, size: int, scale: float) -> list[_Cell]:
    """6 to 14 cells that hardly overlap, one in three at the side of another."""
    cells: list[_Cell] = []
    wanted = int(rng.integers(6, 15))
    kind = rng.random()
    for _ in range(12 * wanted):
        if len(cells) == wanted:
            break
        long = scale * rng.uniform(7, 14)
        short = long * rng.uniform(0.6, 1)
        y, x = rng.uniform(0, size, 2)
        if cells and rng.random() < 0.35:
            other = cells[rng.integers(len(cells))]
            turn = rng.uniform(0, 2 * np.pi)
            away = 0.5 * (long + short + other.long + other.short) * rng.uniform(0.9, 1)
            y, x = other.y + away * np.sin(turn), other.x + away * np.cos(turn)
        near = [np.hypot(y - cell.y, x - cell.x) / (long + short + cell.long + cell.short) for cell in cells]
        if min(y, x) < 0 or max(y, x) >= size or min(near, default=1) < 0.44:
            continue
        waves = tuple((k, rng.uniform(0, 0.16 / k), rng.uniform(0, 2 * np.pi)) for k in (2, 3, 5))
        nucleus = rng.uniform(0.3, 0.6) if kind < 0.6 else rng.uniform(-0.3, 0.1)
        rim = rng.uniform(0, 0.15) if kind < 0.6 else rng.uniform(0.15, 0.4)
        turn = rng.uniform(0, np.pi)
        cells.append(_Cell(y, x, long, short, turn, waves, rng.uniform(0.2, 0.42), nucleus, rim))
    return cells


def _add(cell: _Cell, light: np.ndarray, labels: np.ndarray, scale: float) -> None:
    """Draw one cell into both."""
    reach = 1.3 * cell.long
    size = len(labels)
    top, left = max(0, int(cell.y - reach)), max(0, int(cell.x - reach))
    bottom, right = min(size, int(cell.y + reach) + 2), min(size, int(cell.x + reach) + 2)
    dy = np.arange(top, bottom)[:, None] - cell.y
    dx = np.arange(left, right)[None, :] - cell.x
    along = (np.cos(cell.angle) * dx + np.sin(cell.angle) * dy) / cell.long
    across = (np.cos(cell.angle) * dy - np.sin(cell.angle) * dx) / cell.short
    round_ = np.arctan2(across, along)
    edge = 1 + sum(height * np.cos(times * round_ + begin) for times, height, begin in cell.waves)
    far = np.hypot(along, across) / edge
    inside = 1 / (1 + np.exp(np.clip((far - 1) * cell.short / (0.9 * scale), -30, 30)))
    nucleus = cell.nucleus * np.exp(-(((along - 0.15) ** 2 + (across + 0.1) ** 2) / 0.14))
    rim = cell.rim * np.exp(-(((far - 0.85) / 0.14) ** 2))
    window = light[top:bottom, left:right]
    np.maximum(window, cell.light * inside * (1 - nucleus + rim), out=window)
    labels[top:bottom, left:right] |= far < 1


def _distraction(rng: np.random.Generator, size: int, scale: float) -> Float[np.ndarray, "size size"]:
    """What is as bright as cells and is none: specks, scratches, a glow out of focus."""
    y, x = np.arange(size)[:, None], np.arange(size)[None, :]
    light = np.zeros((size, size))
    for _ in range(int(rng.integers(4, 13))):
        at_y, at_x = rng.uniform(0, size, 2)
        light += rng.uniform(0.2, 0.6) * _spot(y, x, at_y, at_x, scale * rng.uniform(0.6, 1.5))
    for _ in range(int(rng.integers(1, 4))):
        at_y, at_x = rng.uniform(0, size, 2)
        light += rng.uniform(0.1, 0.25) * _spot(y, x, at_y, at_x, scale * rng.uniform(10, 20))
    for _ in range(int(rng.integers(1, 4))):
        angle, bend = rng.uniform(0, np.pi), rng.uniform(-0.004, 0.004) / scale
        dy, dx = y - rng.uniform(0, size), x - rng.uniform(0, size)
        along = np.cos(angle) * dx + np.sin(angle) * dy
        off = np.cos(angle) * dy - np.sin(angle) * dx + bend * along * along
        length = scale * rng.uniform(15, 45)
        line = np.exp(-((off / (scale * rng.uniform(0.5, 0.9))) ** 2)) * (np.abs(along) < length)
        light += rng.uniform(0.15, 0.4) * line
    return light


def _spot(y: np.ndarray, x: np.ndarray, at_y: float, at_x: float, wide: float) -> Float[np.ndarray, "size size"]:
    return np.exp(-(((y - at_y) / wide) ** 2)) * np.exp(-(((x - at_x) / wide) ** 2))
