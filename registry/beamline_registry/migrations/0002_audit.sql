-- Who changed what, and when: append-only, and outliving the objects it speaks of (no foreign key).

CREATE TABLE extension_audit_log (
    id             bigserial   PRIMARY KEY,
    kind           text        NOT NULL CHECK (kind IN ('Extension', 'RoutingPolicy')),
    extension_id   text        NOT NULL,
    uid            text        NOT NULL,
    generation     bigint      NOT NULL,
    action         text        NOT NULL CHECK (action IN ('created', 'updated', 'deleted', 'enabled', 'disabled')),
    changed_by     text        NOT NULL,
    changes        jsonb       NOT NULL DEFAULT '{}',
    "timestamp"    timestamptz NOT NULL DEFAULT now(),
    previous_hash  text        NOT NULL,
    hash           text        NOT NULL,
    CONSTRAINT extension_audit_log_once UNIQUE (uid, generation, action)
);
CREATE INDEX extension_audit_log_by_object ON extension_audit_log (extension_id, "timestamp" DESC);

COMMENT ON TABLE extension_audit_log IS 'Every change of a registry row; append-only by trigger and by role, chained by hash';
COMMENT ON COLUMN extension_audit_log.id IS 'Order of the changes; gaps are harmless';
COMMENT ON COLUMN extension_audit_log.kind IS 'Extension or RoutingPolicy';
COMMENT ON COLUMN extension_audit_log.extension_id IS 'Id of the object in the registry, whatever its kind';
COMMENT ON COLUMN extension_audit_log.uid IS 'Uid of the object';
COMMENT ON COLUMN extension_audit_log.generation IS 'Generation of the object after the change';
COMMENT ON COLUMN extension_audit_log.action IS 'created, updated, deleted, or enabled / disabled where that field changed';
COMMENT ON COLUMN extension_audit_log.changed_by IS 'Who changed the object';
COMMENT ON COLUMN extension_audit_log.changes IS '{field: {from, to}}; values of secret-looking keys are masked';
COMMENT ON COLUMN extension_audit_log."timestamp" IS 'When the registry was told';
COMMENT ON COLUMN extension_audit_log.previous_hash IS 'hash of the row before; empty in the first row';
COMMENT ON COLUMN extension_audit_log.hash IS 'SHA-256 over the canonical JSON of every other field';

CREATE FUNCTION extension_audit_log_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'extension_audit_log is append-only: % is refused', TG_OP USING ERRCODE = 'insufficient_privilege';
END $$;

CREATE TRIGGER append_only_rows BEFORE UPDATE OR DELETE ON extension_audit_log
    FOR EACH ROW EXECUTE FUNCTION extension_audit_log_is_append_only();
CREATE TRIGGER append_only_table BEFORE TRUNCATE ON extension_audit_log
    FOR EACH STATEMENT EXECUTE FUNCTION extension_audit_log_is_append_only();
-- ALWAYS: also for a session that plays a replica (session_replication_role).
ALTER TABLE extension_audit_log ENABLE ALWAYS TRIGGER append_only_rows;
ALTER TABLE extension_audit_log ENABLE ALWAYS TRIGGER append_only_table;
