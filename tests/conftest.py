"""Programs that run once or twice are not worth optimising, a fifth of the time; `XLA_FLAGS= pytest` does it."""

import os

os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")
