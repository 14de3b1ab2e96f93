"""`python -m amd_jax.convert import|export|verify`."""

import sys

from amd_jax.convert.cli import main

sys.exit(main())
