"""`python -m ztproxy.cli`: the same as the `ztproxy` command, for where only the interpreter is known."""

from ztproxy.cli import main

main()
