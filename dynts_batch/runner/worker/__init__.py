"""The worker: an engine in a Ray actor, fed with requests, writing rows."""
