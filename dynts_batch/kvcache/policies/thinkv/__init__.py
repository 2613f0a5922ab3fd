"""ThinKV: the policy, and the segments, schedule and clusters that it needs."""

from dynts_batch.kvcache.policies.thinkv import policy as policy
