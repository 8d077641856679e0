"""An order of Gaussians in which runs of neighbours in the array are neighbours in space: a balanced k-d tree."""

import itertools

import torch

_WIDEST = 0.999  # of a part's extent, so that a part's keys stay below the next one's


def spatial_order(centres: torch.Tensor, chunk: int, sizes: torch.Tensor | None = None) -> torch.Tensor:
    """Order points so that each run of `chunk` of them, counted from 0, fills a small box.

    The points are halved at a multiple of `chunk`, across the longest edge of the box around them, and the halves
    again, on the points' device.

    Parameters
    ----------
    centres : [N, 3]; what is not finite counts as 0
    chunk : >= 1
    sizes : [N] by which the points of a run are in ascending order, so that neighbours have about as much work

    Returns
    -------
    [N] int64, the points' indices in their order
    """
    n = len(centres)
    points = torch.nan_to_num(centres.detach().double(), nan=0.0, posinf=0.0, neginf=0.0)
    order = torch.arange(n, device=centres.device)
    bounds = [0, n]
    while len(bounds) - 1 < -(-n // chunk):
        order = _sorted_along_longest_edges(points, order, bounds)
        bounds = _halved(bounds, chunk)
    if sizes is not None:
        by_size = torch.argsort(torch.nan_to_num(sizes.detach())[order], stable=True)
        order = order[by_size[torch.argsort(by_size // chunk, stable=True)]]
    return order


def _halved(bounds: list[int], chunk: int) -> list[int]:
    """Halve each part at a multiple of `chunk` from its beginning; a part of one chunk stays."""
    finer = bounds[:1]
    for begin, end in itertools.pairwise(bounds):
        chunks = -(-(end - begin) // chunk)
        if chunks > 1:
            finer.append(begin + chunk * (chunks // 2))
        finer.append(end)
    return finer


def _sorted_along_longest_edges(points: torch.Tensor, order: torch.Tensor, bounds: list[int]) -> torch.Tensor:
    """Sort the points of each part along the longest edge of the box around the part."""
    sizes = torch.tensor(bounds[1:], device=order.device) - torch.tensor(bounds[:-1], device=order.device)
    part = torch.repeat_interleave(torch.arange(len(sizes), device=order.device), sizes, output_size=len(order))
    ordered = points[order]
    ends = part[:, None].expand(-1, 3)
    lowest = torch.full((len(sizes), 3), torch.inf, dtype=points.dtype, device=points.device)
    lowest = lowest.scatter_reduce(0, ends, ordered, "amin")
    extent = torch.full_like(lowest, -torch.inf).scatter_reduce(0, ends, ordered, "amax") - lowest
    longest, axis = extent.max(dim=1)
    along = (ordered - lowest[part]).gather(1, axis[part, None])[:, 0] / longest.clamp(min=1e-30)[part]
    return order[torch.argsort(part + _WIDEST * along, stable=True)]
