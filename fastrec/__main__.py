"""``python -m fastrec`` is the command ``fastrec``."""

import sys

from fastrec.cli import main

sys.exit(main())
