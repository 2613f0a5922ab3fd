"""Makes an importance predictor for a model from a finished run's traces: labels, then a fit."""
