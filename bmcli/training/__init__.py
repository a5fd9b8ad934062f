"""The training engine: a loop of our own; Keras keeps layers, losses, optimizers, metrics and callbacks."""
