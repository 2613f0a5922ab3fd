"""From a configuration to a finished run directory; the only package that imports Ray."""
