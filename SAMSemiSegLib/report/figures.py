"""The report's figures as inline SVG; colors come from the page's style, light or dark."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape

COLORS = 6
"""Number of series colors in the style; further series share them."""


def curve_figure(
    series: Mapping[str, Mapping[int, float]], total: int, width: float = 480, height: float = 250
) -> str:
    """Losses over the steps: raw values thin, their running mean thick, a legend on top.

    Args:
        series: values by step, by name; the first is the most important.
        total: last step of the axis.
    """
    left, right, top, bottom = 44, 12, 34, 28
    points = {name: _thin(sorted(values.items())) for name, values in series.items() if values}
    values = [value for line in points.values() for _, value in line]
    if not values:
        return ""
    end = max(1.0, total, *(step for line in points.values() for step, _ in line))
    # One early spike must not flatten the rest of the curve.
    ordered = sorted(values)
    highest = ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))]
    ticks = _ticks(min(0.0, ordered[0]), max(highest, 1e-9))
    low, high = ticks[0], ticks[-1]

    def x(step: float) -> float:
        return left + (width - left - right) * step / end

    def y(value: float) -> float:
        clipped = min(max(value, low), high)
        return height - bottom - (height - top - bottom) * (clipped - low) / (high - low)

    parts = [_y_axis(ticks, y, left, width - right)]
    for fraction in (0, 0.5, 1):
        anchor = ("start", "middle", "end")[int(2 * fraction)]
        step = round(end * fraction)
        parts.append(_text(x(step), height - 10, f"{step:,}".replace(",", " "), anchor, "tick"))
    for index, line in reversed(list(enumerate(points.values()))):
        color = f"c{index % COLORS}"
        raw = " ".join(f"{x(step):.1f},{y(value):.1f}" for step, value in line)
        smooth = " ".join(f"{x(step):.1f},{y(value):.1f}" for step, value in _smooth(line))
        parts.append(f'<polyline class="raw {color}" points="{raw}"/>')
        parts.append(f'<polyline class="line {color}" points="{smooth}"/>')
    offset = float(left)
    for index, name in enumerate(points):
        shown = name.replace("_", " ")
        parts.append(f'<rect class="fill c{index % COLORS}" x="{offset}" y="9" width="10" ')
        parts.append('height="4" rx="2"/>')
        parts.append(_text(offset + 14, 15, shown, "start", "key"))
        offset += 26 + 6.2 * len(shown)
    return _svg(width, height, "".join(parts), "Loss over the steps")


def dot_figure(groups: Mapping[str, Sequence[tuple[str, float]]], width: float = 940) -> str:
    """One line of dots for each group, a dot a case, with a bar at the mean; x is Dice, 0..1.

    Args:
        groups: (case id, Dice) by the group's name.
    """
    longest = max((len(name) for name in groups), default=0)
    left, right, top, row = 16 + 6.6 * longest, 44, 8, 46
    height = top + row * len(groups) + 26

    def x(dice: float) -> float:
        return left + (width - left - right) * dice

    parts = []
    for tenth in range(0, 11, 2):
        at = x(tenth / 10)
        parts.append(f'<path class="grid" d="M{at:.1f} {top}V{height - 24}"/>')
        parts.append(_text(at, height - 8, f"{tenth / 10:.1f}", "middle", "tick"))
    for index, (name, cases) in enumerate(groups.items()):
        middle = top + row * (index + 0.5)
        parts.append(_text(left - 12, middle + 4, name, "end", "name"))
        for (case, dice), shift in zip(cases, _swarm([d for _, d in cases]), strict=True):
            parts.append(
                f'<circle class="dot c{index % COLORS}" cx="{x(dice):.1f}" '
                f'cy="{middle + shift:.1f}" r="3.6"><title>{escape(case)}: {dice:.3f}</title>'
                "</circle>"
            )
        if cases:
            mean = sum(dice for _, dice in cases) / len(cases)
            at = x(mean)
            parts.append(f'<path class="mean" d="M{at:.1f} {middle - 17:.1f}v34"/>')
            parts.append(_text(width - right + 8, middle + 4, f"{mean:.3f}", "start", "value"))
    return _svg(width, height, "".join(parts), "Dice of each case")


def histogram_figure(values: Sequence[float], width: float = 940, height: float = 130) -> str:
    """How many of the values, all in 0..1, fall into each twentieth."""
    counts = [0] * 20
    for value in values:
        counts[min(19, max(0, int(value * 20)))] += 1
    left, right, top, bottom = 8, 8, 18, 24
    step = (width - left - right) / 20
    parts = []
    for index, count in enumerate(counts):
        tall = (height - top - bottom) * count / max(1, *counts)
        at = left + step * index
        if count:
            parts.append(
                f'<rect class="fill c0" x="{at + 1:.1f}" y="{height - bottom - tall:.1f}" '
                f'width="{step - 2:.1f}" height="{tall:.1f}" rx="2"/>'
            )
            parts.append(_text(at + step / 2, height - bottom - tall - 4, str(count), "middle"))
    parts.append(f'<path class="axis" d="M{left} {height - bottom}H{width - right}"/>')
    for fifth in range(6):
        anchor = "start" if fifth == 0 else "end" if fifth == 5 else "middle"
        at = left + (width - left - right) * fifth / 5
        parts.append(_text(at, height - 8, f"{fifth / 5:.1f}", anchor, "tick"))
    return _svg(width, height, "".join(parts), "Scores of the pseudo-labels")


def confidence_figure(
    groups: Mapping[str, Sequence[float]],
    line: float | None,
    what: str,
    width: float = 940,
    height: float = 190,
) -> str:
    """Stacked histogram of confidences, with a line from which on a volume was selected.

    The axis goes from the lowest value to 1: whole-volume confidences lie close together there.

    Args:
        groups: values in 0..1 by the group's name, the lowest of the stack first.
        line: where the line is drawn, if anywhere.
        what: its name ("threshold 0.985").
    """
    every = [value for values in groups.values() for value in values]
    if not every:
        return ""
    lowest = min(every) if line is None else min(*every, line)
    span = max(1.0 - lowest, 1e-4) * 1.08
    low, bins = 1.0 - span, 24
    left, right, top, bottom = 8, 8, 40, 24
    step = (width - left - right) / bins

    def x(value: float) -> float:
        return left + (width - left - right) * (value - low) / span

    counts = {name: [0] * bins for name in groups}
    for name, values in groups.items():
        for value in values:
            counts[name][min(bins - 1, max(0, int((value - low) / span * bins)))] += 1
    highest = max(sum(counts[name][i] for name in groups) for i in range(bins))
    unit = (height - top - bottom) / max(1, highest)
    parts = []
    for index in range(bins):
        floor, at = height - bottom, left + step * index
        for color, name in enumerate(groups):
            tall = unit * counts[name][index]
            if tall:
                floor -= tall
                parts.append(
                    f'<rect class="fill c{color}" x="{at + 1:.1f}" y="{floor:.1f}" '
                    f'width="{step - 2:.1f}" height="{tall:.1f}"/>'
                )
        total = sum(counts[name][index] for name in groups)
        if total:
            parts.append(_text(at + step / 2, floor - 4, str(total), "middle"))
    parts.append(f'<path class="axis" d="M{left} {height - bottom}H{width - right}"/>')
    digits = 1 + max(1, math.ceil(-math.log10(span)))
    for fifth in range(6):
        value = low + span * fifth / 5
        anchor = "start" if fifth == 0 else "end" if fifth == 5 else "middle"
        parts.append(_text(x(value), height - 8, f"{value:.{digits}f}", anchor, "tick"))
    offset = float(left)
    for color, name in enumerate(groups):
        shown = f"{name}: {len(groups[name])}"
        parts.append(f'<rect class="fill c{color}" x="{offset}" y="9" width="10" ')
        parts.append('height="4" rx="2"/>')
        parts.append(_text(offset + 14, 15, shown, "start", "key"))
        offset += 30 + 6.2 * len(shown)
    if line is not None:
        at = x(line)
        anchor = "end" if at > width / 2 else "start"
        parts.append(f'<path class="mean" d="M{at:.1f} {top - 8}V{height - bottom}"/>')
        shift = -5 if anchor == "end" else 5
        parts.append(_text(at + shift, top - 2, what, anchor, "key"))
    return _svg(width, height, "".join(parts), "Confidence")


def _svg(width: float, height: float, contents: str, label: str) -> str:
    return (
        f'<svg viewBox="0 0 {width:g} {height:g}" width="{width:g}" role="img" '
        f'aria-label="{escape(label)}">{contents}</svg>'
    )


def _text(x: float, y: float, text: str, anchor: str, kind: str = "tick") -> str:
    return (
        f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
    )


def _y_axis(ticks: Sequence[float], y: Callable[[float], float], left: float, right: float) -> str:
    parts = []
    for tick in ticks:
        parts.append(f'<path class="grid" d="M{left} {y(tick):.1f}H{right}"/>')
        parts.append(_text(left - 6, y(tick) + 4, f"{tick:g}", "end", "tick"))
    return "".join(parts)


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers from at most ``low`` to at least ``high``, about four of them."""
    span = max(high - low, 1e-9)
    power = 10 ** math.floor(math.log10(span / 4))
    step = next(power * m for m in (1, 2, 2.5, 5, 10) if span / (power * m) <= 4)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [float(f"{i * step:.10g}") for i in range(first, max(last, first + 1) + 1)]


