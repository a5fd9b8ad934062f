"""Values that `auto` stands for, measured once on a machine and then remembered."""
