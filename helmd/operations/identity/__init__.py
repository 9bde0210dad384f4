"""Setting up Keycloak's realm, and comparing it with what the suite needs."""
