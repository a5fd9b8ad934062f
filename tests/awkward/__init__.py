"""The catalogue of data as people write it, and the law that it means the same as its clean twin."""
