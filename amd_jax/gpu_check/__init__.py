"""Everything that a CPU cannot show, on the GPU that is here: each check a process, all of them one table."""
