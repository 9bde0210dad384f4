"""Bodies of requests and replies of the API as dataclasses, and what is derived from these."""
