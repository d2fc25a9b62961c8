"""Train a model of the series from the command line, into the cache where the notebooks look for it.

python -m vae_utils.train --validate                                  # notebook 01's VAE
python -m vae_utils.train --latent-dim 64 --in-channels 2 --beta 0.2 --epochs 4 --name imputer --corrupt "DropPixels(0.5)"
torchrun --nproc-per-node=2 -m vae_utils.train                        # the same, by two processes together

A run that ended early goes on from its last whole epoch when the same line is given again.
"""

import argparse
import ast
import os
import signal
import sys

from vae_utils import corruption, processes, settings
from vae_utils.data import load
from vae_utils.model import VAE, Autoencoder
from vae_utils.training import epochs_for, evaluate, fit_or_load

CORRUPTIONS = (
    "ReplacePixels",
    "DropPixels",
    "SaltAndPepper",
    "GaussianNoise",
    "EraseBlock",
    "EraseHalf",
    "EraseStripes",
    "AnyOf",
)


def parse_corruption(text: str) -> object:
    """A corruption from how it is written in Python, such as `AnyOf(DropPixels((0.0, 0.9)), EraseBlock(14))`.

    Only the classes of `CORRUPTIONS`, numbers, strings and tuples are understood. Raises ValueError for anything else.
    """

    def build(node: ast.AST) -> object:
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in CORRUPTIONS:
            named = {keyword.arg: build(keyword.value) for keyword in node.keywords}
            return getattr(corruption, node.func.id)(*map(build, node.args), **named)
        return ast.literal_eval(node)

    try:
        made = build(ast.parse(text, mode="eval").body)
    except (SyntaxError, TypeError, ValueError) as error:
        raise ValueError(
            f"{text!r} is not understood ({error}); write it as in Python: {', '.join(CORRUPTIONS)}."
        ) from error
    if not callable(made):
        raise ValueError(
            f"{text!r} is not a corruption; choose from {', '.join(CORRUPTIONS)}, such as DropPixels(0.5)."
        )
    return made


def _parser() -> argparse.ArgumentParser:
    first, _, rest = __doc__.partition("\n\n")
    parser = argparse.ArgumentParser(
        prog="python -m vae_utils.train",
        description=first,
        epilog=rest,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--name", help="beginning of the file's name (default: vae-<latent-dim> or autoencoder-<latent-dim>)"
    )
    parser.add_argument("--autoencoder", action="store_true", help="a plain autoencoder instead of a VAE")
    parser.add_argument("--latent-dim", type=int, default=10, metavar="N", help="latent numbers (default 10)")
    parser.add_argument(
        "--in-channels", type=int, default=1, choices=(1, 2), help="2: pixels and the mask of what is observed"
    )
    parser.add_argument("--corrupt", metavar="CORRUPTION", help='spoil each batch, such as "ReplacePixels(0.1)"')
    parser.add_argument(
        "--epochs", type=int, default=3, metavar="N", help="passes over MNIST (default 3; small sets: 12 times)"
    )
    parser.add_argument(
        "--batch-size", type=int, metavar="N", help="images a step, of all processes together (default 128)"
    )
    parser.add_argument("--peak-lr", type=float, metavar="RATE", help="largest learning rate (default 5e-3)")
    parser.add_argument("--beta", type=float, metavar="WEIGHT", help="weight of the KL term (default 1)")
    parser.add_argument("--validate", action="store_true", help="note the validation loss after every epoch")
    parser.add_argument("--seed", type=int, metavar="N", help="default: VAE_SEED, or 0")
    return parser


def _stop_with_the_others(signum, frame) -> None:
    raise RuntimeError("told to stop")


def main(arguments: list[str] | None = None) -> None:
    """See the module's docstring; ends with status 1 and a sentence for bad input, or when another process ended."""
    asked = _parser().parse_args(arguments)
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    if several:
        signal.signal(signal.SIGTERM, _stop_with_the_others)  # torchrun's way to say that one of the others is gone
    try:
        with processes.together():
            _train(asked)
    except (ValueError, FloatingPointError) as error:
        sys.exit(f"{error}")
    except RuntimeError as error:
        if not several:
            raise
        sys.exit(
            f"Process {os.environ['RANK']} stops, because another process of this training ended ({error}). Every whole "
            f"epoch is kept in {settings.cache_dir()}; give the same line again to go on from there."
        )


def _train(asked: argparse.Namespace) -> None:
    data = load()
    kind = Autoencoder if asked.autoencoder else VAE
    options = {
        name: getattr(asked, name) for name in ("batch_size", "peak_lr", "beta") if getattr(asked, name) is not None
    }
    corrupt = None if asked.corrupt is None else parse_corruption(asked.corrupt)
    if corrupt is not None:
        options["corrupt"] = corrupt
    if asked.validate:
        options["val_images"] = data.val_images
    model, history = fit_or_load(
        lambda: kind(latent_dim=asked.latent_dim, in_channels=asked.in_channels),
        data.train_images,
        name=asked.name or f"{kind.__name__.lower()}-{asked.latent_dim}",
        seed=asked.seed,
        resume=True,
        epochs=epochs_for(data.train_images, asked.epochs),
        **options,
    )
    losses = evaluate(model, data.test_images, corrupt=corrupt, beta=options.get("beta", 1.0))
    if processes.rank() == 0:
        print(
            f"{data.title}, {len(history.epochs)} epochs, {processes.count()} process(es): test loss {losses.loss:.2f} nats an "
            f"image = reconstruction {losses.recon:.2f} + KL {losses.kl:.2f} (weighted by beta); kept in {settings.cache_dir()}"
        )


if __name__ == "__main__":
    main()
