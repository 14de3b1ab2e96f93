# For XLA_FLAGS: what tests compile runs a few times, and optimising machine code takes longer than it saves.
QUICK = "--xla_backend_optimization_level=0"
