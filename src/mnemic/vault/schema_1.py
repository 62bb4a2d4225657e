"""Format 1 of the vault, as it was released: literal, so that later changes of tables.py cannot change it."""

TABLES: dict[str, tuple[str, ...]] = {
    "sqlite": (
        "CREATE TABLE change (tenant TEXT NOT NULL, space BIGINT NOT NULL, seq BIGINT NOT NULL, "
        "change_id BLOB NOT NULL, op TEXT NOT NULL, principal BLOB, at BIGINT NOT NULL, reason BLOB, "
        "undoes BLOB, PRIMARY KEY (tenant, space, seq)) WITHOUT ROWID",
        "CREATE INDEX change_by_id ON change (tenant, change_id)",
        "CREATE TABLE cube (tenant TEXT NOT NULL, cube BLOB NOT NULL, space BIGINT NOT NULL, scope "
        "BIGINT NOT NULL, head BLOB NOT NULL, head_seq BIGINT NOT NULL, deleted BIGINT NOT NULL, state "
        'BIGINT NOT NULL, stale_since BIGINT, "conflict" BIGINT NOT NULL, client_key BLOB, PRIMARY KEY '
        "(tenant, cube)) WITHOUT ROWID",
        "CREATE UNIQUE INDEX cube_by_client_key ON cube (tenant, space, scope, client_key) WHERE "
        "client_key IS NOT NULL",
        "CREATE INDEX cube_stale ON cube (tenant, space, stale_since) WHERE stale_since IS NOT NULL",
        "CREATE TABLE edge (tenant TEXT NOT NULL, space BIGINT NOT NULL, version BLOB NOT NULL, role "
        "BIGINT NOT NULL, target BLOB NOT NULL, span_start BIGINT NOT NULL, span_end BIGINT, "
        "target_cube BLOB NOT NULL, target_digest BLOB, PRIMARY KEY (tenant, space, version, role, "
        "target, span_start)) WITHOUT ROWID",
        "CREATE INDEX edge_by_cube ON edge (tenant, target_cube)",
        "CREATE TABLE erased (tenant TEXT NOT NULL, cube_key BLOB NOT NULL, space BIGINT NOT NULL, seq "
        "BIGINT NOT NULL, PRIMARY KEY (tenant, cube_key)) WITHOUT ROWID",
        "CREATE TABLE feature (tenant TEXT NOT NULL, space BIGINT NOT NULL, seq BIGINT NOT NULL, model "
        "BIGINT NOT NULL, data BLOB NOT NULL, PRIMARY KEY (tenant, space, seq, model)) WITHOUT ROWID",
        'CREATE TABLE meta ("key" TEXT NOT NULL, value BLOB NOT NULL, PRIMARY KEY ("key")) WITHOUT ROWID',
        "CREATE TABLE model (tenant TEXT NOT NULL, model BIGINT NOT NULL, name TEXT NOT NULL, dim "
        "BIGINT NOT NULL, active BIGINT NOT NULL, PRIMARY KEY (tenant, model), CONSTRAINT model_name "
        "UNIQUE (tenant, name)) WITHOUT ROWID",
        "CREATE TABLE scope (tenant TEXT NOT NULL, space BIGINT NOT NULL, scope BIGINT NOT NULL, "
        "scope_key BLOB NOT NULL, names BLOB NOT NULL, first_seq BIGINT NOT NULL, PRIMARY KEY (tenant, "
        "space, scope), CONSTRAINT scope_names UNIQUE (tenant, space, scope_key)) WITHOUT ROWID",
        "CREATE TABLE space (tenant TEXT NOT NULL, space BIGINT NOT NULL, user_key BLOB NOT NULL, "
        "user_name BLOB, last_seq BIGINT NOT NULL, last_time BIGINT NOT NULL, last_scope BIGINT NOT "
        "NULL, epoch BIGINT NOT NULL, PRIMARY KEY (tenant, space), CONSTRAINT space_user UNIQUE "
        "(tenant, user_key)) WITHOUT ROWID",
        "CREATE TABLE tenant (tenant TEXT NOT NULL, last_space BIGINT NOT NULL, PRIMARY KEY (tenant)) "
        "WITHOUT ROWID",
        "CREATE TABLE version (tenant TEXT NOT NULL, space BIGINT NOT NULL, seq BIGINT NOT NULL, cube "
        "BLOB NOT NULL, version BLOB NOT NULL, parent BLOB, scope BIGINT NOT NULL, kind BIGINT NOT "
        "NULL, origin BIGINT NOT NULL, deleted BIGINT NOT NULL, at BIGINT NOT NULL, recorded_at BIGINT "
        "NOT NULL, valid_from BIGINT, valid_to BIGINT, expires_at BIGINT, digest BLOB NOT NULL, header "
        "BLOB NOT NULL, payload BLOB NOT NULL, blob BLOB, PRIMARY KEY (tenant, space, seq)) WITHOUT "
        "ROWID",
        "CREATE INDEX version_by_cube ON version (tenant, cube, recorded_at)",
    ),
    "postgresql": (
        "CREATE TABLE change (tenant TEXT NOT NULL, space BIGINT NOT NULL, seq BIGINT NOT NULL, "
        "change_id BYTEA NOT NULL, op TEXT NOT NULL, principal BYTEA, at BIGINT NOT NULL, reason BYTEA, "
        "undoes BYTEA, PRIMARY KEY (tenant, space, seq))",
        "CREATE INDEX change_by_id ON change (tenant, change_id)",
        "CREATE TABLE cube (tenant TEXT NOT NULL, cube BYTEA NOT NULL, space BIGINT NOT NULL, scope "
        "BIGINT NOT NULL, head BYTEA NOT NULL, head_seq BIGINT NOT NULL, deleted BIGINT NOT NULL, state "
        "BIGINT NOT NULL, stale_since BIGINT, conflict BIGINT NOT NULL, client_key BYTEA, PRIMARY KEY "
        "(tenant, cube))",
        "CREATE UNIQUE INDEX cube_by_client_key ON cube (tenant, space, scope, client_key) WHERE "
        "client_key IS NOT NULL",
        "CREATE INDEX cube_stale ON cube (tenant, space, stale_since) WHERE stale_since IS NOT NULL",
        "CREATE TABLE edge (tenant TEXT NOT NULL, space BIGINT NOT NULL, version BYTEA NOT NULL, role "
        "BIGINT NOT NULL, target BYTEA NOT NULL, span_start BIGINT NOT NULL, span_end BIGINT, "
        "target_cube BYTEA NOT NULL, target_digest BYTEA, PRIMARY KEY (tenant, space, version, role, "
        "target, span_start))",
        "CREATE INDEX edge_by_cube ON edge (tenant, target_cube)",
        "CREATE TABLE erased (tenant TEXT NOT NULL, cube_key BYTEA NOT NULL, space BIGINT NOT NULL, seq "
        "BIGINT NOT NULL, PRIMARY KEY (tenant, cube_key))",
        "CREATE TABLE feature (tenant TEXT NOT NULL, space BIGINT NOT NULL, seq BIGINT NOT NULL, model "
        "BIGINT NOT NULL, data BYTEA NOT NULL, PRIMARY KEY (tenant, space, seq, model))",
        "CREATE TABLE meta (key TEXT NOT NULL, value BYTEA NOT NULL, PRIMARY KEY (key))",
        "CREATE TABLE model (tenant TEXT NOT NULL, model BIGINT NOT NULL, name TEXT NOT NULL, dim "
        "BIGINT NOT NULL, active BIGINT NOT NULL, PRIMARY KEY (tenant, model), CONSTRAINT model_name "
        "UNIQUE (tenant, name))",
        "CREATE TABLE scope (tenant TEXT NOT NULL, space BIGINT NOT NULL, scope BIGINT NOT NULL, "
        "scope_key BYTEA NOT NULL, names BYTEA NOT NULL, first_seq BIGINT NOT NULL, PRIMARY KEY "
        "(tenant, space, scope), CONSTRAINT scope_names UNIQUE (tenant, space, scope_key))",
        "CREATE TABLE space (tenant TEXT NOT NULL, space BIGINT NOT NULL, user_key BYTEA NOT NULL, "
        "user_name BYTEA, last_seq BIGINT NOT NULL, last_time BIGINT NOT NULL, last_scope BIGINT NOT "
        "NULL, epoch BIGINT NOT NULL, PRIMARY KEY (tenant, space), CONSTRAINT space_user UNIQUE "
        "(tenant, user_key))",
        "CREATE TABLE tenant (tenant TEXT NOT NULL, last_space BIGINT NOT NULL, PRIMARY KEY (tenant))",
        "CREATE TABLE version (tenant TEXT NOT NULL, space BIGINT NOT NULL, seq BIGINT NOT NULL, cube "
        "BYTEA NOT NULL, version BYTEA NOT NULL, parent BYTEA, scope BIGINT NOT NULL, kind BIGINT NOT "
        "NULL, origin BIGINT NOT NULL, deleted BIGINT NOT NULL, at BIGINT NOT NULL, recorded_at BIGINT "
        "NOT NULL, valid_from BIGINT, valid_to BIGINT, expires_at BIGINT, digest BYTEA NOT NULL, header "
        "BYTEA NOT NULL, payload BYTEA NOT NULL, blob BYTEA, PRIMARY KEY (tenant, space, seq))",
        "CREATE INDEX version_by_cube ON version (tenant, cube, recorded_at)",
    ),
}
