"""The promise to others, as data: scenarios in JSON, and a runner for the core and for any driver.

    python -m conformance                               the core alone, in simulated time
    python -m conformance --driver module:function      a driver, over real loopback HTTP
    python -m conformance --registry localhost:5000      a real registry

README.md beside this says how to read and how to add a scenario.
"""
