"""KnowledgeTree of the sample suite: notes on its articles, kept in its own database."""

from hivesuite.notes import run_notes_service

if __name__ == "__main__":
    run_notes_service("knowledgetree", 5020)
