"""Passwords are recognised in every form that libpq reads, and nothing else is taken for one."""

import pytest

from helmd.model.config.secrets import holds_password, password_files

WITH = [
    "postgresql://helm:secret@db/helm",
    "postgres://:secret@db",
    "postgresql://db/helm?password=secret",
    "postgresql://db/helm?user=helm&password=secret",
    "postgresql://db/helm?p%61ssword=secret",
    "postgresql://db/helm?%70%61%73%73%77%6f%72%64=secret",
    "postgresql://db/helm?password=%73ecret",
    "postgresql://db/helm?sslkey=/k&sslpassword=secret",
    "postgresql%3A%2F%2Fhelm%3Asecret%40db",
    "host=db user=helm password=secret",
    "host=db password = 'a secret'",
    "password=secret host=db",
    "host=db sslpassword=secret",
    "password= user=helm",
    '#database = "postgresql://db/helm?password=secret"',
    'database = "host=db PASSWORD=secret"',
]
WITHOUT = [
    "postgresql://helm@db:5432/helm",
    "postgresql://db/helm?sslmode=require",
    "postgresql://db/helm?password=",
    "postgresql://db/helm?password=&sslmode=require",
    "host=db password=''",
    "postgresql://db/helm?passfile=/home/x/.pgpass",
    "postgresql://[::1]:5432/helm",
    "# The password is in secrets/helm.env",
    "reset_password=1",
]


@pytest.mark.parametrize("text", WITH)
def test_found(text: str) -> None:
    assert holds_password(text)


@pytest.mark.parametrize("text", WITHOUT)
def test_not_found(text: str) -> None:
    assert not holds_password(text)


def test_password_files_are_named() -> None:
    text = 'a = "postgresql://db/helm?passfile=/home/a%20b/pgpass&x=1"\nb = "host=x passfile=/other"'
    assert password_files(text) == ("/home/a b/pgpass", "/other")
