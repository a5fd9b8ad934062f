"""Export formats, one in each module."""
