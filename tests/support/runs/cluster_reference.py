"""A slow K-means in plain Python, one point at a time, for what the policy's own must equal."""

Point = list[float]


def squared(a: Point, b: Point) -> float:
    return sum((x - y) ** 2 for x, y in zip(a, b, strict=True))


def first_smallest(costs: list[float]) -> int:
    return next(i for i, cost in enumerate(costs) if cost <= min(costs) + 1e-9)


def slow_representatives(points: list[Point], num_kept: int) -> list[int]:
    """Farthest-first from the first point, Lloyd, and the member nearest each centre."""
    centres = [points[0]]
    while len(centres) < num_kept:
        nearness = [-min(squared(point, centre) for centre in centres) for point in points]
        centres.append(points[first_smallest(nearness)])
    for _ in range(20):
        owner = [first_smallest([squared(p, c) for c in centres]) for p in points]
        moved = []
        for cluster, centre in enumerate(centres):
            members = [p for p, o in zip(points, owner, strict=True) if o == cluster]
            mean = [sum(column) / len(members) for column in zip(*members, strict=True)]
            moved.append(mean if members else centre)
        if moved == centres:
            break
        centres = moved
    chosen = set()
    for cluster, centre in enumerate(centres):
        members = [i for i, o in enumerate(owner) if o == cluster]
        if members:
            chosen.add(members[first_smallest([squared(points[i], centre) for i in members])])
    rest = [i for i in range(len(points)) if i not in chosen]
    return sorted([*chosen, *rest[: num_kept - len(chosen)]])
