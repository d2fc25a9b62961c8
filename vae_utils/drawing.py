"""The reader's own handwriting: pen strokes to an image in MNIST's frame, and what the models of the series make of it.

`DrawDigit` shows it in a notebook; static/draw.js is its front end, and serves the pages of `make html` too, where
JavaScript computes what `panels` does here.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import anywidget
import numpy as np
import torch
import traitlets
from IPython.display import display
from matplotlib.figure import Figure
from torch import Tensor

from vae_utils import plotting
from vae_utils.data import ImageData, into_mnist_frame
from vae_utils.model import VAE
from vae_utils.panels import Panels

STATIC = Path(__file__).parent / "static"
SIDE = 112  # of the canvas, in pixels
PEN = 12.0  # the pen's width in them: synthetic drawings have about as much ink as MNIST's digits
MOST_POINTS = 20_000

Strokes = Sequence[Sequence[Sequence[float]]]


def ink(strokes: Strokes) -> np.ndarray:
    """Strokes drawn with a round pen: `(SIDE, SIDE)`, 0 black to 1 ink, edges one pixel soft.

    strokes: lists of points `(x, y)` in [0, 1], y downwards. Raises ValueError for an empty drawing, more than
    `MOST_POINTS` points, points that are no pairs, and coordinates that are not finite or outside [0, 1].
    """
    if not strokes or not all(len(stroke) for stroke in strokes):
        raise ValueError("The drawing is empty; draw a digit with at least one stroke.")
    if (count := sum(map(len, strokes))) > MOST_POINTS:
        raise ValueError(f"The drawing has {count} points; at most {MOST_POINTS}. Clear it and draw again.")
    image = np.zeros((SIDE, SIDE))
    for stroke in strokes:
        points = np.asarray(stroke, dtype=np.float64)
        if points.ndim != 2 or points.shape[1] != 2:
            raise ValueError(f"A stroke has shape {points.shape}; expected (points, 2).")
        if not ((points >= 0) & (points <= 1)).all():  # NaN compares false
            bad = points[~((points >= 0) & (points <= 1)).all(axis=1)][0].tolist()
            raise ValueError(f"A stroke passes through {bad}; expected coordinates in [0, 1].")
        points = SIDE * points - 0.5
        for a, b in zip(points, points[min(1, len(points) - 1) :], strict=False):
            reach = PEN / 2 + 1
            low = np.floor(np.maximum(np.minimum(a, b) - reach, 0)).astype(int)
            high = np.ceil(np.minimum(np.maximum(a, b) + reach, SIDE - 1)).astype(int) + 1
            y, x = np.mgrid[low[1] : high[1], low[0] : high[0]]
            along = ((x - a[0]) * (b - a)[0] + (y - a[1]) * (b - a)[1]) / max((b - a) @ (b - a), 1e-12)
            along = along.clip(0, 1)
            distance = np.hypot(x - a[0] - along * (b - a)[0], y - a[1] - along * (b - a)[1])
            window = image[low[1] : high[1], low[0] : high[0]]
            np.maximum(window, (PEN / 2 + 0.5 - distance).clip(0, 1), out=window)
    return image


def framed(strokes: Strokes) -> Tensor:
    """A drawing as a batch of one in MNIST's frame: float32 `(1, 1, 28, 28)` in [0, 1]. Raises ValueError as `ink` does."""
    return torch.from_numpy(into_mnist_frame(ink(strokes)))[None, None]


def synthetic_strokes() -> list[tuple[int, Strokes]]:
    """The drawings in static/strokes.json as `(digit, strokes)`: made by tools/strokes.py, drawn by nobody's hand."""
    return [(entry["digit"], entry["strokes"]) for entry in json.loads((STATIC / "strokes.json").read_text())]


def synthetic_drawings() -> tuple[Tensor, Tensor]:
    """Those drawings in the widget's pen: images `(N, 1, 28, 28)` in [0, 1], their digits `(N,)`."""
    digits, strokes = zip(*synthetic_strokes(), strict=True)
    return torch.cat([framed(drawing) for drawing in strokes]), torch.tensor(digits)


class DrawDigit(anywidget.AnyWidget):
    """A canvas for mouse, pen and finger; beside it, live, what `Panels` has to show under the name `panel`.

    Where no kernel runs, a picture of the panel for a synthetic drawing of `digit` stands there, with a description; the pages
    of `make html` have the live panel in its place. Further arguments are those of `Panels`. Raises ValueError for a panel
    that does not exist. What goes wrong with a drawing is written below the canvas, and the drawing stays.
    """

    _esm = (STATIC / "draw.js").read_text(encoding="utf-8")
    _css = (STATIC / "draw.css").read_text(encoding="utf-8")
    panel = traitlets.Unicode().tag(sync=True)
    examples = traitlets.List().tag(sync=True)

    def __init__(self, vae: VAE, data: ImageData, panel: str = "code", *, digit: int = 3, **options):
        if panel not in Panels.NAMES[1:]:
            raise ValueError(f"There is no panel {panel!r}; choose one of {', '.join(Panels.NAMES[1:])}.")
        self.panels, drawings = Panels(vae, data, **options), dict(synthetic_strokes())
        self._drawing = drawings[digit]
        super().__init__(panel=panel, examples=list(drawings.values()))
        self.on_msg(self._answer)

    def _answer(self, _, request: dict, __=None) -> None:
        try:
            reply = self.panels.answer(framed(request["strokes"]), request["panels"], request.get("options"))
        except Exception as error:  # whatever it is, the reader sees it below the canvas
            reply = {"error": f"{type(error).__name__}: {error}"}
        self.send({"id": request.get("id"), "reply": reply})

    def still(self) -> tuple[Figure, str]:
        """The picture that stands where no kernel runs, and its description."""
        x = framed(self._drawing)
        shown = {"drawn": x} | {k: v for k, v in getattr(self.panels, self.panel)(x).items() if isinstance(v, Tensor)}
        names = [name if place == 0 else "" for name, images in shown.items() for place in range(len(images))]
        figure = plotting.image_rows({"": torch.cat([*shown.values()])}, "Drawn by a script", columns=names)
        return figure, f"A synthetic drawing and what the panel makes of it, from left to right: {', '.join(shown)}."

    def _ipython_display_(self, **_) -> None:
        bundle, metadata = self._repr_mimebundle_()
        if "google.colab" not in sys.modules:  # whose notebooks are not committed
            figure, alt = self.still()
            bundle |= {"image/png": plotting.png_base64(figure), "text/plain": alt}
            metadata |= {"image/png": {"alt": alt, "panel": self.panel}}
        display(bundle, metadata=metadata, raw=True)
