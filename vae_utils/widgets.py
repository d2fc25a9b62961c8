"""Widgets: sliders that move a code, and a picture of what the decoder makes of it.

Only what ipywidgets 7.7 and 8 share is used, and the picture is a `widgets.Image` whose bytes change in place, so that
nothing flickers. An error in a callback is written in red below the sliders. For tests in a browser the outermost boxes have
the CSS classes `vae-plane`, `vae-morph` and `vae-latents`; inside, pictures have `vae-picture` (decoded) and `vae-original`
(a test digit), the line for errors `vae-error`.
"""

import functools
import html
import io
from collections.abc import Callable, Sequence

import ipywidgets as widgets
import matplotlib
import numpy as np
import torch
from IPython.display import display
from PIL import Image
from torch import Tensor

from vae_utils.drawing import DrawDigit as DrawDigit  # the canvas is a widget, too
from vae_utils.inference import decode, encode
from vae_utils.model import VAE, Autoencoder
from vae_utils.plotting import CMAP

PICTURE_SIDE = 224  # pixels on the screen: 8 for each of a digit's 28


def array_png(grey: np.ndarray, side: int | None = None) -> bytes:
    """Greys `(H, W)` in [0, 1] as the bytes of a coloured PNG, `side` pixels wide (default: one for each grey)."""
    coloured = Image.fromarray(matplotlib.colormaps[CMAP](grey, bytes=True)[..., :3])
    side = side or grey.shape[1]
    size = (side, round(side * grey.shape[0] / grey.shape[1]))
    buffer = io.BytesIO()
    coloured.resize(size, Image.Resampling.NEAREST).save(buffer, format="png", compress_level=1)
    return buffer.getvalue()


def image_png(image: Tensor, side: int = PICTURE_SIDE) -> bytes:
    """One image `(1, H, W)` in [0, 1] as the bytes of a coloured PNG, `side` pixels wide."""
    return array_png(image[0].detach().cpu().numpy(), side)


def png(model: Autoencoder, z: Tensor | Sequence[float]) -> bytes:
    """What the decoder makes of one code `(latent_dim,)`, as the bytes of a PNG."""
    return image_png(decode(model, torch.as_tensor(z, dtype=torch.float32)[None])[0])


def _picture(css_class: str, side: int = PICTURE_SIDE) -> widgets.Image:
    picture = widgets.Image(format="png", width=side, height=side)
    picture.add_class(css_class)
    return picture


class _Explorer:
    """A picture, a line for errors, and a box around both; what moves the picture comes from the classes below."""

    def __init__(self, model: Autoencoder, css_class: str):
        self.model = model
        self.picture = _picture("vae-picture")
        self.error = widgets.HTML()
        self.error.add_class("vae-error")
        self.box = widgets.HBox()
        self.box.add_class(css_class)

    def _show_errors(self, action: Callable[[], None]) -> Callable[..., None]:
        """`action` as a callback: what it raises is shown to the reader, and the next success takes it away again."""

        def callback(*_) -> None:
            try:
                action()
                self.error.value = ""
            except Exception as error:
                text = html.escape(f"{type(error).__name__}: {error}")
                self.error.value = f'<span style="color: #b00020">{text}</span>'

        return callback

    def _slider(self, name: str, low: float, high: float, action: Callable[[float], None]) -> widgets.FloatSlider:
        """A slider that calls `action(value)` while it moves; it starts at 0."""
        slider = widgets.FloatSlider(0.0, min=low, max=high, step=0.01, description=name, continuous_update=True)
        slider.observe(self._show_errors(lambda: action(slider.value)), names="value")
        return slider

    def _ipython_display_(self) -> None:
        display(self.box)


