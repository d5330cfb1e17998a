"""`python -m unet_compare.speed`: `unet bench` where tyro is not installed."""

import signal
import sys

from unet_compare.speed.bench import main

signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C
sys.exit(main())
