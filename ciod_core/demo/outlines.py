"""Outlines of the generated shapes, as polygons around the origin.

Legend: V vertices.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

CURVE_VERTICES = 48
SHAPE_NAMES = ("circle", "square", "triangle", "star", "cross", "ring", "hexagon", "crescent", "heart", "arrow")


class Outline(NamedTuple):
    """A closed curve, with a hole or without.

    Attributes:
        outer_V2: vertices (x, y).
        hole_V2: vertices of the hole; empty where there is none.
    """

    outer_V2: FloatArray
    hole_V2: FloatArray

    def transformed(self, matrix_22: FloatArray) -> Outline:
        """The outline after a linear map."""
        return Outline(self.outer_V2 @ matrix_22.T, self.hole_V2 @ matrix_22.T)

    def moved(self, x: float, y: float) -> Outline:
        """The outline after a shift."""
        shift_2 = np.array([x, y])
        return Outline(self.outer_V2 + shift_2, self.hole_V2 + shift_2)

    @property
    def box_4(self) -> FloatArray:
        """The tight box, xyxy."""
        return np.concatenate([self.outer_V2.min(axis=0), self.outer_V2.max(axis=0)])

    @property
    def area(self) -> float:
        """The enclosed area without the hole."""
        return _polygon_area(self.outer_V2) - _polygon_area(self.hole_V2)


def shape_outline(name: str) -> Outline:
    """The outline of one of `SHAPE_NAMES`, about two units across, upright."""
    no_hole = np.zeros((0, 2))
    if name == "ring":
        return Outline(_regular(CURVE_VERTICES), 0.56 * _regular(CURVE_VERTICES))
    polygons = {
        "circle": _regular(CURVE_VERTICES),
        "square": _regular(4, phase=np.pi / 4),
        "triangle": _regular(3, phase=-np.pi / 2),
        "star": _regular(10, phase=-np.pi / 2) * np.tile([1.0, 0.42], 5)[:, None],
        "cross": _cross(arm=0.32),
        "hexagon": _regular(6),
        "crescent": _crescent(offset=0.5, inner_radius=0.82),
        "heart": _heart(),
        "arrow": np.array(
            [(1.0, 0.0), (0.15, 0.8), (0.15, 0.3), (-1.0, 0.3), (-1.0, -0.3), (0.15, -0.3), (0.15, -0.8)]
        ),
    }
    return Outline(polygons[name], no_hole)


def blob_outline(rng: np.random.Generator) -> Outline:
    """An irregular closed curve that belongs to no class."""
    angles_V = np.linspace(0.0, 2.0 * np.pi, CURVE_VERTICES, endpoint=False)
    radii_V = np.ones(CURVE_VERTICES)
    for frequency in (2, 3, 5):
        radii_V += rng.uniform(0.1, 0.28) * np.cos(frequency * angles_V + rng.uniform(0.0, 2.0 * np.pi))
    vertices_V2 = np.stack([np.cos(angles_V), np.sin(angles_V)], axis=1) * np.maximum(radii_V, 0.2)[:, None]
    return Outline(vertices_V2, np.zeros((0, 2)))


def _regular(vertices: int, phase: float = 0.0) -> FloatArray:
    angles_V = phase + np.linspace(0.0, 2.0 * np.pi, vertices, endpoint=False)
    return np.stack([np.cos(angles_V), np.sin(angles_V)], axis=1)


def _cross(arm: float) -> FloatArray:
    quarter = [(1.0, -arm), (1.0, arm), (arm, arm)]
    corners = []
    for turn in range(4):
        cosine, sine = round(np.cos(turn * np.pi / 2)), round(np.sin(turn * np.pi / 2))
        corners += [(cosine * x - sine * y, sine * x + cosine * y) for x, y in quarter]
    return np.array(corners, dtype=np.float64)


def _crescent(offset: float, inner_radius: float) -> FloatArray:
    """The unit disc without a smaller disc shifted to the right."""
    crossing_x = (1.0 + offset**2 - inner_radius**2) / (2.0 * offset)
    outer_angle = np.arccos(crossing_x)
    inner_angle = np.arccos((crossing_x - offset) / inner_radius)
    outer = np.linspace(outer_angle, 2.0 * np.pi - outer_angle, CURVE_VERTICES)
    inner = np.linspace(2.0 * np.pi - inner_angle, inner_angle, CURVE_VERTICES // 2)[1:-1]
    outer_V2 = np.stack([np.cos(outer), np.sin(outer)], axis=1)
    inner_V2 = np.stack([offset + inner_radius * np.cos(inner), inner_radius * np.sin(inner)], axis=1)
    return np.concatenate([outer_V2, inner_V2])


def _heart() -> FloatArray:
    angles_V = np.linspace(0.0, 2.0 * np.pi, CURVE_VERTICES, endpoint=False)
    x = 16.0 * np.sin(angles_V) ** 3
    y = -(13 * np.cos(angles_V) - 5 * np.cos(2 * angles_V) - 2 * np.cos(3 * angles_V) - np.cos(4 * angles_V))
    return np.stack([x, y], axis=1) / 16.0


def _polygon_area(vertices_V2: FloatArray) -> float:
    x, y = vertices_V2[:, 0], vertices_V2[:, 1]
    return float(abs(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1)))) / 2.0
