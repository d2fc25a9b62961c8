"""What is the network, and what is its loss?

The convolutional variational autoencoder of the series, a plain autoencoder of the same layers, and the loss.

Symbols follow Kingma & Welling (2013), "Auto-Encoding Variational Bayes" (arXiv:1312.6114): `x` an image, `z` its latent
code, `mu` and `logvar` (log σ², natural logarithm) the parameters of the encoder's Gaussian q(z|x). All losses are in nats.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

IMAGE_SIZE = 28
LIKELIHOODS = ("bernoulli", "gaussian")


class Autoencoder(nn.Module):
    """A plain autoencoder: the VAE's layers without the noise and without the KL term.

    Args:
        latent_dim: size of the code, at least 1.
        in_channels: channels of the input image; 2 when a mask travels beside the pixels. The output has always 1.
        encoder, decoder: your own networks, both or neither. The encoder maps a batch to `(N, outputs_per_latent * latent_dim)`,
            the decoder maps `(N, latent_dim)` to the shape of the data: logits for "bernoulli", means for "gaussian".
        likelihood: "bernoulli" for data in [0, 1] (binary cross-entropy), "gaussian" for real numbers (squared error with
            one learnt standard deviation, exp(`log_sigma`), shared by all dimensions).

    Raises:
        ValueError: for a latent_dim below 1, half a pair of networks, or an unknown likelihood.
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
        if isinstance(latent_dim, bool) or not isinstance(latent_dim, int) or latent_dim < 1:
            raise ValueError(f"latent_dim is {latent_dim!r}; give a whole number of at least 1, such as 10.")
        if (encoder is None) != (decoder is None):
            raise ValueError("Give both an encoder and a decoder, or neither for the convolutional network.")
        if likelihood not in LIKELIHOODS:
            raise ValueError(f"likelihood is {likelihood!r}; choose one of {', '.join(LIKELIHOODS)}.")
        self.latent_dim, self.in_channels, self.likelihood = latent_dim, in_channels, likelihood
        self.encoder, self.decoder = encoder, decoder
        if likelihood == "gaussian":
            # below the spread of standardised data: at σ = 1 the KL silences the code before the decoder has learnt to use it
            self.log_sigma = nn.Parameter(torch.tensor(-1.5))
        if encoder is None:
            self._build_convolutional_layers()

    def _build_convolutional_layers(self) -> None:
        self.conv1 = nn.Conv2d(self.in_channels, 32, kernel_size=3, stride=2, padding=1)  # 28x28 -> 32x14x14
        self.conv2 = nn.Conv2d(32, 64, kernel_size=3, stride=2, padding=1)  # -> 64x7x7
        self.fc1 = nn.Linear(64 * 7 * 7, 400)
        self.fc21 = nn.Linear(400, self.latent_dim)  # mu
        if self.outputs_per_latent == 2:
            self.fc22 = nn.Linear(400, self.latent_dim)  # logvar
        self.fc3 = nn.Linear(self.latent_dim, 400)
        self.fc4 = nn.Linear(400, 64 * 7 * 7)
        self.conv2_t = nn.ConvTranspose2d(64, 32, kernel_size=3, stride=2, padding=1, output_padding=1)  # -> 32x14x14
        self.conv1_t = nn.ConvTranspose2d(32, 1, kernel_size=3, stride=2, padding=1, output_padding=1)  # -> 1x28x28
        # the same numbers, laid out so that a CPU encodes and decodes faster
        self.to(memory_format=torch.channels_last)

    def _code_parameters(self, x: Tensor) -> tuple[Tensor, ...]:
        """The `outputs_per_latent` tensors `(N, latent_dim)` the encoder gives; the input is taken on trust."""
        if self.encoder is not None:
            return self.encoder(x).chunk(self.outputs_per_latent, dim=-1)
        x = F.relu(self.conv1(x))
        x = F.relu(self.conv2(x))
        x = F.relu(self.fc1(x.flatten(1)))
        return (self.fc21(x), self.fc22(x)) if self.outputs_per_latent == 2 else (self.fc21(x),)

    def encode(self, x: Tensor) -> Tensor:
        """Codes `(N, latent_dim)` of a batch. Raises ValueError as `check_input` does."""
        self.check_input(x)
        return self._code_parameters(x)[0]

    def decode_logits(self, z: Tensor) -> Tensor:
        """What comes out before the last sigmoid (for "gaussian": the means), from codes `(N, latent_dim)`."""
        if z.shape[-1] != self.latent_dim:
            raise ValueError(f"z has shape {tuple(z.shape)}; this model takes (N, {self.latent_dim}).")
        if self.decoder is not None:
            return self.decoder(z)
        z = F.relu(self.fc3(z))
        z = F.relu(self.fc4(z)).view(-1, 64, 7, 7)
        return self.conv1_t(F.relu(self.conv2_t(z)))

    def decode(self, z: Tensor) -> Tensor:
        """Reconstructions from codes `(N, latent_dim)`: images in [0, 1], or means for a "gaussian" model."""
        out = self.decode_logits(z)
        return torch.sigmoid(out) if self.likelihood == "bernoulli" else out

    def forward(self, x: Tensor) -> Tensor:
        return self.decode(self.encode(x))

    def reconstruction_loss(self, out: Tensor, x: Tensor, weights: Tensor | None = None) -> Tensor:
        """−log p(x|z) of each example in nats, `(N,)`, from `decode_logits(z)`.

        "bernoulli": binary cross-entropy summed over pixels. A grey pixel counts as an expectation over black and white,
        so the smallest possible value is the entropy of the pixels, not zero.
        `weights` (broadcast to `x`) leaves elements out where it is 0.
        """
        if self.likelihood == "bernoulli":
            loss = F.binary_cross_entropy_with_logits(out, x, reduction="none")
        else:
            loss = 0.5 * ((x - out) / self.log_sigma.exp()) ** 2 + self.log_sigma + 0.5 * math.log(2 * math.pi)
        return (loss if weights is None else loss * weights).flatten(1).sum(1)

    def loss_terms(self, inputs: Tensor, targets: Tensor, weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """What training minimises, in two parts `(N,)`, `(N,)` in nats: reconstruction, and KL (0 for an autoencoder).

        Works on logits, which is the same loss without the logarithm of a rounded 0. Inputs are taken on trust.
        """
        (code,) = self._code_parameters(inputs)
        recon = self.reconstruction_loss(self.decode_logits(code).float(), targets, weights)
        return recon, torch.zeros_like(recon)

    @torch.no_grad()
    def set_output_bias(self, mean: Tensor) -> None:
        """Start the last layer at the data's mean, so that training need not spend its first steps finding out how dark it is.

        Args: mean: the mean of all pixels, a scalar. Only for the convolutional "bernoulli" network; else nothing is done.
        """
        if self.decoder is None and self.likelihood == "bernoulli":
            self.conv1_t.bias.fill_(torch.logit(mean, eps=1e-3))

    def check_input(self, x: Tensor) -> None:
        """Raises ValueError, naming the value and the fix, for a wrong shape, NaN, or (for "bernoulli") values outside [0, 1]."""
        if self.encoder is None:
            check_images(x, self.in_channels)
        else:
            check_values(x, unit_interval=self.likelihood == "bernoulli")


class VAE(Autoencoder):
    """The convolutional VAE of the series: 28x28 images in [0, 1], `latent_dim` latent numbers.

    An autoencoder with one more layer (`fc22`), three more lines (`reparameterize`) and one more term in the loss (the KL).
    Arguments as for `Autoencoder`; an encoder of your own gives `(N, 2 * latent_dim)`: `mu`, then `logvar`.
    """

    outputs_per_latent = 2

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """`mu` and `logvar` of q(z|x), each `(N, latent_dim)`. Raises ValueError as `check_input` does."""
        self.check_input(x)
        return self._code_parameters(x)

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
        mu, logvar = (parameter.float() for parameter in self._code_parameters(inputs))
        out = self.decode_logits(self.reparameterize(mu, logvar)).float()
        return self.reconstruction_loss(out, targets, weights), kl_divergence(mu, logvar)


def kl_divergence(mu: Tensor, logvar: Tensor) -> Tensor:
    """KL(q(z|x) ‖ N(0, I)) of each example in nats, `(N,)`; never negative (Kingma & Welling 2013, appendix B)."""
    return -0.5 * torch.sum(1 + logvar - mu.pow(2) - logvar.exp(), dim=-1)


def loss_function(recon_x: Tensor, x: Tensor, mu: Tensor, logvar: Tensor, beta: float = 1.0) -> Tensor:
    """The negative ELBO of a batch: binary cross-entropy plus `beta` times KL, both summed over pixels and images, in nats.

    Args:
        recon_x, x: reconstructions and originals, the same shape, in [0, 1].
        mu, logvar: `(N, latent_dim)`.
        beta: weight of the KL term, at least 0. 1 is the VAE; other values as in Higgins et al. (2017), "beta-VAE".

    Raises ValueError for shapes that differ, values outside [0, 1], NaN, or a negative beta.
    """
    if recon_x.shape != x.shape:
        raise ValueError(f"recon_x has shape {tuple(recon_x.shape)} and x {tuple(x.shape)}; they must be the same.")
    if mu.shape != logvar.shape:
        raise ValueError(f"mu has shape {tuple(mu.shape)} and logvar {tuple(logvar.shape)}; they must be the same.")
    if not beta >= 0:
        raise ValueError(f"beta is {beta!r}; give a number of at least 0 (1 is the plain VAE).")
    check_values(recon_x, name="recon_x")
    check_values(x)
    return F.binary_cross_entropy(recon_x, x, reduction="sum") + beta * kl_divergence(mu, logvar).sum()


def check_images(x: Tensor, channels: int = 1) -> None:
    """Raises ValueError unless `x` is a float tensor `(N, channels, 28, 28)` in [0, 1] without NaN."""
    if x.ndim != 4 or tuple(x.shape[1:]) != (channels, IMAGE_SIZE, IMAGE_SIZE):
        hint = " Add the channel axis with x.unsqueeze(1)." if x.ndim == 3 and x.shape[1:] == (28, 28) else ""
        raise ValueError(f"x has shape {tuple(x.shape)}; expected (N, {channels}, {IMAGE_SIZE}, {IMAGE_SIZE}).{hint}")
    check_values(x)


def check_values(x: Tensor, unit_interval: bool = True, name: str = "x") -> None:
    """Raises ValueError for a tensor that is not floating point, holds NaN, or (if asked) leaves [0, 1]."""
    if not x.is_floating_point():
        raise ValueError(f"{name} has dtype {x.dtype}; expected floating point. Convert with x.float() / 255.")
    if x.numel() == 0:
        return
    low, high = (value.item() for value in x.detach().aminmax())
    if math.isnan(low) or math.isnan(high):
        raise ValueError(f"{name} holds NaN; replace missing values first, for example with x.nan_to_num(0).")
    if unit_interval and not (low >= 0 and high <= 1):
        raise ValueError(f"{name} ranges from {low:.4g} to {high:.4g}; expected [0, 1]. Divide bytes by 255.")
