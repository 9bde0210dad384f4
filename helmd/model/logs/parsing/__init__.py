"""From journal entries and the text of lines to rows of the log store."""
