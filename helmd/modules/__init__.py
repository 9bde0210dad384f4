"""Modules on disk: repositories, versions, virtual environments, and the sandbox that their code is built in."""
