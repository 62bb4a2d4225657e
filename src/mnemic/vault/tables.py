"""The vault's tables, declared once for SQLite and PostgreSQL.

`id` columns are 16 bytes, times are microseconds UTC, `🔑` columns are keyed HMACs (never a plain hash of
content), columns with `sealed` in their info are encrypted where the vault is (see `columns`). Truth: change,
version, edge, erased: rows are inserted and never updated; only erase deletes them. Everything else is a
projection that can be rebuilt from truth. Every key starts with `tenant` (sharding, row-level security).
"""

from __future__ import annotations

import sqlalchemy as sa

metadata = sa.MetaData()

_bytes = sa.LargeBinary
_int = sa.BigInteger
_text = sa.Text


def _table(name: str, *items: sa.schema.SchemaItem) -> sa.Table:
    # Small rows clustered on their key: one B-tree a table, and a scope loads by one range scan.
    return sa.Table(name, metadata, *items, sqlite_with_rowid=False)


meta = _table("meta", sa.Column("key", _text, primary_key=True), sa.Column("value", _bytes, nullable=False))

tenant = _table(
    "tenant",
    sa.Column("tenant", _text, primary_key=True),
    sa.Column("last_space", _int, nullable=False),
    sa.Column("wrapped_key", _bytes),  # by the master key; NULL: not encrypted
)

space = _table(
    "space",  # one per (tenant, user): the unit of index, ordering and erasure
    sa.Column("tenant", _text, primary_key=True),
    sa.Column("space", _int, primary_key=True, autoincrement=False),
    sa.Column("user_key", _bytes, nullable=False),  # 🔑
    sa.Column("user_name", _bytes, info={"sealed": ""}),  # NULL: user unset
    sa.Column("last_seq", _int, nullable=False),
    sa.Column("last_time", _int, nullable=False),
    sa.Column("last_scope", _int, nullable=False),
    sa.Column("epoch", _int, nullable=False),
    sa.Column("wrapped_key", _bytes),  # by the tenant's key; NULL: not encrypted
    sa.UniqueConstraint("tenant", "user_key", name="space_user"),
)

scope = _table(
    "scope",  # exact (user, agent, session), interned
    sa.Column("tenant", _text, primary_key=True),
    sa.Column("space", _int, primary_key=True, autoincrement=False),
    sa.Column("scope", _int, primary_key=True, autoincrement=False),
    sa.Column("scope_key", _bytes, nullable=False),  # 🔑
    sa.Column("names", _bytes, nullable=False, info={"sealed": "scope"}),  # JSON [agent, session]
    sa.Column("first_seq", _int, nullable=False),  # nothing was told in this scope before
    sa.UniqueConstraint("tenant", "space", "scope_key", name="scope_names"),
)

change = _table(
    "change",  # one row per call and space; seq is that of the last of its versions
    sa.Column("tenant", _text, primary_key=True),
    sa.Column("space", _int, primary_key=True, autoincrement=False),
    sa.Column("seq", _int, primary_key=True, autoincrement=False),
    sa.Column("change_id", _bytes, nullable=False),
    sa.Column("op", _text, nullable=False),
    sa.Column("principal", _bytes),
    sa.Column("at", _int, nullable=False),
    sa.Column("reason", _bytes, info={"sealed": "seq"}),
    sa.Column("undoes", _bytes),
    sa.Index("change_by_id", "tenant", "change_id"),
)

version = _table(
    "version",
    sa.Column("tenant", _text, primary_key=True),
    sa.Column("space", _int, primary_key=True, autoincrement=False),
    sa.Column("seq", _int, primary_key=True, autoincrement=False),
    sa.Column("cube", _bytes, nullable=False),
    sa.Column("version", _bytes, nullable=False),
    sa.Column("parent", _bytes),
    sa.Column("scope", _int, nullable=False),
    sa.Column("kind", _int, nullable=False),
    sa.Column("origin", _int, nullable=False),
    sa.Column("deleted", _int, nullable=False),
    sa.Column("at", _int, nullable=False),
    sa.Column("recorded_at", _int, nullable=False),
    sa.Column("valid_from", _int),
    sa.Column("valid_to", _int),
    sa.Column("expires_at", _int),
    sa.Column("digest", _bytes, nullable=False),  # 🔑 of kind, role, name, place and payload
    sa.Column("header", _bytes, nullable=False, info={"sealed": "seq"}),  # JSON, only what is not the default
    sa.Column("payload", _bytes, nullable=False, info={"sealed": "seq"}),
    sa.Column("blob", _bytes),
    sa.Index("version_by_cube", "tenant", "cube", "recorded_at"),
)

