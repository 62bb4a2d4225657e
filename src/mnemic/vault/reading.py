"""Statements that read: spaces, scopes, cubes, versions. Every one names its tenant."""

from __future__ import annotations

import sqlalchemy as sa

from mnemic.cube.model import Origin
from mnemic.vault import tables
from mnemic.vault.database import InStatement, Statement

_space, _scope, _version, _cube, _change, _model, _feature = (
    tables.space,
    tables.scope,
    tables.version,
    tables.cube,
    tables.change,
    tables.model,
    tables.feature,
)
_p = sa.bindparam

_columns = (
    _version.c.seq,
    _version.c.cube,
    _version.c.version,
    _version.c.scope,
    _version.c.kind,
    _version.c.origin,
    _version.c.deleted,
    _version.c.at,
    _version.c.recorded_at,
    _version.c.valid_from,
    _version.c.valid_to,
    _version.c.expires_at,
    _version.c.header,
    _version.c.payload,
    _version.c.blob,
    _cube.c.state,
    sa.case((_cube.c.head == _version.c.version, _cube.c.stale_since)),
    _cube.c.conflict,
)
_heads = _version.join(_cube, sa.and_(_cube.c.tenant == _version.c.tenant, _cube.c.cube == _version.c.cube))
_in_space = (_version.c.tenant == _p("t"), _version.c.space == _p("s"))

