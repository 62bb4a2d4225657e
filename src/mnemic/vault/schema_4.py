"""Format 4 of the vault adds governance: literal, so that later changes of tables.py cannot change it."""

_TABLES = (
    "CREATE TABLE governance (tenant TEXT NOT NULL, revision BIGINT NOT NULL, audit_n BIGINT, "
    "audit_head BLOB, PRIMARY KEY (tenant))",
    "CREATE TABLE principal (tenant TEXT NOT NULL, principal BLOB NOT NULL, name_key BLOB NOT NULL, "
    "name BLOB NOT NULL, kind TEXT NOT NULL, disabled BIGINT NOT NULL, PRIMARY KEY (tenant, principal), "
    "CONSTRAINT principal_name UNIQUE (tenant, name_key))",
    "CREATE TABLE grants (tenant TEXT NOT NULL, grant_id BLOB NOT NULL, principal BLOB, rights BIGINT NOT "
    "NULL, reach BLOB NOT NULL, label BLOB, unless BLOB, until BIGINT, PRIMARY KEY (tenant, grant_id))",
    "CREATE TABLE policy (tenant TEXT NOT NULL, policy BLOB NOT NULL, reach BLOB NOT NULL, label BLOB, rule "
    "BLOB NOT NULL, PRIMARY KEY (tenant, policy))",
    "CREATE TABLE audit (tenant TEXT NOT NULL, n BIGINT NOT NULL, at BIGINT NOT NULL, principal BLOB, verb "
    "TEXT NOT NULL, target BLOB NOT NULL, allowed BIGINT NOT NULL, hash BLOB NOT NULL, "
    "PRIMARY KEY (tenant, n))",
    "CREATE TABLE usage (tenant TEXT NOT NULL, space BIGINT NOT NULL, cube BLOB NOT NULL, uses BIGINT NOT "
    "NULL, last_used BIGINT NOT NULL, PRIMARY KEY (tenant, space, cube))",
)

TABLES: dict[str, tuple[str, ...]] = {
    "sqlite": tuple(f"{text} WITHOUT ROWID" for text in _TABLES),
    "postgresql": tuple(text.replace(" BLOB", " BYTEA") for text in _TABLES),
}
