"""The demo: the whole line once, from a source of events to a report."""
