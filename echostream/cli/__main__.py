"""``python -m echostream.cli``: the ``echostream`` command."""

import sys

from echostream.cli import main

sys.exit(main())
