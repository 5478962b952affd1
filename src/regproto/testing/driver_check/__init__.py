"""The checks of a driver, over real sockets on loopback: see `check_driver`.

Beside the rest of `regproto.testing` this does I/O: sockets, threads, files and the clock. So it is imported only when
it is asked for.

    script.py      a session that says what it is told to, and records what it hears
    peer.py        registries of raw bytes
    bench.py       what a check works with
    connecting.py, answering.py, requesting.py, aborting.py, sending.py, looping.py,
    streaming.py   the checks
    report.py      what came of them
"""
