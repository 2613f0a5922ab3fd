"""The baselines: keep everything, the newest, the first and the newest, or a random draw."""

from dynts_batch.kvcache.policies.baselines import full as full
from dynts_batch.kvcache.policies.baselines import random as random
from dynts_batch.kvcache.policies.baselines import streaming as streaming
from dynts_batch.kvcache.policies.baselines import window as window
