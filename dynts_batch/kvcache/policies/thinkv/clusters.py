"""The few points that stand for many: K-means, and in each cluster the real point nearest its
centre.

Axes as in kvcache/__init__.py. A point is a token's key, and each head is a part of it. The longest
stretch has N points. K of them stay, as many as there are clusters.

All is computed from the products of the points, in float64. Of points equally near, the first
counts. So a choice depends on neither the batch nor rounding. On a CPU, C code does it, one set
after another. Knows nothing about keys or caches.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch

from dynts_batch.kvcache import native

SOURCE = "clusters.c"
#: Most of Lloyd's steps.
MAX_STEPS = 20
#: Distances that differ by less than this share of the longest squared point are equal.
TOLERANCE = 1e-9
#: Most bytes of points, in float64, that are clustered at once.
_CHUNK_BYTES = 128 * 2**20


class Cut(NamedTuple):
    """A stretch of points that loses some.

    It has `size` points of row `row`, from `start` on, of which `num_kept` stay.
    """

    row: int
    start: int
    size: int
    num_kept: int


def representatives(
    layers: Sequence[torch.Tensor], where: torch.Tensor, cuts: Sequence[Cut]
) -> torch.Tensor:
    """Which points of `cuts` stay in each layer, bool [cuts, L, N].

    Each of `layers` is [*, H, S, D], and row r is at `where[r]` [R] in it. The first centre is the
    first point. Each next one is the point farthest from all before. Clusters are empty if points
    are equal: then the first points left fill up.
    """
    if native.can_run(SOURCE, layers[0].dtype, where.device):
        return _in_c(layers, where, cuts)
    longest = max(cut.size for cut in cuts)
    kept = torch.zeros(len(cuts), len(layers), longest, dtype=torch.bool, device=where.device)
    # Sets that keep equally many points go together, since the work grows with the largest.
    for num_kept in {cut.num_kept for cut in cuts} - {0}:
        alike = [number for number, cut in enumerate(cuts) if cut.num_kept == num_kept]
        found = _in_torch(layers, where, [cuts[number] for number in alike], num_kept)
        kept[alike, :, : found.shape[2]] = found
    return kept


def highest(scores: torch.Tensor, num_points: torch.Tensor, num_kept: torch.Tensor) -> torch.Tensor:
    """The points with the highest `scores` [cuts, N], bool [cuts, N].

    `num_kept` [cuts] of the first `num_points` [cuts] stay. Of equal ones the first wins.
    """
    place = torch.arange(scores.shape[1], device=scores.device)
    is_point = place < num_points[:, None]
    order = scores.masked_fill(~is_point, -torch.inf).argsort(dim=1, descending=True, stable=True)
    return torch.zeros_like(is_point).scatter_(1, order, place < num_kept[:, None])


def _in_c(layers: Sequence[torch.Tensor], where: torch.Tensor, cuts: Sequence[Cut]) -> torch.Tensor:
    _, num_parts, num_points, part_size = layers[0].shape
    longest = max(cut.size for cut in cuts)
    pointers = torch.tensor([layer.data_ptr() for layer in layers])
    stretches = torch.tensor(cuts)
    kept = torch.empty(len(cuts), len(layers), longest, dtype=torch.bool)
    native.function(SOURCE, "representatives", "ppppllllll" "l" "d" "l")(
        kept.data_ptr(), pointers.data_ptr(), where.data_ptr(), stretches.data_ptr(), *kept.shape,
        num_parts, num_points, part_size, MAX_STEPS, TOLERANCE, torch.get_num_threads(),
    )  # fmt: skip
    return kept


def _in_torch(
    layers: Sequence[torch.Tensor], where: torch.Tensor, cuts: Sequence[Cut], num_kept: int
) -> torch.Tensor:
    """Which points of cuts that all keep `num_kept` stay, bool [cuts, L, N]."""
    _, num_parts, num_points, part_size = layers[0].shape
    row, start, size, _ = torch.tensor(cuts, device=where.device).T
    place = torch.arange(max(cut.size for cut in cuts), device=where.device)
    index = where[row, None], slice(None), (start[:, None] + place).clamp(max=num_points - 1)
    set_bytes = len(place) * num_parts * part_size * 8
    step = max(1, _CHUNK_BYTES // (len(cuts) * set_bytes))
    found = []
    for first in range(0, len(layers), step):
        points = torch.stack(
            [layer[index].flatten(2) for layer in layers[first : first + step]], dim=1
        )
        sizes = size[:, None].expand(points.shape[:2])
        found.append(_cluster(points.flatten(0, 1), sizes.flatten(), num_kept))
        found[-1] = found[-1].unflatten(0, points.shape[:2])
    return torch.cat(found, dim=1)


def _cluster(points: torch.Tensor, num_points: torch.Tensor, num_kept: int) -> torch.Tensor:
    """Which `num_kept` of the first `num_points` [sets] of `points` [sets, N, D] stay, bool [sets,
    N].

    Below, they are K clusters.
    """
    is_point = torch.arange(points.shape[1], device=points.device) < num_points[:, None]
    points = points.double() * is_point[..., None]
    products = points @ points.transpose(1, 2)
    tolerance = TOLERANCE * products.diagonal(dim1=1, dim2=2).amax(dim=1)[:, None, None]
    seeds = _farthest_first(products, is_point, num_kept, tolerance[..., 0])
    owner, to_points = _lloyd(products, seeds, is_point, tolerance)
    # A point's squared distance to its centre, less a term that all members share.
    distance = products.diagonal(dim1=1, dim2=2) - 2 * _own(to_points, owner)
    costs = torch.full_like(to_points, torch.inf)
    costs.scatter_(1, owner[:, None], distance.masked_fill(~is_point, torch.inf)[:, None])
    nearest = _first_smallest(costs, 2, tolerance)
    # An empty cluster's nearest point is not its own.
    clusters = torch.arange(num_kept, device=points.device)
    is_nearest = owner.gather(1, nearest) == clusters
    scores = torch.zeros_like(distance).scatter_reduce_(1, nearest, is_nearest.double(), "amax")
    return highest(scores, num_points, torch.full_like(num_points, num_kept))


def _farthest_first(
    products: torch.Tensor, is_point: torch.Tensor, num_clusters: int, tolerance: torch.Tensor
) -> torch.Tensor:
    """The points at which the centres start, [sets, K]."""
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
    tolerance: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Each point's cluster, [sets, N], and the products of the clusters' means with all points,
    [sets, K, N]."""
    to_points = products.gather(1, seeds[..., None].expand(-1, -1, products.shape[2]))
    squares = to_points.gather(2, seeds[..., None])[..., 0]  # of centres, [sets, K]
    owner = torch.zeros_like(is_point, dtype=torch.int64)
    for step in range(MAX_STEPS):
        costs = torch.add(squares[..., None], to_points, alpha=-2)
        before, owner = owner, _first_smallest(costs, 1, tolerance)
        if step and torch.equal(owner, before):
            break
        size = torch.zeros_like(squares).scatter_add_(1, owner, is_point.double())
        means = _sums(products, owner, len(seeds[0])) / size.clamp(min=1)[..., None]
        inside = torch.where(is_point, _own(means, owner), 0.0)
        moved = torch.zeros_like(squares).scatter_add_(1, owner, inside) / size.clamp(min=1)
        # An empty cluster stays in place.
        to_points = torch.where(size[..., None] > 0, means, to_points)
        squares = torch.where(size > 0, moved, squares)
    return owner, to_points


def _sums(products: torch.Tensor, owner: torch.Tensor, num_clusters: int) -> torch.Tensor:
    """Sums over the members of each cluster, [sets, K, N], of products [sets, N, N]."""
    num_sets, num_points, _ = products.shape
    sets = torch.arange(num_sets, device=owner.device)[:, None]
    sums = products.new_zeros(num_sets * num_clusters, num_points)
    sums.index_add_(0, (owner + num_clusters * sets).flatten(), products.flatten(0, 1))
    return sums.unflatten(0, (num_sets, num_clusters))


def _own(values: torch.Tensor, owner: torch.Tensor) -> torch.Tensor:
    """The value of each point's own cluster, [sets, N], from values [sets, K, N]."""
    return values.gather(1, owner[:, None])[:, 0]


def _first_smallest(values: torch.Tensor, dim: int, tolerance: torch.Tensor) -> torch.Tensor:
    """Index of the first value that is smallest within the tolerance."""
    limit = values.amin(dim=dim, keepdim=True) + tolerance
    return (values <= limit).view(torch.uint8).argmax(dim=dim)
