"""`python -m loadtests.overload`: see `run`."""

import sys

from loadtests.overload.run import main

sys.exit(main())
