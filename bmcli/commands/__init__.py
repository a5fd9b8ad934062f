"""One module for each verb: its functions take plain values and return one, from top to bottom as the data flows."""
