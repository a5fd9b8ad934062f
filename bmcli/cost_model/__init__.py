"""`bmcli plan`: time and memory of a training, measured on this machine and predicted for more replicas."""
