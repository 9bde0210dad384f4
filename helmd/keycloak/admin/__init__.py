"""Keycloak's Admin REST API."""
