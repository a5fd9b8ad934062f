"""From a source named in a recipe to encoded splits on disk."""
