"""The few points that stand for many: K-means, and of each cluster the real point nearest its centre.

Letters: B sets of points, N points, K clusters, D dimensions. Everything is computed from the products of the points, in
float64, and of points as near as another the first one counts: a choice then depends on neither the batch nor rounding.
Knows nothing about keys or caches.
"""

import torch

#: Lloyd's steps at most.
MAX_STEPS = 20
#: Distances that differ by less than this share of the longest squared point are equal.
TOLERANCE = 1e-9


def representatives(
    points: torch.Tensor, num_points: torch.Tensor, num_kept: torch.Tensor
) -> torch.Tensor:
    """Which points stay, bool [B, N]: `num_kept` [B], at least 1, of the first `num_points` [B] of `points` [B, N, D].

    Centres start at the first point and then at that farthest from all before. Where clusters run empty, because points
    are equal, the first points left fill up.
    """
    points = points.double()
    is_point = torch.arange(points.shape[1], device=points.device) < num_points[:, None]
    products = points @ points.transpose(1, 2)
    products = products * (is_point[:, :, None] & is_point[:, None])
    squares = products.diagonal(dim1=1, dim2=2)
    tolerance = TOLERANCE * squares.amax(dim=1)[:, None, None]
    centres = _farthest_first(products, squares, is_point, int(num_kept.max()), tolerance[..., 0])
    is_cluster = torch.arange(centres.shape[2], device=points.device) < num_kept[:, None]
    centres, member = _lloyd(products, centres, is_point, is_cluster, tolerance)
    to_centre = squares[:, :, None] - 2 * products @ centres
    nearest = _first_smallest(to_centre.masked_fill(~member, torch.inf), 1, tolerance)
    is_nearest = torch.zeros_like(member).scatter_(1, nearest[:, None], True) & member
    return highest(is_nearest.any(dim=2).double(), num_points, num_kept)


def highest(scores: torch.Tensor, num_points: torch.Tensor, num_kept: torch.Tensor) -> torch.Tensor:
    """The points with the highest `scores` [B, N], bool [B, N]: `num_kept` [B] of the first `num_points` [B], of equal
    ones the first."""
    place = torch.arange(scores.shape[1], device=scores.device)
    is_point = place < num_points[:, None]
    order = scores.masked_fill(~is_point, -torch.inf).argsort(dim=1, descending=True, stable=True)
    return torch.zeros_like(is_point).scatter_(1, order, place < num_kept[:, None])


def _farthest_first(
    products: torch.Tensor,
    squares: torch.Tensor,
    is_point: torch.Tensor,
    num_clusters: int,
    tolerance: torch.Tensor,
) -> torch.Tensor:
    """Weights of the points in the first centres, [B, N, K]: one point each."""
    distances = squares[:, :, None] + squares[:, None] - 2 * products
    sets = torch.arange(len(distances), device=distances.device)
    chosen = [torch.zeros_like(sets)]
    nearness = -distances[sets, chosen[0]].masked_fill(~is_point, -torch.inf)
    for _ in range(num_clusters - 1):
        chosen.append(_first_smallest(nearness, 1, tolerance))
        nearness = torch.maximum(nearness, -distances[sets, chosen[-1]])
    centres = torch.zeros(*is_point.shape, num_clusters, dtype=products.dtype, device=sets.device)
    return centres.scatter_(1, torch.stack(chosen, dim=1)[:, None], 1.0)


def _lloyd(
    products: torch.Tensor,
    centres: torch.Tensor,
    is_point: torch.Tensor,
    is_cluster: torch.Tensor,
    tolerance: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights of the points in the last centres and which points are a centre's, [B, N, K] both."""
    for _ in range(MAX_STEPS):
        to_points = products @ centres
        costs = (centres * to_points).sum(dim=1, keepdim=True) - 2 * to_points
        nearest = _first_smallest(costs.masked_fill(~is_cluster[:, None], torch.inf), 2, tolerance)
        member = torch.zeros_like(centres, dtype=torch.bool).scatter_(2, nearest[..., None], True)
        member &= is_point[..., None]
        size = member.sum(dim=1, keepdim=True)
        moved = torch.where(size > 0, member / size.clamp(min=1), centres)
        if torch.equal(moved, centres):
            break
        centres = moved
    return centres, member


def _first_smallest(values: torch.Tensor, dim: int, tolerance: torch.Tensor) -> torch.Tensor:
    """Index of the first value that is smallest but for rounding."""
    limit = values.amin(dim=dim, keepdim=True) + tolerance
    return (values <= limit).to(torch.uint8).argmax(dim=dim)
