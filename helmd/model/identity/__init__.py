"""What the suite needs in Keycloak: realm, clients, groups, and how a realm differs from that."""
