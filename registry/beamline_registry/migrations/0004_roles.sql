-- Two group roles without login: grant them to the users that the operator and the routers log in as.
-- Roles belong to the whole server, so another database may have made them already, or be making them right now.
-- Where this user may not create roles, that part is left to the server's administrator and only a notice is given.

DO $$
DECLARE
    wanted text;
BEGIN
    FOREACH wanted IN ARRAY ARRAY['beamline_operator', 'beamline_router'] LOOP
        BEGIN
            IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = wanted) THEN
                EXECUTE format('CREATE ROLE %I NOLOGIN', wanted);
            END IF;
        EXCEPTION
            WHEN duplicate_object OR unique_violation THEN
                NULL;
            WHEN insufficient_privilege THEN
                RAISE NOTICE 'role % was not made: this user may not create roles (docs/registry-schema.md says what to grant)', wanted;
        END;
    END LOOP;

    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'beamline_operator') THEN
        GRANT SELECT, INSERT, UPDATE, DELETE
            ON extensions, routing_policies, tombstones, extension_health, extension_health_minutes TO beamline_operator;
        GRANT SELECT, UPDATE ON registry_revision, operator_epoch TO beamline_operator;
        GRANT SELECT, INSERT ON extension_audit_log TO beamline_operator;
        GRANT USAGE ON SEQUENCE extension_audit_log_id_seq TO beamline_operator;
        GRANT SELECT ON schema_migrations TO beamline_operator;
    END IF;
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'beamline_router') THEN
        GRANT SELECT ON extensions, routing_policies, tombstones, registry_revision, schema_migrations TO beamline_router;
    END IF;
END $$;
