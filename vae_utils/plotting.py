"""How is it shown? Figures of about 100 dpi, one image a grid, colours that colour-blind readers can tell apart."""

import base64
import html
import io
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from IPython.display import display
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor, nn

from vae_utils.training import History

PALETTE = sns.color_palette("colorblind")
CMAP = "magma"
DPI = 100


def set_style() -> None:
    """The look of every figure of the series; call once, in a notebook's first cell."""
    sns.set_theme(context="notebook", style="whitegrid", palette="colorblind")
    plt.rcParams.update(
        {"figure.dpi": DPI, "savefig.dpi": DPI, "figure.constrained_layout.use": True, "axes.titlesize": 12}
    )


def show(figure: Figure, alt: str, name: str | None = None) -> None:
    """Put a figure into the notebook as PNG, with `alt` as its description for those who cannot see it; closes the figure.

    A figure with a `name` is one for the README: `make notebooks` copies it to docs/figures/<name>.png.
    Raises ValueError for an empty description.
    """
    if not alt.strip():
        raise ValueError("alt is empty; describe in a sentence what the figure shows.")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI)
    plt.close(figure)
    png = base64.b64encode(buffer.getvalue()).decode()
    metadata = {"alt": alt} | ({"name": name} if name else {})
    display({"image/png": png, "text/plain": alt}, metadata={"image/png": metadata}, raw=True)


def animation_gif(frames: Tensor, *, seconds: float = 4.0, side: int = 140) -> bytes:
    """A GIF that runs through `frames` `(N, 1, H, W)` in [0, 1] in about `seconds`, over and over, `side` pixels wide.

    Raises ValueError for fewer than 2 frames.
    """
    if frames.ndim != 4 or len(frames) < 2:
        raise ValueError(f"frames have shape {tuple(frames.shape)}; expected at least two images (N, 1, H, W).")
    palette = (255 * plt.get_cmap(CMAP)(np.arange(256))[:, :3]).round().astype(np.uint8).tobytes()
    height = round(side * frames.shape[2] / frames.shape[3])
    pictures = []
    for grey in (255 * frames[:, 0]).round().to("cpu").numpy().astype(np.uint8):
        picture = Image.fromarray(grey).resize((side, height), Image.Resampling.NEAREST)
        picture.putpalette(palette)  # 256 greys, 256 colours: nothing is lost
        pictures.append(picture)
    buffer = io.BytesIO()
    duration = max(20, round(1000 * seconds / len(frames)))  # browsers slow down what is faster than 20 ms a frame
    pictures[0].save(
        buffer, format="gif", save_all=True, append_images=pictures[1:], duration=duration, loop=0, optimize=False
    )
    return buffer.getvalue()


def show_animation(frames: Tensor, alt: str, name: str | None = None, *, seconds: float = 4.0) -> None:
    """Put frames `(N, 1, H, W)` in [0, 1] into the notebook as an animated GIF with `alt` as its description.

    As HTML, since not every viewer of notebooks knows GIF as a kind of output. With a `name` it is one for the README,
    as in `show`.
    Raises ValueError for an empty description or fewer than 2 frames.
    """
    if not alt.strip():
        raise ValueError("alt is empty; describe in a sentence what the animation shows.")
    gif = base64.b64encode(animation_gif(frames, seconds=seconds)).decode()
    metadata = {"alt": alt} | ({"name": name} if name else {})
    picture = f'<img src="data:image/gif;base64,{gif}" alt="{html.escape(alt)}">'
    display({"text/html": picture, "text/plain": alt}, metadata={"text/html": metadata}, raw=True)


def tile(images: Tensor, columns: int, gap: int = 2) -> np.ndarray:
    """A grid of images `(N, 1, H, W)` as one array, row by row, `gap` empty (NaN) pixels between them.

    Raises ValueError for no images or fewer than one column.
    """
    if len(images) == 0 or columns < 1:
        raise ValueError(f"Cannot tile {len(images)} image(s) in {columns} column(s); both must be at least 1.")
    height, width = images.shape[-2:]
    rows = -(-len(images) // columns)
    grid = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap), np.nan, dtype=np.float32)
    for number, image in enumerate(images):
        row, column = divmod(number, columns)
        top, left = row * (height + gap), column * (width + gap)
        grid[top : top + height, left : left + width] = image.detach().cpu().reshape(height, width).numpy()
    return grid


def _image_axes(figure_size: tuple[float, float], title: str) -> tuple[Figure, plt.Axes]:
    figure, axes = plt.subplots(figsize=figure_size)
    axes.set_title(title)
    axes.grid(False)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
    return figure, axes


def image_grid(images: Tensor, columns: int, title: str, *, cmap: str = CMAP, inches_each: float = 0.62) -> Figure:
    """Images `(N, 1, H, W)` in [0, 1], row by row."""
    grid = tile(images, columns)
    size = (columns * inches_each + 0.2, grid.shape[0] / grid.shape[1] * columns * inches_each + 0.4)
    figure, axes = _image_axes(size, title)
    axes.imshow(grid, cmap=cmap, vmin=0, vmax=1, interpolation="nearest")
    return figure


