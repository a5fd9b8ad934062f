"""Networks: assembled from a recipe, saved, and loaded through one guarded door."""
