-- How extensions do, folded in by the operator from what routers report.

CREATE TABLE extension_health (
    extension_id    text             PRIMARY KEY REFERENCES extensions (id) ON DELETE CASCADE,
    last_success    timestamptz,
    last_failure    timestamptz,
    success_count   bigint           NOT NULL DEFAULT 0,
    failure_count   bigint           NOT NULL DEFAULT 0,
    avg_latency_ms  double precision NOT NULL DEFAULT 0,
    updated_at      timestamptz      NOT NULL DEFAULT now()
);

COMMENT ON TABLE extension_health IS 'Sums over all routers since the extension was registered';
COMMENT ON COLUMN extension_health.extension_id IS 'The extension; its health goes with it';
COMMENT ON COLUMN extension_health.last_success IS 'Newest successful call that a router reported';
COMMENT ON COLUMN extension_health.last_failure IS 'Newest failed call that a router reported';
COMMENT ON COLUMN extension_health.success_count IS 'Successful calls';
COMMENT ON COLUMN extension_health.failure_count IS 'Failed calls';
COMMENT ON COLUMN extension_health.avg_latency_ms IS 'Mean over all calls, milliseconds';
COMMENT ON COLUMN extension_health.updated_at IS 'Last report folded in';

CREATE TABLE extension_health_minutes (
    extension_id  text   NOT NULL REFERENCES extension_health (extension_id) ON DELETE CASCADE,
    minute        bigint NOT NULL,
    success       bigint NOT NULL DEFAULT 0,
    failure       bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (extension_id, minute)
);
CREATE INDEX extension_health_minutes_by_minute ON extension_health_minutes (minute);

COMMENT ON TABLE extension_health_minutes IS 'The last five minutes in one-minute buckets; older buckets are deleted';
COMMENT ON COLUMN extension_health_minutes.extension_id IS 'The extension';
COMMENT ON COLUMN extension_health_minutes.minute IS 'Unix time divided by 60, by the clock of this server';
COMMENT ON COLUMN extension_health_minutes.success IS 'Successful calls reported in that minute';
COMMENT ON COLUMN extension_health_minutes.failure IS 'Failed calls reported in that minute';
