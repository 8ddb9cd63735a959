"""How the memory bank goes on with more good images: the selection continues, nothing of the features changes."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from andon.core import ConfigError
from andon.features import Extractor
from andon.methods.base import Fitting
from andon.methods.patchcore.config import PatchcoreConfig
from andon.methods.patchcore.coreset import continued_k_centre, greedy_k_centre, projection_matrix
from andon.methods.patchcore.embedding import embed, patch_parts
from andon.methods.patchcore.filling import bank_size, check_bank
from andon.methods.patchcore.neighbours import MemoryBank

__all__ = ["grown_bank"]


@torch.no_grad()
def grown_bank(
    fitting: Fitting,
    config: PatchcoreConfig,
    extractor: Extractor,
    bank: MemoryBank,
    origins: torch.Tensor | None,
    learned: int,
) -> tuple[MemoryBank, torch.Tensor | None]:
    """A bank with patches of ``fitting.images`` beside its own, and their origins where its own are known.

    Its size is what the options say of all images. As long as there is room, the bank keeps what it has: greedy
    k-centre goes on from it over the new patches, in a projection for the number of patches that there are now. A bank
    at its ``coreset_size`` has no room: the selection is made again, from what it has and the new patches, its first
    pick the same. The patches that the bank passed over earlier are gone, so that is not what a fit to all would keep.

    Args:
        learned: images that the bank was made from.

    Raises:
        ConfigError: it does not fit ``memory_limit``.
    """
    known, per_image = len(bank), 0
    parts = []
    for indices, features in fitting.features(extractor):
        parts.append(embed(patch_parts(config, features)).sub_(bank.mean))
        per_image = len(parts[-1]) // len(indices)
        _check_room(config, bank, per_image * len(fitting.images))
    with fitting.clock("coreset"):
        points = torch.cat([bank.centred, *parts])
        n = learned * per_image + len(points) - known
        k = min(bank_size(config, n), len(points))
        check_bank(config, k, points.shape[1])
        chosen = _chosen(fitting, config, points + bank.mean, known, k, n).to(points.device)
    kept = int((chosen < known).sum())
    fitting.note(
        f"memory bank: {len(chosen) - kept:,} patches of {len(fitting.images)} more images beside {kept:,} of {known:,}"
    )
    if origins is not None:
        origins = F.pad(origins, (0, known - len(origins)), value=-1)  # an older file does not know all
        later = torch.arange(len(points) - known, device=origins.device) + learned * per_image
        origins = torch.cat([origins, later])[chosen.to(origins.device)]
    # The mean only keeps numbers small: as it was, what is kept stays as it is, bit for bit.
    return MemoryBank(points[chosen], bank.mean.clone()), origins


def _chosen(
    fitting: Fitting, config: PatchcoreConfig, features: torch.Tensor, known: int, k: int, n: int
) -> torch.Tensor:
    """Which of the bank's rows (the first ``known``) and the new patches make the bank of k patches out of n."""
    if config.coreset == "none" or k == len(features):
        return torch.arange(len(features))
    if config.coreset == "random":
        return _at_random(fitting.seed, known, len(features) - known, k, n)
    eps, projection = config.projection_eps, None
    if eps is not None:
        projection = projection_matrix(n, features.shape[1], eps=eps, seed=fitting.seed)
    points = features if projection is None else features @ projection.to(features.device)
    if k > known:
        further = continued_k_centre(points, known, k, progress=fitting.progress)
        return torch.cat([torch.arange(known), further.indices])
    return greedy_k_centre(points, k, progress=fitting.progress).indices


def _at_random(seed: int, known: int, new: int, k: int, n: int) -> torch.Tensor:
    """Of k rows, as many of the new patches as are their share of all n; the order of the bank is kept."""
    generator = torch.Generator().manual_seed(seed)
    joining = min(new, max(k - known, round(k * new / n)))
    kept = torch.randperm(known, generator=generator)[: k - joining].sort().values
    return torch.cat([kept, known + torch.randperm(new, generator=generator)[:joining]])


def _check_room(config: PatchcoreConfig, bank: MemoryBank, new: int) -> None:
    """Bank and new patches stand side by side, twice while the selection is made."""
    rows, dimension = len(bank) + new, bank.centred.shape[1]
    if 8 * rows * dimension > config.memory_limit * 2**30:
        raise ConfigError(
            f"patchcore: {new:,} new patches beside {len(bank):,} do not fit memory_limit = "
            f"{config.memory_limit:g} GiB; add fewer images at a time"
        )
