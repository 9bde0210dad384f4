"""The query of one partition, as a part of a search's statement."""

from typing import NamedTuple

from helmd.store.maintenance.partitions import Leaf

NEWEST_FIRST, OLDEST_FIRST = "ORDER BY timestamp DESC, id DESC", "ORDER BY timestamp, id"


class Branch(NamedTuple):
    """A query of one partition: its condition as SQL, with the search's parameters, and whether to fence it.

    The fence is OFFSET 0: it keeps the planner from scanning the index on time in the hope of meeting rare matches.
    """

    leaf: Leaf
    condition: str
    fenced: bool

    def plain(self, columns: str) -> str:
        return f"SELECT {columns} FROM {self.leaf.name} WHERE {self.condition}"  # noqa: S608 - both are SQL already

    def statement(self, columns: str, order: str, limit: int) -> str:
        newest = f"{order} LIMIT {limit:d}"
        query = self.plain(columns)
        return f"(SELECT * FROM ({query} OFFSET 0) AS few {newest})" if self.fenced else f"({query} {newest})"  # noqa: S608
