"""Metrics of predictions as functions of the weights of rows: NumPy arrays in, numbers out."""
