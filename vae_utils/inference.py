"""What does a trained model say about an image: code, reconstruction, and bounds on its log-likelihood?

Everything runs in batches, without gradients, on the model's device, and comes back on the CPU.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from vae_utils.model import VAE, Autoencoder, kl_divergence
from vae_utils.training import seeded


@torch.no_grad()
def in_batches(model: nn.Module, function: Callable[[Tensor], Tensor], values: Tensor, batch_size: int) -> Tensor:
    """`function` of each batch of `values` `(N, ...)`, joined to `(N, ...)` on the CPU; it runs on the model's device."""
    device = next(model.parameters()).device
    model.eval()
    whole, done = None, 0
    for batch in values.split(batch_size):
        part = function(batch.to(device)).cpu()
        if whole is None:  # made at once: parts put together at the end would take the memory twice
            whole = part.new_empty(len(values), *part.shape[1:])
        whole[done : done + len(part)] = part
        done += len(part)
    return whole


def encode(model: Autoencoder, images: Tensor, batch_size: int = 250) -> tuple[Tensor, Tensor] | Tensor:
    """`mu` and `logvar` of q(z|x), each `(N, latent_dim)`; for a plain autoencoder the codes alone."""
    if not isinstance(model, VAE):
        return in_batches(model, model.encode, images, batch_size)
    both = in_batches(model, lambda x: torch.stack(model.encode(x), dim=1), images, batch_size)
    return both[:, 0], both[:, 1]


def decode(model: Autoencoder, z: Tensor, batch_size: int = 250) -> Tensor:
    """Images in [0, 1] from codes `(N, latent_dim)`."""
    return in_batches(model, model.decode, z, batch_size)


def reconstruct(model: Autoencoder, images: Tensor, batch_size: int = 250) -> Tensor:
    """What comes back when an image is encoded and decoded, without sampling: decode(mu)."""
    codes = encode(model, images, batch_size)
    return decode(model, codes[0] if isinstance(codes, tuple) else codes, batch_size)


def log_weights(model: VAE, images: Tensor, samples: int, seed: int = 0, batch_size: int = 200) -> Tensor:
    """log p(x, z) − log q(z|x) for `samples` draws of z ~ q(z|x), `(N, samples)`, in nats.

    Their mean estimates the ELBO; their log-mean-exp the importance-weighted bound (Burda et al. 2015, eq. 8).
    Raises ValueError for fewer than one sample.
    """
    if samples < 1:
        raise ValueError(f"samples is {samples!r}; give a whole number of at least 1.")

    def of_batch(x: Tensor) -> Tensor:
        mu, logvar = model.encode(x)
        columns = []
        for _ in range(samples):
            z = model.reparameterize(mu, logvar)
            log_prior_over_posterior = 0.5 * (logvar + (z - mu) ** 2 / logvar.exp() - z**2).sum(1)
            columns.append(log_prior_over_posterior - model.reconstruction_loss(model.decode_logits(z), x))
        return torch.stack(columns, dim=1)

    with seeded(seed):
        return in_batches(model, of_batch, images, batch_size)


def elbo(model: VAE, images: Tensor, samples: int = 1, seed: int = 0, batch_size: int = 250) -> Tensor:
    """The evidence lower bound of each image, `(N,)`, in nats: E[log p(x|z)] by `samples` draws, minus the exact KL."""
    if samples < 1:
        raise ValueError(f"samples is {samples!r}; give a whole number of at least 1.")

    def of_batch(x: Tensor) -> Tensor:
        mu, logvar = model.encode(x)
        draws = (model.decode_logits(model.reparameterize(mu, logvar)) for _ in range(samples))
        recon = sum(model.reconstruction_loss(out, x) for out in draws) / samples
        return -recon - kl_divergence(mu, logvar)

    with seeded(seed):
        return in_batches(model, of_batch, images, batch_size)


def importance_weighted_bound(model: VAE, images: Tensor, samples: int, seed: int = 0) -> Tensor:
    """log of the mean importance weight of each image, `(N,)`, in nats: a bound on log p(x) that tightens with `samples`.

    Between the ELBO (1 sample, in expectation) and log p(x) (infinitely many): Burda, Grosse & Salakhutdinov (2015), theorem 1.
    """
    return log_weights(model, images, samples, seed).logsumexp(dim=1) - math.log(samples)


def active_units(mu: Tensor, threshold: float = 0.01) -> Tensor:
    """Which latent numbers carry information: bool `(latent_dim,)`, True where the variance of `mu` over images exceeds
    `threshold` (Burda et al. 2015, section 5.1). `mu` is `(N, latent_dim)` with N at least 2."""
    if len(mu) < 2:
        raise ValueError(f"mu holds {len(mu)} image(s); a variance needs at least 2.")
    return mu.var(dim=0) > threshold
