"""The system of record: change log, versions, lineage, migrations, on SQLite or PostgreSQL."""
