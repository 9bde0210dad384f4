"""Modules of the suite: where their code comes from, and what is known of each."""
