"""Networks: assembled from a recipe, saved, and loaded after one set of safety checks."""
