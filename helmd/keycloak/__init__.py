"""The Keycloak distribution: fetched, checked, unpacked, built and launched."""