edge = _table(
    "edge",  # role: 0 source, 1 parent, 2 supersedes, 3 contradicts, 4 ended by, 5 fused, 6 merged
    sa.Column("tenant", _text, primary_key=True),
    sa.Column("space", _int, primary_key=True, autoincrement=False),
    sa.Column("version", _bytes, primary_key=True),
    sa.Column("role", _int, primary_key=True, autoincrement=False),
    sa.Column("target", _bytes, primary_key=True),  # a version id
    sa.Column("span_start", _int, primary_key=True, autoincrement=False),
    sa.Column("span_end", _int),
    sa.Column("target_cube", _bytes, nullable=False),  # whose version: the walk needs no index of versions
    sa.Column("target_digest", _bytes),
    sa.Index("edge_by_cube", "tenant", "target_cube"),
)

erased = _table(
    "erased",
    sa.Column("tenant", _text, primary_key=True),
    sa.Column("cube_key", _bytes, primary_key=True),  # 🔑
    sa.Column("space", _int, nullable=False),
    sa.Column("seq", _int, nullable=False),
    sa.Column("marker", _bytes, nullable=False, info={"sealed": None}),  # a hash of the id, for other vaults
)

erasure = _table(
    "erasure",  # the account of each erase, without content; NULL finished_at: bytes are still on disk
    sa.Column("tenant", _text, primary_key=True),
    sa.Column("erasure", _bytes, primary_key=True),
    sa.Column("at", _int, nullable=False),
    sa.Column("finished_at", _int),
    sa.Column("counts", _bytes, nullable=False),  # JSON of numbers by room
    sa.Column("blobs", _bytes, nullable=False),  # names of files to remove, 32 bytes each
)

dump = _table(
    "dump",  # copies that left the vault, so that an erase can name them
    sa.Column("tenant", _text, primary_key=True),
    sa.Column("space", _int, primary_key=True, autoincrement=False),
    sa.Column("dump", _bytes, primary_key=True),
    sa.Column("at", _int, nullable=False),
    sa.Column("place", _bytes, nullable=False, info={"sealed": ""}),
)

cube = _table(
    "cube",  # projection: the head of each cube
    sa.Column("tenant", _text, primary_key=True),
    sa.Column("cube", _bytes, primary_key=True),
    sa.Column("space", _int, nullable=False),
    sa.Column("scope", _int, nullable=False),
    sa.Column("head", _bytes, nullable=False),
    sa.Column("head_seq", _int, nullable=False),
    sa.Column("deleted", _int, nullable=False),
    sa.Column("state", _int, nullable=False),
    sa.Column("stale_since", _int),
    sa.Column("conflict", _int, nullable=False),
    sa.Column("client_key", _bytes),  # 🔑
    sa.Index(
        "cube_by_client_key",
        "tenant",
        "space",
        "scope",
        "client_key",
        unique=True,
        sqlite_where=sa.text("client_key IS NOT NULL"),
        postgresql_where=sa.text("client_key IS NOT NULL"),
    ),
    sa.Index(
        "cube_stale",
        "tenant",
        "space",
        "stale_since",
        sqlite_where=sa.text("stale_since IS NOT NULL"),
        postgresql_where=sa.text("stale_since IS NOT NULL"),
    ),
)

feature = _table(
    "feature",  # hashed terms, token ids or a float16 vector, by model. By seq first: an add touches one page
    sa.Column("tenant", _text, primary_key=True),
    sa.Column("space", _int, primary_key=True, autoincrement=False),
    sa.Column("seq", _int, primary_key=True, autoincrement=False),
    sa.Column("model", _int, primary_key=True, autoincrement=False),
    sa.Column("data", _bytes, nullable=False, info={"sealed": "seq"}),
)

sealed = _table(
    "sealed",  # what was taken out of a text, only where the vault is encrypted; never dumped
    sa.Column("tenant", _text, primary_key=True),
    sa.Column("space", _int, primary_key=True, autoincrement=False),
    sa.Column("seq", _int, primary_key=True, autoincrement=False),
    sa.Column(
        "spans", _bytes, nullable=False, info={"sealed": "seq"}
    ),  # JSON [start, mark, what it stands for]
)

blob = _table(
    "blob",  # one row a version that names a large payload; the file is beside the vault
    sa.Column("tenant", _text, primary_key=True),
    sa.Column("blob", _bytes, primary_key=True),  # SHA-256 of the stored bytes
    sa.Column("space", _int, primary_key=True, autoincrement=False),
    sa.Column("seq", _int, primary_key=True, autoincrement=False),
    sa.Column("bytes", _int, nullable=False),
)