def _thin(line: list[tuple[int, float]], most: int = 300) -> list[tuple[float, float]]:
    """At most ``most`` points, each the mean of as many neighbors."""
    size = math.ceil(len(line) / most)
    chunks = [line[i : i + size] for i in range(0, len(line), max(1, size))]
    return [
        (sum(step for step, _ in chunk) / len(chunk), sum(v for _, v in chunk) / len(chunk))
        for chunk in chunks
    ]


def _smooth(line: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Running mean over a fifteenth of the points on both sides together."""
    reach = max(1, len(line) // 30)
    smooth = []
    for index, (step, _) in enumerate(line):
        near = line[max(0, index - reach) : index + reach + 1]
        smooth.append((step, sum(value for _, value in near) / len(near)))
    return smooth


def _swarm(values: Sequence[float], size: float = 0.014, most: int = 3) -> list[float]:
    """Vertical shifts in pixels that keep dots of like values apart, as far as the line is wide."""
    placed: list[tuple[float, int]] = []
    shifts = [0.0] * len(values)
    order = [0]
    for slot in range(1, most + 1):
        order += [slot, -slot]
    for index in sorted(range(len(values)), key=lambda i: values[i]):
        taken = {slot for value, slot in placed if values[index] - value < size}
        slot = next((s for s in order if s not in taken), order[index % len(order)])
        placed = [*placed[-20:], (values[index], slot)]
        shifts[index] = slot * 5.6
    return shifts
