"""The store's conformance suite, to subclass from outside: needs the extra ``testing`` (pytest and hypothesis).

A test module of a store looks like this::

    from eventlab.testing.reading import ReadingContract
    from eventlab.testing.writing import WritingContract

    class TestMyStore(ReadingContract, WritingContract):
        def opened(self, folder, clock):
            return MyStore(clock)

The contract is `ReadingContract` and `WritingContract`. The other parts are optional, and a store declares those that
it takes by subclassing them too: `DurabilityContract`, `SealContract` and `VerifyContract`, which are in
`eventlab.testing.abilities`. `eventlab.testing.state_machine` has the same parts as Hypothesis state machines, and
`eventlab.testing.storage` is the suite of a `Storage`.
"""

import pytest

# Failed asserts then show their values, as those of a test module do.
_MODULES = ("abilities", "events", "reading", "state_machine", "storage", "suite", "writing")
pytest.register_assert_rewrite(*(f"{__name__}.{module}" for module in _MODULES))
