"""Which formats of configuration files of other programs Helm can write; `config_text` does it."""

FORMATS = ("ini", "env", "json", "toml")


def format_of(file: str) -> str:
    """Return the format of a file by its name: JSON, TOML, variables for ``.env``, otherwise INI."""
    name = file.rpartition("/")[2].lower()
    suffix = name.rpartition(".")[2]
    if suffix in ("json", "toml"):
        return suffix
    return "env" if suffix in ("env", "flaskenv") or name.startswith(".env") else "ini"
