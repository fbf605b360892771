"""``python -m mri_deep_tools`` is the command line."""

import sys

from .cli import main

sys.exit(main())
