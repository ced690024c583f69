"""The history checker: real workers on a real store under random faults; every decision that was let through
and every revocation that was confirmed is written down, and what may not have happened is counted.

    python -m loadtests.history --seconds 60 --workers 4 --seed 1 --report build/history.json
"""
