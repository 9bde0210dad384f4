"""Modules on disk: repositories, versions, virtual environments, and the sandbox for builds."""
