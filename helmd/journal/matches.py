"""Which entries of the journal are read."""

from typing import Any

from helmd.model.logs.parsing.journal_fields import SUPPRESSED


def match_account(journal: Any, uid: int, boot_id: str) -> None:
    """Have JOURNAL give what an account wrote in a boot, and journald's own notices that it threw away lines of it."""
    journal.flush_matches()
    journal.add_match(f"_UID={uid}")
    journal.add_match(f"_BOOT_ID={boot_id}")
    journal.add_disjunction()
    for match in (f"MESSAGE_ID={SUPPRESSED.decode()}", "_TRANSPORT=driver", "_UID=0"):
        # The last two are journald's own word; anybody may write the others.
        journal.add_match(match)
    journal.add_match(f"OBJECT_UID={uid}")
    journal.add_match(f"_BOOT_ID={boot_id}")
