"""What Python promises, the database enforces: a final execution stays as it is, tokens and offsets only grow, and no
event arrives from the journal of an execution that has ended."""

from django.db import migrations

FORWARDS = """
CREATE FUNCTION executions_guard() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.status IN ('exited', 'killed', 'lost') AND
       (NEW.status, NEW.reason, NEW.outcome, NEW.lease_token, NEW.journal_offset, NEW.result_snapshot, NEW.ended_at)
       IS DISTINCT FROM
       (OLD.status, OLD.reason, OLD.outcome, OLD.lease_token, OLD.journal_offset, OLD.result_snapshot, OLD.ended_at)
    THEN
        RAISE EXCEPTION 'execution % has ended as %', OLD.id, OLD.status USING ERRCODE = 'check_violation';
    END IF;
    IF OLD.status = 'running' AND NEW.status = 'starting' THEN
        RAISE EXCEPTION 'execution % runs already', OLD.id USING ERRCODE = 'check_violation';
    END IF;
    IF NEW.lease_token < OLD.lease_token OR NEW.journal_offset < OLD.journal_offset
       OR NEW.journal_count < OLD.journal_count THEN
        RAISE EXCEPTION 'execution %: token and offsets only grow', OLD.id USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER executions_guard BEFORE UPDATE ON executions_execution
    FOR EACH ROW EXECUTE FUNCTION executions_guard();

CREATE FUNCTION executions_refuse_late_events() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (
        SELECT 1 FROM (SELECT DISTINCT execution FROM fresh WHERE execution IS NOT NULL) AS source
          JOIN executions_execution AS e ON e.id = source.execution
         WHERE e.status IN ('exited', 'killed', 'lost')
    ) THEN
        RAISE EXCEPTION 'events of an execution that has ended' USING ERRCODE = 'check_violation';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER events_not_after_the_end AFTER INSERT ON events_event
    REFERENCING NEW TABLE AS fresh FOR EACH STATEMENT EXECUTE FUNCTION executions_refuse_late_events();
"""
BACKWARDS = """
DROP TRIGGER events_not_after_the_end ON events_event;
DROP FUNCTION executions_refuse_late_events();
DROP TRIGGER executions_guard ON executions_execution;
DROP FUNCTION executions_guard();
"""


class Migration(migrations.Migration):
    dependencies = [("executions", "0001_initial"), ("events", "0002_append_only")]
    operations = [migrations.RunSQL(FORWARDS, BACKWARDS)]
