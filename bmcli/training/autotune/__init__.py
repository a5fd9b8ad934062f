"""Values for `auto`, measured once on a machine and then cached."""
