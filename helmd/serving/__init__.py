"""The parts of helmd: the suite it watches, the log store, logins of browsers, and what answers routes."""
