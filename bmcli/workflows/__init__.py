"""Steps that several verbs share."""
