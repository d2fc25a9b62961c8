"""Make the synthetic drawings, vae_utils/static/strokes.json: eight of each digit as pen strokes, by a script, nobody's hand.

python tools/strokes.py

Each drawing is a template (a few points a stroke, joined by a smooth curve) whose points are moved at random and which is
slanted, turned, stretched and placed at random. They stand in for a reader's drawings where one is needed.
"""

import argparse
import json
from itertools import pairwise
from pathlib import Path

import numpy as np
from scipy.interpolate import CubicSpline

from vae_utils.cache import write_atomically

FILE = Path(__file__).resolve().parent.parent / "vae_utils" / "static" / "strokes.json"
EACH = 8
# Strokes of points (x, y) in a box of 100 by 100, y downwards; a digit's variants in turn. A point given twice is a corner.
TEMPLATES = {
    0: ["50,0 15,20 10,60 35,98 70,95 90,55 80,15 50,0"],
    1: ["52,0 50,50 48,100", "30,22 55,0 55,0 52,50 50,100"],
    2: [
        "15,25 35,2 70,5 80,30 55,62 15,98 15,98 50,96 88,98",
        "18,22 45,0 78,18 65,55 30,88 18,90 25,78 50,90 88,96",
    ],
    3: ["18,12 50,0 80,20 50,45 50,45 85,65 70,95 40,100 12,85", "20,5 50,0 75,15 45,44 80,62 75,92 40,100 15,92"],
    4: [
        "60,0 35,35 10,65 10,65 50,66 92,64 | 66,30 64,65 62,100",
        "20,5 15,35 18,52 18,52 50,55 80,50 | 82,0 78,50 74,100",
    ],
    5: [
        "22,5 20,42 20,42 55,35 85,60 70,95 35,100 12,85 | 22,5 50,4 82,2",
        "80,3 30,5 30,5 24,45 24,45 60,38 84,65 60,98 15,92",
    ],
    6: ["70,0 35,25 15,65 30,97 70,95 78,65 50,52 20,70"],
    7: ["12,8 50,6 85,5 85,5 62,45 42,100", "12,8 50,6 85,5 85,5 62,45 42,100 | 35,52 60,50 82,48"],
    8: ["72,15 45,0 22,20 50,47 80,75 55,100 22,82 45,52 75,25 72,15"],
    9: [
        "78,22 50,0 20,20 30,48 65,45 78,22 78,22 74,60 66,100",
        "78,18 45,0 18,25 40,50 76,30 80,20 76,70 60,96 30,98",
    ],
}


def curve(points: np.ndarray) -> np.ndarray:
    """A smooth curve through `points` (N, 2), with a corner where a point is given twice: about three points per unit of 0.1."""
    corners = [0, *(i + 1 for i in range(len(points) - 1) if (points[i] == points[i + 1]).all()), len(points)]
    pieces = []
    for first, last in pairwise(corners):
        piece = points[first:last]
        place = np.concatenate([[0], np.sqrt(np.linalg.norm(np.diff(piece, axis=0), axis=1)).cumsum()])
        count = max(3, round(30 * np.linalg.norm(np.diff(piece, axis=0), axis=1).sum()))
        pieces.append(CubicSpline(place, piece)(np.linspace(0, place[-1], min(count, 28))))
    return np.concatenate(pieces)


def drawing(digit: int, variant: int, random: np.random.Generator) -> list[list[list[float]]]:
    """Strokes of points in [0, 1], y downwards, rounded to three decimals."""
    templates = TEMPLATES[digit]
    strokes = [
        np.array([[float(v) / 100 for v in point.split(",")] for point in stroke.split()])
        for stroke in templates[variant % len(templates)].split(" | ")
    ]
    slant, turn = random.normal(0, 0.15), random.normal(0, 0.06)
    size = random.uniform(0.6, 0.8) * np.array([random.uniform(0.6, 0.85), 1])
    corner = np.array([random.uniform(0.08, 0.92 - size[0] - 0.08), random.uniform(0.08, 0.92 - size[1])])
    done = []
    for points in strokes:
        moved = {tuple(p): p + random.normal(0, 0.025, 2) for p in points}  # a point given twice moves once
        points = np.array([moved[tuple(p)] for p in points]) - 0.5
        points[:, 0] -= slant * points[:, 1]
        points = points @ np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]]) + 0.5
        points = curve(corner + size * points) + random.normal(0, 0.002, 2)
        done.append(np.round(points.clip(0.01, 0.99), 3).tolist())
    return done


def main(arguments: list[str] | None = None) -> None:
    argparse.ArgumentParser(prog="strokes.py", description=__doc__.splitlines()[0]).parse_args(arguments)
    random = np.random.default_rng(0)
    entries = [{"digit": digit, "strokes": drawing(digit, i, random)} for i in range(EACH) for digit in TEMPLATES]
    lines = ",\n".join(json.dumps(entry, separators=(",", ":")) for entry in entries)
    write_atomically(FILE, f"[\n{lines}\n]\n".encode())
    print(f"{len(entries)} drawings, {sum(len(s) for e in entries for s in e['strokes'])} points: {FILE.name}")


if __name__ == "__main__":
    main()
