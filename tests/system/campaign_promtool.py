"""The metrics of the running helmd, checked by Prometheus' promtool.

Only run by ``scripts/campaign promtool``, since the package has 19 MB.
"""

import subprocess
from pathlib import Path

import pytest

from tests.system.booted import Sandbox
from tests.system.test_jobs import api


@pytest.fixture(scope="module")
def promtool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return promtool from Debian's package, which is not installed, since its services would start."""
    place = tmp_path_factory.mktemp("prometheus")
    # As root, since the account _apt can't write here.
    download = ["apt-get", "-o", "APT::Sandbox::User=root", "download", "prometheus"]
    subprocess.run(download, cwd=place, check=True, timeout=300)
    (package,) = place.glob("prometheus_*.deb")
    subprocess.run(["dpkg-deb", "-x", package, place], check=True, timeout=120)
    return place / "usr/bin/promtool"


def test_promtool_finds_nothing(demo: Sandbox, promtool: Path) -> None:
    posted = {"service_name": "core", "metrics": [{"name": "queue.length", "value": 3, "tags": {"a b": "x"}}]}
    assert api(demo, "POST", "/api/metrics/ingest", posted)[0] == 200
    served = demo.shell(
        'curl -sS -f --unix-socket "$XDG_RUNTIME_DIR/hivematrix/helm.sock" http://helm/metrics/prometheus'
    )
    assert "helm_service_response_seconds{" in served.out and "helm_service_log_lines_total{" in served.out
    assert 'helm_custom_metric{metric="queue.length",service="core",tag_a_b="x"} 3.0' in served.out
    assert served.code == 0 and 'helm_service_up{service="core"} 1.0' in served.out
    checked = subprocess.run(
        [promtool, "check", "metrics"], input=served.out, capture_output=True, text=True, timeout=60
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")
