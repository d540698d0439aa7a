-- Routing facts: what routers serve, in revision order.

CREATE TABLE extensions (
    id          text        PRIMARY KEY CHECK (length(id) BETWEEN 1 AND 253),
    type        text        NOT NULL CHECK (type IN ('pre', 'validator', 'post', 'provider')),
    subject     text        NOT NULL,
    namespace   text        NOT NULL,
    name        text        NOT NULL,
    uid         text        NOT NULL,
    generation  bigint      NOT NULL CHECK (generation >= 0),
    timeout_ms  integer     NOT NULL DEFAULT 5000 CHECK (timeout_ms > 0),
    retry       integer     NOT NULL DEFAULT 1 CHECK (retry >= 0),
    enabled     boolean     NOT NULL DEFAULT true,
    config      jsonb       NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(config) = 'object'),
    metadata    jsonb       NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(metadata) = 'object'),
    version     text,
    weight      integer     NOT NULL DEFAULT 100 CHECK (weight >= 0),
    spec        jsonb       NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(spec) = 'object'),
    revision    bigint      NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    updated_at  timestamptz NOT NULL DEFAULT now(),
    -- Deferred, so that one batch may hand a subject from one row to another in any order.
    CONSTRAINT extensions_subject_key UNIQUE (subject) DEFERRABLE INITIALLY DEFERRED
);
CREATE INDEX extensions_enabled_by_type ON extensions (type) WHERE enabled;
CREATE INDEX extensions_by_revision ON extensions (revision);

COMMENT ON TABLE extensions IS 'Projection of the Extension objects; written by the operator only';
COMMENT ON COLUMN extensions.id IS 'Object name with _ for -; unique in the registry';
COMMENT ON COLUMN extensions.type IS 'What it does in the pipeline: pre, validator, post or provider';
COMMENT ON COLUMN extensions.subject IS 'NATS subject it listens on';
COMMENT ON COLUMN extensions.namespace IS 'Namespace of the object';
COMMENT ON COLUMN extensions.name IS 'Name of the object';
COMMENT ON COLUMN extensions.uid IS 'Uid of the object; a re-created object has another one';
COMMENT ON COLUMN extensions.generation IS 'Generation of the object that this row was made from';
COMMENT ON COLUMN extensions.timeout_ms IS 'Time for one attempt, milliseconds';
COMMENT ON COLUMN extensions.retry IS 'Extra attempts after a retryable error';
COMMENT ON COLUMN extensions.enabled IS 'False takes it out of every router';
COMMENT ON COLUMN extensions.config IS 'Free-form configuration, sent with every request';
COMMENT ON COLUMN extensions.metadata IS 'Free notes for people and tools';
COMMENT ON COLUMN extensions.version IS 'Version of the extension, where versions run side by side';
COMMENT ON COLUMN extensions.weight IS 'Share of traffic relative to other versions';
COMMENT ON COLUMN extensions.spec IS 'The spec with its defaults, in the object''s spelling, without the workload';
COMMENT ON COLUMN extensions.revision IS 'Registry revision at which this row last changed';
COMMENT ON COLUMN extensions.created_at IS 'Creation of the object';
COMMENT ON COLUMN extensions.updated_at IS 'Last write of this row';

