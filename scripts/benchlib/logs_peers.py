"""Peers of the catch-up, which write to the same PostgreSQL: rsyslog (imjournal to ompgsql), and ``\\copy``."""

import shutil
import signal
import subprocess
import time

from logs_figures import say
from logs_tools import HOME, STORE_SOCKET, counted_exactly, run, store, value, wait_for

_RSYSLOG = """\
module(load="imjournal" StateFile="{work}/imjournal.state" Ratelimit.Interval="0" IgnorePreviousMessages="off"
       PersistStateInterval="10000" WorkAroundJournalBug="on")
module(load="ompgsql")
global(workDirectory="{work}")
template(name="sql" type="list" option.stdsql="on") {{
 constant(value="INSERT INTO log_entries(ts,service_name,level,message,hostname) VALUES ('")
 property(name="timereported" dateFormat="rfc3339")
 constant(value="','") property(name="programname")
 constant(value="','") property(name="syslogseverity-text")
 constant(value="','") property(name="msg")
 constant(value="','") property(name="hostname")
 constant(value="')")
}}
main_queue(queue.type="FixedArray" queue.size="100000" queue.dequeueBatchSize="5000" queue.workerThreads="1")
if $!_SYSTEMD_USER_UNIT == "{unit}" then {{
 action(type="ompgsql" server="{socket}" port="5432" db="bench_rsyslog" user="postgres" pass="x" template="sql")
}}
"""
"""Reads the same journal; without parsing, and with one index only."""

_TABLE = """
    CREATE TABLE log_entries (id bigint GENERATED ALWAYS AS IDENTITY, ts timestamptz, service_name text, level text,
                              message text, hostname text);
    CREATE INDEX ON log_entries (service_name, ts DESC);
"""
_TIMEOUT = 300.0


def rsyslogd() -> str | None:
    """Return the path of rsyslogd, or None; it is in /usr/sbin, which is not in every user's PATH."""
    return shutil.which("rsyslogd", path="/usr/sbin:/usr/bin:/sbin")


def rsyslog_rate(unit: str, lines: int, within: float) -> float | None:
    """Return rows per second until LINES lines of UNIT are stored, or None if nothing is stored.

    Measured from the first row on, since rsyslog reads all earlier entries of the journal before. WITHIN is the timeout
    in seconds for the first row, and for the others.
    """
    program = rsyslogd()
    if program is None:
        return None
    work = HOME / "rsyslog-race"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    settings = work / "rsyslog.conf"
    settings.write_text(_RSYSLOG.format(work=work, unit=unit, socket=STORE_SOCKET))
    with store() as connection:
        connection.execute("DROP DATABASE IF EXISTS bench_rsyslog WITH (FORCE)")
        connection.execute("CREATE DATABASE bench_rsyslog")
        connection.execute("CHECKPOINT")
    try:
        with store("bench_rsyslog") as connection:
            connection.execute(_TABLE)
            with (work / "output").open("wb") as output:
                process = subprocess.Popen(
                    [program, "-n", "-f", str(settings), "-i", str(work / "pid")], stdout=output, stderr=output
                )
            try:

                def last() -> int:
                    return int(value(connection, "SELECT coalesce(max(id), 0) FROM log_entries"))

                if not wait_for(lambda: last() >= 1 or process.poll() is not None, within, 0.01):
                    say(f"WRONG: rsyslog stored nothing: {(work / 'output').read_text()[-500:]}")
                    return None
                first, began = last(), time.monotonic()
                complete = wait_for(lambda: last() >= lines or process.poll() is not None, within)
                took, stored = time.monotonic() - began, last()
                if not complete or stored < lines:
                    say(f"WRONG: rsyslog has stored {stored:,} of {lines:,} lines after {took:.0f} s")
                return (stored - first) / took
            finally:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
    finally:
        with store() as connection:
            connection.execute("DROP DATABASE IF EXISTS bench_rsyslog WITH (FORCE)")
        shutil.rmtree(work, ignore_errors=True)


def copy_rate(name: str) -> float:
    """Return rows per second of ``\\copy`` of a service's rows into a table with the indexes of their partition."""
    file = HOME / "bench-rows.copy"
    database = f"host={STORE_SOCKET} dbname=helm user=postgres"
    with store() as connection:
        leaf = value(
            connection,
            "SELECT tableoid::regclass::text FROM log_entries WHERE service_name = %s"
            " GROUP BY tableoid ORDER BY count(*) DESC LIMIT 1",
            name,
        )
        try:
            run(
                "psql",
                "-qd",
                database,
                "-c",
                f"\\copy (SELECT * FROM {leaf} WHERE service_name = '{name}' ORDER BY id) TO '{file}'",  # noqa: S608
                within=_TIMEOUT,
            )
            rows = counted_exactly(connection, [name])
            connection.execute("DROP TABLE IF EXISTS bench_copy")
            connection.execute(f"CREATE TABLE bench_copy (LIKE {leaf} INCLUDING ALL)")
            # Text indexes are built later, over ranges of old ids.
            for (index,) in connection.execute(
                "SELECT indexname FROM pg_indexes WHERE tablename = 'bench_copy' AND indexdef LIKE '%USING gin%'"
            ).fetchall():
                connection.execute(f'DROP INDEX "{index}"')
            connection.execute("CHECKPOINT")
            began = time.monotonic()
            run("psql", "-qd", database, "-c", f"\\copy bench_copy FROM '{file}'", within=_TIMEOUT)
            return rows / (time.monotonic() - began)
        finally:
            file.unlink(missing_ok=True)
            connection.execute("DROP TABLE IF EXISTS bench_copy")
