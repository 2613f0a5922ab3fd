"""ThinKV: the policy, its column of thoughts, and its segments, schedule and clusters."""

from dynts_batch.kvcache.policies.thinkv import policy as policy
from dynts_batch.kvcache.policies.thinkv import thought as thought
