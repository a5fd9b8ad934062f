"""Tuning: oracles, workers, and the search that brings them together."""
