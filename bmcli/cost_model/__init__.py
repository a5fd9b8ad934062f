"""`bmcli plan`: the time and memory that a training takes, measured here and predicted elsewhere."""
