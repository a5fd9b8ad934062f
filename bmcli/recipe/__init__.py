"""The recipe language: reading with positions, merging, checking, and writing back."""

import os

# Searching every installed package for pydantic plugins takes longer than checking a recipe.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
