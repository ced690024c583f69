"""Autobahn's fuzzing client, for Python 2.7 with `build/autobahn`: one server, at an address of our choosing.

`wstest` resolves the host of the URL and sends no fields of ours; here the URL says what is asked for, and
`address` who is asked. What the suite finds goes to `report`, a line of JSON for each case as it ends. As
`serve PORT` it is the echo server of the suite instead. In a folder of its own, for its neighbours would be
found in place of the suite's packages.

    python2.7 fuzzing_client.py '{"url": ..., "address": [host, port], "headers": {}, "cases": [], ...}'
"""

import json
import sys

from autobahntestsuite import fuzzing, testee
from twisted.internet import reactor

# All a report says but times, how TCP cut the octets, and the handshake: that is another behind a proxy.
SAME = [
    "behavior",
    "behaviorClose",
    "result",
    "resultClose",
    "received",
    "expected",
    "expectedClose",
    "closedByMe",
    "failedByMe",
    "droppedByMe",
    "wasClean",
    "wasNotCleanReason",
    "wasServerConnectionDropTimeout",
    "wasOpenHandshakeTimeout",
    "wasCloseHandshakeTimeout",
    "localCloseCode",
    "localCloseReason",
    "remoteCloseCode",
    "remoteCloseReason",
    "rxFrameStats",
    "txFrameStats",
]


class Client(fuzzing.FuzzingClientFactory):
    def nextServer(self):
        more = fuzzing.FuzzingClientFactory.nextServer(self)
        self.headers = self.spec["headers"]
        return more

    def logCase(self, result):
        with open(self.spec["report"], "a") as out:
            out.write(json.dumps([result["id"], {name: result[name] for name in SAME}]) + "\n")

    def createReports(self):
        pass


def ask(spec):
    host, port = spec["address"]
    spec["servers"] = [{"agent": "it", "url": spec["url"], "origin": spec.get("origin")}]
    fuzzing.connectWS = lambda factory: reactor.connectTCP(host, port, factory, timeout=30)
    Client(spec)


if sys.argv[1] == "serve":
    testee.startServer("ws://127.0.0.1:" + sys.argv[2])
else:
    ask(json.loads(sys.argv[1]))
reactor.run()