def image_rows(
    rows: Mapping[str, Tensor],
    title: str,
    *,
    columns: Sequence[str] | None = None,
    cmap: str = CMAP,
    inches_each: float = 0.8,
) -> Figure:
    """Rows of images to compare, one labelled row an entry: `{"original": (N, 1, H, W), "reconstructed": ...}`.

    Args: columns: a label under each column. Raises ValueError when the rows differ in length.
    """
    lengths = {name: len(images) for name, images in rows.items()}
    if len(set(lengths.values())) != 1:
        raise ValueError(f"Rows of different lengths: {lengths}; give the same number of images in each.")
    count = next(iter(lengths.values()))
    grid = np.concatenate(
        [np.pad(tile(images, count), ((0, 2), (0, 0)), constant_values=np.nan) for images in rows.values()]
    )
    figure, axes = _image_axes((count * inches_each + 1.3, len(rows) * inches_each + 0.5), title)
    axes.imshow(grid, cmap=cmap, vmin=0, vmax=1, interpolation="nearest")
    height, width = grid.shape[0] / len(rows), (grid.shape[1] + 2) / count
    axes.set_yticks([height * (row + 0.5) for row in range(len(rows))], list(rows))
    if columns is not None:
        axes.set_xticks([width * (column + 0.5) for column in range(count)], list(columns))
    axes.tick_params(length=0)
    return figure


def label_end(axes: plt.Axes, x: Sequence[float], y: Sequence[float], text: str, color) -> None:
    """Write a line's name at its last point, in its colour: no legend to look up."""
    axes.annotate(
        text, (x[-1], y[-1]), xytext=(6, 0), textcoords="offset points", color=color, va="center", annotation_clip=False
    )


def training_curves(history: History, title: str) -> Figure:
    """Loss, reconstruction and KL over the epochs in nats per image: training as lines, validation as dots."""
    figure, axes = plt.subplots(1, 3, figsize=(10, 3.2), sharex=True)
    epochs = history.column("epoch")
    names = {"loss": "loss = reconstruction + β·KL", "recon": "reconstruction", "kl": "KL"}
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
    seen: list[tuple[str, str, tuple[int, ...]]] = []
    names = {layer: name for name, layer in model.named_modules() if name and not list(layer.children())}

    def note(layer: nn.Module, _, out: Tensor) -> None:
        seen.append((names[layer], type(layer).__name__, tuple(out.shape[1:])))

    hooks = [layer.register_forward_hook(note) for layer in names]
    try:
        model(x)
    finally:
        for hook in hooks:
            hook.remove()
    return seen


def architecture(model: nn.Module, x: Tensor) -> Figure:
    """The network drawn from the layers that a forward pass really uses: encoder, latent distribution, decoder.

    Bar heights follow the logarithm of the number of values a layer puts out.
    """
    layers = layer_shapes(model, x)
    code = [name for name, _, _ in layers].index("fc21")
    encoder, decoder = layers[:code], layers[code + 2 :]
    latent_dim = layers[code][2][0]
    columns = [("x", "image", tuple(x.shape[1:])), *encoder, None, *decoder]
    figure, axes = plt.subplots(figsize=(10.5, 4.2))
    axes.set(
        xlim=(-0.7, len(columns) - 0.3),
        ylim=(-1.28, 1.28),
        title=f"Encoder → q(z|x) → decoder, {latent_dim} latent numbers",
    )
    axes.axis("off")
    for position, column in enumerate(columns):
        if column is None:
            _draw_latent(axes, position, latent_dim)
            continue
        name, kind, shape = column
        color = PALETTE[7] if name == "x" else PALETTE[0] if position <= len(encoder) else PALETTE[2]
        half = 0.09 * np.log2(np.prod(shape))
        axes.add_patch(plt.Rectangle((position - 0.17, -half), 0.34, 2 * half, color=color, alpha=0.85, lw=0))
        axes.text(position, half + 0.04, "×".join(map(str, shape)), ha="center", va="bottom", fontsize=9)
        axes.text(position, -half - 0.04, f"{name}\n{kind}" if name != "x" else "x", ha="center", va="top", fontsize=8)
    for position in range(len(columns) - 1):
        axes.annotate("", (position + 0.72, 0), (position + 0.28, 0), arrowprops={"arrowstyle": "->", "color": "0.3"})
    return figure


def _draw_latent(axes: plt.Axes, position: float, latent_dim: int) -> None:
    for offset, name in ((0.33, "fc21: mu"), (-0.33, "fc22: logvar")):
        axes.text(
            position,
            offset,
            name,
            ha="center",
            va="center",
            fontsize=9,
            bbox={"fc": "white", "ec": PALETTE[1], "boxstyle": "round"},
        )
    grid = np.linspace(-0.3, 0.3, 61)
    axes.plot(position + grid, -0.06 + 0.2 * np.exp(-((grid / 0.11) ** 2) / 2), color=PALETTE[1])
    axes.text(
        position, -0.72, f"z = mu + σ·ε\n{latent_dim} numbers", ha="center", va="top", fontsize=9, color=PALETTE[1]
    )
