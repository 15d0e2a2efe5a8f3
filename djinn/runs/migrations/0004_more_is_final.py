"""A step run's outputs and files are final with it, a skipped one is final too, nothing is added to a run that has ended,
and a question that was answered stays answered."""

from django.db import migrations

FORWARDS = """
DROP TRIGGER runs_steprun_guard ON runs_steprun;
CREATE FUNCTION runs_steprun_guard() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.status IN ('succeeded', 'failed', 'cancelled', 'skipped') AND
       (NEW.status, NEW.reason, NEW.ended_at, NEW.outputs, NEW.snapshot, NEW.bases, NEW.execution_id) IS DISTINCT FROM
       (OLD.status, OLD.reason, OLD.ended_at, OLD.outputs, OLD.snapshot, OLD.bases, OLD.execution_id) THEN
        RAISE EXCEPTION 'step run % has ended as %', OLD.id, OLD.status USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER runs_steprun_guard BEFORE UPDATE ON runs_steprun FOR EACH ROW EXECUTE FUNCTION runs_steprun_guard();

CREATE FUNCTION runs_steprun_needs_open_run() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT 1 FROM runs_run WHERE id = NEW.run_id AND status IN ('succeeded', 'failed', 'cancelled')) THEN
        RAISE EXCEPTION 'run % has ended', NEW.run_id USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER runs_steprun_needs_open_run BEFORE INSERT ON runs_steprun
    FOR EACH ROW EXECUTE FUNCTION runs_steprun_needs_open_run();

CREATE FUNCTION runs_approval_guard() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.status <> 'open' AND NEW.status IS DISTINCT FROM OLD.status THEN
        RAISE EXCEPTION 'approval % has ended as %', OLD.id, OLD.status USING ERRCODE = 'check_violation';
    END IF;
    IF (NEW.digest, NEW.shown, NEW.question) IS DISTINCT FROM (OLD.digest, OLD.shown, OLD.question) THEN
        RAISE EXCEPTION 'approval %: what was shown stays', OLD.id USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER runs_approval_guard BEFORE UPDATE ON runs_approval FOR EACH ROW EXECUTE FUNCTION runs_approval_guard();
"""
BACKWARDS = """
DROP TRIGGER runs_approval_guard ON runs_approval;
DROP FUNCTION runs_approval_guard();
DROP TRIGGER runs_steprun_needs_open_run ON runs_steprun;
DROP FUNCTION runs_steprun_needs_open_run();
DROP TRIGGER runs_steprun_guard ON runs_steprun;
DROP FUNCTION runs_steprun_guard();
CREATE TRIGGER runs_steprun_guard BEFORE UPDATE ON runs_steprun FOR EACH ROW EXECUTE FUNCTION runs_guard();
"""


class Migration(migrations.Migration):
    dependencies = [("runs", "0003_the_whole_language")]
    operations = [migrations.RunSQL(FORWARDS, BACKWARDS)]
