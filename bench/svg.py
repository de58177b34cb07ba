"""Draws a result's plots as SVG text: lines over linear or logarithmic axes, and stacked bars. Nothing to install."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape

WIDTH, HEIGHT = 720, 360
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 190, 34, 44
COLORS = ("#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2", "#7f7f7f", "#bcbd22", "#17becf")
Points = Sequence[tuple[float, float]]


def lines(title: str, x_label: str, y_label: str, series: Mapping[str, Points], *, log_y: bool = False) -> str:
    """Return a plot of named lines."""
    points = [point for line in series.values() for point in line]
    most_x = max((x for x, _ in points), default=1.0) or 1.0
    values = [y for _, y in points if y > 0]
    most_y, least_y = max(values, default=1.0), min(values, default=0.1)
    place_y = _log(max(least_y, 0.01), most_y) if log_y else _linear(most_y)
    parts = [_frame(title, x_label, y_label)]
    ticks = _decades(max(least_y, 0.01), most_y) if log_y else [most_y * share / 4 for share in range(5)]
    parts += [_y_tick(place_y(tick), tick) for tick in ticks]
    for share in range(5):
        x = _LEFT + share / 4 * (WIDTH - _LEFT - _RIGHT)
        parts.append(_text(x, HEIGHT - _BOTTOM + 16, _short(most_x * share / 4), "middle"))
    for index, (name, line) in enumerate(series.items()):
        path = " ".join(
            f"{_LEFT + x / most_x * (WIDTH - _LEFT - _RIGHT):.1f},{place_y(max(y, 0.01) if log_y else y):.1f}"
            for x, y in line
        )
        color = COLORS[index % len(COLORS)]
        parts.append(f'<polyline fill="none" stroke="{color}" stroke-width="1.5" points="{path}"/>')
        parts.append(_legend(index, name, color))
    return _document(parts)


def stacked(title: str, y_label: str, bars: Mapping[str, Mapping[str, float]]) -> str:
    """Return a bar for each name, made of named parts."""
    kinds = list(dict.fromkeys(kind for bar in bars.values() for kind in bar))
    most = max((sum(bar.values()) for bar in bars.values()), default=1.0) or 1.0
    place = _linear(most)
    parts = [_frame(title, "", y_label), *(_y_tick(place(most * share / 4), most * share / 4) for share in range(5))]
    step = (WIDTH - _LEFT - _RIGHT) / max(len(bars), 1)
    for number, (name, bar) in enumerate(bars.items()):
        x, below = _LEFT + number * step + step * 0.15, 0.0
        for kind, value in bar.items():
            top, bottom = place(below + value), place(below)
            color = COLORS[kinds.index(kind) % len(COLORS)]
            parts.append(
                f'<rect x="{x:.1f}" y="{top:.1f}" width="{step * 0.7:.1f}" height="{bottom - top:.1f}" fill="{color}"/>'
            )
            below += value
        parts.append(_text(x + step * 0.35, HEIGHT - _BOTTOM + 16, name, "middle"))
    parts += [_legend(index, kind, COLORS[index % len(COLORS)]) for index, kind in enumerate(kinds)]
    return _document(parts)


def _linear(most: float) -> Callable[[float], float]:
    return lambda value: HEIGHT - _BOTTOM - value / most * (HEIGHT - _TOP - _BOTTOM)


def _log(least: float, most: float) -> Callable[[float], float]:
    low, high = math.floor(math.log10(least)), math.log10(most * 1.1)
    return lambda value: HEIGHT - _BOTTOM - (math.log10(value) - low) / (high - low) * (HEIGHT - _TOP - _BOTTOM)


def _decades(least: float, most: float) -> list[float]:
    return [10.0**power for power in range(math.floor(math.log10(least)), math.floor(math.log10(most)) + 1)]


def _frame(title: str, x_label: str, y_label: str) -> str:
    middle = _LEFT + (WIDTH - _LEFT - _RIGHT) / 2
    return (
        _text(middle, 20, title, "middle", size=14)
        + _text(middle, HEIGHT - 8, x_label, "middle")
        + f'<g transform="rotate(-90 14 {HEIGHT / 2:.0f})">{_text(14, HEIGHT / 2, y_label, "middle")}</g>'
        + f'<path d="M{_LEFT} {_TOP}V{HEIGHT - _BOTTOM}H{WIDTH - _RIGHT}" fill="none" stroke="#444"/>'
    )


def _y_tick(y: float, value: float) -> str:
    return (
        f'<path d="M{_LEFT} {y:.1f}H{WIDTH - _RIGHT}" stroke="#ddd" stroke-width="0.5"/>'
        f"{_text(_LEFT - 6, y + 4, _short(value), 'end')}"
    )


def _legend(index: int, name: str, color: str) -> str:
    y = _TOP + 10 + 18 * index
    x = WIDTH - _RIGHT + 12
    return f'<rect x="{x}" y="{y - 9}" width="10" height="10" fill="{color}"/>{_text(x + 16, y, name, "start")}'


def _text(x: float, y: float, text: str, anchor: str, *, size: int = 11) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}">{escape(text)}</text>'


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{value:g}" if value == round(value, 1) else f"{value:.2g}"


def _document(parts: Sequence[str]) -> str:
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif">'
        f'<rect width="100%" height="100%" fill="white"/>\n{body}\n</svg>\n'
    )
