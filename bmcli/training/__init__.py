"""The training engine: a loop of our own on TensorFlow's public API; Keras keeps layers, losses, optimizers and metrics."""
