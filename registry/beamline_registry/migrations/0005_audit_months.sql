-- The audit log by month: one partition each, made by the server when its first row comes, and taken away as a whole
-- by `beamline audit retain`. Old rows move over as they are, so the chain of hashes holds.

ALTER TABLE extension_audit_log RENAME TO extension_audit_log_before_months;
ALTER TABLE extension_audit_log_before_months RENAME CONSTRAINT extension_audit_log_once TO extension_audit_log_before_once;
ALTER INDEX extension_audit_log_pkey RENAME TO extension_audit_log_before_pkey;
ALTER INDEX extension_audit_log_by_object RENAME TO extension_audit_log_before_by_object;
ALTER SEQUENCE extension_audit_log_id_seq OWNED BY NONE;

CREATE TABLE extension_audit_log (
    id             bigint      NOT NULL DEFAULT nextval('extension_audit_log_id_seq'),
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
    request_id     text        NOT NULL DEFAULT '',
    PRIMARY KEY (id, "timestamp"),
    -- A change is noted once: no second row can follow the same row, say the same, and have the same hash.
    CONSTRAINT extension_audit_log_once UNIQUE (uid, generation, action, hash, "timestamp")
) PARTITION BY RANGE ("timestamp");
ALTER SEQUENCE extension_audit_log_id_seq OWNED BY extension_audit_log.id;
CREATE INDEX extension_audit_log_by_object ON extension_audit_log (extension_id, "timestamp" DESC);
CREATE INDEX extension_audit_log_by_uid ON extension_audit_log (uid, id DESC);

COMMENT ON TABLE extension_audit_log IS 'Every change of a registry row; append-only by trigger and by role, chained by hash, partitioned by month (UTC)';
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
COMMENT ON COLUMN extension_audit_log.hash IS 'SHA-256 over the canonical JSON of every other field (request_id where there is one)';
COMMENT ON COLUMN extension_audit_log.request_id IS 'Request of the admin API that made the change; empty for any other way';

CREATE TABLE extension_audit_retired (
    last_id        bigint      PRIMARY KEY,
    rows           bigint      NOT NULL CHECK (rows >= 0),
    hash           text        NOT NULL,
    retired_at     timestamptz NOT NULL DEFAULT now(),
    retired_by     text        NOT NULL
);
COMMENT ON TABLE extension_audit_retired IS 'Where the audit log begins after its oldest months were taken away: the chain goes on from the newest of these rows';
COMMENT ON COLUMN extension_audit_retired.last_id IS 'id of the newest row that was taken away';
COMMENT ON COLUMN extension_audit_retired.rows IS 'Rows taken away since the beginning';
COMMENT ON COLUMN extension_audit_retired.hash IS 'hash of that newest row: previous_hash of the first that is left';
COMMENT ON COLUMN extension_audit_retired.retired_at IS 'When they were taken away';
COMMENT ON COLUMN extension_audit_retired.retired_by IS 'Database user who did it';

CREATE TRIGGER append_only_rows BEFORE UPDATE OR DELETE ON extension_audit_log
    FOR EACH ROW EXECUTE FUNCTION extension_audit_log_is_append_only();
CREATE TRIGGER append_only_table BEFORE TRUNCATE ON extension_audit_log
    FOR EACH STATEMENT EXECUTE FUNCTION extension_audit_log_is_append_only();
CREATE TRIGGER append_only_rows BEFORE UPDATE OR DELETE ON extension_audit_retired
    FOR EACH ROW EXECUTE FUNCTION extension_audit_log_is_append_only();
CREATE TRIGGER append_only_table BEFORE TRUNCATE ON extension_audit_retired
    FOR EACH STATEMENT EXECUTE FUNCTION extension_audit_log_is_append_only();
-- ALWAYS: also for a session that plays a replica (session_replication_role).
ALTER TABLE extension_audit_log ENABLE ALWAYS TRIGGER append_only_rows;
ALTER TABLE extension_audit_log ENABLE ALWAYS TRIGGER append_only_table;
ALTER TABLE extension_audit_retired ENABLE ALWAYS TRIGGER append_only_rows;
ALTER TABLE extension_audit_retired ENABLE ALWAYS TRIGGER append_only_table;

-- The operator's role may append but owns nothing, so the month's partition is made for it. The argument decides
-- nothing but the name and the bounds. A partition has triggers of its own: TRUNCATE of one never asks the parent's.
CREATE FUNCTION extension_audit_month(at timestamptz) RETURNS void LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
    month timestamp := date_trunc('month', at AT TIME ZONE 'UTC');
    part  text := 'extension_audit_log_' || to_char(month, 'YYYY_MM');
BEGIN
    IF to_regclass(part) IS NOT NULL THEN
        RETURN;
    END IF;
    EXECUTE format('CREATE TABLE %I PARTITION OF extension_audit_log FOR VALUES FROM (%L) TO (%L)',
                   part, month AT TIME ZONE 'UTC', (month + interval '1 month') AT TIME ZONE 'UTC');
    EXECUTE format('CREATE TRIGGER append_only_table BEFORE TRUNCATE ON %I '
                   'FOR EACH STATEMENT EXECUTE FUNCTION extension_audit_log_is_append_only()', part);
    EXECUTE format('ALTER TABLE %I ENABLE ALWAYS TRIGGER append_only_table', part);
    EXECUTE format('ALTER TABLE %I ENABLE ALWAYS TRIGGER append_only_rows', part);
    EXECUTE format('COMMENT ON TABLE %I IS %L', part, 'Rows of extension_audit_log of one month (UTC)');
END $$;
COMMENT ON FUNCTION extension_audit_month(timestamptz) IS 'Makes the partition of a month where it is missing';
REVOKE ALL ON FUNCTION extension_audit_month(timestamptz) FROM PUBLIC;
-- Whatever schema the tables are in: a caller's own search_path must not lead the function elsewhere.
DO $$ BEGIN
    EXECUTE format('ALTER FUNCTION extension_audit_month(timestamptz) SET search_path = %I, pg_temp', current_schema());
END $$;

SELECT extension_audit_month(month) FROM (
    SELECT DISTINCT date_trunc('month', "timestamp" AT TIME ZONE 'UTC') AT TIME ZONE 'UTC' AS month
    FROM extension_audit_log_before_months UNION SELECT now()
) AS months;
INSERT INTO extension_audit_log (id, kind, extension_id, uid, generation, action, changed_by, changes, "timestamp", previous_hash, hash)
    SELECT id, kind, extension_id, uid, generation, action, changed_by, changes, "timestamp", previous_hash, hash
    FROM extension_audit_log_before_months ORDER BY id;
DROP TABLE extension_audit_log_before_months;

DO $$ BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'beamline_operator') THEN
        GRANT SELECT, INSERT ON extension_audit_log TO beamline_operator;
        GRANT SELECT ON extension_audit_retired TO beamline_operator;
        GRANT USAGE ON SEQUENCE extension_audit_log_id_seq TO beamline_operator;
        GRANT EXECUTE ON FUNCTION extension_audit_month(timestamptz) TO beamline_operator;
    END IF;
END $$;
