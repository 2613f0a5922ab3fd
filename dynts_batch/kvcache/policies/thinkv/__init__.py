"""ThinKV: the policy, its column of thoughts, and the segments, schedule and clusters that it needs."""

from dynts_batch.kvcache.policies.thinkv import policy as policy
from dynts_batch.kvcache.policies.thinkv import thought as thought
