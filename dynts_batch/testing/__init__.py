"""Stand-ins for tests: what behaves like an engine without a model."""
