"""Visual targets: what of an image the text is to generate, and reads in its place."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...configuration.configuration_bga_mner import BgaMnerConfig


# Statistics of this many images are as good as those of any more: the error of a mean is 3 % of a deviation.
_IMAGES_MEASURED = 1024


def reconstruction_target(states: Tensor, normalize: bool) -> Tensor:
    """Return what is to be generated of real states (batch, length, width): in float32, detached, layer-normalised."""
    return _normalised(states.detach(), normalize)


def _normalised(states: Tensor, normalize: bool) -> Tensor:
    states = states.float()
    return F.layer_norm(states, states.shape[-1:]) if normalize else states


class PooledTarget(nn.Module):
    r"""What an image shows, and not where: its class token and the mean of its patches, each standardised.

    A caption names what is in an image. It can't tell which patch shows it, and a generator of one feature per patch
    spends most of its loss on that. Features of all images also share most of what they are:
    :math:`(x - \mu) / \sigma`, with mean and deviation of each dimension over images, leaves what tells images apart.
    A feature that is generated in doubt is a short vector then, which still points to what it means.

    The largest value of any patch stands in for a class token that an encoder hasn't. Statistics are those of the first
    images seen in training, and constant after about a thousand.
    """

    def __init__(self, config: BgaMnerConfig) -> None:
        super().__init__()
        self.normalize = config.normalize_targets
        self.num_prefix_tokens = config.num_vision_prefix_tokens
        shape = (config.num_target_positions, config.vision_config.hidden_size)
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("variance", torch.ones(shape))
        self.register_buffer("images_seen", torch.zeros(1, dtype=torch.long))

    def forward(self, states: Tensor) -> Tensor:
        """Pool and standardise last states (batch, vision tokens, width): (batch, 2, width) in float32."""
        return self._standardised(self.pool(states), self.mean, self.variance)

    def patches(self, states: Tensor) -> Tensor:
        """Standardise each patch of last states as the mean patch is: (batch, patches, width) in float32."""
        patches = _normalised(states, self.normalize)[:, self.num_prefix_tokens :]
        return self._standardised(patches, self.mean[-1], self.variance[-1])

    @staticmethod
    def _standardised(features: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
        return (features - mean.float()) * (variance.float() + 1e-6).rsqrt()

    def pool(self, states: Tensor) -> Tensor:
        """Return the class token, or else the largest value of any patch, and the mean patch: (batch, 2, width)."""
        states = _normalised(states, self.normalize)
        # registers say nothing of their own
        patches = states[:, self.num_prefix_tokens :]
        whole = states[:, 0] if self.num_prefix_tokens else patches.amax(dim=1)
        # twice (batch, width) -> (batch, 2, width)
        return torch.stack([whole, patches.mean(dim=1)], dim=1)

    @torch.no_grad()
    def measure(self, states: Tensor | None, present: Tensor | None) -> None:
        """Add the rows that are present (batch,) of states (batch, vision tokens, width) to the statistics.

        Processes that train together share what they see, so each has to call this, with None where it has no image.
        """
        mean, seen = self.mean.float(), self.images_seen.float()
        # of no image, where there is none
        off, counted = torch.zeros(1, *mean.shape, device=mean.device), torch.zeros(1, 1, 1, device=mean.device)
        if states is not None and present is not None:
            # weights in place of a choice of rows, which would wait for the device
            counted = (present & (self.images_seen < _IMAGES_MEASURED)).float()[:, None, None]
            off = torch.where(counted > 0, self.pool(states) - mean, 0.0)
        # (batch, 2, width) -> (2, width)
        new, apart = _over_processes(torch.stack([counted.sum().expand_as(mean), off.sum(dim=0)]))
        apart = apart / new.clamp(min=1)
        spread = _over_processes(((off - apart).square() * counted).sum(dim=0))
        total = (seen + new).clamp(min=1)
        # of two samples: the deviations in each, and that between them (Chan et al. 1979)
        spread = spread + self.variance.float() * seen + apart.square() * seen * new / total
        self.mean.copy_(mean + apart * new / total)
        self.variance.copy_(torch.where(new > 0, spread / total, self.variance))
        self.images_seen += new[0, :1].long()


def _over_processes(sums: Tensor) -> Tensor:
    """Add up sums over the processes that train together, if there are several."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(sums)
    return sums


__all__ = ["PooledTarget", "reconstruction_target"]
