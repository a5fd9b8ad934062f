"""One verb a module. Each reads top to bottom as the data flows, takes plain values and returns one."""
