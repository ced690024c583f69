"""`python -m loadtests.history`: see `run`."""

import sys

from loadtests.history.run import main

sys.exit(main())
