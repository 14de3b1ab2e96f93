"""Several methods from the same start, evaluated alike: `python -m amd_jax.compare`."""
