"""Settings that only a shell would understand are named when units are applied."""

from collections.abc import Mapping, Sequence

import pytest

from helmd.model.suite.service import Override, Service
from helmd.model.suite.shell_syntax import shell_syntax


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("gunicorn", "--bind", "127.0.0.1:$PORT", "app:app"), "127.0.0.1:$PORT"),
        (("gunicorn", "--bind=$HOST:8000"), "--bind=$HOST:8000"),
        (("node", "server.js", "${PORT}"), "${PORT}"),
        (("node", "server.js", "--token=$(cat", "token)"), "--token=$(cat"),
        (("./migrate", "&&", "./serve"), "&&"),
        (("./serve", ">", "log.txt", "2>&1"), ">"),
        (("./serve", "|", "tee", "log"), "|"),
        (("./serve", "&"), "&"),
        (("./serve", "--config", "~/serve.conf"), "~/serve.conf"),
        (("./serve", "--config=~/serve.conf"), "--config=~/serve.conf"),
        (("~/bin/serve", "https://example.org/~/a", "a~/b"), ""),
        (("sh", "-c", "./migrate && exec ./serve --port $PORT"), ""),
        (("/bin/bash", "-lc", "exec ./serve $PORT"), ""),
        (("env", "A=1", "sh", "run.sh", "$PORT"), ""),
        (("grep", "^a$"), ""),
        (("nginx", "-g", "daemon off;"), ""),
        (("./serve", "--rate", "5&6", "--price", "$5"), ""),
        (("./serve", "--template", "a $name b"), ""),
        ((), ""),
    ],
)
def test_words_of_a_command_line(words: Sequence[str], named: str) -> None:
    found = list(shell_syntax(Service("web", start_command=tuple(words))))
    assert len(found) == bool(named) and all(f"'{named}'" in each and "start_command" in each for each in found)


@pytest.mark.parametrize(
    ("environment", "named"),
    [
        ({"PATH": "$PATH:/opt/bin"}, ["PATH"]),
        ({"PATH": "/opt/bin:$PATH", "PORT": "80"}, ["PATH"]),
        ({"URL": "http://${HOST}/", "HOME_OF": "$HOME/x"}, ["URL", "HOME_OF"]),
        ({"DATA": "~/data", "PATH": "/opt/bin:~/bin", "URL": "http://x/~/y"}, ["DATA", "PATH"]),
        ({"FORMAT": "%h $5 a$b c^$", "EMPTY": ""}, []),
    ],
)
def test_values_of_variables(environment: Mapping[str, str], named: list[str]) -> None:
    found = list(shell_syntax(Service("web", environment=environment)))
    assert [each.split(":")[0].rpartition(".")[2] for each in found] == named


def test_each_mode_and_command_is_looked_at() -> None:
    service = Service(
        "web",
        pre_start=("a", "&&", "b"),
        reload_command=("kill", "$MAINPID", "$PID"),
        modes={"production": Override(("x", "$PORT"), {"A": "$B"})},
    )
    settings = [each.split(":")[0].removeprefix("services.web.") for each in shell_syntax(service)]
    assert settings == ["pre_start", "reload_command", "production.start_command", "production.environment.A"]


def test_a_reload_command_may_name_the_main_process() -> None:
    assert not list(shell_syntax(Service("web", reload_command=("kill", "-HUP", "$MAINPID"))))
