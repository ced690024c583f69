"""The composition root: the one room where concrete classes meet.

worker          one process's share of the data plane: what lives as long as the process
plane           what lives as long as a configuration, built whole before any of it is used
devices         what a configuration says of devices and services, as the parts that do it
state           what a process holds of the shared state: connections, the lease, the log of locks
administrator   the process of the admin API and the console
"""

from ztproxy.app.worker import Worker as Worker
