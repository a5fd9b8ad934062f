"""Smaller networks: pruning and quantisation-aware training, and methods for trained networks."""
