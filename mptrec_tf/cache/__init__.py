"""Stage 2 on representations that were computed once, in memory or on disk.

What a new task's module reads of the older model is frozen, so it is the same in every epoch and
for every module that is tried.
"""

from mptrec_tf.cache.datasets import cached_dataset
from mptrec_tf.cache.room import where_to_cache
from mptrec_tf.cache.rows import CachedRows, cache_rows

__all__ = ["CachedRows", "cache_rows", "cached_dataset", "where_to_cache"]