space_of_user = Statement(
    sa.select(_space.c.space, _space.c.epoch).where(_space.c.tenant == _p("t"), _space.c.user_key == _p("k"))
)
user_of_space = Statement(
    sa.select(_space.c.user_name).where(_space.c.tenant == _p("t"), _space.c.space == _p("s"))
)
spaces = Statement(
    sa.select(_space.c.space, _space.c.user_name, _space.c.last_seq)
    .where(_space.c.tenant == _p("t"))
    .order_by(_space.c.space)
)
scopes = Statement(
    sa.select(_scope.c.scope, _scope.c.names)
    .where(_scope.c.tenant == _p("t"), _scope.c.space == _p("s"))
    .order_by(_scope.c.scope)
)
scopes_between = Statement(
    sa.select(_scope.c.scope, _scope.c.names).where(
        _scope.c.tenant == _p("t"),
        _scope.c.space == _p("s"),
        _scope.c.scope >= _p("low"),
        _scope.c.scope < _p("high"),
    )
)
scope_by_key = Statement(
    sa.select(_scope.c.scope, _scope.c.first_seq).where(
        _scope.c.tenant == _p("t"), _scope.c.space == _p("s"), _scope.c.scope_key == _p("k")
    )
)
stored_at = InStatement(
    lambda values: sa.select(*_columns).select_from(_heads).where(*_in_space, _version.c.seq.in_(values))
)
seqs_at = InStatement(lambda values: sa.select(_version.c.seq).where(*_in_space, _version.c.seq.in_(values)))
stored_after = Statement(
    sa.select(*_columns)
    .select_from(_heads)
    .where(
        *_in_space, _version.c.seq > _p("seq"), _cube.c.head_seq == _version.c.seq, _version.c.deleted == 0
    )
    .order_by(_version.c.seq)
    .limit(_p("n", type_=sa.BigInteger))
)
heads_after = Statement(  # deleted ones too
    sa.select(*_columns)
    .select_from(_heads)
    .where(*_in_space, _version.c.seq > _p("seq"), _cube.c.head_seq == _version.c.seq)
    .order_by(_version.c.seq)
    .limit(_p("n", type_=sa.BigInteger))
)
head_of = Statement(
    sa.select(_cube.c.space, *_columns)
    .select_from(_heads)
    .where(
        _cube.c.tenant == _p("t"),
        _cube.c.cube == _p("c"),
        _cube.c.space == _version.c.space,
        _version.c.seq == _cube.c.head_seq,
    )
)
spaces_of = InStatement(
    lambda values: sa.select(_cube.c.space).where(_cube.c.tenant == _p("t"), _cube.c.cube.in_(values))
)
histories_of = InStatement(
    lambda values: (
        sa.select(_cube.c.space, *_columns)
        .select_from(_heads)
        .where(_version.c.tenant == _p("t"), _version.c.cube.in_(values))
        .order_by(_version.c.cube, _version.c.recorded_at, _version.c.version)
    )
)
heads_of = InStatement(
    lambda values: (
        sa.select(_cube.c.space, *_columns)
        .select_from(_heads)
        .where(
            _cube.c.tenant == _p("t"),
            _cube.c.cube.in_(values),
            _cube.c.space == _version.c.space,
            _version.c.seq == _cube.c.head_seq,
        )
    )
)
written_between = Statement(  # the versions of a change
    sa.select(*_columns)
    .select_from(_heads)
    .where(*_in_space, _version.c.seq > _p("low"), _version.c.seq <= _p("high"))
    .order_by(_version.c.seq)
)
# Every version's digest: an import that is repeated after an update is no conflict.
clients_in_scope = InStatement(
    lambda values: (
        sa.select(_cube.c.client_key, _cube.c.cube, _cube.c.head_seq, _cube.c.deleted, _version.c.digest)
        .select_from(
            _cube.join(
                _version, sa.and_(_version.c.tenant == _cube.c.tenant, _version.c.cube == _cube.c.cube)
            )
        )
        .where(
            _cube.c.tenant == _p("t"),
            _cube.c.space == _p("s"),
            _cube.c.scope == _p("sc"),
            _cube.c.client_key.in_(values),
        )
    )
)
first_told = Statement(  # what was first told in a scope, in order; `seq` is the scope's first_seq
    sa.select(_version.c.digest, _version.c.cube)
    .where(
        *_in_space,
        _version.c.seq >= _p("seq"),
        _version.c.scope == _p("sc"),
        _version.c.parent.is_(None),
        _version.c.origin != int(Origin.derived),
        _version.c.origin != int(Origin.trained),
    )
    .order_by(_version.c.seq)
    .limit(_p("n", type_=sa.BigInteger))
)
erased_of = InStatement(
    lambda values: sa.select(tables.erased.c.cube_key).where(
        tables.erased.c.tenant == _p("t"), tables.erased.c.cube_key.in_(values)
    )
)
headers_in_space = Statement(
    sa.select(_version.c.seq, _version.c.header)
    .where(*_in_space, _version.c.seq > _p("seq"))
    .order_by(_version.c.seq)
)
models = Statement(
    sa.select(_model.c.model, _model.c.name, _model.c.dim, _model.c.active)
    .where(_model.c.tenant == _p("t"))
    .order_by(_model.c.model)
)
_lacking = _heads.outerjoin(
    _feature,
    sa.and_(
        _feature.c.tenant == _version.c.tenant,
        _feature.c.space == _version.c.space,
        _feature.c.seq == _version.c.seq,
        _feature.c.model == _p("model"),
    ),
)
_is_lacking = (
    *_in_space,
    _version.c.seq > _p("seq"),
    _cube.c.head_seq == _version.c.seq,
    _version.c.deleted == 0,
    _version.c.kind == 0,
    _feature.c.seq.is_(None),
)
pending = Statement(  # live plaintext heads without a feature of a model
    sa.select(*_columns)
    .select_from(_lacking)
    .where(*_is_lacking)
    .order_by(_version.c.seq)
    .limit(_p("n", type_=sa.BigInteger))
)
features_at = Statement(
    sa.select(_feature.c.model, _feature.c.data).where(
        _feature.c.tenant == _p("t"), _feature.c.space == _p("s"), _feature.c.seq == _p("seq")
    )
)
pending_count = Statement(sa.select(sa.func.count()).select_from(_lacking).where(*_is_lacking))
_of_change = (
    *(_change.c.space, _change.c.seq, _change.c.change_id, _change.c.op, _change.c.principal, _change.c.at),
    *(_change.c.reason, _change.c.undoes),
)
changes_after = Statement(
    sa.select(*_of_change)
    .where(_change.c.tenant == _p("t"), _change.c.space == _p("s"), _change.c.seq > _p("seq"))
    .order_by(_change.c.seq)
    .limit(_p("n", type_=sa.BigInteger))
)
change_rows = InStatement(
    lambda values: sa.select(*_of_change).where(_change.c.tenant == _p("t"), _change.c.change_id.in_(values))
)
seq_before = Statement(  # of the change before one
    sa.select(sa.func.max(_change.c.seq)).where(
        _change.c.tenant == _p("t"), _change.c.space == _p("s"), _change.c.seq < _p("seq")
    )
)
_later = _change.alias("later")
changes_of_cube = Statement(  # the change that made each version: the first that ends at or after it
    sa.select(*_of_change)
    .select_from(
        _version.join(
            _change,
            sa.and_(
                _change.c.tenant == _version.c.tenant,
                _change.c.space == _version.c.space,
                _change.c.seq
                == sa.select(sa.func.min(_later.c.seq))
                .where(
                    _later.c.tenant == _version.c.tenant,
                    _later.c.space == _version.c.space,
                    _later.c.seq >= _version.c.seq,
                )
                .correlate(_version)
                .scalar_subquery(),
            ),
        )
    )
    .where(_version.c.tenant == _p("t"), _version.c.cube == _p("c"))
    .order_by(_version.c.recorded_at, _version.c.version)
)
seqs_between = Statement(
    sa.select(_version.c.seq, _version.c.cube, _version.c.scope)
    .where(*_in_space, _version.c.seq > _p("low"), _version.c.seq <= _p("high"))
    .order_by(_version.c.seq)
)
