"""What format 3 adds to a vault, as it was released: literal, like `schema_1`.

`erased` was empty till then.
"""

TABLES: dict[str, tuple[str, ...]] = {
    "sqlite": (
        "CREATE TABLE blob (tenant TEXT NOT NULL, blob BLOB NOT NULL, space BIGINT NOT NULL, seq "
        "BIGINT NOT NULL, bytes BIGINT NOT NULL, PRIMARY KEY (tenant, blob, space, seq)) WITHOUT "
        "ROWID",
        "CREATE TABLE dump (tenant TEXT NOT NULL, space BIGINT NOT NULL, dump BLOB NOT NULL, at "
        "BIGINT NOT NULL, place BLOB NOT NULL, PRIMARY KEY (tenant, space, dump)) WITHOUT ROWID",
        "DROP TABLE erased",
        "CREATE TABLE erased (tenant TEXT NOT NULL, cube_key BLOB NOT NULL, space BIGINT NOT NULL, "
        "seq BIGINT NOT NULL, marker BLOB NOT NULL, PRIMARY KEY (tenant, cube_key)) WITHOUT ROWID",
        "CREATE TABLE erasure (tenant TEXT NOT NULL, erasure BLOB NOT NULL, at BIGINT NOT NULL, "
        "finished_at BIGINT, counts BLOB NOT NULL, blobs BLOB NOT NULL, PRIMARY KEY (tenant, "
        "erasure)) WITHOUT ROWID",
        "ALTER TABLE space ADD COLUMN wrapped_key BLOB",
        "ALTER TABLE tenant ADD COLUMN wrapped_key BLOB",
    ),
    "postgresql": (
        "CREATE TABLE blob (tenant TEXT NOT NULL, blob BYTEA NOT NULL, space BIGINT NOT NULL, seq "
        "BIGINT NOT NULL, bytes BIGINT NOT NULL, PRIMARY KEY (tenant, blob, space, seq))",
        "CREATE TABLE dump (tenant TEXT NOT NULL, space BIGINT NOT NULL, dump BYTEA NOT NULL, at "
        "BIGINT NOT NULL, place BYTEA NOT NULL, PRIMARY KEY (tenant, space, dump))",
        "DROP TABLE erased",
        "CREATE TABLE erased (tenant TEXT NOT NULL, cube_key BYTEA NOT NULL, space BIGINT NOT NULL, "
        "seq BIGINT NOT NULL, marker BYTEA NOT NULL, PRIMARY KEY (tenant, cube_key))",
        "CREATE TABLE erasure (tenant TEXT NOT NULL, erasure BYTEA NOT NULL, at BIGINT NOT NULL, "
        "finished_at BIGINT, counts BYTEA NOT NULL, blobs BYTEA NOT NULL, PRIMARY KEY (tenant, "
        "erasure))",
        "ALTER TABLE space ADD COLUMN wrapped_key BYTEA",
        "ALTER TABLE tenant ADD COLUMN wrapped_key BYTEA",
    ),
}
