"""The suite's services: names, the registry, dependencies, and the documents that describe it."""
