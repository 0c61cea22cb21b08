"""The variational autoencoder whose posterior goes through normalizing flows."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from ssad.models.autoencoder import dense

LOG_DET_FLOOR = 1e-9
"""Keeps the logarithm of a flow's Jacobian finite where the flow folds the space flat."""


class PlanarFlow(nn.Module):
    """One planar flow, z + u tanh(w z + b) [Rezende & Mohamed, ICML 2015, eq. 10 to 12, appendix A.1]."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(dim))
        self.direction = nn.Parameter(torch.empty(dim))
        self.bias = nn.Parameter(torch.zeros(1))
        for parameter in (self.weight, self.direction):
            # Not the identity: u made invertible has w u = softplus(0) - 1, so that a flow starts by shrinking z along
            # w to 0.69 of it, at a log-determinant of -0.37.
            nn.init.normal_(parameter, std=0.01)

    def forward(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Transform z, shape (..., dim); also log |det Jacobian|, shape (...)."""
        inner = self.weight @ self.direction
        # w u >= -1 is what makes the flow invertible.
        along = (F.softplus(inner) - 1 - inner) / (self.weight @ self.weight + LOG_DET_FLOOR)
        direction = self.direction + along * self.weight
        activation = torch.tanh(z @ self.weight + self.bias.squeeze())
        determinant = 1 + (1 - activation**2) * (self.weight @ direction)
        return z + activation[..., None] * direction, torch.log(determinant.abs() + LOG_DET_FLOOR)


class NormalizingFlow(nn.Module):
    """Planar flows one after another; no flow is the identity."""

    def __init__(self, dim: int, num_flows: int) -> None:
        super().__init__()
        self.flows = nn.ModuleList(PlanarFlow(dim) for _ in range(num_flows))

    def forward(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Transform z, shape (..., dim); also the sum of the flows' log |det Jacobian|, shape (...)."""
        log_det = torch.zeros_like(z[..., 0])
        for flow in self.flows:
            z, step = flow(z)
            log_det = log_det + step
        return z, log_det


class VariationalAutoencoder(nn.Module):
    """A Gaussian posterior through normalizing flows, a standard normal prior, a sigmoid decoder.

    In training mode the latent is sampled; in evaluation mode it is the posterior's mean sent through
    the flows, so that a row has one score.
    """

    def __init__(
        self,
        input_dim: int,
        num_flows: int,
        encoder_dims: Sequence[int] | None,
        latent_dim: int,
        min_logvar: float = -20.0,
        max_logvar: float = 2.0,
    ) -> None:
        """Build it with `num_flows` planar flows; the posterior's log variance is held to the given range."""
        super().__init__()
        hidden = [input_dim, *(encoder_dims or ())]
        self.input_dim = input_dim
        self.min_logvar, self.max_logvar = min_logvar, max_logvar
        self.encoder = nn.Sequential(dense(hidden), nn.ReLU()) if len(hidden) > 1 else nn.Identity()
        self.mean = nn.Linear(hidden[-1], latent_dim)
        self.logvar = nn.Linear(hidden[-1], latent_dim)
        self.flow = NormalizingFlow(latent_dim, num_flows)
        self.decoder = nn.Sequential(dense([latent_dim, *hidden[::-1]]), nn.Sigmoid())

    def encode(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and log variance of the posterior, each of shape (n, latent_dim)."""
        hidden = self.encoder(x)
        return self.mean(hidden), self.logvar(hidden).clamp(self.min_logvar, self.max_logvar)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Reconstruct rows, shape (n, input_dim) or (..., input_dim).

        Returns:
            The reconstruction (n, input_dim) in (0, 1), the latent (n, latent_dim), and the divergence of
            the posterior from the prior (n,), in nats: KL(q_0 || p) in closed form plus the flows' share
            0.5 (|z_K|^2 - |z_0|^2) - log |det| at one latent [Rezende & Mohamed 2015, eq. 15]. With flows
            it is an estimate and can be slightly negative.
        """
        mean, logvar = self.encode(x)
        z0 = mean + torch.randn_like(mean) * torch.exp(0.5 * logvar) if self.training else mean
        latent, log_det = self.flow(z0)
        closed = 0.5 * (mean**2 + logvar.exp() - 1 - logvar).sum(dim=-1)
        kl = closed + 0.5 * (latent**2 - z0**2).sum(dim=-1) - log_det
        return self.decoder(latent), latent, kl
