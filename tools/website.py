"""Build the static site: pages of the notebooks as they are, a playground that needs no kernel, an index; into build/html/.

python tools/website.py          # everything
python tools/website.py 01       # the pages of some notebooks alone

Nothing is executed. The models of the playground are those of the series, from the cache, or trained when they are not there
(a minute or two). The pages ask nothing of a network; open them from the disk, or serve them: `python -m http.server`.
"""

import argparse
import base64
import json
import re
import sys
import zlib
from html import escape
from pathlib import Path

import nbformat
import numpy as np
import torch
from jinja2 import Environment, FileSystemLoader
from nbformat.v4 import new_output
from torch import Tensor, nn

from vae_utils import panels
from vae_utils.cache import fit_or_load, write_atomically
from vae_utils.classifier import Classifier, digit_classifier
from vae_utils.data import ImageData, load
from vae_utils.drawing import STATIC, synthetic_strokes
from vae_utils.inference import decode
from vae_utils.model import VAE, Autoencoder
from vae_utils.panels import Panels, as_bytes
from vae_utils.plotting import tile
from vae_utils.training import pace
from vae_utils.widgets import array_png

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # for its neighbour, when this file is run as a script
from tools import refresh  # noqa: E402

SITE = ROOT / "build" / "html"
SOURCE = ROOT / "tools" / "website"
SCRIPTS = ("draw.js", "engine.js", "page.js")
POLICY = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; font-src 'self' data:"
PLANE_CELL = re.compile(r"^PlaneExplorer\(\w+\)$", re.MULTILINE)
TEMPLATES = Environment(loader=FileSystemLoader(SOURCE), autoescape=True, trim_blocks=True, lstrip_blocks=True)
TEMPLATES.globals |= {"policy": POLICY, "scripts": SCRIPTS}
ROW = re.compile(
    r"^\| \[(\d\d) [^\]]*\]\(notebooks/(\w+)\.ipynb\) \| ([^|]+) \| [^\n]* \| ([^|]+) \| ([^|]+) \|$", re.MULTILINE
)

# --- the models, as JavaScript computes them -----------------------------------------------------------------------------


