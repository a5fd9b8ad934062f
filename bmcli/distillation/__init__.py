"""Learning from teachers: the ensemble, what it outputs, and the loss of a student."""