CREATE TABLE routing_policies (
    id          text        PRIMARY KEY CHECK (length(id) BETWEEN 1 AND 253),
    namespace   text        NOT NULL,
    name        text        NOT NULL,
    uid         text        NOT NULL,
    generation  bigint      NOT NULL CHECK (generation >= 0),
    policy      jsonb       NOT NULL CHECK (jsonb_typeof(policy) = 'object'),
    revision    bigint      NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    updated_at  timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX routing_policies_by_revision ON routing_policies (revision);

COMMENT ON TABLE routing_policies IS 'Projection of the RoutingPolicy objects; written by the operator only';
COMMENT ON COLUMN routing_policies.id IS 'Object name with _ for -; unique in the registry';
COMMENT ON COLUMN routing_policies.namespace IS 'Namespace of the object';
COMMENT ON COLUMN routing_policies.name IS 'Name of the object';
COMMENT ON COLUMN routing_policies.uid IS 'Uid of the object';
COMMENT ON COLUMN routing_policies.generation IS 'Generation of the object that this row was made from';
COMMENT ON COLUMN routing_policies.policy IS 'steps [{action, extension_id | provider_id, ...}], fallback [ids], match, priority, deadline_ms';
COMMENT ON COLUMN routing_policies.revision IS 'Registry revision at which this row last changed';
COMMENT ON COLUMN routing_policies.created_at IS 'Creation of the object';
COMMENT ON COLUMN routing_policies.updated_at IS 'Last write of this row';

CREATE TABLE tombstones (
    kind        text        NOT NULL CHECK (kind IN ('Extension', 'RoutingPolicy')),
    id          text        NOT NULL,
    revision    bigint      NOT NULL,
    removed_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (kind, id)
);
CREATE INDEX tombstones_by_revision ON tombstones (revision);

COMMENT ON TABLE tombstones IS 'Rows that were removed, so that a reader of deltas hears of it; compacted up to registry_revision.horizon';
COMMENT ON COLUMN tombstones.kind IS 'Extension or RoutingPolicy';
COMMENT ON COLUMN tombstones.id IS 'Id of the removed row';
COMMENT ON COLUMN tombstones.revision IS 'Registry revision at which it was removed';
COMMENT ON COLUMN tombstones.removed_at IS 'When it was removed';

CREATE TABLE registry_revision (
    only_row    boolean     PRIMARY KEY DEFAULT true CHECK (only_row),
    revision    bigint      NOT NULL DEFAULT 0 CHECK (revision >= 0),
    horizon     bigint      NOT NULL DEFAULT 0 CHECK (horizon >= 0),
    audit_rows  bigint      NOT NULL DEFAULT 0 CHECK (audit_rows >= 0),
    audit_head  text        NOT NULL DEFAULT '',
    updated_at  timestamptz NOT NULL DEFAULT now()
);
INSERT INTO registry_revision DEFAULT VALUES;

COMMENT ON TABLE registry_revision IS 'One row. Locked by every writing transaction, so that commit order is revision order';
COMMENT ON COLUMN registry_revision.only_row IS 'Always true: there is one row';
COMMENT ON COLUMN registry_revision.revision IS 'Revision of the newest change';
COMMENT ON COLUMN registry_revision.horizon IS 'Tombstones up to this revision may be gone; whoever is behind it reads everything';
COMMENT ON COLUMN registry_revision.audit_rows IS 'Rows in extension_audit_log; tells when the newest ones were cut off';
COMMENT ON COLUMN registry_revision.audit_head IS 'Hash of the newest row of extension_audit_log';
COMMENT ON COLUMN registry_revision.updated_at IS 'When the revision last moved';

CREATE TABLE operator_epoch (
    only_row    boolean     PRIMARY KEY DEFAULT true CHECK (only_row),
    epoch       bigint      NOT NULL DEFAULT 0 CHECK (epoch >= 0),
    holder      text        NOT NULL DEFAULT '',
    acquired_at timestamptz NOT NULL DEFAULT now()
);
INSERT INTO operator_epoch DEFAULT VALUES;

COMMENT ON TABLE operator_epoch IS 'One row. Who may write: every write states its epoch and is refused when it is not this one';
COMMENT ON COLUMN operator_epoch.only_row IS 'Always true: there is one row';
COMMENT ON COLUMN operator_epoch.epoch IS 'Grows by one with every new leader';
COMMENT ON COLUMN operator_epoch.holder IS 'Name of the leader, for people';
COMMENT ON COLUMN operator_epoch.acquired_at IS 'When it became the leader';
