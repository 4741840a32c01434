"""The SQL of the first audit migration. Core PostgreSQL 15 only.

Every partition is closed to the application role and has the parent's policy of its own, so that there is no way
around the parent. Rows whose day has no partition land in the default one and move when theirs is made.
"""

# ruff: noqa: S608 - SQL of constants

from cloudsignal.tenancy import rls

TABLE = """
CREATE TABLE audit_event (
    ts timestamptz NOT NULL,
    id uuid NOT NULL,
    org_id varchar(16),
    kind varchar(40) COLLATE "C" NOT NULL,
    node varchar(128) NOT NULL,
    session varchar(64) NOT NULL,
    username text COLLATE "C" NOT NULL,
    client_id text COLLATE "C" NOT NULL,
    ip inet,
    port integer NOT NULL,
    transport varchar(16) NOT NULL,
    mqtt_version varchar(16) NOT NULL,
    tls_version varchar(16) NOT NULL,
    tls_cipher varchar(64) NOT NULL,
    reason varchar(64) COLLATE "C" NOT NULL,
    action varchar(16) NOT NULL,
    topic text COLLATE "C" NOT NULL,
    qos smallint NOT NULL,
    retain boolean NOT NULL,
    size bigint NOT NULL,
    rule varchar(64) NOT NULL,
    policy_digest varchar(71) NOT NULL,
    count bigint NOT NULL,
    actor varchar(320) NOT NULL,
    target varchar(320) NOT NULL,
    before jsonb,
    after jsonb,
    details jsonb,
    PRIMARY KEY (ts, id)
) PARTITION BY RANGE (ts);
CREATE INDEX audit_event_org_ts ON audit_event (org_id, ts, id);
"""

_CONDITION = f"org_id = {rls.ORG} OR {rls.PLATFORM}"

DEFAULT_PARTITION = f"""
CREATE TABLE audit_event_default PARTITION OF audit_event DEFAULT;
ALTER TABLE audit_event_default ENABLE ROW LEVEL SECURITY;
ALTER TABLE audit_event_default FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON audit_event_default USING ({_CONDITION}) WITH CHECK ({_CONDITION});
"""

ENSURE = f"""
CREATE FUNCTION audit_ensure_partition(day date) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    name text := 'audit_event_' || to_char(day, 'YYYYMMDD');
    lower_bound timestamptz := (day::text || ' 00:00:00+00')::timestamptz;
    upper_bound timestamptz := ((day + 1)::text || ' 00:00:00+00')::timestamptz;
    outer_platform text := current_setting('cloudsignal.platform', true);
BEGIN
    IF to_regclass('public.' || name) IS NOT NULL THEN
        RETURN false;
    END IF;
    IF day < (now() AT TIME ZONE 'UTC')::date - 400 OR day > (now() AT TIME ZONE 'UTC')::date + 8 THEN
        RAISE EXCEPTION 'no partition is made for %: it lies too far from today', day;
    END IF;
    PERFORM pg_advisory_xact_lock(hashtext('audit_ensure_partition'));
    IF to_regclass('public.' || name) IS NOT NULL THEN
        RETURN false;
    END IF;
    LOCK TABLE audit_event_default IN ACCESS EXCLUSIVE MODE;
    PERFORM set_config('cloudsignal.platform', 'on', true);
    EXECUTE format('CREATE TABLE %I (LIKE audit_event INCLUDING DEFAULTS)', name);
    EXECUTE format(
        'WITH moved AS (DELETE FROM audit_event_default WHERE ts >= %L AND ts < %L RETURNING *) '
        'INSERT INTO %I SELECT * FROM moved', lower_bound, upper_bound, name);
    EXECUTE format(
        'ALTER TABLE audit_event ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', name, lower_bound, upper_bound);
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
    EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', name);
    EXECUTE format('CREATE POLICY tenant ON %I USING (%s) WITH CHECK (%s)', name, $policy${_CONDITION}$policy$,
        $policy${_CONDITION}$policy$);
    EXECUTE format('REVOKE ALL ON %I FROM %I', name, $role${{role}}$role$);
    PERFORM set_config('cloudsignal.platform', coalesce(outer_platform, ''), true);
    RETURN true;
END $$;
""".replace("{role}", rls.app_role().strip('"').replace('""', '"'))

SEAL = """
CREATE FUNCTION audit_seal_partition(day date) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    name text := 'audit_event_' || to_char(day, 'YYYYMMDD');
    part text;
BEGIN
    IF to_regclass('public.' || name) IS NULL OR to_regclass('public.' || name || '_topic') IS NOT NULL
        OR day >= (now() AT TIME ZONE 'UTC')::date THEN
        RETURN false;
    END IF;
    FOREACH part IN ARRAY ARRAY['kind', 'client_id', 'username', 'ip'] LOOP
        EXECUTE format('CREATE INDEX %I ON %I (org_id, %I, ts, id)', name || '_' || part, name, part);
    END LOOP;
    EXECUTE format('CREATE INDEX %I ON %I (org_id, reason, ts, id) WHERE reason <> %L', name || '_reason', name, '');
    EXECUTE format('CREATE INDEX %I ON %I (org_id, topic, ts, id) WHERE topic <> %L', name || '_topic', name, '');
    RETURN true;
END $$;
"""

GRANTS = f"""
REVOKE ALL ON audit_event, audit_event_default FROM {rls.app_role()};
GRANT SELECT, INSERT, UPDATE (count) ON audit_event TO {rls.app_role()};
REVOKE ALL ON FUNCTION audit_ensure_partition(date), audit_seal_partition(date) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION audit_ensure_partition(date), audit_seal_partition(date) TO {rls.app_role()};
"""
