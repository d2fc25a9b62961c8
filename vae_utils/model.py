"""The network and its loss: the convolutional variational autoencoder (VAE) of the series, and an autoencoder of the same layers.

Symbols follow Kingma & Welling (2013), "Auto-Encoding Variational Bayes" (arXiv:1312.6114): `x` an image, `z` its latent
code, `mu` and `logvar` (log σ², natural logarithm) the parameters of the encoder's Gaussian q(z|x). Losses are in nats.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Autoencoder(nn.Module):
    """A plain autoencoder: the VAE's layers without the noise and without the KL term.

    Args:
        latent_dim: size of the code.
        in_channels: channels of the input image; 2 when a mask travels beside the pixels. The output always has 1.
        encoder, decoder: your own networks, both or neither. The encoder maps a batch to `(N, latent_dim)` (a VAE's to
            `(N, 2 * latent_dim)`: `mu`, then `logvar`), the decoder maps `(N, latent_dim)` to the shape of the data.
        likelihood: "bernoulli" for data in [0, 1] (binary cross-entropy; the decoder gives logits), "gaussian" for real
            numbers (squared error with one learnt standard deviation, exp(`log_sigma`); the decoder gives means).
    """

    outputs_per_latent = 1

    def __init__(
        self,
        latent_dim: int,
        *,
        in_channels: int = 1,
        encoder: nn.Module | None = None,
        decoder: nn.Module | None = None,
        likelihood: str = "bernoulli",
    ):
        super().__init__()
        self.latent_dim, self.in_channels, self.likelihood = latent_dim, in_channels, likelihood
        self.encoder, self.decoder = encoder, decoder
        if likelihood == "gaussian":
            # below the spread of standardised data: at σ = 1 the KL silences the code before the decoder has learnt to use it
            self.log_sigma = nn.Parameter(torch.tensor(-1.5))
        if encoder is not None:
            return
        self.conv1 = nn.Conv2d(in_channels, 32, kernel_size=3, stride=2, padding=1)  # 28x28 -> 32x14x14
        self.conv2 = nn.Conv2d(32, 64, kernel_size=3, stride=2, padding=1)  # -> 64x7x7
        self.fc1 = nn.Linear(64 * 7 * 7, 400)
        self.fc21 = nn.Linear(400, latent_dim)  # mu
        if self.outputs_per_latent == 2:
            self.fc22 = nn.Linear(400, latent_dim)  # logvar
        self.fc3 = nn.Linear(latent_dim, 400)
        self.fc4 = nn.Linear(400, 64 * 7 * 7)
        self.conv2_t = nn.ConvTranspose2d(64, 32, kernel_size=3, stride=2, padding=1, output_padding=1)  # -> 32x14x14
        self.conv1_t = nn.ConvTranspose2d(32, 1, kernel_size=3, stride=2, padding=1, output_padding=1)  # -> 1x28x28
        self.to(memory_format=torch.channels_last)  # the same weights, laid out so that a CPU is faster

    def code(self, x: Tensor) -> tuple[Tensor, ...]:
        """What the encoder gives for a batch that is taken on trust: `(mu, logvar)` of a VAE, else `(codes,)`."""
        if self.encoder is not None:
            return self.encoder(x).chunk(self.outputs_per_latent, dim=-1)
        h = F.relu(self.conv1(x))
        h = F.relu(self.conv2(h))
        h = F.relu(self.fc1(h.flatten(1)))
        return (self.fc21(h), self.fc22(h)) if self.outputs_per_latent == 2 else (self.fc21(h),)

    def encode(self, x: Tensor) -> Tensor:
        """Codes `(N, latent_dim)` of a batch. Raises ValueError for a wrong shape, NaN or values outside [0, 1]."""
        self.check_input(x)
        return self.code(x)[0]

    def decode_logits(self, z: Tensor) -> Tensor:
        """What comes out before the last sigmoid (for "gaussian": the means), from codes `(N, latent_dim)`."""
        if self.decoder is not None:
            return self.decoder(z)
        h = F.relu(self.fc3(z))
        h = F.relu(self.fc4(h)).view(-1, 64, 7, 7)
        return self.conv1_t(F.relu(self.conv2_t(h)))

    def decode(self, z: Tensor) -> Tensor:
        """Reconstructions from codes `(N, latent_dim)`: images in [0, 1], or means for a "gaussian" model."""
        out = self.decode_logits(z)
        return torch.sigmoid(out) if self.likelihood == "bernoulli" else out

    def forward(self, x: Tensor) -> Tensor:
        return self.decode(self.encode(x))

    def reconstruction_loss(self, out: Tensor, x: Tensor, weights: Tensor | None = None) -> Tensor:
        """−log p(x|z) of each example in nats, `(N,)`, from `decode_logits(z)`; `weights` of 0 leave elements out.

        "bernoulli": binary cross-entropy summed over pixels. A grey pixel counts as an expectation over black and white,
        so the smallest possible value is the entropy of the pixels, not zero.
        """
        if self.likelihood == "bernoulli":
            loss = F.binary_cross_entropy_with_logits(out, x, reduction="none")
        else:
            loss = 0.5 * ((x - out) / self.log_sigma.exp()) ** 2 + self.log_sigma + 0.5 * math.log(2 * math.pi)
        return (loss if weights is None else loss * weights).flatten(1).sum(1)

    def loss_terms(self, inputs: Tensor, targets: Tensor, weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """What training minimises, in two parts `(N,)`, `(N,)` in nats: reconstruction, and KL (0 for an autoencoder).

        On logits: the same loss as through the sigmoid, without the logarithm of a rounded 0. Inputs are taken on trust.
        """
        recon = self.reconstruction_loss(self.decode_logits(self.code(inputs)[0]).float(), targets, weights)
        return recon, torch.zeros_like(recon)

    def check_input(self, x: Tensor) -> None:
        """Raises ValueError, naming the value and the fix, unless `x` is what the encoder takes."""
        check_values(x, unit_interval=self.likelihood == "bernoulli")
        shape, dtype = (self.in_channels, 28, 28), next(self.parameters()).dtype
        if self.encoder is None and tuple(x.shape[1:]) != shape:
            raise ValueError(f"x has shape {tuple(x.shape)}; expected (N, {', '.join(map(str, shape))}).")
        if x.dtype != dtype:
            raise ValueError(f"x has dtype {x.dtype}; the model computes in {dtype}. Convert with x.to({dtype}).")


class VAE(Autoencoder):
    """The VAE: an autoencoder with one more layer (`fc22`), noise (`reparameterize`) and one more term in the loss (the KL)."""

    outputs_per_latent = 2

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """`mu` and `logvar` of q(z|x), each `(N, latent_dim)`. Raises ValueError as `Autoencoder.encode` does."""
        self.check_input(x)
        return self.code(x)

    def reparameterize(self, mu: Tensor, logvar: Tensor) -> Tensor:
        """A sample z = mu + σ·ε with ε ~ N(0, I): random, yet differentiable in mu and logvar (Kingma & Welling 2013, 2.4)."""
        std = torch.exp(0.5 * logvar)
        eps = torch.randn_like(std)
        return mu + eps * std

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """`(recon, mu, logvar)` for a batch of images."""
        mu, logvar = self.encode(x)
        return self.decode(self.reparameterize(mu, logvar)), mu, logvar

    def loss_terms(self, inputs: Tensor, targets: Tensor, weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
        # float(): under bfloat16 autocast the layers compute in 8 bits of precision, which exp() and sums must not
        mu, logvar = (parameter.float() for parameter in self.code(inputs))
        out = self.decode_logits(self.reparameterize(mu, logvar)).float()
        return self.reconstruction_loss(out, targets, weights), kl_divergence(mu, logvar)


def kl_divergence(mu: Tensor, logvar: Tensor) -> Tensor:
    """KL(q(z|x) ‖ N(0, I)) of each example in nats, `(N,)`; never negative (Kingma & Welling 2013, appendix B)."""
    return -0.5 * torch.sum(1 + logvar - mu.pow(2) - logvar.exp(), dim=-1)


def check_values(x: Tensor, unit_interval: bool = True) -> None:
    """Raises ValueError for what is no tensor of floating point, holds NaN or infinity, or (if asked) leaves [0, 1]."""
    if not isinstance(x, Tensor):
        raise ValueError(f"x is of type {type(x).__name__}; expected a tensor. Convert with torch.as_tensor(x).")
    if not x.is_floating_point():
        raise ValueError(f"x has dtype {x.dtype}; expected floating point. Convert with x.float() / 255.")
    if x.numel() == 0:
        return
    low, high = (value.item() for value in x.detach().aminmax())
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError("x holds NaN or infinity; replace such values first, for example with x.nan_to_num(0).")
    if unit_interval and not (low >= 0 and high <= 1):
        raise ValueError(f"x ranges from {low:.4g} to {high:.4g}; expected [0, 1]. Divide bytes by 255.")
