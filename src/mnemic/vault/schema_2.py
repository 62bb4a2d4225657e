"""What format 2 added: background work, and the facts that have slots. Literal, as `schema_1`."""

TABLES: dict[str, tuple[str, ...]] = {
    "sqlite": (
        "CREATE TABLE job (tenant TEXT NOT NULL, job BLOB NOT NULL, space BIGINT NOT NULL, kind TEXT NOT "
        "NULL, args BLOB NOT NULL, asked BIGINT NOT NULL, asked_at BIGINT NOT NULL, run_after BIGINT NOT "
        "NULL, lease_until BIGINT NOT NULL, attempts BIGINT NOT NULL, dead BIGINT NOT NULL, error BLOB, "
        "PRIMARY KEY (tenant, job)) WITHOUT ROWID",
        "CREATE INDEX job_due ON job (tenant, dead, run_after)",
        "CREATE TABLE progress (tenant TEXT NOT NULL, space BIGINT NOT NULL, reader TEXT NOT NULL, epoch "
        "BIGINT NOT NULL, seq BIGINT NOT NULL, PRIMARY KEY (tenant, space, reader)) WITHOUT ROWID",
        "CREATE TABLE slot (tenant TEXT NOT NULL, space BIGINT NOT NULL, slot_key BLOB NOT NULL, cube BLOB "
        "NOT NULL, PRIMARY KEY (tenant, space, slot_key, cube)) WITHOUT ROWID",
        "CREATE INDEX slot_by_cube ON slot (tenant, cube)",
    ),
    "postgresql": (
        "CREATE TABLE job (tenant TEXT NOT NULL, job BYTEA NOT NULL, space BIGINT NOT NULL, kind TEXT NOT "
        "NULL, args BYTEA NOT NULL, asked BIGINT NOT NULL, asked_at BIGINT NOT NULL, run_after BIGINT NOT "
        "NULL, lease_until BIGINT NOT NULL, attempts BIGINT NOT NULL, dead BIGINT NOT NULL, error BYTEA, "
        "PRIMARY KEY (tenant, job))",
        "CREATE INDEX job_due ON job (tenant, dead, run_after)",
        "CREATE TABLE progress (tenant TEXT NOT NULL, space BIGINT NOT NULL, reader TEXT NOT NULL, epoch "
        "BIGINT NOT NULL, seq BIGINT NOT NULL, PRIMARY KEY (tenant, space, reader))",
        "CREATE TABLE slot (tenant TEXT NOT NULL, space BIGINT NOT NULL, slot_key BYTEA NOT NULL, cube BYTEA "
        "NOT NULL, PRIMARY KEY (tenant, space, slot_key, cube))",
        "CREATE INDEX slot_by_cube ON slot (tenant, cube)",
    ),
}
