"""Plotting: figures of about 100 dpi, many images tiled into one, colours that colour-blind readers can tell apart."""

import base64
import html
import io
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
import torch
from IPython.display import display
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor, nn

from vae_utils.training import History

PALETTE = sns.color_palette("colorblind")
CMAP, DPI = "magma", 100


def set_style() -> None:
    """The look of every figure of the series; call once, in a notebook's first cell."""
    look = {"figure.dpi": DPI, "savefig.dpi": DPI, "figure.constrained_layout.use": True, "axes.titlesize": 12}
    sns.set_theme(context="notebook", style="whitegrid", palette="colorblind", rc=look)


def show(figure: Figure, alt: str, name: str | None = None) -> None:
    """Put a figure into the notebook as PNG, with `alt` as its description for those who cannot see it; closes the figure.

    With a `name` it is also for the README: docs/figures/<name>.png. Raises ValueError for an empty description.
    """
    _display("image/png", png_base64(figure), alt, name)


def png_base64(figure: Figure) -> str:
    """A figure as PNG in base64, which is how a notebook keeps it; closes the figure."""
    figure.savefig(buffer := io.BytesIO(), format="png", dpi=DPI)
    plt.close(figure)
    return base64.b64encode(buffer.getvalue()).decode()


def show_animation(frames: Tensor, alt: str, name: str | None = None) -> None:
    """Put frames `(N, 1, H, W)` in [0, 1] into the notebook as an animated GIF of 4 s, as HTML; otherwise like `show`."""
    gif = base64.b64encode(_gif(frames)).decode()  # not every viewer of notebooks knows GIF as a kind of output
    _display("text/html", f'<img src="data:image/gif;base64,{gif}" alt="{html.escape(alt)}">', alt, name)


def _display(kind: str, data: str, alt: str, name: str | None) -> None:
    if not alt.strip():
        raise ValueError("alt is empty; describe in a sentence what the figure shows.")
    metadata = {"alt": alt} | ({"name": name} if name else {})
    display({kind: data, "text/plain": alt}, metadata={kind: metadata}, raw=True)


def _gif(frames: Tensor, side: int = 140) -> bytes:
    palette = (255 * plt.get_cmap(CMAP)(np.arange(256))[:, :3]).round().astype(np.uint8).tobytes()
    pictures = []
    for grey in (255 * frames[:, 0]).round().to("cpu").numpy().astype(np.uint8):
        size = (side, round(side * grey.shape[0] / grey.shape[1]))
        pictures.append(Image.fromarray(grey).resize(size, Image.Resampling.NEAREST))
        pictures[-1].putpalette(palette)  # 256 greys, 256 colours: nothing is lost
    pause = max(20, round(4000 / len(frames)))  # browsers slow down what is faster than 20 ms a frame
    buffer = io.BytesIO()
    pictures[0].save(buffer, "gif", save_all=True, append_images=pictures[1:], duration=pause, loop=0, optimize=False)
    return buffer.getvalue()


def tile(images: Tensor, columns: int, gap: int = 2) -> np.ndarray:
    """A grid of images `(N, 1, H, W)` as one array, row by row, `gap` empty (NaN) pixels between them."""
    height, width = images.shape[-2] + gap, images.shape[-1] + gap
    single = images.detach().cpu().float().reshape(-1, *images.shape[-2:]).numpy()
    padded = np.pad(single, ((0, -len(single) % columns), (0, gap), (0, gap)), constant_values=np.nan)
    grid = padded.reshape(-1, columns, height, width).swapaxes(1, 2).reshape(-1, columns * width)
    return grid[: len(grid) - gap, : columns * width - gap]


def _image_figure(images: Tensor, columns: int, title: str, size: tuple[float, float]) -> tuple[Figure, plt.Axes]:
    figure, axes = plt.subplots(figsize=size)
    axes.imshow(tile(images, columns), cmap=CMAP, vmin=0, vmax=1, interpolation="nearest")
    axes.set(title=title, xticks=[], yticks=[], frame_on=False)
    axes.grid(False)
    axes.tick_params(length=0)
    return figure, axes


