"""The evaluation room: metrics of predictions and gates on them, from arrays to plain values."""
