"""Fetching, checking and unpacking the Keycloak distribution."""