def image_grid(images: Tensor, columns: int, title: str, *, inches_each: float = 0.62) -> Figure:
    """Images `(N, 1, H, W)` in [0, 1], row by row."""
    rows = -(-len(images) // columns)
    return _image_figure(images, columns, title, (columns * inches_each + 0.2, rows * inches_each + 0.4))[0]


def image_rows(
    rows: Mapping[str, Tensor], title: str, *, columns: Sequence[str] | None = None, inches_each: float = 0.8
) -> Figure:
    """Rows of images to compare, one labelled row an entry: `{"original": (N, 1, H, W), "reconstructed": ...}`.

    columns: a label under each column. Raises ValueError when the rows differ in length.
    """
    lengths = {name: len(images) for name, images in rows.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"Rows of different lengths: {lengths}; give the same number of images in each.")
    images = torch.stack([row.detach().cpu() for row in rows.values()])
    count, _, height, width = images.shape[1:]
    figure, axes = _image_figure(images, count, title, (count * inches_each + 1.3, len(rows) * inches_each + 0.5))
    axes.set_yticks([(height + 2) * (row + 0.5) for row in range(len(rows))], list(rows))
    if columns is not None:
        axes.set_xticks([(width + 2) * (column + 0.5) for column in range(count)], list(columns))
    return figure


def class_map(axes: plt.Axes, codes: Tensor, labels: Tensor, names: Sequence[str], edge: float) -> None:
    """Codes `(N, 2)` within `edge`, coloured by class (at most ten, none empty); names amid each class's half farthest from 0."""
    halves = [d[d.norm(dim=1) >= d.norm(dim=1).median()] for d in (codes[labels == n] for n in range(len(names)))]
    spots = torch.stack([half[(half - half.median(0).values).norm(dim=1).argmin()] for half in halves])
    for _ in range(60):  # names that would overlap move apart
        apart = spots[:, None] - spots
        spots = spots + 0.1 * (apart * (apart.norm(dim=2, keepdim=True) < 0.15 * edge)).sum(1)
    axes.scatter(*codes.T, s=5, color=[PALETTE[label] for label in labels.tolist()], alpha=0.6, linewidths=0)
    for spot, name, color in zip(spots, names, PALETTE, strict=False):
        axes.text(*spot, name, ha="center", va="center", bbox={"fc": "white", "ec": color, "lw": 2, "pad": 2})
    axes.set(xlim=(-edge, edge), ylim=(-edge, edge), xlabel="z₁", ylabel="z₂", aspect="equal")


def label_end(axes: plt.Axes, x: Sequence[float], y: Sequence[float], text: str, color) -> None:
    """Write a line's name at its last point, in its colour: no legend to look up."""
    place = {"xytext": (6, 0), "textcoords": "offset points", "va": "center", "annotation_clip": False}
    axes.annotate(text, (x[-1], y[-1]), color=color, **place)


def training_curves(history: History, title: str) -> Figure:
    """Loss, reconstruction and KL in nats per image: the loss of every training step, means over the epochs, validation."""
    figure, axes = plt.subplots(1, 3, figsize=(10, 3.2), sharex=True)
    epochs = history.column("epoch")
    names = {"loss": "loss = reconstruction + β·KL", "recon": "reconstruction", "kl": "KL"}
    if history.steps:
        passed = np.arange(1, len(history.steps) + 1) * len(epochs) / len(history.steps)
        axes[0].plot(passed, history.steps, color=PALETTE[0], lw=0.7, alpha=0.6, label="every step")
    for panel, (key, name), color in zip(axes, names.items(), PALETTE, strict=False):
        panel.plot(epochs, history.column(key), color=color, marker="o", ms=3, label="training (mean over the epoch)")
        if f"val_{key}" in history.epochs[0]:
            panel.plot(epochs, history.column(f"val_{key}"), "kx", ms=7, label="validation (end of the epoch)")
        panel.set(title=name, xlabel="epoch", ylabel="nats per image")
        panel.xaxis.get_major_locator().set_params(integer=True)
        panel.legend(fontsize=8)
    figure.suptitle(title)
    return figure


def layer_shapes(model: nn.Module, x: Tensor) -> list[tuple[str, str, tuple[int, ...]]]:
    """`(name, kind, output shape without the batch)` of each layer, in the order in which a forward pass of `x` uses them."""
    seen, names = [], {layer: name for name, layer in model.named_modules() if name and not list(layer.children())}

    def note(layer: nn.Module, _, out: Tensor) -> None:
        if layer in names:
            seen.append((names[layer], type(layer).__name__, tuple(out.shape[1:])))

    with nn.modules.module.register_module_forward_hook(note):
        model(x)
    return seen


def architecture(model: nn.Module, x: Tensor) -> Figure:
    """The network drawn from the layers that a forward pass really uses: encoder, latent distribution, code, decoder.

    Bar heights follow the logarithm of the number of values a layer puts out.
    """
    layers = layer_shapes(model, x)
    code = [name for name, _, _ in layers].index("fc21")
    encoder, decoder = layers[:code], layers[code + 2 :]
    latent_shape = layers[code][2]
    columns = [("x", "", tuple(x.shape[1:])), *encoder, None, ("z", "mu + σ·ε", latent_shape), *decoder]
    figure, axes = plt.subplots(figsize=(11, 4.2))
    axes.set(xlim=(-0.7, len(columns) - 0.3), ylim=(-1.28, 1.28))
    axes.set_title(f"Encoder → q(z|x) → decoder, {latent_shape[0]} latent dimensions")
    axes.axis("off")
    for position, column in enumerate(columns):
        if column is None:
            _draw_distribution(axes, position)
            continue
        name, kind, shape = column
        color = {"x": PALETTE[7], "z": PALETTE[1]}.get(name, PALETTE[0] if position <= len(encoder) else PALETTE[2])
        half = 0.09 * np.log2(np.prod(shape))
        axes.add_patch(plt.Rectangle((position - 0.17, -half), 0.34, 2 * half, color=color, alpha=0.85, lw=0))
        size = "×".join(map(str, shape)) + (" dimensions" if name == "z" else "")
        axes.text(position, half + 0.04, size, ha="center", va="bottom", fontsize=9)
        axes.text(position, -half - 0.04, f"{name}\n{kind}", ha="center", va="top", fontsize=8)
    for position in range(len(columns) - 1):
        axes.annotate("", (position + 0.72, 0), (position + 0.28, 0), arrowprops={"arrowstyle": "->", "color": "0.3"})
    return figure


def _draw_distribution(axes: plt.Axes, x: float) -> None:
    """The two outputs of the encoder, and the noise that enters beside them."""
    arrow = {"arrowstyle": "->", "color": PALETTE[1]}
    for offset, text in ((0.33, "fc21: mu"), (-0.33, "fc22: logvar")):
        box = {"fc": "white", "ec": PALETTE[1], "boxstyle": "round"}
        axes.text(x, offset, text, ha="center", va="center", fontsize=9, bbox=box)
    axes.annotate("ε ~ N(0, I)", (x + 0.95, -0.62), (x + 0.95, -1.05), ha="center", fontsize=9, arrowprops=arrow)