class PlaneExplorer(_Explorer):
    """Two sliders, one for each number of a two-dimensional code, from −`limit` to `limit`, and the decoded picture.

    Raises ValueError for a model with other than two latent dimensions.
    """

    def __init__(self, model: Autoencoder, limit: float = 3.0):
        if model.latent_dim != 2:
            raise ValueError(f"The model has {model.latent_dim} latent dimensions; the plane needs 2.")
        super().__init__(model, "vae-plane")
        self.sliders = [self._slider(name, -limit, limit, self.draw) for name in ("z₁", "z₂")]
        self.box.children = [widgets.VBox([*self.sliders, self.error]), self.picture]
        self.draw()

    def draw(self, _=None) -> None:
        """Decode the point at which both sliders stand."""
        self.picture.value = png(self.model, [slider.value for slider in self.sliders])


class MorphExplorer(_Explorer):
    """One slider that walks along a path of at least two codes `(steps, latent_dim)`, from 0 (the first) to 1 (the last)."""

    def __init__(self, model: Autoencoder, path: Tensor):
        super().__init__(model, "vae-morph")
        self.path = path
        self.slider = self._slider("morph", 0.0, 1.0, self.draw)
        self.box.children = [widgets.VBox([self.slider, self.error]), self.picture]
        self.draw(0.0)

    def draw(self, share: float) -> None:
        """Decode the code at `share` of the way, between its two neighbours on the path."""
        place = share * (len(self.path) - 1)
        before = min(int(place), len(self.path) - 2)
        self.picture.value = png(self.model, torch.lerp(self.path[before], self.path[before + 1], place - before))


class LatentExplorer(_Explorer):
    """One slider for each of the latent dimensions `latents`, in the order wanted, and two buttons that set them all.

    "encode a test digit" takes the code of the image whose number is in the box beside it, and shows that image;
    "random" draws a code from N(0, I). Latent dimensions without a slider keep what the last button gave them.
    A slider stops at ±`limit`; a code beyond is drawn as it is until that slider is moved.
    """

    def __init__(self, model: VAE, images: Tensor, latents: Sequence[int], limit: float = 3.0, seed: int = 0):
        super().__init__(model, "vae-latents")
        self.images, self.latents = images, [int(latent) for latent in latents]
        self.code = torch.zeros(model.latent_dim)
        self._generator = torch.Generator().manual_seed(seed)
        self._setting_all = False
        self.sliders = [
            self._slider(f"z[{latent}]", -limit, limit, functools.partial(self.move, latent)) for latent in self.latents
        ]
        self.number = widgets.BoundedIntText(value=0, min=0, max=len(images) - 1, description="test digit")
        self.encode_button = widgets.Button(description="encode a test digit")
        self.random_button = widgets.Button(description="random")
        self.encode_button.on_click(self._show_errors(self.encode_image))
        self.random_button.on_click(self._show_errors(self.draw_random))
        self.original = _picture("vae-original", PICTURE_SIDE // 2)
        buttons = widgets.VBox([self.number, widgets.HBox([self.encode_button, self.random_button])])
        pictures = widgets.VBox([self.picture, self.original])
        self.box.children = [widgets.VBox([*self.sliders, buttons, self.error]), pictures]
        self.encode_image()

    def encode_image(self) -> None:
        """Take over the code (mu) of the image whose number is in the box."""
        image = self.images[self.number.value]
        self._set(encode(self.model, image[None])[0][0])
        self.original.value = image_png(image, PICTURE_SIDE // 2)

    def draw_random(self) -> None:
        """Take a code from the prior."""
        self._set(torch.randn(self.model.latent_dim, generator=self._generator))
        self.original.value = image_png(torch.zeros(1, *self.images.shape[-2:]), PICTURE_SIDE // 2)

    def _set(self, code: Tensor) -> None:
        self._setting_all = True  # one picture for all sliders, not one for each
        try:
            for slider, latent in zip(self.sliders, self.latents, strict=True):
                slider.value = float(np.clip(code[latent], slider.min, slider.max))
        finally:
            self._setting_all = False
        self.code = code.clone()
        self.picture.value = png(self.model, self.code)

    def move(self, latent: int, value: float) -> None:
        """Give one latent dimension another value."""
        if not self._setting_all:
            self.code[latent] = value
            self.picture.value = png(self.model, self.code)
