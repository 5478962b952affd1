"""What a driver must hold to, over real sockets on loopback: see `check_driver`.

Beside the rest of `regproto.testing` this does I/O: sockets, threads, files and the clock. So it is imported only when
it is asked for.

    _script.py      a session that says what it is told to, and records what it hears
    _peer.py        registries of raw bytes
    _bench.py       what a check works with
    _connecting.py, _answering.py, _asking.py, _aborting.py, _sending.py, _looping.py,
    _streaming.py   the checks
    _report.py      what came of them
"""
