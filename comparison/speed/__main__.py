"""`python -m comparison.speed`: `unet bench` where tyro is not installed."""

import signal
import sys

from comparison.speed.bench import main

signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C
sys.exit(main())
