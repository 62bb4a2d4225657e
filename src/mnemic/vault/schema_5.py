"""Format 5 of the vault adds what redaction has sealed: literal, so that later changes of tables.py cannot
change it.
"""

_TABLE = (
    "CREATE TABLE sealed (tenant TEXT NOT NULL, space BIGINT NOT NULL, seq BIGINT NOT NULL, spans BLOB NOT "
    "NULL, PRIMARY KEY (tenant, space, seq))"
)

TABLES: dict[str, tuple[str, ...]] = {
    "sqlite": (f"{_TABLE} WITHOUT ROWID",),
    "postgresql": (_TABLE.replace(" BLOB", " BYTEA"),),
}
