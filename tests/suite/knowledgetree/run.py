"""KnowledgeTree of the sample suite: notes on its articles, kept in its own database."""

from hivesuite.notes import run_notes_service

# Stands for the graph database of the real one, which says so where it has one.
NEO4J = {"status": "healthy", "type": "neo4j"}

if __name__ == "__main__":
    run_notes_service("knowledgetree", 5020, {"neo4j": NEO4J})
