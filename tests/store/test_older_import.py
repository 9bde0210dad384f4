"""The log entries of an older Helm in a database of its own, copied into the store once."""

from collections.abc import Iterator

import pytest

from helmd.model.errors import StoreError
from helmd.store.ingest import older_import, takeover
from helmd.store.ingest.older_import import ImportedLogs, import_older_logs
from helmd.store.maintenance.migrate import migrate
from helmd.store.session import connect
from tests.store.conftest import Cluster, Database
from tests.store.stored import append, random_rows
from tests.store.test_older_tables import older


@pytest.fixture
def elsewhere(cluster: Cluster) -> Iterator[Database]:
    """Yield the older Helm's database, with entries of the last days."""
    cluster.execute("CREATE DATABASE older_helm OWNER helm_owner")
    try:
        yield Database(cluster, "older_helm")
    finally:
        cluster.execute("DROP DATABASE older_helm WITH (FORCE)")


def kept(_: str) -> int:
    return 90


async def imported(elsewhere: Database, database: Database) -> ImportedLogs:
    return await import_older_logs(elsewhere.owner, database.owner, kept, lambda _: None)


async def test_entries_are_copied_once_and_the_older_database_is_left_alone(
    database: Database, elsewhere: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(takeover, "_PAUSE", 0.0)
    older(elsewhere)
    rows = "SELECT md5(string_agg(log_entries::text, ' ' ORDER BY id)) FROM log_entries"
    before = elsewhere.query(rows)
    ((number,),) = elsewhere.query("SELECT count(*)::int FROM log_entries")
    assert isinstance(number, int)
    await migrate(database.owner, "helm")
    writer = await connect(database.store, "writer")
    first = await append(writer, random_rows(50, 3))
    done = await imported(elsewhere, database)
    # One of the rows is older than its retention.
    assert done == ImportedLogs(number, number - 1)
    later = await append(writer, random_rows(50, 4))
    await writer.close()
    ids = [row[0] for row in database.query("SELECT id FROM log_entries WHERE message LIKE 'older %%' ORDER BY id")]
    assert len(ids) == len(set(ids)) == number - 2
    assert isinstance(ids[0], int) and isinstance(ids[-1], int)
    assert first.last_id < ids[0] and ids[-1] < later.first_id
    ours = database.query("SELECT message, trace_id, context->>'n' FROM log_entries WHERE message LIKE 'older %%'")
    assert sorted(ours) == sorted(
        elsewhere.query("SELECT message, trace_id, context->>'n' FROM log_entries WHERE message LIKE 'older %%'")
    )
    assert database.query("SELECT to_regclass('older_log_entries')") == [(None,)]
    assert elsewhere.query(rows) == before
    again = await imported(elsewhere, database)
    assert again.taken == done.taken
    assert database.query("SELECT count(*) FROM log_entries WHERE message LIKE 'older %%'") == [(len(ids),)]


async def test_an_interrupted_copy_leaves_nothing_and_begins_again(
    database: Database, elsewhere: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(takeover, "_PAUSE", 0.0)
    older(elsewhere, 300)
    await migrate(database.owner, "helm")
    whole = older_import._pass_on

    async def broken(*arguments: object) -> None:
        await whole(*arguments)  # type: ignore[arg-type]
        raise StoreError("the power went")

    monkeypatch.setattr(older_import, "_pass_on", broken)
    with pytest.raises(StoreError, match="the power went"):
        await imported(elsewhere, database)
    assert database.query("SELECT count(*) FROM log_entries") == [(0,)]
    assert database.query("SELECT count(*) FROM store_takeovers WHERE source LIKE 'older%%'") == [(0,)]
    monkeypatch.setattr(older_import, "_pass_on", whole)
    done = await imported(elsewhere, database)
    assert database.query("SELECT count(*) FROM log_entries") == [(done.taken,)] and done.taken > 250


async def test_databases_that_have_no_such_entries(database: Database, elsewhere: Database) -> None:
    await migrate(database.owner, "helm")
    with pytest.raises(StoreError, match="has no table log_entries"):
        await imported(elsewhere, database)
    with pytest.raises(StoreError, match="can't be reached"):
        await import_older_logs("postgresql://nobody:x@127.0.0.1:9/none", database.owner, kept, lambda _: None)
