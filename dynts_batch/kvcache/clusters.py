"""The few points that stand for many: K-means, and of each cluster the real point nearest its centre.

Letters: B sets of points, N points, K clusters, D dimensions. Everything is computed from the products of the points, in
float64, and of points as near as another the first one counts: a choice then depends on neither the batch nor rounding.
On a CPU it is done in C, a set at a time. Knows nothing about keys or caches.
"""

import torch

from dynts_batch.kvcache import native

SOURCE = "clusters.c"
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
    if native.can_run(SOURCE, points.dtype, points.device, native.VECTOR):
        return _in_c(points, num_points, num_kept)
    kept = torch.zeros(points.shape[:2], dtype=torch.bool, device=points.device)
    # Sets that keep equally many go together, since the work grows with the largest.
    for count in num_kept.unique().tolist():
        alike = num_kept == count
        longest = int(num_points[alike].max())
        found = _in_torch(points[alike, :longest], num_points[alike], num_kept[alike])
        kept[alike, :longest] = found
    return kept


def highest(scores: torch.Tensor, num_points: torch.Tensor, num_kept: torch.Tensor) -> torch.Tensor:
    """The points with the highest `scores` [B, N], bool [B, N]: `num_kept` [B] of the first `num_points` [B], of equal
    ones the first."""
    place = torch.arange(scores.shape[1], device=scores.device)
    is_point = place < num_points[:, None]
    order = scores.masked_fill(~is_point, -torch.inf).argsort(dim=1, descending=True, stable=True)
    return torch.zeros_like(is_point).scatter_(1, order, place < num_kept[:, None])


def _in_c(points: torch.Tensor, num_points: torch.Tensor, num_kept: torch.Tensor) -> torch.Tensor:
    num_sets, longest, num_dimensions = points.shape
    points, num_points, num_kept = (x.contiguous() for x in (points, num_points, num_kept))
    kept = torch.empty(num_sets, longest, dtype=torch.bool)
    native.function(SOURCE, "representatives", "ppppllll" "d" "l")(
        kept.data_ptr(), points.data_ptr(), num_points.data_ptr(), num_kept.data_ptr(), num_sets, longest,
        num_dimensions, MAX_STEPS, TOLERANCE, torch.get_num_threads(),
    )  # fmt: skip
    return kept


def _in_torch(
    points: torch.Tensor, num_points: torch.Tensor, num_kept: torch.Tensor
) -> torch.Tensor:
    is_point = torch.arange(points.shape[1], device=points.device) < num_points[:, None]
    points = points.double() * is_point[..., None]
    products = points @ points.transpose(1, 2)
    tolerance = TOLERANCE * products.diagonal(dim1=1, dim2=2).amax(dim=1)[:, None, None]
    seeds = _farthest_first(products, is_point, int(num_kept.max()), tolerance[..., 0])
    is_cluster = torch.arange(seeds.shape[1], device=points.device) < num_kept[:, None]
    owner, to_points = _lloyd(products, seeds, is_point, is_cluster, tolerance)
    # A point's squared distance to its own centre, but for what is the same for all members.
    distance = products.diagonal(dim1=1, dim2=2) - 2 * _own(to_points, owner)
    costs = torch.full_like(to_points, torch.inf)
    costs.scatter_(1, owner[:, None], distance.masked_fill(~is_point, torch.inf)[:, None])
    nearest = _first_smallest(costs, 2, tolerance)
    # An empty cluster's nearest point is not its own.
    clusters = torch.arange(seeds.shape[1], device=points.device)
    is_nearest = owner.gather(1, nearest) == clusters
    scores = torch.zeros_like(distance).scatter_reduce_(1, nearest, is_nearest.double(), "amax")
    return highest(scores, num_points, num_kept)


def _farthest_first(
    products: torch.Tensor, is_point: torch.Tensor, num_clusters: int, tolerance: torch.Tensor
) -> torch.Tensor:
    """The points that the first centres are, [B, K]."""
    squares = products.diagonal(dim1=1, dim2=2)
    distances = squares[:, :, None] + squares[:, None] - 2 * products
    sets = torch.arange(len(distances), device=distances.device)
    chosen = [torch.zeros_like(sets)]
    nearness = -distances[:, 0].masked_fill(~is_point, -torch.inf)
    for _ in range(num_clusters - 1):
        chosen.append(_first_smallest(nearness, 1, tolerance))
        nearness = torch.maximum(nearness, -distances[sets, chosen[-1]])
    return torch.stack(chosen, dim=1)


def _lloyd(
    products: torch.Tensor,
    seeds: torch.Tensor,
    is_point: torch.Tensor,
    is_cluster: torch.Tensor,
    tolerance: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Each point's cluster, [B, N], and the products of these clusters' means with all points, [B, K, N]."""
    to_points = products.gather(1, seeds[..., None].expand(-1, -1, products.shape[2]))
    squares = to_points.gather(2, seeds[..., None])[..., 0]  # of the centres, [B, K]
    owner = torch.zeros_like(is_point, dtype=torch.int64)
    for step in range(MAX_STEPS):
        squares = squares.masked_fill(~is_cluster, torch.inf)
        costs = torch.add(squares[..., None], to_points, alpha=-2)
        before, owner = owner, _first_smallest(costs, 1, tolerance)
        if step and torch.equal(owner, before):
            break
        size = torch.zeros_like(squares).scatter_add_(1, owner, is_point.double())
        means = _sums(products, owner, len(seeds[0])) / size.clamp(min=1)[..., None]
        inside = torch.where(is_point, _own(means, owner), 0.0)
        moved = torch.zeros_like(squares).scatter_add_(1, owner, inside) / size.clamp(min=1)
        # An empty cluster stays where it was.
        to_points = torch.where(size[..., None] > 0, means, to_points)
        squares = torch.where(size > 0, moved, squares)
    return owner, to_points


def _sums(products: torch.Tensor, owner: torch.Tensor, num_clusters: int) -> torch.Tensor:
    """Sums over the members of each cluster, [B, K, N], of products [B, N, N]."""
    num_sets, num_points, _ = products.shape
    sets = torch.arange(num_sets, device=owner.device)[:, None]
    sums = products.new_zeros(num_sets * num_clusters, num_points)
    sums.index_add_(0, (owner + num_clusters * sets).flatten(), products.flatten(0, 1))
    return sums.unflatten(0, (num_sets, num_clusters))


def _own(values: torch.Tensor, owner: torch.Tensor) -> torch.Tensor:
    """Of values [B, K, N] that of each point's own cluster, [B, N]."""
    return values.gather(1, owner[:, None])[:, 0]


def _first_smallest(values: torch.Tensor, dim: int, tolerance: torch.Tensor) -> torch.Tensor:
    """Index of the first value that is smallest but for rounding."""
    limit = values.amin(dim=dim, keepdim=True) + tolerance
    return (values <= limit).view(torch.uint8).argmax(dim=dim)
