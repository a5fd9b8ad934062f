"""Reports: pages that are one file each, their figures, and tables for other programs."""