def in_half_precision(model: nn.Module) -> nn.Module:
    """The model with its parameters rounded to float16, in place: half the bytes to send; computed with as float32."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.half())
    return model


def folded(classifier: Classifier) -> Classifier:
    """The classifier with each batch normalisation taken up into the convolution before it, in place."""
    layers = classifier.layers
    for place, layer in enumerate(layers):
        if isinstance(layer, nn.BatchNorm2d):
            layers[place - 1] = nn.utils.fuse_conv_bn_eval(layers[place - 1].eval(), layer.eval())
            layers[place] = nn.Identity()
    return classifier


def networks(vae: VAE, classifier: Classifier) -> dict[str, list[dict]]:
    """Encoder (mu, then logvar), decoder (logits) and classifier (logits) as lists of layers that engine.js computes."""
    both = nn.Linear(400, 2 * vae.latent_dim)
    with torch.no_grad():
        both.weight.copy_(torch.cat([vae.fc21.weight, vae.fc22.weight]))
        both.bias.copy_(torch.cat([vae.fc21.bias, vae.fc22.bias]))
    reading = [layer for layer in classifier.layers if not isinstance(layer, nn.Identity | nn.Flatten | nn.ReLU)]
    return {
        "encoder": chain([vae.conv1, vae.conv2, vae.fc1, both], 28),
        "decoder": decoder(vae),
        "classifier": chain([*reading, classifier.last], 28),
    }


def decoder(model: Autoencoder) -> list[dict]:
    return chain([model.fc3, model.fc4, model.conv2_t, model.conv1_t], 7)


def chain(layers: list[nn.Module], size: int) -> list[dict]:
    """Layers for engine.js, each but the last with a ReLU behind it; convolutions see images of `size` pixels at first.

    There a pixel's channels lie together, and a weight's last axis is its outputs.
    """
    found, channels = [], 0
    for layer, after in zip(layers, [*layers[1:], None], strict=True):
        if isinstance(layer, nn.MaxPool2d):
            found.append({"kind": "pool", "size": size, "relu": False})
            size //= 2
            continue
        weight, bias = layer.weight.detach(), layer.bias.detach()
        options = {"kind": "linear"}
        if isinstance(layer, nn.Linear):
            if channels:  # behind a convolution: channels first no longer
                weight = weight.unflatten(1, (channels, size, size)).permute(0, 2, 3, 1).flatten(1)
            if isinstance(after, nn.ConvTranspose2d):
                weight = weight.unflatten(0, (-1, size, size)).permute(1, 2, 0, 3).flatten(0, 2)
                bias = bias.unflatten(0, (-1, size, size)).permute(1, 2, 0).flatten()
            weight, channels = weight.T, 0
        else:
            up = isinstance(layer, nn.ConvTranspose2d)
            weight = weight.permute(2, 3, 0, 1) if up else weight.permute(2, 3, 1, 0)
            kernel, stride, padding = layer.kernel_size[0], layer.stride[0], layer.padding[0]
            side = size * stride if up else (size + 2 * padding - kernel) // stride + 1
            options = {"kind": "convTransposed" if up else "conv", "size": size, "side": side}
            options |= {"kernel": kernel, "stride": stride, "padding": padding}
            size, channels = side, layer.out_channels
        found.append(options | {"weight": weight, "bias": bias, "relu": after is not None})
    return found


def pack(name: str, meta: dict, arrays: dict[str, Tensor], layers: dict[str, list[dict]]) -> bytes:
    """A script that hands `meta`, `arrays` (bytes, or float32) and networks (float16) to engine.js under `name`."""
    found = {key: array.detach().cpu().contiguous().numpy() for key, array in arrays.items()}
    described = {}
    for network, chain_ in layers.items():
        described[network] = []
        for place, layer in enumerate(chain_):
            shown = dict(layer)
            for part in ("weight", "bias"):
                if part in layer:
                    shown[part] = f"{network}.{place}.{part}"
                    found[shown[part]] = layer[part].cpu().contiguous().half().numpy()
            described[network].append(shown)
    body, places = bytearray(), {}
    for key, array in sorted(found.items(), key=lambda item: -item[1].itemsize):  # the widest first: all lie aligned
        places[key] = {"kind": array.dtype.name, "at": len(body), "count": array.size}
        body += array.astype(array.dtype.newbyteorder("<")).tobytes()
    header = json.dumps({"meta": meta, "arrays": places, "networks": described}, separators=(",", ":"))
    data = base64.b64encode(zlib.compress(bytes(body), 9)).decode()
    return f'(globalThis.vaePacks ||= {{}})["{name}"] = {{ header: {header}, data: "{data}" }};\n'.encode()


def models(data: ImageData) -> tuple[Panels, VAE]:
    """The panels of the page (the series' models, rounded) and the VAE with two latent dimensions of notebook 03."""
    recipe = {**pace(data.train_images, 3), "val_images": data.val_images}
    vae, _ = fit_or_load(lambda: VAE(latent_dim=10), data.train_images, name="vae-10", **recipe)
    recipe = pace(data.train_images, 4)
    plane, _ = fit_or_load(lambda: VAE(latent_dim=2), data.train_images[:12_000], name="vae-2", **recipe)
    classifier = in_half_precision(folded(digit_classifier(data)))
    return Panels(in_half_precision(vae), data, classifier=classifier), in_half_precision(plane)


def model_pack(found: Panels) -> bytes:
    """What draw.js and engine.js need of the panels."""
    sizes = {"step": panels.STEP, "starts": panels.STARTS, "draws": panels.DRAWS, "shown": panels.SHOWN}
    examples = {"examples": list(dict(synthetic_strokes()).values()), "latent_dim": found.vae.latent_dim}
    arrays = {
        "known": as_bytes(found.known),
        "decoded": as_bytes(found.decoded),
        "labels": found.data.train_labels[: len(found.known)].byte(),
        "codes": found.codes,
        "mean": found.mean,
        "deviation": found.deviation,
        "targets": as_bytes(found.targets),
        "targetCodes": found.target_codes,
        "untouched": found.noise.observed.byte(),
        "noise": found.noise.images,
        "scores": found.scores,
        "observed": found.observed.byte(),
        "eps": found.eps,
        "gumbel": found.gumbel,
    }
    return pack("model", found.histogram | sizes | examples, arrays, networks(found.vae, found.classifier))


def plane_pack(plane: VAE) -> bytes:
    """The decoder of the plane, and a map of it from -3 to 3."""
    axis = torch.linspace(-3, 3, 13)
    grid = tile(decode(plane, torch.cartesian_prod(axis.flip(0), axis).flip(1)), columns=13, gap=0)
    picture = "data:image/png;base64," + base64.b64encode(array_png(np.asarray(grid))).decode()
    return pack("plane", {"map": picture}, {}, {"decoder": decoder(plane)})


# --- pages ---------------------------------------------------------------------------------------------------------------


def live(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Puts the place of a live panel where a widget stood: around a drawing widget's picture, below a plane of sliders."""
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            about = output.get("metadata", {}).get("image/png", {})
            if panel := about.get("panel"):
                source, alt = output.data.pop("image/png"), escape(about["alt"])
                picture = f'<img src="data:image/png;base64,{source}" alt="{alt}">'
                output.data["text/html"] = f'<div class="vae-live" data-panel="{panel}">{picture}</div>'
        if cell.cell_type == "code" and PLANE_CELL.search(cell.source):
            place = '<div class="vae-live" data-panel="plane"></div>'
            cell.outputs.append(new_output("display_data", {"text/html": place}))
    return notebook


def notebook_page(path: Path) -> str:
    """The page of a notebook, with the site's navigation, style and scripts."""
    text = refresh.page(live(refresh.read(path)), path.stem)
    links = "".join(f'<link rel="stylesheet" href="assets/{name}">' for name in ("draw.css", "site.css"))
    policy = f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
    policy += '<link rel="icon" href="data:,">'  # else browsers ask for one
    text = text.replace("<head>", f"<head>{policy}", 1).replace("</head>", f"{links}</head>", 1)
    text = re.sub(
        r"(<body\b[^>]*>)", lambda found: found[1] + TEMPLATES.get_template("navigation.html").render(), text, count=1
    )
    scripts = "".join(f'<script src="assets/{name}" defer></script>' for name in SCRIPTS)
    return text.replace("</body>", f"{scripts}</body>", 1)


def about(path: Path, page: str, row: tuple[str, ...]) -> dict:
    """What the index says of a notebook: title, question and minutes (its README row), picture, exercises."""
    notebook = refresh.read(path)
    question, first, again = (text.strip() for text in row)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    shown = [output for output in outputs if "image/png" in output.get("data", {})]
    if not shown:
        raise ValueError(f"{path.name} shows no figure: its outputs were cleared; `make notebooks` brings them back.")
    chosen = next((output for output in shown if "name" in output.metadata["image/png"]), shown[0])
    source, alt = chosen.data["image/png"].replace("\n", ""), chosen.metadata["image/png"]["alt"]
    exercises = re.findall(r'<h3 id="([^"]+)">(Exercise[^<]+)<', page)
    title = re.search(r"^# (?:\d · )?(.+)$", notebook.cells[0].source, re.MULTILINE)[1]
    picture = {"source": f"data:image/png;base64,{source}", "alt": alt}
    numbers = {"number": path.name[:2], "file": f"{path.stem}.html", "first": first, "again": again}
    return numbers | {"title": title, "question": question, "picture": picture, "exercises": exercises}


def main(arguments: list[str] | None = None) -> None:
    first, _, rest = __doc__.partition("\n\n")
    style = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="tools/website.py", description=first, epilog=rest, formatter_class=style)
    parser.add_argument(
        "notebooks", nargs="*", help="beginnings of names, such as 01; all, and the rest, when none is given"
    )
    asked = parser.parse_args(arguments).notebooks
    with refresh.in_plain_words():
        build(asked)


def build(asked: list[str]) -> None:
    """Write the pages of the notebooks whose names begin with one of `asked`; when it is empty, all pages and the rest."""
    paths = refresh.find(asked)
    files = {f"{path.stem}.html": notebook_page(path).encode() for path in paths}
    if not asked:
        rows = {row[1]: row[2:] for row in ROW.findall((ROOT / "README.md").read_text(encoding="utf-8"))}
        cards = [about(path, files[f"{path.stem}.html"].decode(), rows[path.stem]) for path in paths]
        data = load()
        found, plane = models(data)
        files["index.html"] = TEMPLATES.get_template("index.html").render(notebooks=cards).encode()
        values = {"panels": Panels.NAMES[1:], "notebooks": cards, "data": data}
        files["playground.html"] = TEMPLATES.get_template("playground.html").render(values).encode()
        files["assets/model.js"], files["assets/plane.js"] = model_pack(found), plane_pack(plane)
    for name in ("engine.js", "page.js", "site.css"):
        files[f"assets/{name}"] = (SOURCE / name).read_bytes()
    files["assets/draw.css"] = (STATIC / "draw.css").read_bytes()
    # a page that is opened from a disk may load scripts, but no modules
    script = (STATIC / "draw.js").read_text(encoding="utf-8").replace("export default", "globalThis.vaeDraw =")
    files["assets/draw.js"] = f"(() => {{\n{script}}})();\n".encode()
    for name, content in files.items():
        write_atomically(SITE / name, content)
        print(f"  -> {(SITE / name).relative_to(ROOT)} ({len(content) / 1e6:.1f} MB)")


if __name__ == "__main__":
    main()
