"""Fetching, building and starting the Keycloak distribution."""
