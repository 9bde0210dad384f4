"""Asking a service whether it is well."""
