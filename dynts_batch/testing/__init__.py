"""Stand-ins for tests: they behave like an engine and need no model."""