job = _table(
    "job",  # outbox: a row is written in the transaction that causes the work, and deleted when it is done
    sa.Column("tenant", _text, primary_key=True),
    sa.Column(
        "job", _bytes, primary_key=True
    ),  # a name of (kind, space, args): what is asked twice is done once
    sa.Column("space", _int, nullable=False),
    sa.Column("kind", _text, nullable=False),
    sa.Column("args", _bytes, nullable=False),  # JSON of ids and numbers, never of content
    sa.Column("asked", _int, nullable=False),  # how often; asked again while it ran, it runs again
    sa.Column("asked_at", _int, nullable=False),
    sa.Column("run_after", _int, nullable=False),
    sa.Column("lease_until", _int, nullable=False),  # 0: nobody has it
    sa.Column("attempts", _int, nullable=False),
    sa.Column("dead", _int, nullable=False),  # 1: failed too often, waits for somebody to look
    sa.Column("error", _bytes, info={"sealed": None}),  # what the last attempt said; may quote content
    sa.Index("job_due", "tenant", "dead", "run_after"),
)

progress = _table(
    "progress",  # how far who only has to catch up has read a space's log; another epoch: from the start
    sa.Column("tenant", _text, primary_key=True),
    sa.Column("space", _int, primary_key=True, autoincrement=False),
    sa.Column("reader", _text, primary_key=True),
    sa.Column("epoch", _int, nullable=False),
    sa.Column("seq", _int, nullable=False),
)

slot = _table(
    "slot",  # projection: which facts speak of one attribute of one subject
    sa.Column("tenant", _text, primary_key=True),
    sa.Column("space", _int, primary_key=True, autoincrement=False),
    sa.Column("slot_key", _bytes, primary_key=True),  # 🔑 of user, agent, subject, attribute
    sa.Column("cube", _bytes, primary_key=True),
    sa.Index("slot_by_cube", "tenant", "cube"),
)

model = _table(
    "model",  # what made features; dim 0: a lexical analyser, else an embedder. One of each is active
    sa.Column("tenant", _text, primary_key=True),
    sa.Column("model", _int, primary_key=True, autoincrement=False),
    sa.Column("name", _text, nullable=False),
    sa.Column("dim", _int, nullable=False),
    sa.Column("active", _int, nullable=False),
    sa.UniqueConstraint("tenant", "name", name="model_name"),
)

governance = _table(
    "governance",  # one row a tenant that has rules: `revision` rises with each change of them
    sa.Column("tenant", _text, primary_key=True),
    sa.Column("revision", _int, nullable=False),
    sa.Column("audit_n", _int),  # rows in the audit chain; NULL: it was never begun
    sa.Column("audit_head", _bytes),  # hash of the last of them
)

principal = _table(
    "principal",
    sa.Column("tenant", _text, primary_key=True),
    sa.Column("principal", _bytes, primary_key=True),
    sa.Column("name_key", _bytes, nullable=False),  # 🔑
    sa.Column("name", _bytes, nullable=False, info={"sealed": None}),
    sa.Column("kind", _text, nullable=False),  # user, agent, service
    sa.Column("disabled", _int, nullable=False),
    sa.UniqueConstraint("tenant", "name_key", name="principal_name"),
)

grants = _table(
    "grants",
    sa.Column("tenant", _text, primary_key=True),
    sa.Column("grant_id", _bytes, primary_key=True),
    sa.Column("principal", _bytes),  # NULL: everyone
    sa.Column("rights", _int, nullable=False),  # bits: 1 read, 2 write, 4 admin, 8 reveal
    sa.Column(
        "reach", _bytes, nullable=False, info={"sealed": None}
    ),  # JSON of user, agent, session; a field left out is any
    sa.Column("label", _bytes, info={"sealed": None}),  # only cubes that have it
    sa.Column("unless", _bytes, info={"sealed": None}),  # only cubes that do not have it
    sa.Column("until", _int),
)

policy = _table(
    "policy",
    sa.Column("tenant", _text, primary_key=True),
    sa.Column("policy", _bytes, primary_key=True),
    sa.Column("reach", _bytes, nullable=False, info={"sealed": None}),  # as in grants
    sa.Column("label", _bytes, info={"sealed": None}),
    sa.Column("rule", _bytes, nullable=False, info={"sealed": None}),  # such as "keep 30 days"
)

audit = _table(
    "audit",  # append-only, hash-chained, opaque ids only
    sa.Column("tenant", _text, primary_key=True),
    sa.Column("n", _int, primary_key=True, autoincrement=False),
    sa.Column("at", _int, nullable=False),
    sa.Column("principal", _bytes),  # NULL: the owner of the vault
    sa.Column("verb", _text, nullable=False),
    sa.Column("target", _bytes, nullable=False),
    sa.Column("allowed", _int, nullable=False),
    sa.Column("hash", _bytes, nullable=False),
)

usage = _table(
    "usage",  # beside the cubes, so that reading rewrites none; kept while a rule needs it
    sa.Column("tenant", _text, primary_key=True),
    sa.Column("space", _int, primary_key=True, autoincrement=False),
    sa.Column("cube", _bytes, primary_key=True),
    sa.Column("uses", _int, nullable=False),
    sa.Column("last_used", _int, nullable=False),
)
